"""The Redis that cache and rate limits share: one small client that may fail, but may never be waited for.

Redis makes this service faster and fairer; nothing in it is needed to be right. So every command has a
time-out, nothing is retried, and after a few failures in a row a circuit breaker answers at once for a
moment: a dead Redis costs three time-outs, then one every `redis_backoff_seconds`.
Commands, memory and evictions of the server are redis_exporter's to report; here are only the breaker's
`circuit_breaker_state{dependency="redis"}` and the users' own metrics.

Must never be used for what has to be kept: the database is for that.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from app.infrastructure.circuit_breaker import CircuitBreaker, CircuitOpen
from app.observability.tracing import trace_redis

REDIS_FAILURES = (RedisError, OSError, TimeoutError)
REDIS_UNAVAILABLE = (*REDIS_FAILURES, CircuitOpen)
"""What a user of `Redis` catches to do without it."""


class RedisSettings(BaseSettings):
    """Where Redis is and how long it may keep a request waiting."""

    # An error that repeats the value would show the password in it.
    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    redis_url: SecretStr | None = Field(
        None,
        description="redis://[user:password@]host:port/database, or rediss://; unset: in memory.",
    )
    redis_timeout_seconds: float = Field(
        0.25,
        gt=0,
        le=5,
        description="For one command, with connecting and waiting for a connection.",
    )
    redis_backoff_seconds: float = Field(
        1.0, gt=0, le=60, description="How long a failing Redis is left alone before the next try."
    )
    redis_max_connections: int = Field(50, ge=1, le=1000)

    @field_validator("redis_url")
    @classmethod
    def _name_a_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None  # REDIS_URL= in an .env file means "none"
        if not value.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError("must start with redis:// or rediss://")
        return value


class RedisConnection:
    """A client whose commands are bounded in time and refused while Redis is down."""

    def __init__(self, settings: RedisSettings) -> None:
        assert settings.redis_url is not None  # noqa: S101 - connect_redis looked
        self._timeout = settings.redis_timeout_seconds
        self.pool = BlockingConnectionPool.from_url(
            settings.redis_url.get_secret_value(),
            max_connections=settings.redis_max_connections,
            timeout=None,  # bounded below, together with the command
            socket_timeout=settings.redis_timeout_seconds,
            socket_connect_timeout=settings.redis_timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            # These notices of managed Redis servers are on by default, and with them redis-py 8.1 does
            # not look whether an idle connection was closed: each one costs an error after a restart.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self.client: Redis = Redis(connection_pool=self.pool)
        trace_redis(self.client)
        self._breaker = CircuitBreaker(
            "redis",
            failures=REDIS_FAILURES,
            failure_threshold=3,
            recovery_seconds=settings.redis_backoff_seconds,
            probe_seconds=settings.redis_timeout_seconds * 2,
        )

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[Self]:
        """Give the commands in the block one time-out together.

        Raises one of REDIS_UNAVAILABLE, CircuitOpen among them when Redis was down a moment ago.
        """
        with self._breaker.attempt():
            async with asyncio.timeout(self._timeout):
                yield self

    async def ping(self) -> None:
        """Ask for an answer, breaker or not (readiness wants to know). Raises REDIS_FAILURES."""
        async with asyncio.timeout(self._timeout):
            await self.client.ping()

    async def aclose(self) -> None:
        """Close every connection."""
        await self.client.aclose()
        await self.pool.disconnect()


def connect_redis(settings: RedisSettings) -> RedisConnection | None:
    """Return the connection that `settings` ask for, opened at its first use, or None without REDIS_URL."""
    return None if settings.redis_url is None else RedisConnection(settings)

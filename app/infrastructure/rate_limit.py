"""Rate limits: how often one client may do what costs us or is worth guessing at.

Sliding windows of the `limits` library, counted in Redis for all instances together, or in memory.
Without an answer from Redis nobody is refused: a limit protects the service from its users, and must
not be what takes it away from them. `rate_limit_unenforced_total{scope}` counts those decisions.

Signals: `rate_limit_hits_total{scope}` (refusals; kept by observability/security.py),
`rate_limit_unenforced_total{scope}`, one log line when enforcement stops and one when it is back.

Must never read a proxy header: anybody can send one. `scope["client"]` is the address of the user
when uvicorn runs with `FORWARDED_ALLOW_IPS` naming the proxies, and only then.
Must never store an address in clear: keys are hashed.
"""

import hashlib
import ipaddress
import math
import time
from collections.abc import Mapping
from typing import Any, get_args

from fastapi import Depends, Request
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from loguru import logger
from prometheus_client import Counter
from pydantic import field_validator
from starlette.types import Scope

from app.errors import AppError
from app.infrastructure.redis import REDIS_UNAVAILABLE, RedisConnection, RedisSettings
from app.observability.security import RateLimitScope, record_rate_limit_hit

rate_limit_unenforced_total = Counter(
    "rate_limit_unenforced_total",
    "Requests let through uncounted, because the store of the rate limits did not answer.",
    ["scope"],
)
for _scope in get_args(RateLimitScope):
    rate_limit_unenforced_total.labels(_scope)

IPV6_NETWORK_BITS = 64
"""One customer's network (RFC 6177): within it, addresses are free for the taking."""


class RateLimitSettings(RedisSettings):
    """One limit per scope, in the notation of the `limits` library: "10/minute", "100 per 2 hours"."""

    rate_limit_login: str = "10/minute"
    rate_limit_registration: str = "20/minute"

    @field_validator("rate_limit_login", "rate_limit_registration")
    @classmethod
    def _parse(cls, value: str) -> str:
        message = 'must be one limit such as "10/minute" or "100 per 2 hours", above 0'
        if any(separator in value for separator in ",;|"):
            raise ValueError(message)  # `parse` would take the first and forget the others
        try:
            limit = parse(value)
        except ValueError:
            raise ValueError(message) from None
        if limit.amount < 1:
            raise ValueError(message)
        return value

    @property
    def rate_limits(self) -> Mapping[RateLimitScope, RateLimitItem]:
        """The limits by scope."""
        return {
            scope: parse(getattr(self, f"rate_limit_{scope}")) for scope in get_args(RateLimitScope)
        }


class RateLimited(AppError):
    """The client has done this too often. Retry-After says when it may again (RFC 6585, RFC 9110)."""

    status = 429
    code = "rate_limited"
    title = "Too many requests"

    def __init__(self, *, retry_after_seconds: int) -> None:
        super().__init__(
            f"Try again in {retry_after_seconds} seconds.",
            headers={"Retry-After": str(retry_after_seconds)},
        )


class RateLimiter:
    """Counts what clients do, and refuses what is too much."""

    def __init__(self, settings: RateLimitSettings, redis: RedisConnection | None) -> None:
        self._limits = settings.rate_limits
        self._redis = redis
        self._is_enforcing = True
        storage = MemoryStorage() if redis is None else _redis_storage(redis)
        # Constant memory per client, unlike a list of moments; off by one at most near the edge.
        self._strategy = SlidingWindowCounterRateLimiter(storage)

    async def hit(self, scope: RateLimitScope, *who: str) -> None:
        """Count one request of `who`: an address (`client_network`), an account, or both together.

        Raises:
            RateLimited: It was one too many. It was not counted.
        """
        limit = self._limits[scope]
        key = hashlib.blake2b("\0".join(who).encode(), digest_size=16).hexdigest()
        try:
            wait = await self._wait(limit, scope, key)
        except REDIS_UNAVAILABLE as error:
            rate_limit_unenforced_total.labels(scope).inc()
            self._now_enforcing(False, error=type(error).__name__)
            return
        self._now_enforcing(True)
        if wait is not None:
            record_rate_limit_hit(scope)
            raise RateLimited(retry_after_seconds=wait)

    async def _wait(self, limit: RateLimitItem, scope: str, key: str) -> int | None:
        if self._redis is None:
            return await self._ask(limit, scope, key)
        async with self._redis.bounded():
            return await self._ask(limit, scope, key)

    async def _ask(self, limit: RateLimitItem, scope: str, key: str) -> int | None:
        """Return None for a request within the limit, else the seconds to wait."""
        if await self._strategy.hit(limit, scope, key):
            return None
        window = await self._strategy.get_window_stats(limit, scope, key)
        return max(1, math.ceil(window.reset_time - time.time()))

    def _now_enforcing(self, is_enforcing: bool, **reason: str) -> None:
        if is_enforcing == self._is_enforcing:
            return
        self._is_enforcing = is_enforcing
        line = logger.bind(type="security", **reason)
        if is_enforcing:
            line.info("rate limits are enforced again")
        else:
            line.warning("rate limits are not enforced: their store does not answer")


def _redis_storage(redis: RedisConnection) -> RedisStorage:
    pool: Any = (
        redis.pool
    )  # passed on to redis.asyncio.Redis; typed as if it could only be a scalar
    # The address is not used when a pool is given.
    return RedisStorage(
        "async+redis://",
        implementation="redispy",
        key_prefix="glasshouse:rate_limit",
        connection_pool=pool,
    )


def client_network(scope: Scope) -> str:
    """Return the address the request came from; for IPv6, its /64 network. "unknown" without one."""
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, IPV6_NETWORK_BITS), strict=False))
    return str(address)


def rate_limit(scope: RateLimitScope) -> Any:
    """Return the dependency that limits a route by the client's address.

    `@router.post(..., dependencies=[rate_limit("login")])`; expects the RateLimiter in
    `app.state.rate_limiter`.
    """

    async def check(request: Request) -> None:
        limiter: RateLimiter = request.app.state.rate_limiter
        await limiter.hit(scope, client_network(request.scope))

    return Depends(check)

"""Rate limits over a real Redis: shared by instances, never in the way when it is down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from app.infrastructure.rate_limit import RateLimited, RateLimiter, RateLimitSettings
from app.infrastructure.redis import connect_redis
from tests.tools import RedisServer


@asynccontextmanager
async def limiter(
    url: str, login: str = "3/minute", timeout_seconds: float = 5.0
) -> AsyncIterator[RateLimiter]:
    settings = RateLimitSettings(
        redis_url=SecretStr(url),
        redis_timeout_seconds=timeout_seconds,
        redis_backoff_seconds=0.1,
        rate_limit_login=login,
    )
    connection = connect_redis(settings)
    assert connection is not None
    yield RateLimiter(settings, connection)
    await connection.aclose()


def unenforced() -> float:
    return REGISTRY.get_sample_value("rate_limit_unenforced_total", {"scope": "login"}) or 0.0


async def test_instances_count_together(redis_database: str) -> None:
    async with limiter(redis_database) as one, limiter(redis_database) as other:
        await one.hit("login", "192.0.2.1")
        await other.hit("login", "192.0.2.1")
        await one.hit("login", "192.0.2.1")
        with pytest.raises(RateLimited) as refused:
            await other.hit("login", "192.0.2.1")
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60


async def test_of_many_at_once_exactly_the_limit_is_let_in(redis_database: str) -> None:
    async with limiter(redis_database, "5/minute") as limits:
        hits = [limits.hit("login", "192.0.2.1") for _ in range(40)]
        results = await asyncio.gather(*hits, return_exceptions=True)
    assert results.count(None) == 5
    assert all(isinstance(result, RateLimited) for result in results if result is not None)


async def test_no_address_is_stored_and_everything_expires(redis_database: str) -> None:
    settings = RateLimitSettings(redis_url=SecretStr(redis_database))
    connection = connect_redis(settings)
    assert connection is not None
    await RateLimiter(settings, connection).hit("login", "192.0.2.1")
    keys = [key async for key in connection.client.scan_iter()]
    assert keys
    for key in keys:
        assert b"192.0.2.1" not in key
        assert await connection.client.ttl(key) > 0
    await connection.aclose()


async def test_without_redis_nobody_is_refused_and_it_is_said_once(
    private_redis: RedisServer, log_records: list[dict[str, Any]]
) -> None:
    def lines() -> list[str]:
        return [line["message"] for line in log_records if "rate limits" in line["message"]]

    async with limiter(private_redis.url, "1/minute") as limits:
        await limits.hit("login", "192.0.2.1")
        private_redis.stop()
        before = unenforced()
        for _ in range(10):
            await limits.hit("login", "192.0.2.1")
        assert unenforced() == before + 10
        assert lines() == ["rate limits are not enforced: their store does not answer"]

        private_redis.start()
        refused = 0
        for _ in range(200):
            try:
                await limits.hit("login", "192.0.2.1")
            except RateLimited:
                refused += 1
                break
            await asyncio.sleep(0.02)
        assert refused == 1
        assert lines()[1:] == ["rate limits are enforced again"]


async def test_a_redis_that_hangs_holds_a_request_up_for_its_time_out_only(
    private_redis: RedisServer,
) -> None:
    async with limiter(private_redis.url, timeout_seconds=0.1) as limits:
        private_redis.freeze()
        before = unenforced()
        async with asyncio.timeout(5):
            await limits.hit("login", "192.0.2.1")
        assert unenforced() == before + 1

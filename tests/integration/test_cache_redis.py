"""The cache over a real Redis: the same behaviour as in memory, and none of its failures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr, ValidationError
from redis.exceptions import RedisError

from app.infrastructure.cache import Cache, CacheSettings, Hit, create_cache
from app.infrastructure.redis import RedisConnection, RedisSettings, connect_redis
from tests.tools import RedisServer

OPEN = 1.0


@asynccontextmanager
async def redis_connection(
    url: str, *, max_connections: int = 50, timeout_seconds: float = 5.0
) -> AsyncIterator[RedisConnection]:
    settings = RedisSettings(
        redis_url=SecretStr(url),
        redis_timeout_seconds=timeout_seconds,
        redis_backoff_seconds=0.1,
        redis_max_connections=max_connections,
    )
    connection = connect_redis(settings)
    assert connection is not None
    yield connection
    await connection.aclose()


@asynccontextmanager
async def cache_in(url: str, *, timeout_seconds: float = 5.0) -> AsyncIterator[Cache]:
    async with redis_connection(url, timeout_seconds=timeout_seconds) as connection:
        yield create_cache("orders", CacheSettings(), connection)


def reads(result: str) -> float:
    labels = {"cache": "orders", "result": result}
    return REGISTRY.get_sample_value("cache_requests_total", labels) or 0.0


def circuit() -> float | None:
    return REGISTRY.get_sample_value("circuit_breaker_state", {"dependency": "redis"})


async def eventually(cache: Cache, key: str, expected: Hit) -> None:
    """Wait until the circuit has closed; only misses may come before the value."""
    for _ in range(200):
        found = await cache.get(key)
        if found is not None:
            assert found == expected
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"{key} never was {expected}")


async def test_set_get_add_delete(redis_database: str) -> None:
    async with cache_in(redis_database) as cache:
        assert await cache.get("1") is None
        assert await cache.add("1", {"total": 5}, ttl_seconds=60)
        assert not await cache.add("1", "other", ttl_seconds=60)
        assert await cache.get("1") == Hit({"total": 5})
        await cache.set("1", None, ttl_seconds=60)
        assert await cache.get("1") == Hit(None)
        await cache.delete("1")
        assert await cache.get("1") is None


async def test_instances_see_what_the_others_stored(redis_database: str) -> None:
    async with cache_in(redis_database) as one, cache_in(redis_database) as other:
        await one.set("1", "value", ttl_seconds=60)
        assert await other.get("1") == Hit("value")


@pytest.mark.parametrize("operation", ["set", "add"])
async def test_everything_stored_expires(redis_database: str, operation: str) -> None:
    async with redis_connection(redis_database) as connection:
        cache = create_cache("orders", CacheSettings(), connection)
        await getattr(cache, operation)("1", "value", ttl_seconds=1.5)
        assert 0 < await connection.client.pttl("glasshouse:orders:1") <= 1500


async def test_a_slow_reader_cannot_put_old_data_over_what_a_writer_stored(
    redis_database: str,
) -> None:
    has_read, may_go_on = asyncio.Event(), asyncio.Event()

    async def load_slowly() -> str:
        has_read.set()
        await may_go_on.wait()
        return "old"

    async with cache_in(redis_database) as reading, cache_in(redis_database) as writing:
        reader = asyncio.create_task(reading.get_or_load("1", load_slowly, ttl_seconds=60))
        await has_read.wait()
        await writing.set("1", "new", ttl_seconds=60)
        may_go_on.set()
        await reader
        assert await reading.get("1") == Hit("new")


async def test_a_burst_beyond_the_pool_waits_for_connections_and_succeeds(
    redis_database: str,
) -> None:
    async with redis_connection(redis_database, max_connections=2) as connection:
        cache = create_cache("orders", CacheSettings(), connection)
        await cache.set("1", "value", ttl_seconds=60)
        results = await asyncio.gather(*(cache.get("1") for _ in range(50)))
    assert set(results) == {Hit("value")}


async def test_a_dead_redis_is_a_miss_then_left_alone_then_used_again(
    private_redis: RedisServer,
) -> None:
    async with cache_in(private_redis.url) as cache:
        await cache.set("1", "value", ttl_seconds=60)
        private_redis.stop()
        errors = reads("error")
        for _ in range(10):
            assert await cache.get("1") is None
        assert reads("error") == errors + 10
        assert circuit() == OPEN
        private_redis.start()
        async with cache_in(private_redis.url) as other:
            await other.set("1", "again", ttl_seconds=60)
        await eventually(cache, "1", Hit("again"))


async def test_a_redis_that_hangs_costs_its_time_out_and_no_answer_is_mixed_up(
    private_redis: RedisServer,
) -> None:
    async with cache_in(private_redis.url) as patient:
        await patient.set("a", "value of a", ttl_seconds=60)
        await patient.set("b", "value of b", ttl_seconds=60)
    async with cache_in(private_redis.url, timeout_seconds=0.1) as cache:
        private_redis.freeze()
        errors = reads("error")
        async with asyncio.timeout(5):  # three time-outs of 0.1 s, then none: the circuit is open
            for _ in range(100):
                assert await cache.get("a") is None
        assert reads("error") == errors + 100
        private_redis.thaw()
        # The answers to what timed out are still under way: they must not reach another reader.
        await eventually(cache, "b", Hit("value of b"))
        await eventually(cache, "a", Hit("value of a"))


async def test_the_time_out_includes_the_wait_for_a_connection(private_redis: RedisServer) -> None:
    async with redis_connection(
        private_redis.url, max_connections=1, timeout_seconds=0.1
    ) as connection:
        cache = create_cache("orders", CacheSettings(), connection)
        private_redis.freeze()
        async with asyncio.timeout(5):  # one after the other would take 200 times 0.1 s
            await asyncio.gather(*(cache.get("1") for _ in range(200)))
        private_redis.thaw()


async def test_a_redis_that_was_restarted_costs_no_error(private_redis: RedisServer) -> None:
    async with cache_in(private_redis.url) as cache:
        await cache.set("1", "value", ttl_seconds=60)
        private_redis.stop()
        private_redis.start()
        for _ in range(3):
            await asyncio.sleep(0)  # the loop, busy with the restart so far, sees the closed socket
        errors = reads("error")
        assert await cache.get("1") is None
        assert reads("error") == errors


async def test_ping_says_whether_redis_answers(private_redis: RedisServer) -> None:
    async with redis_connection(private_redis.url, timeout_seconds=1.0) as connection:
        await connection.ping()
        private_redis.freeze()
        with pytest.raises((TimeoutError, RedisError)):
            await connection.ping()
        private_redis.thaw()


@pytest.mark.parametrize("value", ["localhost:6379", "http://localhost", "postgresql://u:pw@h/d"])
def test_an_address_that_is_not_redis_stops_the_start_without_showing_its_password(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("REDIS_URL", value)
    with pytest.raises(ValidationError, match="redis_url") as error:
        RedisSettings()
    assert "pw" not in str(error.value)


def test_without_an_address_there_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")
    assert connect_redis(RedisSettings()) is None

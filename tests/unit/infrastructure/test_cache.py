"""The cache as a specification, in memory; tests/integration has the same over Redis."""

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY

from app.infrastructure.cache import (
    Cache,
    CacheSettings,
    Hit,
    MemoryStore,
    create_cache,
)
from app.infrastructure.circuit_breaker import CircuitOpen


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> Cache:
    return Cache("orders", MemoryStore(100, on_eviction=lambda: None, clock=clock))


def reads(result: str) -> float:
    labels = {"cache": "orders", "result": result}
    return REGISTRY.get_sample_value("cache_requests_total", labels) or 0.0


def durations(operation: str) -> float:
    labels = {"cache": "orders", "operation": operation}
    return REGISTRY.get_sample_value("cache_operation_duration_seconds_count", labels) or 0.0


async def test_what_is_set_is_found_until_its_time_ends(cache: Cache, clock: Clock) -> None:
    await cache.set("1", {"total": 5}, ttl_seconds=60)
    clock.now += 59
    assert await cache.get("1") == Hit({"total": 5})
    clock.now += 1
    assert await cache.get("1") is None


async def test_none_is_a_value_and_not_a_miss(cache: Cache) -> None:
    await cache.set("gone", None, ttl_seconds=60)
    assert await cache.get("gone") == Hit(None)
    assert await cache.get("never") is None


async def test_set_replaces_and_delete_forgets(cache: Cache) -> None:
    await cache.set("1", "old", ttl_seconds=60)
    await cache.set("1", "new", ttl_seconds=60)
    assert await cache.get("1") == Hit("new")
    await cache.delete("1")
    assert await cache.get("1") is None


async def test_add_stores_only_where_nothing_is(cache: Cache, clock: Clock) -> None:
    assert await cache.add("1", "first", ttl_seconds=60)
    assert not await cache.add("1", "second", ttl_seconds=60)
    assert await cache.get("1") == Hit("first")
    clock.now += 60
    assert await cache.add("1", "third", ttl_seconds=60)


async def test_caches_that_share_a_store_do_not_share_keys(clock: Clock) -> None:
    store = MemoryStore(100, on_eviction=lambda: None, clock=clock)
    orders, users = Cache("orders", store), Cache("users", store)
    await orders.set("1", "an order", ttl_seconds=60)
    assert await users.get("1") is None


async def test_the_least_recently_used_goes_when_memory_is_full_and_is_counted() -> None:
    cache = create_cache("small", CacheSettings(cache_max_entries=2), None)
    before = REGISTRY.get_sample_value("cache_evictions_total", {"cache": "small"}) or 0.0
    await cache.set("a", 1, ttl_seconds=60)
    await cache.set("b", 2, ttl_seconds=60)
    await cache.get("a")
    await cache.set("c", 3, ttl_seconds=60)
    assert await cache.get("b") is None
    assert await cache.get("a") == Hit(1)
    assert await cache.get("c") == Hit(3)
    evicted = REGISTRY.get_sample_value("cache_evictions_total", {"cache": "small"})
    assert evicted == before + 1


async def test_reads_are_counted_by_result_and_operations_timed(cache: Cache) -> None:
    before = {result: reads(result) for result in ("hit", "miss", "error")}
    timed = {operation: durations(operation) for operation in ("get", "set", "add", "delete")}
    await cache.get("1")
    await cache.set("1", 1, ttl_seconds=60)
    await cache.get("1")
    await cache.add("1", 1, ttl_seconds=60)
    await cache.delete("1")
    assert {result: reads(result) - before[result] for result in before} == {
        "hit": 1,
        "miss": 1,
        "error": 0,
    }
    assert {operation: durations(operation) - timed[operation] for operation in timed} == {
        "get": 2,
        "set": 1,
        "add": 1,
        "delete": 1,
    }


async def test_a_value_is_loaded_once_and_then_read(cache: Cache) -> None:
    loads = 0

    async def load() -> dict[str, int]:
        nonlocal loads
        loads += 1
        return {"total": 5}

    for _ in range(3):
        assert await cache.get_or_load("1", load, ttl_seconds=60) == {"total": 5}
    assert loads == 1


async def test_a_tombstone_answers_without_loading(cache: Cache) -> None:
    await cache.set("1", None, ttl_seconds=60)

    async def load() -> dict[str, int]:
        raise AssertionError("loaded what is known to be gone")

    assert await cache.get_or_load("1", load, ttl_seconds=60) is None


async def test_a_failed_load_is_raised_and_not_cached(cache: Cache) -> None:
    async def load() -> None:
        raise LookupError("no such order")

    with pytest.raises(LookupError):
        await cache.get_or_load("1", load, ttl_seconds=60)
    assert await cache.get("1") is None


async def test_a_slow_reader_cannot_put_old_data_over_what_a_writer_stored(cache: Cache) -> None:
    has_read, may_go_on = asyncio.Event(), asyncio.Event()

    async def load_slowly() -> str:
        has_read.set()  # the row as it was before the writer's commit
        await may_go_on.wait()
        return "old"

    reader = asyncio.create_task(cache.get_or_load("1", load_slowly, ttl_seconds=60))
    await has_read.wait()
    await cache.set("1", "new", ttl_seconds=60)
    may_go_on.set()
    await reader
    assert await cache.get("1") == Hit("new")


async def test_what_another_program_stored_is_an_error_and_a_miss(clock: Clock) -> None:
    store = MemoryStore(100, on_eviction=lambda: None, clock=clock)
    cache = Cache("orders", store)
    await store.set("glasshouse:orders:1", b"\x80pickle", 60)
    errors = reads("error")
    assert await cache.get("1") is None
    assert reads("error") == errors + 1


class BrokenStore:
    """Every operation fails as Redis does."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def get(self, key: str) -> bytes | None:
        raise self.error

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        raise self.error

    async def add(self, key: str, value: bytes, ttl_seconds: float) -> bool:
        raise self.error

    async def delete(self, key: str) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionRefusedError(), CircuitOpen("redis", 1.0)], ids=repr
)
async def test_a_failing_store_is_a_miss_and_raises_nothing(error: Exception) -> None:
    cache = Cache("orders", BrokenStore(error))
    errors, timed = reads("error"), durations("get")

    async def load() -> Any:
        return "from the database"

    assert await cache.get_or_load("1", load, ttl_seconds=60) == "from the database"
    await cache.set("1", 1, ttl_seconds=60)
    assert not await cache.add("1", 1, ttl_seconds=60)
    await cache.delete("1")
    assert reads("error") == errors + 1
    assert durations("get") == timed + 1


async def test_a_mistake_of_ours_is_not_taken_for_a_failing_store() -> None:
    cache = Cache("orders", BrokenStore(KeyError("a bug")))
    with pytest.raises(KeyError):
        await cache.get("1")

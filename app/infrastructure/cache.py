"""A cache that can only make things faster: when it fails, it is as if nothing had been in it.

Redis when REDIS_URL is set, in memory otherwise. Values are JSON. A Redis that is down or slow costs a
request at most `redis_timeout_seconds`, and next to nothing once its circuit is open (redis.py).

How writers and readers share a key, so that a reader cannot put old data over new:
- a writer calls `set` with the new truth AFTER its commit (None for "it is gone"); it does not delete:
  after a deletion a reader that had loaded the old row before the commit could still store it;
- a reader calls `get_or_load`, which stores what it loaded only where nothing is stored (SET NX).
What remains: a `set` that failed, was evicted, or overtook another writer's, leaves an old value behind
until its time to live ends. That time is the promise; where it is too long, do not cache.

Signals: `cache_requests_total{cache,result}` (hit, miss, error: of reads), `cache_operation_duration_seconds
{cache,operation}`, `cache_evictions_total{cache}` (in memory; for Redis see redis_exporter's
`redis_evicted_keys_total`).

Must never raise because the store failed, and must never hold what exists nowhere else.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import orjson
from prometheus_client import Counter, Histogram
from pydantic import Field

from app.infrastructure.redis import REDIS_UNAVAILABLE, RedisConnection, RedisSettings

cache_requests_total = Counter(
    "cache_requests_total", "Reads of a cache, by result.", ["cache", "result"]
)
cache_operation_duration_seconds = Histogram(
    "cache_operation_duration_seconds",
    "Time an operation of a cache took, also when it failed.",
    ["cache", "operation"],
    # Redis on the same network answers within a millisecond; the last bucket is its time-out.
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25),
)
cache_evictions_total = Counter(
    "cache_evictions_total",
    "Values dropped from memory to make room, before their time.",
    ["cache"],
)


class CacheSettings(RedisSettings):
    """How much an in-memory cache may hold."""

    cache_max_entries: int = Field(10_000, ge=1, description="Per cache, in memory only.")


class Store(Protocol):
    """Where a cache keeps its bytes. May raise one of REDIS_UNAVAILABLE."""

    async def get(self, key: str) -> bytes | None:
        """Return what is stored and not expired."""

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Store, over whatever is there."""

    async def add(self, key: str, value: bytes, ttl_seconds: float) -> bool:
        """Store where nothing is stored; return whether that was so."""

    async def delete(self, key: str) -> None:
        """Forget."""


class MemoryStore:
    """Bytes in this process: the least recently used goes when `max_entries` is reached."""

    def __init__(
        self,
        max_entries: int,
        *,
        on_eviction: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._max_entries = max_entries
        self._on_eviction = on_eviction
        self._clock = clock

    async def get(self, key: str) -> bytes | None:
        """Return what is stored and not expired."""
        found = self._entries.get(key)
        if found is None:
            return None
        value, expires = found
        if expires <= self._clock():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Store, over whatever is there."""
        self._entries[key] = value, self._clock() + ttl_seconds
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
            self._on_eviction()

    async def add(self, key: str, value: bytes, ttl_seconds: float) -> bool:
        """Store where nothing is stored; return whether that was so."""
        if await self.get(key) is not None:
            return False
        await self.set(key, value, ttl_seconds)
        return True

    async def delete(self, key: str) -> None:
        """Forget."""
        self._entries.pop(key, None)


class RedisStore:
    """Bytes in Redis, shared by all instances."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis

    async def get(self, key: str) -> bytes | None:
        """Return what is stored and not expired."""
        async with self._redis.bounded():
            value = await self._redis.client.get(key)
        # The client's type allows for decoded answers, which this one does not ask for.
        return value.encode() if isinstance(value, str) else value

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Store, over whatever is there."""
        async with self._redis.bounded():
            await self._redis.client.set(key, value, px=_milliseconds(ttl_seconds))

    async def add(self, key: str, value: bytes, ttl_seconds: float) -> bool:
        """Store where nothing is stored; return whether that was so."""
        async with self._redis.bounded():
            stored = await self._redis.client.set(
                key, value, px=_milliseconds(ttl_seconds), nx=True
            )
            return bool(stored)

    async def delete(self, key: str) -> None:
        """Forget."""
        async with self._redis.bounded():
            await self._redis.client.delete(key)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class Hit(NamedTuple):
    """A value that was found; it may be None, which is not the same as nothing found."""

    value: Any


class Cache:
    """JSON values under keys of one namespace.

    Args:
        name: Namespace of the keys and label of the metrics: a fixed word, such as "orders".
        store: Where the bytes go; several caches may share one.
    """

    def __init__(self, name: str, store: Store) -> None:
        self._name = name
        self._store = store
        self._results = {
            result: cache_requests_total.labels(name, result) for result in ("hit", "miss", "error")
        }
        self._durations = {
            operation: cache_operation_duration_seconds.labels(name, operation)
            for operation in ("get", "set", "add", "delete")
        }

    async def get(self, key: str) -> Hit | None:
        """Return the value, or None for nothing found and for a failing store."""
        found: bytes | None = None
        result = "error"
        with self._observed("get"):
            found = await self._store.get(self._key(key))
            result = "miss" if found is None else "hit"
        try:
            return None if found is None else Hit(orjson.loads(found))
        except orjson.JSONDecodeError:
            result = "error"  # another version or program wrote it
            return None
        finally:
            self._results[result].inc()

    async def set(self, key: str, value: Any, *, ttl_seconds: float) -> None:
        """Store the truth. For writers, after their commit."""
        encoded = orjson.dumps(value)
        with self._observed("set"):
            await self._store.set(self._key(key), encoded, ttl_seconds)

    async def add(self, key: str, value: Any, *, ttl_seconds: float) -> bool:
        """Store where nothing is stored; return whether that happened (False for a failing store)."""
        encoded = orjson.dumps(value)
        with self._observed("add"):
            return await self._store.add(self._key(key), encoded, ttl_seconds)
        return False

    async def delete(self, key: str) -> None:
        """Forget a value that nobody loads again. Else prefer `set`: see above."""
        with self._observed("delete"):
            await self._store.delete(self._key(key))

    async def get_or_load(
        self, key: str, load: Callable[[], Awaitable[Any]], *, ttl_seconds: float
    ) -> Any:
        """Return the cached value, or what `load` returns, cached for the next reader.

        What `load` raises is raised. Its value must survive JSON: pass `model_dump(mode="json")`.
        """
        found = await self.get(key)
        if found is not None:
            return found.value
        value = await load()
        await self.add(key, value, ttl_seconds=ttl_seconds)
        return value

    def _key(self, key: str) -> str:
        return f"glasshouse:{self._name}:{key}"

    @contextmanager
    def _observed(self, operation: str) -> Iterator[None]:
        """Time the operation; a store that cannot be reached is passed over in silence (redis.py logs)."""
        started = time.perf_counter()
        try:
            yield
        except REDIS_UNAVAILABLE:
            pass
        finally:
            self._durations[operation].observe(time.perf_counter() - started)


def create_cache(name: str, settings: CacheSettings, redis: RedisConnection | None) -> Cache:
    """Return the cache `name`: in `redis`, or in the memory of this process without it."""
    if redis is not None:
        return Cache(name, RedisStore(redis))
    evictions = cache_evictions_total.labels(name)
    return Cache(name, MemoryStore(settings.cache_max_entries, on_eviction=evictions.inc))

"""The broker port: ids arrive, also through restarts of Redis; what is lost or repeated costs only time."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from redis.asyncio import Redis

from app.infrastructure import broker as broker_module
from app.infrastructure.broker import STREAM, Broker, BrokerSettings, Work, create_broker
from tests.tools import RedisServer

WITHIN_SECONDS = 30.0
END_WITHIN_SECONDS = 15.0
GROUP = "workers"


@pytest.fixture(params=["memory", "redis"])
def settings(request: pytest.FixtureRequest) -> BrokerSettings:
    """Both brokers."""
    if request.param == "memory":
        return BrokerSettings(redis_url=None)
    return redis_settings(request.getfixturevalue("redis_database"))


def redis_settings(url: str, concurrency: int = 8) -> BrokerSettings:
    return BrokerSettings(redis_url=SecretStr(url), worker_concurrency=concurrency)


class Inbox:
    """Notes which ids arrive."""

    def __init__(self) -> None:
        self.seen: Counter[uuid.UUID] = Counter()

    async def take(self, delivery_id: uuid.UUID) -> None:
        self.seen[delivery_id] += 1

    async def until(self, *ids: uuid.UUID) -> None:
        await until(lambda: all(self.seen[delivery_id] for delivery_id in ids))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


async def nobody(_: uuid.UUID) -> None:
    raise AssertionError("this one only sends")


@asynccontextmanager
async def consuming(settings: BrokerSettings, work: Work) -> AsyncIterator[Broker]:
    """Run one worker's broker for the time of the block."""
    broker, stop = create_broker(settings, work), asyncio.Event()
    await broker.start()
    task = asyncio.create_task(broker.consume(stop))
    try:
        yield broker
    finally:
        stop.set()
        ended, _ = await asyncio.wait([task], timeout=END_WITHIN_SECONDS)
        assert ended, "the consumer reads on"
        await broker.stop()


@asynccontextmanager
async def sending(settings: BrokerSettings) -> AsyncIterator[Broker]:
    """A broker of a process that does not consume."""
    broker = create_broker(settings, nobody)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def test_each_id_that_is_sent_arrives_once(settings: BrokerSettings) -> None:
    inbox, ids = Inbox(), [uuid.uuid4() for _ in range(50)]
    async with consuming(settings, inbox.take) as broker:
        for delivery_id in ids:
            await broker.send(delivery_id)
        await inbox.until(*ids)
    assert inbox.seen == Counter(ids)


async def test_work_that_fails_does_not_stop_the_consumer(settings: BrokerSettings) -> None:
    inbox, bad, good = Inbox(), uuid.uuid4(), uuid.uuid4()

    async def work(delivery_id: uuid.UUID) -> None:
        await inbox.take(delivery_id)
        if delivery_id == bad:
            raise RuntimeError

    async with consuming(settings, work) as broker:
        await broker.send(bad)
        await inbox.until(bad)
        await broker.send(good)
        await inbox.until(good)


async def test_the_end_waits_for_the_work_that_has_begun(settings: BrokerSettings) -> None:
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(_: uuid.UUID) -> None:
        begun.set()
        await go_on.wait()
        ended.set()

    broker, stop = create_broker(settings, work), asyncio.Event()
    await broker.start()
    consumer = asyncio.create_task(broker.consume(stop))
    await broker.send(uuid.uuid4())
    async with asyncio.timeout(WITHIN_SECONDS):
        await begun.wait()
        stop.set()
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert not consumer.done()
        go_on.set()
        await consumer
    assert ended.is_set()
    await broker.stop()


async def test_what_was_sent_before_the_first_worker_came_is_not_missed(
    redis_database: str,
) -> None:
    settings, inbox, delivery_id = redis_settings(redis_database), Inbox(), uuid.uuid4()
    async with sending(settings) as sender:
        await sender.send(delivery_id)
    async with consuming(settings, inbox.take):
        await inbox.until(delivery_id)


async def test_workers_share_a_stream_and_get_different_ids(redis_database: str) -> None:
    settings = redis_settings(redis_database, concurrency=1)
    # Both are busy at the same time, or neither ever ends.
    together, inboxes = asyncio.Barrier(2), (Inbox(), Inbox())

    def work_of(inbox: Inbox) -> Work:
        async def work(delivery_id: uuid.UUID) -> None:
            await together.wait()
            await inbox.take(delivery_id)

        return work

    ids = [uuid.uuid4() for _ in range(10)]
    async with (
        sending(settings) as sender,
        consuming(settings, work_of(inboxes[0])),
        consuming(settings, work_of(inboxes[1])),
    ):
        for delivery_id in ids:
            await sender.send(delivery_id)
        await until(lambda: (inboxes[0].seen + inboxes[1].seen).total() == len(ids))
    assert inboxes[0].seen + inboxes[1].seen == Counter(ids)


async def test_an_id_is_acknowledged_when_its_work_is_done_and_not_before(
    redis_database: str,
) -> None:
    settings = redis_settings(redis_database)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(_: uuid.UUID) -> None:
        begun.set()
        await go_on.wait()

    with redis.Redis.from_url(redis_database) as client:

        def unacknowledged() -> int:
            pending = client.xpending(STREAM, GROUP)
            return int(pending["pending"])

        async with consuming(settings, work) as broker:
            await broker.send(uuid.uuid4())
            async with asyncio.timeout(WITHIN_SECONDS):
                await begun.wait()
            assert unacknowledged() == 1
            go_on.set()
            await until(lambda: unacknowledged() == 0)


async def test_an_id_of_a_worker_that_died_is_taken_over_by_another(
    redis_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "IDLE_MS", 1)
    settings, inbox = redis_settings(redis_database), Inbox()
    orphan, later = uuid.uuid4(), uuid.uuid4()
    async with sending(settings) as sender:
        await sender.send(orphan)
        with redis.Redis.from_url(redis_database) as client:
            client.xgroup_create(STREAM, GROUP, id="0")
            taken = client.xreadgroup(GROUP, "died-since", {STREAM: ">"})
            assert taken, "the id is with a worker that will never say anything again"
        async with consuming(settings, inbox.take):
            await sender.send(later)
            await inbox.until(orphan, later)


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_a_consumer_outlives_an_outage_of_redis(
    private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(broker_module, "RECONNECT_SECONDS", 0.05)
    settings, inbox = redis_settings(private_redis.url), Inbox()
    before, after = uuid.uuid4(), uuid.uuid4()
    async with consuming(settings, inbox.take) as broker:
        await broker.send(before)
        await inbox.until(before)
        if how == "stopped":
            await asyncio.to_thread(private_redis.stop)
        else:
            private_redis.freeze()
        with pytest.raises((redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)):
            await broker.send(uuid.uuid4())
        if how == "stopped":
            await asyncio.to_thread(private_redis.start)  # empty: stream and group are gone
        else:
            private_redis.thaw()
        await broker.send(after)
        await inbox.until(after)


async def test_a_connection_that_a_restart_of_redis_closed_costs_no_send(
    private_redis: RedisServer,
) -> None:
    async with sending(redis_settings(private_redis.url)) as sender:
        await sender.send(uuid.uuid4())
        await asyncio.to_thread(private_redis.stop)
        await asyncio.to_thread(private_redis.start)
        await sender.send(uuid.uuid4())
    with redis.Redis.from_url(private_redis.url) as client:
        assert client.xlen(STREAM) == 1


async def test_a_consumer_can_be_ended_while_redis_is_down(private_redis: RedisServer) -> None:
    settings, inbox, delivery_id = redis_settings(private_redis.url), Inbox(), uuid.uuid4()
    async with consuming(settings, inbox.take) as broker:
        await broker.send(delivery_id)
        await inbox.until(delivery_id)
        await asyncio.to_thread(private_redis.stop)
    await asyncio.to_thread(private_redis.start)


async def test_a_consumer_ends_although_its_client_swallows_the_cancellation_of_a_read(
    redis_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    swallowed = False

    class Deaf(Redis):
        async def xreadgroup(self, *args: Any, **options: Any) -> Any:
            nonlocal swallowed
            try:
                return await super().xreadgroup(*args, **options)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed = (
                    True  # as asyncio.wait_for may in Python 3.11, which redis-py sends with
                )
                return []

    monkeypatch.setattr(broker_module, "Redis", Deaf)
    monkeypatch.setattr(broker_module, "READ_SECONDS", 0.1)
    settings, inbox, delivery_id = redis_settings(redis_database), Inbox(), uuid.uuid4()
    async with consuming(settings, inbox.take) as broker:
        await broker.send(delivery_id)
        await inbox.until(delivery_id)
    assert swallowed


async def test_what_is_no_message_of_ours_is_passed_over(redis_database: str) -> None:
    settings, inbox, delivery_id = redis_settings(redis_database), Inbox(), uuid.uuid4()
    async with consuming(settings, inbox.take) as broker:
        with redis.Redis.from_url(redis_database) as client:
            client.xadd(STREAM, {"data": b"not a message"})
            client.xadd(STREAM, {"something": b"else"})
        await broker.send(delivery_id)
        await inbox.until(delivery_id)


async def test_the_stream_does_not_grow_without_bound(
    redis_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "STREAM_LENGTH", 100)
    async with sending(redis_settings(redis_database)) as sender:
        for _ in range(500):
            await sender.send(uuid.uuid4())
    with redis.Redis.from_url(redis_database) as client:
        assert client.xlen(STREAM) < 400, "Redis trims whole nodes of 100 entries"

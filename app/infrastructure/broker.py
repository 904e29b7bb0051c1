"""The broker: carries delivery ids from the relay to whoever has a hand free.

A thin port over taskiq (pre-1.0, so nothing else imports it): Redis streams when REDIS_URL is set, in
memory otherwise. It carries an id and nothing else. What is to be done, whether it was done, and when
it is tried again stands in the database (outbox.py), so a broker that loses, repeats or reorders ids
costs time and never a message.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Set
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, Protocol

from loguru import logger
from pydantic import Field
from redis.asyncio import Redis
from redis.maint_notifications import MaintNotificationsConfig
from taskiq import (
    AckableMessage,
    AsyncBroker,
    AsyncTaskiqDecoratedTask,
    InMemoryBroker,
    TaskiqMessage,
)
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver
from taskiq_redis import RedisStreamBroker

from app.infrastructure.redis import RedisSettings

STREAM = "glasshouse:deliveries"
STREAM_LENGTH = 100_000
"""Entries kept in the stream (approximately); an id trimmed away is handed over again by its lease."""
IDLE_MS = 60_000
"""After this, a message of a worker that died is taken over by another one."""
READ_SECONDS = 1.0
"""How long one read waits for something to arrive; also how long the end may take to be noticed."""
RECONNECT_SECONDS = 1.0

_TASK = "deliver"

Work = Callable[[uuid.UUID], Awaitable[None]]


class BrokerSettings(RedisSettings):
    """How many deliveries one worker handles side by side."""

    worker_concurrency: int = Field(8, ge=1, le=100)


class Broker(Protocol):
    """What the worker needs of a broker."""

    async def start(self) -> None:
        """Get ready to send."""

    async def send(self, *delivery_ids: uuid.UUID) -> None:
        """Hand deliveries over. Where it fails, some may have been handed over, and some not."""

    def waiting(self) -> Set[uuid.UUID]:
        """Return what waits or is handled in this process, and would be lost with it."""

    async def consume(self, stop: asyncio.Event) -> None:
        """Hand what arrives to the worker's function until `stop`; what has begun is finished."""

    async def stop(self) -> None:
        """Disconnect."""


def create_broker(settings: BrokerSettings, work: Work) -> Broker:
    """Return the broker that `settings` ask for; `work` is called for each delivery that arrives."""
    # Two lines for each message say less than the one that the job writes.
    logging.getLogger("taskiq").setLevel(logging.WARNING)
    if settings.redis_url is None:
        return MemoryBroker(settings, work)
    return StreamBroker(settings, work)


def _register(broker: AsyncBroker, work: Work) -> AsyncTaskiqDecoratedTask[[str], Any]:
    @broker.task(_TASK)
    async def deliver(delivery_id: str) -> None:
        await work(uuid.UUID(delivery_id))

    return deliver


class MemoryBroker:
    """Deliveries handled by the process that relays them: the embedded default."""

    def __init__(self, settings: BrokerSettings, work: Work) -> None:
        self._broker = InMemoryBroker(max_async_tasks=settings.worker_concurrency)
        self._work = work
        self._deliver = _register(self._broker, self._handle)
        self._waiting: set[uuid.UUID] = set()

    async def start(self) -> None:
        """Nothing to connect to."""
        await self._broker.startup()

    async def send(self, *delivery_ids: uuid.UUID) -> None:
        """Start handling the deliveries in the background, but for those that wait here already."""
        for delivery_id in delivery_ids:
            if delivery_id not in self._waiting:
                self._waiting.add(delivery_id)
                await self._deliver.kiq(str(delivery_id))

    async def _handle(self, delivery_id: uuid.UUID) -> None:
        try:
            await self._work(delivery_id)
        finally:
            self._waiting.discard(delivery_id)

    def waiting(self) -> Set[uuid.UUID]:
        """Return all that was sent and is not handled."""
        return self._waiting

    async def consume(self, stop: asyncio.Event) -> None:
        """Wait for `stop`, then for what `send` has begun."""
        await stop.wait()
        await self._broker.wait_all()

    async def stop(self) -> None:
        """Nothing to disconnect from."""
        await self._broker.shutdown()


class _DeliveryStream(RedisStreamBroker):
    """taskiq's stream, read in a way that can be ended, through one client where taskiq makes many.

    taskiq cancels a read to end it, and redis-py may swallow that (asyncio.wait_for does in Python 3.11):
    then its own loop reads on for ever. It also looks for the messages of workers that died only after
    a new one arrived, and holds a lock for that which XAUTOCLAIM does not need.
    """

    stop_reading: asyncio.Event

    async def kick_all(self, messages: Iterable[TaskiqMessage]) -> None:
        """Do what `kick` does for each message; that one waits for an answer each time."""
        async with self._client.pipeline(transaction=True) as pipeline:
            for message in messages:
                pipeline.xadd(
                    self.queue_name,
                    {b"data": self.formatter.dumps(message).message},
                    maxlen=self.maxlen,
                    approximate=self.approximate,
                )
            await pipeline.execute()

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield what is new, and what another worker has left, until `stop_reading`."""
        client, group, me = self._client, self.consumer_group_name, self.consumer_name
        while not self.stop_reading.is_set():
            new: Any = await client.xreadgroup(
                group, me, {self.queue_name: ">"}, block=self.block, count=self.count
            )
            left: Any = await client.xautoclaim(
                self.queue_name, group, me, min_idle_time=self.idle_timeout, count=self.count
            )
            for entry_id, fields in [*(entry for _, got in new for entry in got), *left[1]]:
                # taskiq acknowledges and skips what it cannot read.
                yield AckableMessage(
                    data=fields.get(b"data", b""), ack=partial(self._acknowledge, entry_id)
                )

    async def _acknowledge(self, entry_id: bytes) -> None:
        await self._client.xack(self.queue_name, self.consumer_group_name, entry_id)

    @cached_property
    def _client(self) -> Redis:
        # To make one costs a third of a millisecond; the connections are the pool's.
        return Redis(connection_pool=self.connection_pool)


class StreamBroker:
    """Deliveries through a Redis stream, shared by every worker of the consumer group."""

    def __init__(self, settings: BrokerSettings, work: Work) -> None:
        assert settings.redis_url is not None  # noqa: S101 - create_broker looked
        self._concurrency = settings.worker_concurrency
        self._broker = _DeliveryStream(
            settings.redis_url.get_secret_value(),
            queue_name=STREAM,
            consumer_group_name="workers",
            consumer_id="0",  # what was sent before the first worker came counts too
            maxlen=STREAM_LENGTH,
            idle_timeout=IDLE_MS,
            xread_block=round(READ_SECONDS * 1000),
            xread_count=settings.worker_concurrency,
            # See redis.py: with it, each idle connection costs a failed send after a restart of Redis.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        _register(self._broker, work)

    async def start(self) -> None:
        """Nothing yet: a worker that starts while Redis is down works as soon as it is back.

        Sending creates the stream, `consume` the consumer group.
        """

    async def send(self, *delivery_ids: uuid.UUID) -> None:
        """Append the deliveries to the stream, in one transaction and one round trip."""
        await self._broker.kick_all(
            TaskiqMessage(
                task_id=self._broker.id_generator(),
                task_name=_TASK,
                labels={},
                args=[str(delivery_id)],
                kwargs={},
            )
            for delivery_id in delivery_ids
        )

    def waiting(self) -> Set[uuid.UUID]:
        """Return nothing: what waits is in Redis."""
        return frozenset()

    async def consume(self, stop: asyncio.Event) -> None:
        """Read the stream until `stop`, through restarts of Redis."""
        self._broker.stop_reading = stop
        while not stop.is_set():
            # taskiq's own run_receiver_task retries without a pause and cannot end gracefully.
            receiver = Receiver(
                self._broker,
                max_async_tasks=self._concurrency,
                ack_type=AcknowledgeType.WHEN_EXECUTED,
                run_startup=True,  # declares the consumer group again if Redis has forgotten it
            )
            try:
                await receiver.listen(stop)
            except Exception as error:  # noqa: BLE001 - whatever it was, the worker must go on
                logger.bind(type="job", error=type(error).__name__).warning("broker is unreachable")
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), RECONNECT_SECONDS)

    async def stop(self) -> None:
        """Disconnect."""
        await self._broker.shutdown()

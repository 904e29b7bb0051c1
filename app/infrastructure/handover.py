"""Handing deliveries to the broker: as many as will be handled soon, and no more.

A lease tells a delivery that was lost from one that is under way, so nothing may wait longer than it. What
a worker has handed over and is not done is therefore bounded by what its slots can do: a burst waits in
the database as `pending`, without a lease, and costs nobody memory. Each worker counts what it handed over
itself, so more workers may have more under way, and one that dies takes no room with it.

What waits in this process, with the broker in memory, has its lease renewed as long as the process lives.
What could not be sent is sent first in the next round; while that fails nothing else is handed over.

Must never be relied on for being right: after a crash all of it is forgotten, and leases run out.
"""

import asyncio
import time
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress

from app.infrastructure import outbox
from app.infrastructure.broker import Broker
from app.infrastructure.database import Database
from app.infrastructure.outbox import Consumer

BATCH = 100
"""Rows that one transaction of relay or redelivery takes."""
DEPTH = 8
"""Deliveries that may be under way for each slot: while they take less than LEASE / 8 nothing is handed
over twice, and a slot does not run dry while the next ones are fetched."""
RELAY_SECONDS = 0.2
REDELIVER_SECONDS = 1.0
"""How often is looked for new events, and for deliveries that are due again."""


class HandOver:
    """What one worker has handed over, and its two ways to hand over more."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        consumers: Sequence[Consumer],
        *,
        concurrency: int,
    ) -> None:
        self._database = database
        self._broker = broker
        self._consumers = consumers
        # An event is relayed to all of its consumers at once.
        topics = [consumer.topic for consumer in consumers]
        self._fan_out = max(map(topics.count, topics), default=1)
        self._size = max(DEPTH * concurrency, self._fan_out)
        # For redelivery alone: a backlog of new events must not keep out what is older.
        self._reserve = self._size // 2
        self._leases: dict[uuid.UUID, float] = {}
        self._unsent: set[uuid.UUID] = set()
        self._one_at_a_time = asyncio.Lock()
        self._finished = 0
        self._much_finished = asyncio.Event()

    def finish(self, delivery_id: uuid.UUID) -> None:
        """Note that a delivery, of whichever worker, was handled here, with or without success."""
        self._leases.pop(delivery_id, None)
        self._finished += 1
        if self._finished >= self._size // 2:
            self._much_finished.set()

    async def relay(self) -> bool:
        """Hand new events over. Returns whether there may be more, after waiting for room for them."""
        async with self._one_at_a_time:
            await self._send()
            events = min(BATCH, await self._room(self._size) // self._fan_out)
            relayed = 0
            if events:
                async with self._database.transaction() as session:
                    relayed, ids = await outbox.relay(
                        session, consumers=self._consumers, limit=events
                    )
                await self._send(ids)
        if relayed < events:
            return False
        await self._until_room(self._size, RELAY_SECONDS)
        return True

    async def redeliver(self) -> bool:
        """Hand over again what is due. Returns whether there may be more, after waiting for room."""
        size = self._size + self._reserve
        async with self._one_at_a_time:
            await self._send()
            await self._renew()
            room = min(BATCH, await self._room(size))
            ids: list[uuid.UUID] = []
            if room:
                async with self._database.transaction() as session:
                    ids = await outbox.redeliver(session, limit=room)
                await self._send(ids)
        if len(ids) < room:
            return False
        await self._until_room(size, REDELIVER_SECONDS)
        return True

    async def _send(self, ids: Collection[uuid.UUID] = ()) -> None:
        # The others were handled meanwhile, or belong to whoever finds their lease over.
        self._forget_what_is_over()
        self._unsent &= self._leases.keys()
        self._note_lease(ids)
        self._unsent.update(ids)
        if self._unsent:
            await self._broker.send(*self._unsent)
            self._unsent.clear()

    def _forget_what_is_over(self) -> None:
        moment = time.monotonic()
        self._leases = {one: ends for one, ends in self._leases.items() if ends > moment}

    def _note_lease(self, ids: Collection[uuid.UUID]) -> None:
        ends = time.monotonic() + outbox.LEASE.total_seconds()
        self._leases.update(dict.fromkeys(ids, ends))

    async def _renew(self) -> None:
        soon = time.monotonic() + outbox.LEASE.total_seconds() / 2
        ids = [one for one in self._broker.waiting() if self._leases.get(one, 0.0) < soon]
        if ids:
            async with self._database.transaction() as session:
                await outbox.renew(session, ids)
            self._note_lease(ids)

    async def _room(self, size: int) -> int:
        """Return for how many more there is room among `size`."""
        self._finished = 0
        self._much_finished.clear()
        self._forget_what_is_over()
        elsewhere = self._leases.keys() - self._broker.waiting() - self._unsent
        if elsewhere and len(self._leases) > size // 2:
            # Other workers may have handled them.
            async with self._database.transaction() as session:
                still = await outbox.leased(session, elsewhere)
            for delivery_id in elsewhere - still:
                self._leases.pop(delivery_id, None)
        return max(0, size - len(self._leases))

    async def _until_room(self, size: int, seconds: float) -> None:
        if size - len(self._leases) < self._fan_out:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._much_finished.wait(), seconds)

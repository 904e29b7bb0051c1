"""What is handed over is bounded: the rest waits in the database, and nothing waits longer than its lease."""

import asyncio
import datetime as dt
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Set

import pytest
import pytest_asyncio
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure import handover, outbox
from app.infrastructure.database import Database, now
from app.infrastructure.handover import DEPTH, HandOver
from app.infrastructure.outbox import Consumer, Message, OutboxDelivery, OutboxMessage
from tests.service import test_settings

SIZE = DEPTH  # of one slot
A_LONG_LEASE = dt.timedelta(hours=1)


class Postbox:
    """A broker that keeps what it is sent; it may be away, or take only the first few of a batch."""

    def __init__(self) -> None:
        self.sent: list[uuid.UUID] = []
        self.here: set[uuid.UUID] = set()
        self.takes: int | None = None

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return

    async def consume(self, stop: asyncio.Event) -> None:
        await stop.wait()

    async def send(self, *delivery_ids: uuid.UUID) -> None:
        self.sent += delivery_ids[: self.takes]
        if self.takes is not None:
            raise ConnectionError

    def waiting(self) -> Set[uuid.UUID]:
        return self.here


async def _do_nothing(session: AsyncSession, message: Message) -> None:
    return


def consumers(number: int = 1) -> list[Consumer]:
    return [Consumer(f"consumer-{n}", "tea.brewed", _do_nothing) for n in range(number)]


@pytest_asyncio.fixture
async def database(service_database: str) -> AsyncIterator[Database]:
    """Both kinds of database."""
    opened = Database(test_settings(service_database))
    yield opened
    await opened.dispose()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody makes room here while a round waits for it."""
    monkeypatch.setattr(handover, "RELAY_SECONDS", 0.01)
    monkeypatch.setattr(handover, "REDELIVER_SECONDS", 0.01)
    monkeypatch.setattr(outbox, "LEASE", A_LONG_LEASE)


@pytest.fixture
def postbox() -> Postbox:
    return Postbox()


@pytest.fixture
def hand_over(database: Database, postbox: Postbox) -> HandOver:
    return HandOver(database, postbox, consumers(), concurrency=1)


async def brew(database: Database, events: int, topic: str = "tea.brewed") -> None:
    async with database.transaction() as session:
        for _ in range(events):
            outbox.publish(session, topic=topic, payload={})


async def pending(database: Database) -> int:
    async with database.transaction() as session:
        counts, _ = await outbox.depth(session)
    return counts["pending"]


async def leases_end(database: Database, *ids: uuid.UUID) -> None:
    async with database.transaction() as session:
        await session.execute(
            update(OutboxDelivery)
            .where(OutboxDelivery.id.in_(ids))
            .values(due_at=now() - dt.timedelta(seconds=1))
        )


async def handle(database: Database, *ids: uuid.UUID) -> None:
    """Do what another worker does."""
    async with database.transaction() as session:
        for delivery_id in ids:
            delivery = await outbox.claim(session, delivery_id)
            assert delivery is not None
            outbox.finish(delivery)


async def test_what_is_more_than_the_slots_will_soon_handle_stays_in_the_database(
    database: Database, postbox: Postbox, hand_over: HandOver
) -> None:
    await brew(database, SIZE + 5)
    assert await hand_over.relay(), "there is more"
    assert await hand_over.relay(), "there is still"
    assert len(postbox.sent) == SIZE
    assert await pending(database) == 5


async def test_each_delivery_that_was_handled_makes_room_for_another(
    database: Database, postbox: Postbox, hand_over: HandOver
) -> None:
    await brew(database, SIZE + 5)
    await hand_over.relay()
    for delivery_id in postbox.sent[:3]:
        hand_over.finish(delivery_id)
    await hand_over.relay()
    assert len(postbox.sent) == len(set(postbox.sent)) == SIZE + 3
    assert await pending(database) == 2


async def test_what_another_worker_has_handled_or_failed_makes_room_too(
    database: Database, postbox: Postbox, hand_over: HandOver
) -> None:
    await brew(database, SIZE + 5)
    await hand_over.relay()
    await handle(database, *postbox.sent[:2])
    async with database.transaction() as session:
        await outbox.fail(session, postbox.sent[2], RuntimeError())
    await hand_over.relay()
    assert len(postbox.sent) == SIZE + 3


async def test_a_lease_that_is_over_makes_room_too(
    database: Database, postbox: Postbox, hand_over: HandOver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LEASE", dt.timedelta(0))
    await brew(database, SIZE + 5)
    await hand_over.relay()
    await hand_over.relay()
    assert len(postbox.sent) == SIZE + 5


async def test_an_event_goes_to_all_of_its_consumers_at_once_however_many_there_are(
    database: Database, postbox: Postbox
) -> None:
    hand_over = HandOver(database, postbox, consumers(SIZE + 3), concurrency=1)
    await brew(database, 2)
    await hand_over.relay()
    await hand_over.relay()
    assert len(postbox.sent) == SIZE + 3
    assert await pending(database) == 1


async def test_events_that_nobody_consumes_take_no_room(
    database: Database, postbox: Postbox, hand_over: HandOver
) -> None:
    await brew(database, 3 * SIZE, "water.boiled")
    await brew(database, 1)
    while await hand_over.relay():
        pass
    assert len(postbox.sent) == 1
    assert await pending(database) == 0


async def test_a_backlog_of_new_events_does_not_keep_out_what_is_due_again(
    database: Database, postbox: Postbox, hand_over: HandOver
) -> None:
    await brew(database, 2 * SIZE)
    await hand_over.relay()
    async with database.transaction() as session:
        due = uuid.uuid4()
        message_id = await session.scalar(
            select(OutboxMessage.id).where(OutboxMessage.published_at.is_(None)).limit(1)
        )
        session.add(
            OutboxDelivery(
                id=due,
                message_id=message_id,
                consumer="consumer-of-before",
                state="retrying",
                due_at=now() - dt.timedelta(seconds=1),
                created_at=now(),
            )
        )
    assert not await hand_over.redeliver()
    assert postbox.sent[-1] == due
    async with database.transaction() as session:
        state = await session.scalar(select(OutboxDelivery.state).where(OutboxDelivery.id == due))
    assert state == "queued", "it is with the broker, and no longer waiting for its next attempt"


async def test_redelivery_is_bounded_as_well(
    database: Database, postbox: Postbox, hand_over: HandOver
) -> None:
    await brew(database, 10 * SIZE)
    async with database.transaction() as session:
        _, lost = await outbox.relay(session, consumers=consumers(), limit=10 * SIZE)
    await leases_end(database, *lost)
    assert await hand_over.redeliver()
    assert await hand_over.redeliver()
    assert len(postbox.sent) == SIZE + SIZE // 2


@pytest.mark.parametrize("taken", [0, 3])
async def test_what_could_not_be_sent_is_sent_in_the_next_round_and_nothing_else_before(
    database: Database, postbox: Postbox, hand_over: HandOver, taken: int
) -> None:
    await brew(database, SIZE // 2)
    postbox.takes = taken
    with pytest.raises(ConnectionError):
        await hand_over.relay()
    await brew(database, 1)
    for run in (hand_over.relay, hand_over.redeliver, hand_over.relay):
        with pytest.raises(ConnectionError):
            await run()
    assert await pending(database) == 1, "it waits in the database until the broker is back"
    postbox.takes = None
    postbox.sent.clear()
    await hand_over.relay()
    assert set(await _all(database)) == set(postbox.sent)
    postbox.sent.clear()
    await hand_over.relay()
    assert postbox.sent == []


async def _all(database: Database) -> list[uuid.UUID]:
    async with database.transaction() as session:
        return list((await session.scalars(select(OutboxDelivery.id))).all())


async def test_what_could_not_be_sent_is_left_alone_when_its_lease_is_over(
    database: Database, postbox: Postbox, hand_over: HandOver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then it belongs to the worker that finds it due."""
    monkeypatch.setattr(outbox, "LEASE", dt.timedelta(0))
    await brew(database, 1)
    postbox.takes = 0
    with pytest.raises(ConnectionError):
        await hand_over.relay()
    postbox.takes = None
    await hand_over.relay()
    assert postbox.sent == []
    await hand_over.redeliver()
    assert len(postbox.sent) == 1


async def test_what_waits_in_this_process_keeps_its_lease_and_what_waits_elsewhere_does_not(
    database: Database, postbox: Postbox, hand_over: HandOver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LEASE", dt.timedelta(seconds=0.2))
    await brew(database, 4)
    await hand_over.relay()
    here, gone = postbox.sent[:2], postbox.sent[2:]
    postbox.here.update(here)
    postbox.sent.clear()
    monkeypatch.setattr(outbox, "LEASE", A_LONG_LEASE)  # of the renewal
    await hand_over.redeliver()
    await asyncio.sleep(0.3)
    await hand_over.redeliver()
    assert Counter(postbox.sent) == Counter(gone)
    async with database.transaction() as session:
        waiting = await session.scalar(
            select(func.count())
            .select_from(OutboxDelivery)
            .where(OutboxDelivery.id.in_(here), OutboxDelivery.due_at > now() + A_LONG_LEASE / 2)
        )
    assert waiting == 2


async def test_a_delivery_that_failed_is_not_given_a_lease_while_it_waits_for_its_next_attempt(
    database: Database, postbox: Postbox, hand_over: HandOver
) -> None:
    await brew(database, 1)
    await hand_over.relay()
    async with database.transaction() as session:
        await outbox.fail(session, postbox.sent[0], RuntimeError())
        await outbox.renew(session, postbox.sent)
        (delivery,) = (await session.scalars(select(OutboxDelivery))).all()
    assert delivery.state == "retrying"
    assert delivery.due_at < now() + dt.timedelta(minutes=1)

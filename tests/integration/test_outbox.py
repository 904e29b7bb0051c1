"""The outbox in the database: events exist with their change, and each delivery is somebody's once."""

import asyncio
import datetime as dt
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import pytest
import pytest_asyncio
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure import outbox
from app.infrastructure.database import Database, now
from app.infrastructure.outbox import (
    Consumer,
    DeliveryState,
    Message,
    OutboxDelivery,
    OutboxMessage,
)
from app.observability.context import RequestContext, bind_context
from tests.service import ServiceClient, open_service, test_settings


async def _do_nothing(session: AsyncSession, message: Message) -> None:
    return


FIRST = Consumer("first", "tea.brewed", _do_nothing)
SECOND = Consumer("second", "tea.brewed", _do_nothing)
OTHER = Consumer("other", "coffee.brewed", _do_nothing)


@pytest_asyncio.fixture
async def database(service_database: str) -> AsyncIterator[Database]:
    """Both kinds of database."""
    opened = Database(test_settings(service_database))
    yield opened
    await opened.dispose()


@pytest_asyncio.fixture
async def postgres(postgres_service_database: str) -> AsyncIterator[Database]:
    """PostgreSQL, for what is about several processes at once."""
    opened = Database(test_settings(postgres_service_database))
    yield opened
    await opened.dispose()


async def brew(database: Database, events: int = 1, *, topic: str = "tea.brewed") -> None:
    async with database.transaction() as session:
        for number in range(events):
            outbox.publish(session, topic=topic, payload={"number": number})


async def relay(database: Database, *consumers: Consumer, limit: int = 100) -> list[uuid.UUID]:
    async with database.transaction() as session:
        _, ids = await outbox.relay(session, consumers=consumers, limit=limit)
    return ids


async def messages(database: Database) -> Sequence[OutboxMessage]:
    async with database.transaction() as session:
        return (await session.scalars(select(OutboxMessage))).all()


async def deliveries(database: Database) -> Sequence[OutboxDelivery]:
    async with database.transaction() as session:
        return (await session.scalars(select(OutboxDelivery))).all()


async def pass_time(database: Database) -> None:
    """Let every lease and back-off be over."""
    async with database.transaction() as session:
        await session.execute(update(OutboxDelivery).values(due_at=now() - dt.timedelta(seconds=1)))


async def redeliver(database: Database) -> list[uuid.UUID]:
    async with database.transaction() as session:
        return await outbox.redeliver(session, limit=100)


async def fail(database: Database, delivery_id: uuid.UUID) -> DeliveryState | None:
    async with database.transaction() as session:
        return await outbox.fail(session, delivery_id, RuntimeError("holds a secret"))


async def test_an_event_exists_when_its_transaction_has_committed(database: Database) -> None:
    with bind_context(RequestContext("request-of-the-event")):
        await brew(database)
    (message,) = await messages(database)
    assert (message.topic, message.payload) == ("tea.brewed", {"number": 0})
    assert message.headers["request_id"] == "request-of-the-event"
    assert message.published_at is None


async def test_no_event_exists_when_its_transaction_was_rolled_back(database: Database) -> None:
    class Spilt(Exception):
        pass

    with suppress(Spilt):
        async with database.transaction() as session:
            outbox.publish(session, topic="tea.brewed", payload={})
            await session.flush()
            raise Spilt
    assert await messages(database) == []


async def test_a_refused_request_leaves_no_event_and_an_accepted_one_leaves_its_own(
    service_database: str, database: Database
) -> None:
    async with open_service(service_database) as service:
        person = await service.person()
        refused = await person.post(
            "/v1/orders",
            {"currency": "EUR", "lines": [{"sku": "TEA", "quantity": 1, "unit_amount": 0}]},
        )
        assert refused.status_code == 422
        order = await person.order()
        again = ServiceClient(service.http)
        again.email = person.email
        with pytest.raises(AssertionError, match="email_taken"):
            await again.register()
    found = Counter(message.topic for message in await messages(database))
    assert found == {"user.registered": 1, "order.placed": 1}
    (placed,) = [message for message in await messages(database) if message.topic == "order.placed"]
    assert placed.payload["order_id"] == order["id"]


async def test_each_event_becomes_one_delivery_for_each_consumer_of_its_topic(
    database: Database,
) -> None:
    await brew(database)
    await brew(database, topic="water.boiled")
    ids = await relay(database, FIRST, SECOND, OTHER)
    found = await deliveries(database)
    assert {delivery.id for delivery in found} == set(ids)
    assert sorted(delivery.consumer for delivery in found) == ["first", "second"]
    assert all(message.published_at is not None for message in await messages(database))
    assert await relay(database, FIRST, SECOND, OTHER) == []


async def test_a_relay_takes_no_more_than_its_limit_and_the_oldest_first(
    database: Database,
) -> None:
    for number in range(5):
        async with database.transaction() as session:
            outbox.publish(session, topic="tea.brewed", payload={"number": number})
    await relay(database, FIRST, limit=3)
    unpublished = [message for message in await messages(database) if message.published_at is None]
    assert sorted(message.payload["number"] for message in unpublished) == [3, 4]


async def test_a_second_relay_skips_what_the_first_one_is_at_and_does_not_wait_for_it(
    postgres: Database,
) -> None:
    await brew(postgres, 3)
    async with postgres.sessions() as first, postgres.sessions() as second:
        taken, _ = await outbox.relay(first, consumers=[FIRST], limit=2)
        async with asyncio.timeout(2):  # less than the lock time-out: waiting would be seen
            left, _ = await outbox.relay(second, consumers=[FIRST], limit=10)
        await second.commit()
        await first.commit()
    assert (taken, left) == (2, 1)
    assert len(await deliveries(postgres)) == 3


async def test_relays_side_by_side_make_one_delivery_of_each_event(postgres: Database) -> None:
    await brew(postgres, 200)

    async def one_relay() -> int:
        made = 0
        async with asyncio.timeout(30):
            while any(message.published_at is None for message in await messages(postgres)):
                made += len(await relay(postgres, FIRST, limit=7))
        return made

    made = await asyncio.gather(*(one_relay() for _ in range(4)))
    found = await deliveries(postgres)
    assert sum(made) == len(found) == len({delivery.message_id for delivery in found}) == 200


async def test_the_database_itself_refuses_a_second_delivery_of_one_event_to_one_consumer(
    database: Database,
) -> None:
    await brew(database)
    await relay(database, FIRST)
    async with database.transaction() as session:
        await session.execute(update(OutboxMessage).values(published_at=None))
    with pytest.raises(Exception, match=r"(?i)unique"):
        await relay(database, FIRST)
    assert len(await deliveries(database)) == 1


async def test_a_delivery_is_handed_over_again_when_its_lease_is_over_and_not_before(
    database: Database,
) -> None:
    await brew(database)
    (delivery_id,) = await relay(database, FIRST)
    (queued,) = await deliveries(database)
    assert queued.due_at - queued.created_at == outbox.LEASE
    assert await redeliver(database) == []
    await pass_time(database)
    assert await redeliver(database) == [delivery_id]
    assert await redeliver(database) == [], "the lease was renewed"


async def test_a_delivery_that_a_worker_is_busy_with_is_not_handed_over_again(
    postgres: Database,
) -> None:
    await brew(postgres)
    (delivery_id,) = await relay(postgres, FIRST)
    await pass_time(postgres)
    async with postgres.transaction() as session:
        assert await outbox.claim(session, delivery_id) is not None
        assert await redeliver(postgres) == []
    assert await redeliver(postgres) == [delivery_id]


async def test_of_two_claims_at_once_one_gets_the_delivery_and_the_other_does_not_wait(
    postgres: Database,
) -> None:
    await brew(postgres)
    (delivery_id,) = await relay(postgres, FIRST)
    async with postgres.sessions() as first, postgres.sessions() as second:
        mine = await outbox.claim(first, delivery_id)
        assert mine is not None
        async with asyncio.timeout(2):
            assert await outbox.claim(second, delivery_id) is None
        outbox.finish(mine)
        await first.commit()
        assert await outbox.claim(second, delivery_id) is None, "it is done"


async def test_a_finished_delivery_cannot_be_claimed_failed_or_handed_over_again(
    database: Database,
) -> None:
    await brew(database)
    (delivery_id,) = await relay(database, FIRST)
    async with database.transaction() as session:
        delivery = await outbox.claim(session, delivery_id)
        assert delivery is not None
        outbox.finish(delivery)
    await pass_time(database)
    async with database.transaction() as session:
        assert await outbox.claim(session, delivery_id) is None
    assert await redeliver(database) == []
    assert await fail(database, delivery_id) is None
    (done,) = await deliveries(database)
    assert (done.state, done.attempts) == ("done", 1)


async def test_failures_are_retried_after_growing_waits_and_end_as_a_dead_letter(
    database: Database,
) -> None:
    await brew(database)
    (delivery_id,) = await relay(database, FIRST)
    waits: list[float] = []
    for _ in range(outbox.MAX_ATTEMPTS - 1):
        failed_at = now()
        assert await fail(database, delivery_id) is DeliveryState.RETRYING
        (delivery,) = await deliveries(database)
        waits.append((delivery.due_at - failed_at).total_seconds())
        assert await redeliver(database) == [], "the back-off is not over"
        await pass_time(database)
        assert await redeliver(database) == [delivery_id]
    assert waits == pytest.approx([2, 4, 8, 16, 32], abs=1.5)
    assert await fail(database, delivery_id) is DeliveryState.DEAD
    await pass_time(database)
    assert await redeliver(database) == [], "nobody tries a dead letter again by himself"
    (dead,) = await deliveries(database)
    assert dead.attempts == outbox.MAX_ATTEMPTS == 6
    assert dead.last_error == "RuntimeError", "the type and not the text, which may hold anything"


async def test_a_replayed_dead_letter_is_due_at_once_with_a_fresh_set_of_attempts(
    database: Database,
) -> None:
    await brew(database, 2)
    dead_id, other_id = await relay(database, FIRST)
    for _ in range(outbox.MAX_ATTEMPTS):
        await fail(database, dead_id)
    async with database.transaction() as session:
        assert await outbox.replay_dead(session) == 1
    assert await redeliver(database) == [dead_id]
    for _ in range(outbox.MAX_ATTEMPTS - 1):
        assert await fail(database, dead_id) is DeliveryState.RETRYING
    states = {delivery.id: delivery.state for delivery in await deliveries(database)}
    assert states == {dead_id: "retrying", other_id: "queued"}


async def test_the_depth_counts_by_state_and_ages_by_the_oldest_event_that_waits(
    database: Database,
) -> None:
    async with database.transaction() as session:
        nothing = await outbox.depth(session)
    assert nothing == ({"pending": 0, "queued": 0, "retrying": 0, "dead": 0}, 0.0)

    await brew(database, 4)
    done_id, dead_id, retrying_id, queued_id = await relay(database, FIRST)
    await brew(database)  # pending
    async with database.transaction() as session:
        delivery = await outbox.claim(session, done_id)
        assert delivery is not None
        outbox.finish(delivery)
    for _ in range(outbox.MAX_ATTEMPTS):
        await fail(database, dead_id)
    await fail(database, retrying_id)
    ages = {done_id: 4000, dead_id: 3000, retrying_id: 2000, queued_id: 1000}
    for delivery in await deliveries(database):
        async with database.transaction() as session:
            # The event is old; its delivery is new, as after an outage of all relays.
            await session.execute(
                update(OutboxMessage)
                .where(OutboxMessage.id == delivery.message_id)
                .values(created_at=now() - dt.timedelta(seconds=ages[delivery.id]))
            )
    async with database.transaction() as session:
        counts, age = await outbox.depth(session)
    assert counts == {"pending": 1, "queued": 1, "retrying": 1, "dead": 1}
    assert age == pytest.approx(2000, abs=30), "neither the done nor the dead one"


async def test_the_age_counts_an_event_that_no_relay_has_seen(database: Database) -> None:
    await brew(database)
    async with database.transaction() as session:
        await session.execute(
            update(OutboxMessage).values(created_at=now() - dt.timedelta(seconds=500))
        )
        counts, age = await outbox.depth(session)
    assert counts["pending"] == 1
    assert age == pytest.approx(500, abs=30)


async def test_old_events_are_purged_with_their_deliveries_unless_something_is_unfinished(
    database: Database,
) -> None:
    await brew(database, 4)
    await relay(database, FIRST)
    old, kept = now() - outbox.KEEP - dt.timedelta(hours=1), now() - outbox.KEEP / 2
    states = {
        0: (DeliveryState.DONE, old),
        1: (DeliveryState.DONE, kept),
        2: (DeliveryState.DEAD, old),
        3: (DeliveryState.RETRYING, old),
    }
    await brew(database, topic="water.boiled")  # without consumers: finished as soon as relayed
    await relay(database, FIRST)
    for message in await messages(database):
        number = message.payload["number"] if message.topic == "tea.brewed" else 0
        state, published_at = states[number]
        async with database.transaction() as session:
            await session.execute(
                update(OutboxMessage)
                .where(OutboxMessage.id == message.id)
                .values(published_at=published_at)
            )
            await session.execute(
                update(OutboxDelivery)
                .where(OutboxDelivery.message_id == message.id)
                .values(state=state)
            )
    await brew(database, topic="not.relayed")
    async with database.transaction() as session:
        await session.execute(
            update(OutboxMessage).where(OutboxMessage.topic == "not.relayed").values(created_at=old)
        )
    async with database.transaction() as session:
        assert await outbox.purge_finished(session) == 2
    left = await messages(database)
    assert sorted(
        message.payload["number"] for message in left if message.topic == "tea.brewed"
    ) == [1, 2, 3]
    assert [message.topic for message in left if message.topic != "tea.brewed"] == ["not.relayed"]
    assert {delivery.message_id for delivery in await deliveries(database)} == {
        message.id for message in left if message.topic == "tea.brewed"
    }

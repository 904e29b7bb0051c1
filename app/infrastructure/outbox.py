"""The transactional outbox: what must happen later is stored with what has happened now.

A service calls `publish` inside its transaction, so an event exists if and only if the change does.
The worker's relay turns each event into one delivery per consumer and hands those to the broker; a
consumer's effects and the mark "done" are committed together. A delivery that was handed over but not
done within its lease is handed over again, so the promise "at least once" ends at consumption, not at
publication: a broker that forgets, a worker that is killed or a lost acknowledgement delay a message,
and cannot lose it. The row lock and the mark make the effects happen once. How many are handed over at a
time is for handover.py to say: an event that no relay has seen may wait here as long as it must.

Any number of relays and workers may run: FOR UPDATE SKIP LOCKED gives each row to one of them.
(Source of the pattern: microservices.io, "Transactional outbox" and "Idempotent consumer".)
"""

import datetime as dt
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from prometheus_client import Gauge
from sqlalchemy import (
    JSON,
    ForeignKey,
    Index,
    Select,
    String,
    UniqueConstraint,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.infrastructure.database import Base, PrimaryKey, now
from app.infrastructure.purge import delete_oldest
from app.observability.context import current_context
from app.observability.tracing import inject_trace, publish_span

LEASE = dt.timedelta(seconds=30)
"""How long a delivery may be with the broker and a worker before it is handed over again."""
MAX_ATTEMPTS = 6
"""With the back-off below a message is tried for about a minute, then it is a dead letter."""

KEEP = dt.timedelta(days=7)
"""How long finished messages stay, for whoever has to find out what happened."""

outbox_messages = Gauge(
    "outbox_messages",
    "Messages not yet handled, by state, sampled from the database by the worker.",
    ["state"],
    multiprocess_mode="livemostrecent",
)
outbox_oldest_age_seconds = Gauge(
    "outbox_oldest_age_seconds",
    "Age of the oldest message not yet handled, dead letters excepted.",
    multiprocess_mode="livemostrecent",
)


def retry_delay(attempts: int) -> dt.timedelta:
    """Return the wait after the given number of failed attempts: 2, 4, 8, 16, 32 seconds."""
    return dt.timedelta(seconds=2**attempts)


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    QUEUED = "queued"
    RETRYING = "retrying"
    DONE = "done"
    DEAD = "dead"


class OutboxMessage(Base):
    """A domain event, written in the transaction that made it true."""

    __tablename__ = "outbox_messages"

    id: Mapped[PrimaryKey]
    topic: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    headers: Mapped[dict[str, str]] = mapped_column(JSON)
    created_at: Mapped[dt.datetime]
    published_at: Mapped[dt.datetime | None]


Index(
    "ix_outbox_messages_unpublished",
    OutboxMessage.created_at,
    postgresql_where=OutboxMessage.published_at.is_(None),
    sqlite_where=OutboxMessage.published_at.is_(None),
)
Index(
    "ix_outbox_messages_published",
    OutboxMessage.published_at,
    postgresql_where=OutboxMessage.published_at.is_not(None),
    sqlite_where=OutboxMessage.published_at.is_not(None),
)


class OutboxDelivery(Base):
    """One event on its way to one consumer: queue entry, inbox and dead letter in one row."""

    __tablename__ = "outbox_deliveries"
    __table_args__ = (UniqueConstraint("message_id", "consumer"),)

    id: Mapped[PrimaryKey]
    message_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("outbox_messages.id", ondelete="CASCADE")
    )
    consumer: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[dt.datetime]
    created_at: Mapped[dt.datetime]
    finished_at: Mapped[dt.datetime | None]
    last_error: Mapped[str | None] = mapped_column(String(200))


# Written into the statements, never sent as parameters: a plan made before the values are known cannot
# use a partial index, and nearly every row of this table is done.
_QUEUED = literal_column(f"'{DeliveryState.QUEUED}'", String)
_RETRYING = literal_column(f"'{DeliveryState.RETRYING}'", String)
_DEAD = literal_column(f"'{DeliveryState.DEAD}'", String)
_IS_OPEN = OutboxDelivery.state.in_((_QUEUED, _RETRYING))
_IS_DEAD = OutboxDelivery.state == _DEAD

Index(
    "ix_outbox_deliveries_open",
    OutboxDelivery.due_at,
    postgresql_where=_IS_OPEN,
    sqlite_where=_IS_OPEN,
)
Index(
    "ix_outbox_deliveries_dead",
    OutboxDelivery.finished_at,
    postgresql_where=_IS_DEAD,
    sqlite_where=_IS_DEAD,
)


@dataclass(frozen=True, slots=True)
class Message:
    """An event as a consumer sees it."""

    id: uuid.UUID
    topic: str
    payload: Mapping[str, Any]
    headers: Mapping[str, str]
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Found:
    """A delivery: for whom, how often it was tried, and what it brings."""

    consumer: str
    attempts: int
    message: Message


@dataclass(frozen=True, slots=True)
class Consumer:
    """What happens on an event. `handle` works in the given transaction and never commits."""

    name: str
    topic: str
    handle: Callable[[AsyncSession, Message], Awaitable[None]]


_SYNTHETIC = "synthetic"


def is_synthetic_message(message: Message) -> bool:
    """Whether the monitoring caused it: what is done about it is no business either."""
    return message.headers.get(_SYNTHETIC) == "true"


def publish(session: AsyncSession, *, topic: str, payload: Mapping[str, Any]) -> None:
    """Store an event in the transaction of `session`, with the trace, request and mark it came from.

    Args:
        topic: Name of the event, such as `payment.captured`.
        payload: JSON-serialisable ids and amounts; never personal data, it is kept for a while.
    """
    message_id = uuid.uuid4()
    headers: dict[str, str] = {}
    with publish_span(topic, str(message_id)):
        inject_trace(headers)
    if context := current_context():
        headers["request_id"] = context.request_id
        if context.synthetic:
            headers[_SYNTHETIC] = "true"
    session.add(
        OutboxMessage(
            id=message_id,
            topic=topic,
            payload=dict(payload),
            headers=headers,
            created_at=now(),
            published_at=None,
        )
    )


async def relay(
    session: AsyncSession, *, consumers: Sequence[Consumer], limit: int
) -> tuple[int, list[uuid.UUID]]:
    """Turn up to `limit` unpublished events into deliveries.

    Returns:
        How many events there were, and the ids of the deliveries to hand to the broker.

    Hand them over after the commit: a crash in between leaves rows whose lease will run out.
    """
    moment = now()
    oldest = (
        select(OutboxMessage.id)
        .where(OutboxMessage.published_at.is_(None))
        .order_by(OutboxMessage.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("oldest")
    )
    found = await session.execute(
        update(OutboxMessage)
        .where(OutboxMessage.id.in_(select(oldest.c.id)))
        .values(published_at=moment)
        .returning(OutboxMessage.id, OutboxMessage.topic)
        .execution_options(synchronize_session=False)
    )
    events = found.all()
    deliveries: list[dict[str, Any]] = [
        {
            "id": uuid.uuid4(),
            "message_id": message_id,
            "consumer": consumer.name,
            "state": DeliveryState.QUEUED,
            "due_at": moment + LEASE,
            "created_at": moment,
        }
        for message_id, topic in events
        for consumer in consumers
        if consumer.topic == topic
    ]
    if deliveries:
        await session.execute(insert(OutboxDelivery), deliveries)
    return len(events), [delivery["id"] for delivery in deliveries]


async def redeliver(session: AsyncSession, *, limit: int) -> list[uuid.UUID]:
    """Give a new lease to up to `limit` deliveries that are due again; return their ids.

    Due are those whose back-off after a failure is over and those that were handed over, yet never
    finished. A delivery that a worker is busy with is locked by it, and so skipped here.
    """
    due = (
        select(OutboxDelivery.id)
        .where(_IS_OPEN, OutboxDelivery.due_at <= now())
        .order_by(OutboxDelivery.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return await _lease(session, due)


async def renew(session: AsyncSession, ids: Collection[uuid.UUID]) -> None:
    """Prolong the lease of deliveries that wait with a living worker; what one is busy with needs none."""
    waiting = (
        select(OutboxDelivery.id)
        .where(OutboxDelivery.id.in_(_padded(ids)), OutboxDelivery.state == _QUEUED)
        .with_for_update(skip_locked=True)
    )
    await _lease(session, waiting)


async def _lease(session: AsyncSession, chosen: Select[uuid.UUID]) -> list[uuid.UUID]:
    # A CTE that locks is evaluated once; a subquery with a limit might be again for each row.
    leased_now = await session.scalars(
        update(OutboxDelivery)
        .where(OutboxDelivery.id.in_(select(chosen.cte("chosen").c.id)))
        .values(state=_QUEUED, due_at=now() + LEASE)
        .returning(OutboxDelivery.id)
        .execution_options(synchronize_session=False)
    )
    return list(leased_now.all())


async def leased(session: AsyncSession, ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return which of `ids` are still with the broker or a worker, and their lease not over."""
    found = await session.scalars(
        select(OutboxDelivery.id).where(
            OutboxDelivery.id.in_(_padded(ids)),
            OutboxDelivery.state == _QUEUED,
            OutboxDelivery.due_at > now(),
        )
    )
    return set(found.all())


def _padded(ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Repeat an id up to the next power of two: few statements, each prepared once."""
    several = list(ids)
    return several + several[:1] * ((1 << (len(several) - 1).bit_length()) - len(several))


async def read(session: AsyncSession, delivery_id: uuid.UUID) -> Found | None:
    """Return a delivery, finished or not, with its message and without locking it, or None."""
    row = (
        await session.execute(
            select(OutboxDelivery, OutboxMessage)
            .join(OutboxMessage, OutboxMessage.id == OutboxDelivery.message_id)
            .where(OutboxDelivery.id == delivery_id)
        )
    ).one_or_none()
    if row is None:
        return None
    delivery, message = row
    return Found(delivery.consumer, delivery.attempts, _read(message))


def _read(row: OutboxMessage) -> Message:
    return Message(row.id, row.topic, row.payload, row.headers, row.created_at)


async def claim(session: AsyncSession, delivery_id: uuid.UUID) -> OutboxDelivery | None:
    """Lock a delivery for this transaction, or return None when it is finished or someone's."""
    delivery: OutboxDelivery | None = await session.scalar(
        select(OutboxDelivery)
        .where(OutboxDelivery.id == delivery_id, _IS_OPEN)
        .with_for_update(skip_locked=True)
    )
    return delivery


async def claim_with_message(
    session: AsyncSession, delivery_id: uuid.UUID
) -> tuple[OutboxDelivery, Found] | None:
    """Do what `claim` does and what `read` does, in one statement; None where `claim` returns it."""
    row = (
        await session.execute(
            select(OutboxDelivery, OutboxMessage)
            .join(OutboxMessage, OutboxMessage.id == OutboxDelivery.message_id)
            .where(OutboxDelivery.id == delivery_id, _IS_OPEN)
            .with_for_update(skip_locked=True, of=OutboxDelivery)
        )
    ).one_or_none()
    if row is None:
        return None
    delivery, message = row
    return delivery, Found(delivery.consumer, delivery.attempts, _read(message))


def finish(delivery: OutboxDelivery) -> None:
    """Mark a delivery done, in the transaction of its effects."""
    delivery.attempts += 1
    delivery.state = DeliveryState.DONE
    delivery.finished_at = now()


async def fail(
    session: AsyncSession, delivery_id: uuid.UUID, error: BaseException
) -> DeliveryState | None:
    """Note a failed attempt: again after a back-off, or a dead letter after MAX_ATTEMPTS.

    Returns the new state, or None when another worker finished the delivery meanwhile.
    """
    delivery = await claim(session, delivery_id)
    if delivery is None:
        return None
    delivery.attempts += 1
    delivery.last_error = type(error).__name__  # the text may hold what must not be stored
    if delivery.attempts >= MAX_ATTEMPTS:
        delivery.state = DeliveryState.DEAD
        delivery.finished_at = now()
        return DeliveryState.DEAD
    delivery.state = DeliveryState.RETRYING
    delivery.due_at = now() + retry_delay(delivery.attempts)
    return DeliveryState.RETRYING


async def list_dead(session: AsyncSession, *, limit: int) -> list[tuple[OutboxDelivery, Message]]:
    """Return up to `limit` dead letters, the latest first."""
    rows = await session.execute(
        select(OutboxDelivery, OutboxMessage)
        .join(OutboxMessage, OutboxMessage.id == OutboxDelivery.message_id)
        .where(_IS_DEAD)
        .order_by(OutboxDelivery.finished_at.desc())
        .limit(limit)
    )
    return [(delivery, _read(message)) for delivery, message in rows]


async def replay_dead(session: AsyncSession) -> int:
    """Give every dead letter a fresh set of attempts; return how many there were."""
    dead = await session.scalars(
        select(OutboxDelivery).where(_IS_DEAD).with_for_update(skip_locked=True)
    )
    deliveries = dead.all()
    for delivery in deliveries:
        delivery.state = DeliveryState.RETRYING
        delivery.attempts = 0
        delivery.finished_at = None
        delivery.due_at = now()
    return len(deliveries)


async def depth(session: AsyncSession) -> tuple[dict[str, int], float]:
    """Return how many messages are in each state that is not done, and the oldest one's age.

    Returns:
        Counts by state (`pending` is an event that no relay has seen yet), and the age in seconds of
        the oldest unfinished message, dead letters excepted (they wait for a person), or 0.0.
    """
    counts = {"pending": 0, "queued": 0, "retrying": 0, "dead": 0}
    pending = (
        await session.execute(
            select(func.count(), func.min(OutboxMessage.created_at)).where(
                OutboxMessage.published_at.is_(None)
            )
        )
    ).one()
    counts["pending"] = pending[0]
    oldest: list[dt.datetime | None] = [pending[1]]
    rows = await session.execute(
        # The message's age, not the delivery's: a relay that was away for an hour hides nothing.
        select(OutboxDelivery.state, func.count(), func.min(OutboxMessage.created_at))
        .join(OutboxMessage, OutboxMessage.id == OutboxDelivery.message_id)
        .where(_IS_OPEN)
        .group_by(OutboxDelivery.state)
    )
    for state, count, created_at in rows:
        counts[state] = count
        oldest.append(created_at)
    dead = await session.scalar(select(func.count()).select_from(OutboxDelivery).where(_IS_DEAD))
    counts["dead"] = dead or 0
    moments = [moment for moment in oldest if moment is not None]
    age = (now() - min(moments)).total_seconds() if moments else 0.0
    return counts, max(0.0, age)


async def sample(session: AsyncSession) -> None:
    """Find the depth and publish it."""
    set_depth(*await depth(session))


def set_depth(counts: Mapping[str, int], oldest_age_seconds: float) -> None:
    """Publish what `depth` has found."""
    for state, count in counts.items():
        outbox_messages.labels(state).set(count)
    outbox_oldest_age_seconds.set(oldest_age_seconds)


async def purge_finished(session: AsyncSession) -> int:
    """Delete events that were published KEEP ago and have no unfinished or dead delivery.

    Returns:
        How many: purge.PURGE_BATCH at most, the oldest first. Then there may be more.
    """
    published = OutboxMessage.published_at
    delivery = select(OutboxDelivery.id).where(OutboxDelivery.message_id == OutboxMessage.id)
    # Each by its own index: "not done" has none, and would be looked for in all that is done.
    is_open, is_dead = delivery.where(_IS_OPEN).exists(), delivery.where(_IS_DEAD).exists()
    return await delete_oldest(session, published, published < now() - KEEP, ~is_open, ~is_dead)

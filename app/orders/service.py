"""What can be done with orders. Functions work in the given session and never commit."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from loguru import logger
from sqlalchemy import String, Uuid, func, literal, literal_column, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.infrastructure import outbox
from app.infrastructure.database import UtcDateTime, now
from app.observability.business import after_commit, count_feature
from app.orders import kpis
from app.orders.errors import OrderNotFound, PaymentInProgress, TotalOutOfRange
from app.orders.models import Order, OrderLine
from app.orders.pagination import Place
from app.orders.schemas import OrderCreate, OrderRead
from app.orders.states import OrderStatus, check_transition
from app.users import service as users

MAX_TOTAL = 1_000_000_000
"""Minor units: what the payment provider takes in one charge."""
COUNT_SECONDS = 60
"""What counting all orders may take: enough for hundreds of millions."""


async def create_order(session: AsyncSession, *, user_id: uuid.UUID, data: OrderCreate) -> Order:
    """Store a new order and its event.

    Raises:
        TotalOutOfRange: The lines come to nothing, or to more than MAX_TOTAL.
    """
    total = sum(line.quantity * line.unit_amount for line in data.lines)
    if not 1 <= total <= MAX_TOTAL:
        raise TotalOutOfRange(f"The total must be between 1 and {MAX_TOTAL} minor units.")
    moment = now()
    order = Order(
        id=uuid.uuid4(),
        user_id=user_id,
        status=OrderStatus.PENDING,
        currency=data.currency,
        total_amount=total,
        created_at=moment,
        updated_at=moment,
        lines=[
            OrderLine(position=position, **line.model_dump())
            for position, line in enumerate(data.lines)
        ],
    )
    session.add(order)
    outbox.publish(
        session,
        topic="order.placed",
        payload={
            "order_id": str(order.id),
            "user_id": str(user_id),
            "total_amount": total,
            "currency": order.currency,
        },
    )

    def placed() -> None:
        kpis.count_created(currency=order.currency, total_amount=total)
        logger.bind(
            type="business", order_id=str(order.id), total_amount=total, currency=order.currency
        ).info("order placed")

    after_commit(session, placed)
    return order


async def get_order(session: AsyncSession, *, order_id: uuid.UUID, user_id: uuid.UUID) -> Order:
    """Return one order of a user, with its lines.

    Raises:
        OrderNotFound: None with this id, or not this user's.
    """
    order = await session.scalar(
        select(Order)
        .where(Order.id == order_id, Order.user_id == user_id)
        .options(selectinload(Order.lines))
    )
    if order is None:
        raise OrderNotFound
    return order


async def list_orders(
    session: AsyncSession, *, user_id: uuid.UUID, limit: int, after: Place | None
) -> Sequence[Order]:
    """Return up to `limit` orders of a user, newest first, from behind the place `after`."""
    query = (
        select(Order)
        .where(Order.user_id == user_id)
        .order_by(Order.created_at.desc(), Order.id.desc())
        .limit(limit)
        .options(selectinload(Order.lines))
    )
    if after is not None:
        place = tuple_(literal(after.created_at, UtcDateTime()), literal(after.id, Uuid()))
        query = query.where(tuple_(Order.created_at, Order.id) < place)
    return (await session.scalars(query)).all()


async def cancel_order(session: AsyncSession, *, order_id: uuid.UUID, user_id: uuid.UUID) -> Order:
    """Cancel a pending order.

    Raises:
        OrderNotFound: None with this id, or not this user's.
        PaymentInProgress: A payment's outcome is still open.
        IllegalTransition: It is no longer pending.
    """
    await lock_order(session, order_id=order_id, user_id=user_id)
    order = await get_order(session, order_id=order_id, user_id=user_id)
    if order.payment_in_progress:
        raise PaymentInProgress
    _advance(session, order, OrderStatus.CANCELLED)
    after_commit(session, lambda: count_feature("order_cancel"))
    return order


async def hold_for_payment(
    session: AsyncSession, *, order_id: uuid.UUID, user_id: uuid.UUID
) -> Order:
    """Reserve a pending order for one payment, until `mark_paid` or `release`.

    Raises:
        OrderNotFound: None with this id, or not this user's.
        PaymentInProgress: Another payment holds it.
        IllegalTransition: It is not pending.
    """
    order = await lock_order(session, order_id=order_id, user_id=user_id)
    if order.payment_in_progress:
        raise PaymentInProgress
    check_transition(OrderStatus(order.status), OrderStatus.PAID)
    order.payment_in_progress = True
    return order


async def release(session: AsyncSession, *, order_id: uuid.UUID) -> None:
    """End the hold of a payment that did not go through: the order can be paid or cancelled again."""
    order = await lock_order(session, order_id=order_id)
    order.payment_in_progress = False


async def mark_paid(session: AsyncSession, *, order_id: uuid.UUID) -> Order:
    """Note that the payment which holds this order went through."""
    order = await lock_order(session, order_id=order_id)
    _advance(session, order, OrderStatus.PAID)
    order.payment_in_progress = False
    return order


async def mark_refunded(session: AsyncSession, *, order_id: uuid.UUID) -> None:
    """Note that all of the order's payment was given back.

    Raises:
        IllegalTransition: It was not paid.
    """
    _advance(session, await lock_order(session, order_id=order_id), OrderStatus.REFUNDED)


async def fulfil(session: AsyncSession, *, order_id: uuid.UUID) -> bool:
    """Send a paid order on its way; return False where a refund was faster, and nothing is sent."""
    order = await lock_order(session, order_id=order_id)
    if order.status == OrderStatus.REFUNDED:
        return False
    _advance(session, order, OrderStatus.FULFILLED)
    return True


async def export_orders(session: AsyncSession, user_id: uuid.UUID) -> list[dict[str, Any]]:
    """Return all orders of a user for the data export, oldest first."""
    orders = await session.scalars(
        select(Order)
        .where(Order.user_id == user_id)
        .order_by(Order.created_at)
        .options(selectinload(Order.lines))
    )
    return [OrderRead.model_validate(order).model_dump(mode="json") for order in orders.all()]


async def count_by_status(session: AsyncSession) -> Mapping[str, int]:
    """Return how many orders of customers there are in each status.

    Every order is read, and there are more each day: ask seldom (see samples.py), and in a transaction of
    its own, since the statement may take longer than others.
    """
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text(f"SET LOCAL statement_timeout = '{COUNT_SECONDS}s'"))
    rows = await session.execute(
        select(Order.status, func.count())
        .where(~users.of_synthetic(Order.user_id))
        .group_by(Order.status)
    )
    counts: dict[str, int] = dict.fromkeys(OrderStatus, 0)
    counts.update((status, count) for status, count in rows)
    return counts


async def count_paid(session: AsyncSession) -> Mapping[str, int]:
    """Return how many orders of customers are paid and wait for fulfilment, by the index on the status."""
    paid = literal_column(
        f"'{OrderStatus.PAID}'", String
    )  # a plan for any status would read them all
    count = await session.scalar(
        select(func.count())
        .select_from(Order)
        .where(Order.status == paid, ~users.of_synthetic(Order.user_id))
    )
    return {OrderStatus.PAID: count or 0}


async def lock_order(
    session: AsyncSession, *, order_id: uuid.UUID, user_id: uuid.UUID | None = None
) -> Order:
    """Return an order as it is now, locked until the transaction ends.

    Raises:
        OrderNotFound: None with this id, or not this user's where one is given.
    """
    query = select(Order).where(Order.id == order_id).with_for_update()
    if user_id is not None:
        query = query.where(Order.user_id == user_id)
    order = await session.scalar(query.execution_options(populate_existing=True))
    if order is None:
        raise OrderNotFound
    return order


def _advance(session: AsyncSession, order: Order, target: OrderStatus) -> None:
    source = order.status
    check_transition(OrderStatus(source), target)
    order.status = target
    order.updated_at = now()

    def advanced() -> None:
        logger.bind(
            type="business", order_id=str(order.id), from_status=source, to_status=target.value
        ).info("order changed state")

    after_commit(session, advanced)

"""What can be recorded of payments and refunds. Functions work in the given session and never commit.

Two rules keep money right, whatever crashes when:
- Before the provider is asked, a `pending` row with the provider's idempotency key (its id) is
  committed. So there is no charge that this database does not know of.
- Only the provider's word ends `pending`. `settle_payment` and `settle_refund` take that word from the
  request that asked or from reconciliation, whoever comes first; the second finds nothing to do.
Talking to the provider happens outside of transactions, in checkout.py and reconciliation.py.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

from loguru import logger
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure import audit, outbox
from app.infrastructure.database import now
from app.observability.business import after_commit, count_feature
from app.orders import service as orders
from app.payments import kpis
from app.payments.errors import NotRefundable, PaymentNotFound, RefundTooLarge
from app.payments.models import Payment, Receipt, Refund
from app.payments.provider import ProviderCharge, ProviderRefund
from app.payments.schemas import PaymentRead, RefundRead
from app.payments.states import DeclineReason, PaymentStatus, RefundStatus

RECONCILE_AFTER = dt.timedelta(seconds=20)
"""Longer than a request waits for the provider, so that reconciliation seldom meets a living one."""


async def begin_payment(
    session: AsyncSession, *, order_id: uuid.UUID, user_id: uuid.UUID
) -> Payment:
    """Hold the order and record that its total is about to be charged.

    Raises:
        OrderNotFound, PaymentInProgress, IllegalTransition: see orders.service.hold_for_payment.
    """
    order = await orders.hold_for_payment(session, order_id=order_id, user_id=user_id)
    moment = now()
    payment = Payment(
        id=uuid.uuid4(),
        order_id=order.id,
        user_id=user_id,
        status=PaymentStatus.PENDING,
        amount=order.total_amount,
        refunded_amount=0,
        currency=order.currency,
        created_at=moment,
        check_at=moment + RECONCILE_AFTER,
    )
    session.add(payment)
    currency = payment.currency
    after_commit(session, lambda: kpis.note_begun("payment begun", currency=currency))
    return payment


async def settle_payment(
    session: AsyncSession, *, payment_id: uuid.UUID, charge: ProviderCharge
) -> Payment:
    """Record the provider's word on a pending payment; change nothing on a settled one."""
    payment = await session.get_one(Payment, payment_id)
    # Orders before payments, everywhere: two transactions that lock both can never wait in a ring.
    await orders.lock_order(session, order_id=payment.order_id)
    await session.refresh(payment, with_for_update=True)
    if payment.status != PaymentStatus.PENDING:
        return payment
    moment = now()
    payment.settled_at = moment
    payment.check_at = None
    match charge.status:
        case "succeeded":
            payment.status = PaymentStatus.CAPTURED
            await orders.mark_paid(session, order_id=payment.order_id)
        case "declined":
            payment.status = PaymentStatus.DECLINED
            payment.decline_reason = charge.decline_reason or DeclineReason.OTHER
            await orders.release(session, order_id=payment.order_id)
        case "canceled":
            payment.status = PaymentStatus.FAILED
            payment.decline_reason = charge.decline_reason
            await orders.release(session, order_id=payment.order_id)
    if payment.status != PaymentStatus.FAILED:
        outbox.publish(session, topic=f"payment.{payment.status}", payload=_payload(payment))
    _announce(session, payment)
    return payment


async def begin_refund(
    session: AsyncSession, *, payment_id: uuid.UUID, user_id: uuid.UUID, amount: int | None
) -> Refund:
    """Record that `amount` (all that is left, without it) is about to be given back.

    Raises:
        PaymentNotFound: None with this id, or not this user's.
        NotRefundable: It was not captured, or all of it was given back.
        RefundTooLarge: More than is left, refunds on their way included.
    """
    payment = await get_payment(session, payment_id=payment_id, user_id=user_id, lock=True)
    if payment.status != PaymentStatus.CAPTURED:
        raise NotRefundable(f"A {payment.status} payment cannot be refunded.")
    on_their_way = await session.scalar(
        select(func.coalesce(func.sum(Refund.amount), 0)).where(
            Refund.payment_id == payment_id, Refund.status == RefundStatus.PENDING
        )
    )
    # PostgreSQL sums up whole numbers to a Decimal, which no JSON encoder takes for one.
    left = payment.amount - payment.refunded_amount - int(on_their_way or 0)
    wanted = left if amount is None else amount
    if not 1 <= wanted <= left:
        raise RefundTooLarge(f"{left} minor units are left of this payment.", left=left)
    moment = now()
    refund = Refund(
        id=uuid.uuid4(),
        payment_id=payment_id,
        status=RefundStatus.PENDING,
        amount=wanted,
        created_at=moment,
        check_at=moment + RECONCILE_AFTER,
    )
    session.add(refund)
    _record_refund(session, refund, payment, "requested")
    currency = payment.currency
    after_commit(session, lambda: kpis.note_begun("refund begun", currency=currency))
    return refund


async def settle_refund(
    session: AsyncSession, *, refund_id: uuid.UUID, word: ProviderRefund
) -> Refund:
    """Record the provider's word on a pending refund; change nothing on a settled one."""
    refund = await session.get_one(Refund, refund_id)
    payment = await session.get_one(Payment, refund.payment_id)
    await orders.lock_order(session, order_id=payment.order_id)
    await session.refresh(payment, with_for_update=True)
    await session.refresh(refund)
    if refund.status != RefundStatus.PENDING:
        return refund
    refund.settled_at = now()
    refund.check_at = None
    if word.status != "succeeded":
        refund.status = RefundStatus.FAILED
        _record_refund(session, refund, payment, "failure")
        failed_id = str(refund.id)
        after_commit(
            session,
            lambda: logger.bind(type="business", refund_id=failed_id).warning("refund failed"),
        )
        return refund
    refund.status = RefundStatus.SUCCEEDED
    payment.refunded_amount += refund.amount
    _record_refund(session, refund, payment, "success")
    if payment.refunded_amount == payment.amount:
        payment.status = PaymentStatus.REFUNDED
        await orders.mark_refunded(session, order_id=payment.order_id)
    outbox.publish(
        session,
        topic="order.refunded",
        payload=_payload(payment) | {"refund_id": str(refund.id), "amount": refund.amount},
    )
    amount, currency, payment_id = refund.amount, payment.currency, str(payment.id)

    def refunded() -> None:
        kpis.count_refund(amount=amount, currency=currency)
        count_feature("refund")
        logger.bind(type="business", payment_id=payment_id, amount=amount, currency=currency).info(
            "payment refunded"
        )

    after_commit(session, refunded)
    return refund


def _record_refund(
    session: AsyncSession, refund: Refund, payment: Payment, outcome: audit.Outcome
) -> None:
    # Settled by reconciliation or not: it is the owner's doing, since nobody else can ask for it.
    audit.record(
        session,
        action="refund",
        actor=payment.user_id,
        record_type="refund",
        record_id=refund.id,
        outcome=outcome,
        details={"amount": refund.amount, "currency": payment.currency},
    )


async def get_payment(
    session: AsyncSession, *, payment_id: uuid.UUID, user_id: uuid.UUID, lock: bool = False
) -> Payment:
    """Return one payment of a user, locked for this transaction where asked.

    Raises:
        PaymentNotFound: None with this id, or not this user's.
    """
    query = select(Payment).where(Payment.id == payment_id, Payment.user_id == user_id)
    payment = await session.scalar(query.with_for_update() if lock else query)
    if payment is None:
        raise PaymentNotFound
    return payment


async def write_receipt(
    session: AsyncSession, *, kind: str, subject_id: uuid.UUID, payment_id: uuid.UUID, amount: int
) -> None:
    """Store the receipt of a payment, or the credit note of a refund."""
    payment = await session.get_one(Payment, payment_id)
    session.add(
        Receipt(
            kind=kind,
            subject_id=subject_id,
            payment_id=payment_id,
            amount=amount,
            currency=payment.currency,
            created_at=now(),
        )
    )


async def export_payments(session: AsyncSession, user_id: uuid.UUID) -> list[dict[str, Any]]:
    """Return all payments of a user, with their refunds, for the data export, oldest first."""
    payments = await session.scalars(
        select(Payment).where(Payment.user_id == user_id).order_by(Payment.created_at)
    )
    refunds: Sequence[Refund] = (
        await session.scalars(
            select(Refund)
            .join(Payment, Payment.id == Refund.payment_id)
            .where(Payment.user_id == user_id)
            .order_by(Refund.created_at)
        )
    ).all()
    return [
        PaymentRead.model_validate(payment).model_dump(mode="json")
        | {
            "refunds": [
                RefundRead.model_validate(refund).model_dump(mode="json")
                for refund in refunds
                if refund.payment_id == payment.id
            ]
        }
        for payment in payments.all()
    ]


def _payload(payment: Payment) -> dict[str, Any]:
    return {
        "payment_id": str(payment.id),
        "order_id": str(payment.order_id),
        "user_id": str(payment.user_id),
        "amount": payment.amount,
        "currency": payment.currency,
    }


def _announce(session: AsyncSession, payment: Payment) -> None:
    status = PaymentStatus(payment.status)
    reason = DeclineReason(payment.decline_reason) if payment.decline_reason else None
    settled_at = payment.settled_at or now()
    seconds = (settled_at - payment.created_at).total_seconds()
    fields = {"payment_id": str(payment.id), "order_id": str(payment.order_id)}
    amount, currency = payment.amount, payment.currency

    def settled() -> None:
        kpis.count_payment(
            status=status, decline_reason=reason, amount=amount, currency=currency, seconds=seconds
        )
        logger.bind(
            type="business",
            payment_status=status.value,
            decline_reason=reason.value if reason else "",
            amount=amount,
            currency=currency,
            **fields,
        ).info("payment settled")

    after_commit(session, settled)

"""Settles payments and refunds whose outcome nobody heard, by asking the provider.

A request that timed out, a provider that answered 500, a process that was killed between the charge
and the commit: each leaves a `pending` row. This job asks what became of it. Where the provider knows
nothing, it is told to refuse that key from now on, so that a charge still on its way through some
buffer can never happen after the payment was called failed.
"""

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure.database import Database, now
from app.payments import service
from app.payments.models import Payment, Refund
from app.payments.provider import (
    PaymentProvider,
    ProviderNotReached,
    ProviderOutcomeUnknown,
    ProviderRefused,
)
from app.payments.states import PaymentStatus, RefundStatus

ASK_AGAIN = dt.timedelta(seconds=15)
"""When the provider could not tell; also the lease that keeps two workers from asking at once."""
BATCH = 50


async def reconcile(database: Database, provider: PaymentProvider) -> int:
    """Settle what is due; return how many payments and refunds were asked about.

    A provider that is away changes nothing: what is due stays due.
    """
    async with database.transaction() as session:
        payments = await _claim_payments(session)
    async with database.transaction() as session:
        refunds = await _claim_refunds(session)
    try:
        for payment_id in payments:
            with _left_for_later(payment_id):
                charge = await provider.find_charge(payment_id)
                if charge is None:
                    charge = await provider.cancel_charge(payment_id)
                async with database.transaction() as session:
                    await service.settle_payment(session, payment_id=payment_id, charge=charge)
        for refund_id in refunds:
            with _left_for_later(refund_id):
                word = await provider.find_refund(refund_id)
                if word is None:
                    word = await provider.cancel_refund(refund_id)
                async with database.transaction() as session:
                    await service.settle_refund(session, refund_id=refund_id, word=word)
    except ProviderNotReached as error:
        logger.bind(type="job", task="reconcile", error=type(error).__name__).warning(
            "the provider could not be asked, reconciliation goes on later"
        )
    return len(payments) + len(refunds)


@contextmanager
def _left_for_later(subject_id: uuid.UUID) -> Iterator[None]:
    """Leave what the provider cannot tell of as it is: it must not keep the others from being asked."""
    try:
        yield
    except (ProviderOutcomeUnknown, ProviderRefused) as error:
        logger.bind(
            type="job", task="reconcile", subject_id=str(subject_id), error=type(error).__name__
        ).warning("the provider could not tell an outcome, it is asked again later")


async def _claim_payments(session: AsyncSession) -> list[uuid.UUID]:
    due = await session.scalars(
        select(Payment)
        .where(Payment.status == PaymentStatus.PENDING, Payment.check_at <= now())
        .order_by(Payment.check_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    payments = due.all()
    for payment in payments:
        payment.check_at = now() + ASK_AGAIN
    return [payment.id for payment in payments]


async def _claim_refunds(session: AsyncSession) -> list[uuid.UUID]:
    due = await session.scalars(
        select(Refund)
        .where(Refund.status == RefundStatus.PENDING, Refund.check_at <= now())
        .order_by(Refund.check_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    refunds = due.all()
    for refund in refunds:
        refund.check_at = now() + ASK_AGAIN
    return [refund.id for refund in refunds]

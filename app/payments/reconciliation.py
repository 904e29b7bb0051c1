"""Settles payments and refunds whose outcome nobody heard, by asking the provider.

A request that timed out, a provider that answered 500, a process that was killed between the charge
and the commit: each leaves a `pending` row. This job asks what became of it. Where the provider knows
nothing, it is told to refuse that key from now on, so that a charge still on its way through some
buffer can never happen after the payment was called failed.

Nobody's request is at hand here, so each settlement has a context of its own: a request id that joins its
lines to those of the jobs it causes, and the mark of the monitoring's accounts.
"""

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from loguru import logger
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure.database import Database, now
from app.observability.context import RequestContext, bind_context, new_request_id
from app.payments import service
from app.payments.models import Payment, Refund
from app.payments.provider import (
    PaymentProvider,
    ProviderNotReached,
    ProviderOutcomeUnknown,
    ProviderRefused,
)
from app.payments.states import PaymentStatus, RefundStatus
from app.users import service as users

ASK_AGAIN = dt.timedelta(seconds=15)
"""When the provider could not tell; also the lease that keeps two workers from asking at once."""
BATCH = 50


@dataclass(frozen=True, slots=True)
class _Due:
    """A payment or refund to ask about."""

    id: uuid.UUID
    synthetic: bool


async def reconcile(database: Database, provider: PaymentProvider) -> int:
    """Settle what is due; return how many payments and refunds were asked about.

    A provider that is away changes nothing: what is due stays due.
    """
    async with database.transaction() as session:
        payments = await _claim_payments(session)
    async with database.transaction() as session:
        refunds = await _claim_refunds(session)
    try:
        for payment in payments:
            with _settling(payment):
                charge = await provider.find_charge(payment.id)
                if charge is None:
                    charge = await provider.cancel_charge(payment.id)
                async with database.transaction() as session:
                    await service.settle_payment(session, payment_id=payment.id, charge=charge)
        for refund in refunds:
            with _settling(refund):
                word = await provider.find_refund(refund.id)
                if word is None:
                    word = await provider.cancel_refund(refund.id)
                async with database.transaction() as session:
                    await service.settle_refund(session, refund_id=refund.id, word=word)
    except ProviderNotReached as error:
        logger.bind(type="job", task="reconcile", error=type(error).__name__).warning(
            "the provider could not be asked, reconciliation goes on later"
        )
    return len(payments) + len(refunds)


@contextmanager
def _settling(due: _Due) -> Iterator[None]:
    """Leave what the provider cannot tell of as it is: it must not keep the others from being asked."""
    context = RequestContext(new_request_id(), route="reconcile", synthetic=due.synthetic)
    with bind_context(context):
        try:
            yield
        except (ProviderOutcomeUnknown, ProviderRefused) as error:
            logger.bind(
                type="job", task="reconcile", subject_id=str(due.id), error=type(error).__name__
            ).warning("the provider could not tell an outcome, it is asked again later")


async def _claim_payments(session: AsyncSession) -> list[_Due]:
    due = await session.execute(
        select(Payment, users.of_synthetic(Payment.user_id))
        .where(Payment.status == PaymentStatus.PENDING, Payment.check_at <= now())
        .order_by(Payment.check_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    payments = due.all()
    for payment, _ in payments:
        payment.check_at = now() + ASK_AGAIN
    return [_Due(payment.id, synthetic) for payment, synthetic in payments]


async def _claim_refunds(session: AsyncSession) -> list[_Due]:
    due = await session.execute(
        select(Refund, users.of_synthetic(Payment.user_id))
        .join(Payment, Payment.id == Refund.payment_id)
        .where(Refund.status == RefundStatus.PENDING, Refund.check_at <= now())
        .order_by(Refund.check_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True, of=Refund)
    )
    refunds = due.all()
    for refund, _ in refunds:
        refund.check_at = now() + ASK_AGAIN
    return [_Due(refund.id, synthetic) for refund, synthetic in refunds]

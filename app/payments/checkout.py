"""Paying and refunding: the steps on both sides of the provider, each in a transaction of its own.

No transaction is open while the provider is asked: a slow provider must not hold connections and locks.
What happens when the process dies between two steps is said in service.py; every step may be repeated.
"""

import uuid

from loguru import logger
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from app.infrastructure.database import Database
from app.infrastructure.idempotency import run_resumable
from app.observability.tracing import business_span
from app.payments import kpis, service
from app.payments.errors import PaymentTokenRefused, ProviderUnavailable
from app.payments.models import Payment, Refund
from app.payments.provider import (
    PaymentProvider,
    ProviderCharge,
    ProviderNotReached,
    ProviderOutcomeUnknown,
    ProviderRefund,
    ProviderRefused,
)
from app.payments.schemas import PaymentCreate, PaymentRead, RefundCreate, RefundRead
from app.payments.states import DeclineReason, PaymentStatus, RefundStatus

_NOT_CHARGED = ProviderCharge(status="canceled")
_TOKEN_REFUSED = ProviderCharge(status="canceled", decline_reason=DeclineReason.TOKEN_REFUSED)
_NOT_REFUNDED = ProviderRefund(status="canceled")


async def pay(
    database: Database,
    provider: PaymentProvider,
    *,
    user_id: uuid.UUID,
    request: PaymentCreate,
    key: str | None,
) -> PaymentRead | Response:
    """Charge an order's total, once for each idempotency key.

    Raises:
        OrderNotFound, PaymentInProgress, IllegalTransition: see orders.service.hold_for_payment.
        PaymentTokenRefused: The provider does not know the token.
        ProviderUnavailable: The provider was not reached, so nothing was charged.
    """

    async def begin(session: AsyncSession) -> uuid.UUID:
        payment = await service.begin_payment(session, order_id=request.order_id, user_id=user_id)
        return payment.id

    async def act(payment_id: uuid.UUID) -> PaymentRead:
        with business_span("payment.charge", payment_id=str(payment_id)):
            return await _charge(
                database, provider, payment_id, request, repeatable=key is not None
            )

    return await run_resumable(
        database,
        owner_id=user_id,
        operation="payments.create",
        key=key,
        request=request,
        begin=begin,
        act=act,
        is_final=lambda answer: answer.status != "pending",
        status_code=201,
    )


async def _charge(
    database: Database,
    provider: PaymentProvider,
    payment_id: uuid.UUID,
    request: PaymentCreate,
    *,
    repeatable: bool,
) -> PaymentRead:
    async with database.transaction() as session:
        payment = await session.get_one(Payment, payment_id)
    if payment.decline_reason == DeclineReason.TOKEN_REFUSED:
        raise PaymentTokenRefused  # a call beside this one, with the same key, was told so
    if payment.status != PaymentStatus.PENDING:
        return PaymentRead.model_validate(payment)
    try:
        charge = await provider.charge(
            key=payment.id,
            amount=payment.amount,
            currency=payment.currency,
            token=request.payment_token,
            reference=payment.order_id,
        )
    except ProviderOutcomeUnknown:
        kpis.count_pending()
        logger.bind(type="business", payment_id=str(payment_id)).warning(
            "payment outcome is unknown, reconciliation will settle it"
        )
        return PaymentRead.model_validate(payment)
    except ProviderNotReached as error:
        # With an idempotency key, another call may be charging under the same id at this moment:
        # then only the provider can say that nothing was charged, and reconciliation asks it.
        if not repeatable:
            await _settle(database, payment_id, _NOT_CHARGED)
        raise ProviderUnavailable(retry_after_seconds=error.retry_after_seconds) from error
    except ProviderRefused as error:
        settled = await _settle(database, payment_id, _TOKEN_REFUSED)
        if settled.status != PaymentStatus.FAILED:
            return (
                settled  # a call beside this one was charged: what is recorded is all calls' answer
            )
        raise PaymentTokenRefused from error
    return await _settle(database, payment_id, charge)


async def _settle(database: Database, payment_id: uuid.UUID, charge: ProviderCharge) -> PaymentRead:
    async with database.transaction() as session:
        payment = await service.settle_payment(session, payment_id=payment_id, charge=charge)
        return PaymentRead.model_validate(payment)


async def refund(
    database: Database,
    provider: PaymentProvider,
    *,
    user_id: uuid.UUID,
    payment_id: uuid.UUID,
    request: RefundCreate,
    key: str | None,
) -> RefundRead | Response:
    """Give back all or a part of a payment, once for each idempotency key.

    Raises:
        PaymentNotFound, NotRefundable, RefundTooLarge: see service.begin_refund.
        ProviderUnavailable: The provider was not reached, so nothing was given back.
    """

    async def begin(session: AsyncSession) -> uuid.UUID:
        begun = await service.begin_refund(
            session, payment_id=payment_id, user_id=user_id, amount=request.amount
        )
        return begun.id

    async def act(refund_id: uuid.UUID) -> RefundRead:
        with business_span("payment.refund", payment_id=str(payment_id)):
            return await _give_back(database, provider, refund_id, repeatable=key is not None)

    return await run_resumable(
        database,
        owner_id=user_id,
        # The payment is named in the path, so it is part of what the key stands for.
        operation=f"refunds.create:{payment_id}",
        key=key,
        request=request,
        begin=begin,
        act=act,
        is_final=lambda answer: answer.status != "pending",
        status_code=201,
    )


async def _give_back(
    database: Database, provider: PaymentProvider, refund_id: uuid.UUID, *, repeatable: bool
) -> RefundRead:
    async with database.transaction() as session:
        begun = await session.get_one(Refund, refund_id)
    if begun.status != RefundStatus.PENDING:
        return RefundRead.model_validate(begun)
    try:
        word = await provider.refund(key=begun.id, charge=begun.payment_id, amount=begun.amount)
    except ProviderOutcomeUnknown:
        logger.bind(type="business", refund_id=str(refund_id)).warning(
            "refund outcome is unknown, reconciliation will settle it"
        )
        return RefundRead.model_validate(begun)
    except ProviderNotReached as error:
        if not repeatable:  # see _charge
            await _settle_refund(database, refund_id, _NOT_REFUNDED)
        raise ProviderUnavailable(retry_after_seconds=error.retry_after_seconds) from error
    except ProviderRefused:
        word = _NOT_REFUNDED
    return await _settle_refund(database, refund_id, word)


async def _settle_refund(
    database: Database, refund_id: uuid.UUID, word: ProviderRefund
) -> RefundRead:
    async with database.transaction() as session:
        settled = await service.settle_refund(session, refund_id=refund_id, word=word)
        return RefundRead.model_validate(settled)

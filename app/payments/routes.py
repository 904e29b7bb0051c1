"""The API of payments."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.errors import problem_responses
from app.infrastructure.dependencies import DatabaseDep, IdempotencyKey, Session
from app.payments import checkout, service
from app.payments.provider import PaymentProvider
from app.payments.schemas import PaymentCreate, PaymentRead, RefundCreate, RefundRead
from app.users.authentication import CurrentUser

router = APIRouter(prefix="/v1/payments", tags=["payments"])


def get_provider(request: Request) -> PaymentProvider:
    """Return the payment provider of this application."""
    provider: PaymentProvider = request.app.state.payment_provider
    return provider


Provider = Annotated[PaymentProvider, Depends(get_provider)]


@router.post(
    "",
    status_code=201,
    response_model=PaymentRead,
    responses=problem_responses(401, 404, 409),
)
async def create_payment(
    body: PaymentCreate,
    user: CurrentUser,
    database: DatabaseDep,
    provider: Provider,
    key: IdempotencyKey = None,
) -> PaymentRead | Response:
    """Pay an order. A declined card is an outcome: 201 with status `declined`."""
    return await checkout.pay(database, provider, user_id=user.user_id, request=body, key=key)


@router.get("/{payment_id}", responses=problem_responses(401, 404))
async def read_payment(payment_id: uuid.UUID, user: CurrentUser, session: Session) -> PaymentRead:
    """Return one of the caller's payments."""
    payment = await service.get_payment(session, payment_id=payment_id, user_id=user.user_id)
    return PaymentRead.model_validate(payment)


@router.post(
    "/{payment_id}/refund",
    status_code=201,
    response_model=RefundRead,
    responses=problem_responses(401, 404, 409),
)
async def create_refund(
    payment_id: uuid.UUID,
    user: CurrentUser,
    database: DatabaseDep,
    provider: Provider,
    body: RefundCreate | None = None,
    key: IdempotencyKey = None,
) -> RefundRead | Response:
    """Refund all or a part of a captured payment."""
    return await checkout.refund(
        database,
        provider,
        user_id=user.user_id,
        payment_id=payment_id,
        request=body or RefundCreate(amount=None),
        key=key,
    )

"""The API of orders."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.errors import problem_responses
from app.infrastructure import idempotency
from app.infrastructure.dependencies import IdempotencyKey, Session
from app.observability.business import count_feature
from app.orders import service
from app.orders.pagination import Place, decode_cursor, encode_cursor
from app.orders.schemas import OrderCreate, OrderPage, OrderRead
from app.users.authentication import CurrentUser

router = APIRouter(prefix="/v1/orders", tags=["orders"])


@router.post("", status_code=201, response_model=OrderRead, responses=problem_responses(401))
async def create_order(
    body: OrderCreate, user: CurrentUser, session: Session, key: IdempotencyKey = None
) -> OrderRead | Response:
    """Place an order."""
    if key is None:
        order = await service.create_order(session, user_id=user.user_id, data=body)
        return OrderRead.model_validate(order)
    record = await idempotency.claim(
        session, owner_id=user.user_id, operation="orders.create", key=key, request=body
    )
    if answer := record.replay():
        return answer
    order = await service.create_order(session, user_id=user.user_id, data=body)
    created = OrderRead.model_validate(order)
    record.complete(status_code=201, answer=created)
    return created


@router.get("", responses=problem_responses(401))
async def list_orders(
    user: CurrentUser,
    session: Session,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> OrderPage:
    """List the caller's orders, newest first."""
    after = decode_cursor(cursor) if cursor else None
    if after:
        count_feature("pagination")
    # One more than asked tells whether there is a next page.
    found = await service.list_orders(session, user_id=user.user_id, limit=limit + 1, after=after)
    page = found[:limit]
    more = len(found) > limit
    return OrderPage(
        items=[OrderRead.model_validate(order) for order in page],
        next_cursor=encode_cursor(Place(page[-1].created_at, page[-1].id)) if more else None,
    )


@router.get("/{order_id}", responses=problem_responses(401, 404))
async def read_order(order_id: uuid.UUID, user: CurrentUser, session: Session) -> OrderRead:
    """Return one of the caller's orders."""
    order = await service.get_order(session, order_id=order_id, user_id=user.user_id)
    return OrderRead.model_validate(order)


@router.post("/{order_id}/cancel", responses=problem_responses(401, 404, 409))
async def cancel_order(order_id: uuid.UUID, user: CurrentUser, session: Session) -> OrderRead:
    """Cancel a pending order."""
    order = await service.cancel_order(session, order_id=order_id, user_id=user.user_id)
    return OrderRead.model_validate(order)

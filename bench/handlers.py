"""The handlers that are measured beside the service's own: the same ones in every variant.

`/bench/ping` does nothing, so that all it costs is the framework; `/bench/orders/{id}` reads one row by its
primary key in a transaction of its own, the smallest thing that a service does with a database.
"""

import uuid

from fastapi import APIRouter, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict

from app.infrastructure.dependencies import Session
from app.orders.models import Order

router = APIRouter(prefix="/bench")


class Pong(BaseModel):
    """What a ping is answered with."""

    status: str


class Row(BaseModel):
    """One order without its lines."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    status: str
    currency: str
    total_amount: int


@router.get("/ping")
async def ping() -> Pong:
    """Answer."""
    return Pong(status="ok")


@router.get("/orders/{order_id}")
async def read(order_id: uuid.UUID, session: Session) -> Row:
    """Read one row."""
    order = await session.get(Order, order_id)
    if order is None:
        raise HTTPException(404)
    return Row.model_validate(order)


def add_handlers(app: FastAPI, routes: int) -> None:
    """Add the measured handlers, behind as many others as make `routes` with them, before all that are there.

    The router looks through them in order, and the service has more than the bare application: what comes
    later would measure that.
    """
    others = APIRouter(prefix="/bench/others")
    for number in range(max(0, routes - len(router.routes))):
        others.add_api_route(f"/{number}/{{name}}", _other, methods=["GET"])
    for included in (router, others):
        app.include_router(included)
        app.router.routes.insert(0, app.router.routes.pop())


async def _other(name: str) -> Pong:
    return Pong(status=name)

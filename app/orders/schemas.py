"""What the API of orders takes and gives. Amounts are integers in minor units."""

import datetime as dt
import uuid
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.money import Currency
from app.orders.states import OrderStatus

Sku = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]


class OrderLine(BaseModel):
    """One article."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    sku: Sku = Field(examples=["TEA-EARL-GREY"])
    quantity: int = Field(strict=True, ge=1, le=1_000, examples=[2])
    unit_amount: int = Field(strict=True, ge=0, le=100_000_000, examples=[1250])


class OrderCreate(BaseModel):
    """A new order."""

    model_config = ConfigDict(extra="forbid")

    currency: Currency = Field(examples=["EUR"])
    lines: list[OrderLine] = Field(min_length=1, max_length=100)


class OrderRead(BaseModel):
    """An order."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    status: OrderStatus
    total_amount: int
    currency: Currency
    lines: list[OrderLine]
    created_at: dt.datetime


class OrderPage(BaseModel):
    """Some orders, newest first, and where the next ones are."""

    items: list[OrderRead]
    next_cursor: str | None = Field(description="Give it as `cursor`; null on the last page.")

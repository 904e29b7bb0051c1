"""What the API of payments takes and gives. Amounts are integers in minor units."""

import datetime as dt
import uuid
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.money import Currency
from app.payments.states import DeclineReason, PaymentStatus, RefundStatus

PaymentToken = Annotated[
    str, Field(min_length=5, max_length=64, pattern=r"^tok_[A-Za-z0-9_]+$", repr=False)
]


class PaymentCreate(BaseModel):
    """A payment of all of an order."""

    model_config = ConfigDict(extra="forbid")

    order_id: uuid.UUID
    payment_token: PaymentToken = Field(
        description="Stands for a card, and comes from the payment provider.", examples=["tok_ok"]
    )


class PaymentRead(BaseModel):
    """A payment."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    order_id: uuid.UUID
    status: PaymentStatus
    amount: int
    refunded_amount: int
    currency: Currency
    decline_reason: DeclineReason | None
    created_at: dt.datetime


class RefundCreate(BaseModel):
    """A refund."""

    model_config = ConfigDict(extra="forbid")

    amount: int | None = Field(
        None, strict=True, ge=1, le=1_000_000_000, description="Without it, all that is left."
    )


class RefundRead(BaseModel):
    """A refund."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    payment_id: uuid.UUID
    status: RefundStatus
    amount: int
    created_at: dt.datetime

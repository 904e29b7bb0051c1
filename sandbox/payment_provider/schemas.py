"""What the provider accepts and answers. Money is an integer of minor units with an ISO 4217 code.

Input is taken literally (`"100"`, `100.0` and `true` are no amounts) and unknown fields are refused: a
misspelt field must not turn into a charge that nobody meant.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

IdempotencyKey = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")]
"""1 to 255 visible ASCII characters, chosen by the client, one for each thing that must happen once."""

Amount = Annotated[int, Field(ge=1, le=1_000_000_000)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
NO_CURRENCY = "XXX"
"""ISO 4217's code for "no currency involved": that of a cancellation which came before its charge."""

Token = Literal[
    "tok_ok",
    "tok_declined",
    "tok_insufficient_funds",
    "tok_expired",
    "tok_slow",
    "tok_error",
    "tok_timeout",
]
DECLINE_REASONS: dict[str, str] = {
    "tok_declined": "do_not_honor",
    "tok_insufficient_funds": "insufficient_funds",
    "tok_expired": "expired_card",
}

Kind = Literal["charge", "refund"]
ChargeStatus = Literal["succeeded", "declined", "canceled"]
RefundStatus = Literal["succeeded", "canceled"]

_INPUT = ConfigDict(extra="forbid", frozen=True, strict=True)


class ChargeRequest(BaseModel):
    """Take `amount` from the holder of `token`; `reference` is the client's own name for it."""

    model_config = _INPUT

    amount: Amount
    currency: Currency
    token: Token
    reference: Annotated[str, StringConstraints(min_length=1, max_length=255)]


class RefundRequest(BaseModel):
    """Give back `amount` of the charge that was made under the idempotency key `charge`."""

    model_config = _INPUT

    charge: IdempotencyKey
    amount: Amount


class Charge(BaseModel):
    """A charge as it stands. Canceled before it was made: amount 0, currency XXX."""

    id: str
    idempotency_key: str
    status: ChargeStatus
    amount: int
    currency: str
    decline_reason: str | None
    refunded_amount: int


class Refund(BaseModel):
    """A refund as it stands. Canceled before it was made: amount 0, charge empty."""

    id: str
    idempotency_key: str
    status: RefundStatus
    amount: int
    charge: str


class LedgerEntry(BaseModel):
    """One line of the ledger. The reference of a refund is the idempotency key of its charge."""

    kind: Kind
    key: str
    reference: str
    amount: int
    currency: str
    status: ChargeStatus
    created_at: str


class LedgerReport(BaseModel):
    """Everything the provider ever recorded, oldest first."""

    entries: list[LedgerEntry]

"""Where payments and refunds stand. `pending` means: the provider may or may not have acted."""

from enum import StrEnum


class PaymentStatus(StrEnum):
    """Where a payment stands."""

    PENDING = "pending"
    CAPTURED = "captured"
    DECLINED = "declined"
    FAILED = "failed"
    """The provider did not act, and will not: nothing was charged."""
    REFUNDED = "refunded"
    """All of it was given back; a partly refunded payment stays captured."""


class RefundStatus(StrEnum):
    """Where a refund stands."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class DeclineReason(StrEnum):
    """Why a payment was declined: a label of `payments_total`, so a closed list."""

    DO_NOT_HONOR = "do_not_honor"
    EXPIRED_CARD = "expired_card"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    TOKEN_REFUSED = "token_refused"  # noqa: S105 - a reason, not a secret
    """Of a failed payment: the provider did not know the token."""
    OTHER = "other"
    """Whatever the provider says that this list has not learned yet."""

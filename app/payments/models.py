"""Tables of payments, refunds and receipts. Amounts are in minor units of the order's currency."""

import datetime as dt
import uuid

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.infrastructure.database import Base, PrimaryKey
from app.payments.states import PaymentStatus, RefundStatus

_HOLDS_THE_ORDER = (PaymentStatus.PENDING, PaymentStatus.CAPTURED, PaymentStatus.REFUNDED)


class Payment(Base):
    """One attempt to collect an order's total. Its id is the provider's idempotency key."""

    __tablename__ = "payments"

    id: Mapped[PrimaryKey]
    order_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("orders.id"))
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"), index=True)
    status: Mapped[str] = mapped_column(String(16))
    amount: Mapped[int] = mapped_column(BigInteger)
    refunded_amount: Mapped[int] = mapped_column(BigInteger, default=0)
    currency: Mapped[str] = mapped_column(String(3))
    decline_reason: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[dt.datetime]
    settled_at: Mapped[dt.datetime | None]
    check_at: Mapped[dt.datetime | None] = mapped_column(index=True)
    """When reconciliation asks the provider next; None once the outcome is known."""

    __table_args__ = (
        CheckConstraint("refunded_amount <= amount", name="refunds_within_amount"),
        # The last line of defence against charging an order twice: the database itself.
        Index(
            "uq_payments_order_id_effective",
            "order_id",
            unique=True,
            postgresql_where=status.in_(_HOLDS_THE_ORDER),
            sqlite_where=status.in_(_HOLDS_THE_ORDER),
        ),
    )


class Refund(Base):
    """Money given back, all or a part. Its id is the provider's idempotency key."""

    __tablename__ = "refunds"

    id: Mapped[PrimaryKey]
    payment_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("payments.id"), index=True)
    status: Mapped[str] = mapped_column(String(16), default=RefundStatus.PENDING)
    amount: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[dt.datetime]
    settled_at: Mapped[dt.datetime | None]
    check_at: Mapped[dt.datetime | None] = mapped_column(index=True)
    """When reconciliation asks the provider next; None once the outcome is known."""


class Receipt(Base):
    """The document that says what was paid or given back: one for each payment and each refund."""

    __tablename__ = "receipts"

    id: Mapped[PrimaryKey]
    kind: Mapped[str] = mapped_column(String(16))
    subject_id: Mapped[uuid.UUID] = mapped_column(unique=True)
    """Id of the payment (`receipt`) or of the refund (`credit_note`)."""
    payment_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("payments.id"), index=True)
    amount: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    created_at: Mapped[dt.datetime]

"""Tables of orders and their lines."""

import datetime as dt
import uuid

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.infrastructure.database import Base, PrimaryKey


class Order(Base):
    """What someone wants to buy. `total_amount` is in minor units of `currency`."""

    __tablename__ = "orders"

    id: Mapped[PrimaryKey]
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    status: Mapped[str] = mapped_column(String(16), index=True)
    payment_in_progress: Mapped[bool] = mapped_column(default=False)
    """Held while a payment's outcome is open: neither a second payment nor a cancellation may start."""
    currency: Mapped[str] = mapped_column(String(3))
    total_amount: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[dt.datetime]
    updated_at: Mapped[dt.datetime]

    lines: Mapped[list["OrderLine"]] = relationship(
        lazy="raise", order_by="OrderLine.position", cascade="all, delete-orphan"
    )

    # Serves the keyset pagination: the newest orders of one user, from a known place on.
    __table_args__ = (Index("ix_orders_user_id_created_at_id", "user_id", "created_at", "id"),)


class OrderLine(Base):
    """One article of an order. `unit_amount` is in minor units."""

    __tablename__ = "order_lines"

    order_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("orders.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sku: Mapped[str] = mapped_column(String(64))
    quantity: Mapped[int]
    unit_amount: Mapped[int] = mapped_column(BigInteger)

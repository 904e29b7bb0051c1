"""What payments do on events: a receipt for each captured payment, a credit note for each refund."""

import uuid

from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure.outbox import Consumer, Message
from app.payments import service


async def _write_receipt(session: AsyncSession, message: Message) -> None:
    payment_id = uuid.UUID(message.payload["payment_id"])
    await service.write_receipt(
        session,
        kind="receipt",
        subject_id=payment_id,
        payment_id=payment_id,
        amount=message.payload["amount"],
    )


async def _write_credit_note(session: AsyncSession, message: Message) -> None:
    await service.write_receipt(
        session,
        kind="credit_note",
        subject_id=uuid.UUID(message.payload["refund_id"]),
        payment_id=uuid.UUID(message.payload["payment_id"]),
        amount=message.payload["amount"],
    )


CONSUMERS = (
    Consumer(name="write_receipt", topic="payment.captured", handle=_write_receipt),
    Consumer(name="write_credit_note", topic="order.refunded", handle=_write_credit_note),
)

"""What orders do on events: a captured payment sends the order on its way."""

import uuid

from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure.outbox import Consumer, Message
from app.orders import service


async def _fulfil(session: AsyncSession, message: Message) -> None:
    await service.fulfil(session, order_id=uuid.UUID(message.payload["order_id"]))


CONSUMERS = (Consumer(name="fulfil_order", topic="payment.captured", handle=_fulfil),)

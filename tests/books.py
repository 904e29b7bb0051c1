"""What the provider's ledger and our own books say about money, for tests that compare the two.

The ledger belongs to the provider and survives everything, so it is the truth; a test about money that
asks only our own API would believe a service that charges twice and tells of one.
"""

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import select, update

from app.infrastructure import outbox
from app.infrastructure.database import Database, now
from app.payments.models import Payment, Refund
from app.payments.provider import PaymentProvider, ProviderOutcomeUnknown
from app.payments.reconciliation import reconcile
from app.worker import CONSUMERS, Worker
from tests.provider import RunningProvider
from tests.service import Service


def charges_of(provider: RunningProvider, order_id: str) -> list[dict[str, Any]]:
    """Return the charges that took money for an order."""
    return [
        entry
        for entry in provider.ledger()
        if entry["kind"] == "charge"
        and entry["status"] == "succeeded"
        and entry["reference"] == order_id
    ]


def refunded(provider: RunningProvider, payment_id: str) -> int:
    """Return how much of a payment the provider gave back."""
    return sum(
        entry["amount"]
        for entry in provider.ledger()
        if entry["kind"] == "refund"
        and entry["status"] == "succeeded"
        and entry["reference"] == payment_id
    )


@asynccontextmanager
async def second_connection(service: Service) -> AsyncIterator[PaymentProvider]:
    """Another process's connection to the provider, such as the worker's."""
    provider = PaymentProvider(service.settings)
    try:
        yield provider
    finally:
        await provider.aclose()


async def make_due(database: Database) -> None:
    """Let the time pass after which reconciliation asks about what is pending."""
    past = now() - dt.timedelta(seconds=1)
    async with database.transaction() as session:
        await session.execute(
            update(Payment).where(Payment.check_at.is_not(None)).values(check_at=past)
        )
        await session.execute(
            update(Refund).where(Refund.check_at.is_not(None)).values(check_at=past)
        )


async def reconcile_now(service: Service) -> int:
    """Reconcile everything that is pending, as the worker does later; return how many were asked."""
    database: Database = service.app.state.database
    await make_due(database)
    async with second_connection(service) as provider:
        return await reconcile(database, provider)


async def handle_events(service: Service) -> list[uuid.UUID]:
    """Let the consumers handle all events so far, as the worker does; return the deliveries."""
    database: Database = service.app.state.database
    async with second_connection(service) as provider:
        worker = Worker(service.settings, database, provider)
        async with database.transaction() as session:
            _, deliveries = await outbox.relay(session, consumers=CONSUMERS, limit=1000)
        for delivery_id in deliveries:
            await worker.deliver(delivery_id)
    async with database.transaction() as session:
        states = await session.scalars(
            select(outbox.OutboxDelivery.state).where(outbox.OutboxDelivery.id.in_(deliveries))
        )
        assert set(states.all()) <= {outbox.DeliveryState.DONE}
    return deliveries


class Gate:
    """Holds the first call of one method of the service's provider until `open`, to order what races.

    Later calls go through. With `lost` the answer to the held call gets lost, as on a broken connection.
    """

    def __init__(self, service: Service, method: str, *, lost: bool = False) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()
        provider = service.app.state.payment_provider
        self._call: Callable[..., Awaitable[Any]] = getattr(provider, method)
        self._lost = lost
        setattr(provider, method, self._held)

    def open(self) -> None:
        """Let the held call go on."""
        self._opened.set()

    async def _held(self, **arguments: Any) -> Any:
        if self.reached.is_set():
            return await self._call(**arguments)
        self.reached.set()
        await self._opened.wait()
        answer = await self._call(**arguments)
        if self._lost:
            raise ProviderOutcomeUnknown
        return answer


def lose_answer(service: Service, method: str) -> None:
    """Let the answer to the next call of one method of the service's provider get lost."""
    Gate(service, method, lost=True).open()

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

from sqlalchemy import update

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
        failed = [found for id_ in deliveries if (found := await outbox.read(session, id_))]
    assert failed == []
    return deliveries


class Gate:
    """Holds calls of one method of the service's provider until `open`, to order what races.

    `lost` lets the call through and then loses its answer, as a broken connection does.
    """

    def __init__(self, service: Service, method: str, *, lost: bool = False) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()
        self._provider = service.app.state.payment_provider
        self._method = method
        self._call: Callable[..., Awaitable[Any]] = getattr(self._provider, method)
        self._lost = lost
        setattr(self._provider, method, self._held)

    def open(self) -> None:
        """Let the calls through, those under way and all later ones."""
        self._opened.set()
        setattr(self._provider, self._method, self._call)

    async def _held(self, **arguments: Any) -> Any:
        self.reached.set()
        if not self._lost:
            await self._opened.wait()
            return await self._call(**arguments)
        await self._call(**arguments)
        raise ProviderOutcomeUnknown

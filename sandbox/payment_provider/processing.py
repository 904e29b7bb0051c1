"""One request from the delay to the answer: what an operation of the provider goes through.

Owns provider_charges_total{status} and provider_refunds_total{status} (recorded ones: a replay is not
counted again), the log line of each record, and the span around each access to the ledger. Must never
put an idempotency key, a payment token or the client's reference into any of them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, get_args

from loguru import logger
from prometheus_client import Counter

from app.observability.tracing import business_span
from sandbox.payment_provider.behaviour import Faults, count_fault
from sandbox.payment_provider.ledger import Ledger
from sandbox.payment_provider.problems import ProcessingFailed, Unavailable, UnknownKey
from sandbox.payment_provider.schemas import (
    Charge,
    ChargeRequest,
    ChargeStatus,
    Refund,
    RefundRequest,
    RefundStatus,
)

T = TypeVar("T")

CHARGES = Counter("provider_charges_total", "Charges recorded, by outcome.", ["status"])
REFUNDS = Counter("provider_refunds_total", "Refunds recorded, by outcome.", ["status"])


class Processor:
    """Serves charges and refunds from the ledger, with the faults that were asked for."""

    def __init__(self, ledger: Ledger, faults: Faults) -> None:
        self._ledger = ledger
        self._faults = faults
        for status in get_args(ChargeStatus):
            CHARGES.labels(status)
        for status in get_args(RefundStatus):
            REFUNDS.labels(status)

    async def charge(self, key: str, request: ChargeRequest) -> tuple[Charge, bool]:
        """Charge once; return the charge and whether this request made it.

        Raises:
            KeyReused, ProcessingFailed, Unavailable: see there.
        """

        async def process() -> tuple[Charge, bool]:
            # Before the token has its say: a request that was decided is answered at once.
            known = await self._use_ledger(
                "replay", lambda: self._ledger.replay_charge(key, request)
            )
            if known is not None:
                return known, False
            if request.token == "tok_error":  # noqa: S105 - the name of a sandbox token
                count_fault("processing_failed")
                raise ProcessingFailed
            if request.token == "tok_slow":  # noqa: S105 - as above
                await self._faults.be_slow()
            return await self._use_ledger(
                "charge", lambda: _counted_charge(self._ledger.record_charge(key, request))
            )

        charge, created = await self._serve(process)
        # Also when it is asked again: who retries must not learn the outcome this way, but by asking
        # for the charge.
        is_silent = request.token == "tok_timeout" and charge.status != "canceled"  # noqa: S105
        if is_silent and not await self._faults.hang():
            raise Unavailable
        return charge, created

    async def refund(self, key: str, request: RefundRequest) -> tuple[Refund, bool]:
        """Refund once; return the refund and whether this request made it.

        Raises:
            ChargeNotRefundable, KeyReused, RefundTooLarge, Unavailable: see there.
        """
        return await self._serve_ledger(
            "refund", lambda: _counted_refund(self._ledger.record_refund(key, request))
        )

    async def find_charge(self, key: str) -> Charge:
        """Return the charge under `key`.

        Raises:
            UnknownKey, Unavailable: see there.
        """
        return _found(await self._serve_ledger("find", lambda: self._ledger.find_charge(key)))

    async def find_refund(self, key: str) -> Refund:
        """Return the refund under `key`.

        Raises:
            UnknownKey, Unavailable: see there.
        """
        return _found(await self._serve_ledger("find", lambda: self._ledger.find_refund(key)))

    async def cancel_charge(self, key: str) -> Charge:
        """See to it that `key` never charges, unless it did; return what stands.

        Raises:
            Unavailable: see there.
        """
        charge, _ = await self._serve_ledger(
            "cancel", lambda: _counted_charge(self._ledger.cancel_charge(key))
        )
        return charge

    async def cancel_refund(self, key: str) -> Refund:
        """See to it that `key` never refunds, unless it did; return what stands.

        Raises:
            Unavailable: see there.
        """
        refund, _ = await self._serve_ledger(
            "cancel", lambda: _counted_refund(self._ledger.cancel_refund(key))
        )
        return refund

    async def _serve(self, process: Callable[[], Awaitable[T]]) -> T:
        await self._faults.delay()
        fault = self._faults.draw()
        if fault == "unavailable_before":
            count_fault(fault)
            raise Unavailable
        result = await process()
        if fault == "unavailable_after":
            count_fault(fault)
            raise Unavailable
        return result

    async def _serve_ledger(self, operation: str, access: Callable[[], T]) -> T:
        return await self._serve(lambda: self._use_ledger(operation, access))

    async def _use_ledger(self, operation: str, access: Callable[[], T]) -> T:
        with business_span(f"ledger.{operation}"):
            return await asyncio.to_thread(access)


def _counted_charge(recorded: tuple[Charge, bool]) -> tuple[Charge, bool]:
    # Counted in the ledger's thread: it was recorded, even if nobody waits for the answer any more.
    charge, created = recorded
    if created:
        CHARGES.labels(charge.status).inc()
        logger.bind(
            type="charge",
            charge_id=charge.id,
            status=charge.status,
            amount=charge.amount,
            currency=charge.currency,
            decline_reason=charge.decline_reason,
        ).info("charge recorded")
    return recorded


def _counted_refund(recorded: tuple[Refund, bool]) -> tuple[Refund, bool]:
    refund, created = recorded
    if created:
        REFUNDS.labels(refund.status).inc()
        logger.bind(
            type="refund", refund_id=refund.id, status=refund.status, amount=refund.amount
        ).info("refund recorded")
    return recorded


def _found(entry: T | None) -> T:
    if entry is None:
        raise UnknownKey
    return entry

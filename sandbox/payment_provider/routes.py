"""The HTTP API: charges, refunds, the ledger and the behaviour. What happens is in `processing`."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Header, Request, Response, status

from sandbox.payment_provider.behaviour import Behaviour, BehaviourChange, Faults
from sandbox.payment_provider.ledger import Ledger
from sandbox.payment_provider.masking import PathKey
from sandbox.payment_provider.problems import PROBLEM_RESPONSES
from sandbox.payment_provider.processing import Processor
from sandbox.payment_provider.schemas import (
    Charge,
    ChargeRequest,
    IdempotencyKey,
    LedgerReport,
    Refund,
    RefundRequest,
)

router = APIRouter(prefix="/v1", responses=PROBLEM_RESPONSES)


def _processor(request: Request) -> Processor:
    return cast("Processor", request.app.state.processor)


def _faults(request: Request) -> Faults:
    return cast("Faults", request.app.state.faults)


def _ledger(request: Request) -> Ledger:
    return cast("Ledger", request.app.state.ledger)


HeaderKey = Annotated[IdempotencyKey, Header(alias="Idempotency-Key")]
ProcessorDep = Annotated[Processor, Depends(_processor)]
FaultsDep = Annotated[Faults, Depends(_faults)]
LedgerDep = Annotated[Ledger, Depends(_ledger)]


@router.post("/charges", status_code=status.HTTP_201_CREATED)
async def create_charge(
    body: ChargeRequest, key: HeaderKey, processor: ProcessorDep, response: Response
) -> Charge:
    """Charge once under the idempotency key. A charge that stands already is answered with 200."""
    charge, created = await processor.charge(key, body)
    response.status_code = status.HTTP_201_CREATED if created else status.HTTP_200_OK
    return charge


@router.get("/charges/{idempotency_key}")
async def read_charge(key: PathKey, processor: ProcessorDep) -> Charge:
    """Return the charge that was made, declined or canceled under the key."""
    return await processor.find_charge(key)


@router.post("/charges/{idempotency_key}/cancel")
async def cancel_charge(key: PathKey, processor: ProcessorDep) -> Charge:
    """See to it that the key never charges; a charge that stands already is returned unchanged."""
    return await processor.cancel_charge(key)


@router.post("/refunds", status_code=status.HTTP_201_CREATED)
async def create_refund(
    body: RefundRequest, key: HeaderKey, processor: ProcessorDep, response: Response
) -> Refund:
    """Refund once under the idempotency key. A refund that stands already is answered with 200."""
    refund, created = await processor.refund(key, body)
    response.status_code = status.HTTP_201_CREATED if created else status.HTTP_200_OK
    return refund


@router.get("/refunds/{idempotency_key}")
async def read_refund(key: PathKey, processor: ProcessorDep) -> Refund:
    """Return the refund that was made or canceled under the key."""
    return await processor.find_refund(key)


@router.post("/refunds/{idempotency_key}/cancel")
async def cancel_refund(key: PathKey, processor: ProcessorDep) -> Refund:
    """See to it that the key never refunds; a refund that stands already is returned unchanged."""
    return await processor.cancel_refund(key)


@router.get("/ledger")
def read_ledger(ledger: LedgerDep) -> LedgerReport:
    """Return everything that was ever recorded: the truth that a reconciliation compares with."""
    return LedgerReport(entries=ledger.entries())


@router.get("/behaviour")
async def read_behaviour(faults: FaultsDep) -> Behaviour:
    """Return how the provider behaves now."""
    return faults.behaviour


@router.put("/behaviour")
async def change_behaviour(body: BehaviourChange, faults: FaultsDep) -> Behaviour:
    """Replace the behaviour until the next restart; what is left out is back to the settings."""
    return faults.change(body)

"""The provider's application: the HTTP side, wired with the signals that the service has, too.

Process-wide things (log sinks, the tracer's provider, exception hooks) are not set up here but by
`python -m sandbox.payment_provider`: a test may run this application beside the service in one process.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.observability.context import RequestContextMiddleware
from app.observability.logs import instrument_access_log
from app.observability.metrics import instrument_metrics
from app.observability.tracing import Tracing, instrument_tracing
from sandbox.payment_provider.behaviour import Faults
from sandbox.payment_provider.ledger import Ledger
from sandbox.payment_provider.masking import MaskingFastAPI
from sandbox.payment_provider.problems import install_problem_handlers
from sandbox.payment_provider.processing import Processor
from sandbox.payment_provider.routes import router
from sandbox.payment_provider.settings import ProviderSettings


def create_provider(
    settings: ProviderSettings,
    *,
    tracing: Tracing | None = None,
    rng: random.Random | None = None,
) -> FastAPI:
    """Return the provider's application; its lifespan opens and closes the ledger.

    Args:
        settings: Where the ledger is, and the behaviour to start with.
        tracing: Records a span of each request when given.
        rng: Decides which requests fail; seed it to repeat a run.
    """
    app = MaskingFastAPI(
        title="Payment provider simulator", version=settings.service_version, lifespan=_lifespan
    )
    app.state.ledger = Ledger(settings.provider_database)
    app.state.faults = Faults(settings.behaviour(), rng)
    app.state.processor = Processor(app.state.ledger, app.state.faults)

    install_problem_handlers(app)
    app.include_router(router)
    app.add_api_route("/health", _answer_health, methods=["GET", "HEAD"], include_in_schema=False)

    instrument_metrics(app, settings)
    instrument_access_log(app)
    if tracing is not None:
        instrument_tracing(app, tracing)
    app.add_middleware(RequestContextMiddleware)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.ledger.open()
    try:
        yield
    finally:
        app.state.ledger.close()


async def _answer_health() -> dict[str, str]:
    return {"status": "ok"}

"""The journey's own HTTP side: /metrics, and probes that say whether there will be another journey.

Not whether the last one went well: the prober works when it finds the service broken, and an orchestrator
that restarts it for that would take the evidence away.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx2
from fastapi import FastAPI, Response

from app.observability.metrics import instrument_metrics
from sandbox.synthetic_journey.journey import run_journey
from sandbox.synthetic_journey.schedule import Schedule
from sandbox.synthetic_journey.settings import JourneySettings


def create_prober(
    settings: JourneySettings, *, transport: httpx2.AsyncBaseTransport | None = None
) -> FastAPI:
    """Return the application; it makes journeys while its lifespan lasts."""
    schedule = Schedule(
        partial(run_journey, settings, transport=transport),
        interval_seconds=settings.synthetic_interval_seconds,
        jitter_seconds=settings.synthetic_jitter_seconds,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        async with schedule.running():
            yield

    app = FastAPI(title="Synthetic journey", lifespan=lifespan, openapi_url=None)

    @app.get("/health")
    @app.get("/health/ready")
    async def get_ready(response: Response) -> dict[str, str]:
        if schedule.is_running:
            return {"status": "ok"}
        response.status_code = 503
        return {"status": "down"}

    @app.get("/health/live")
    async def get_live() -> dict[str, str]:
        return {"status": "ok"}

    instrument_metrics(app, settings)
    return app

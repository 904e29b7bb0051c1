"""The application without instrumentation: FastAPI, the database and the same handlers. The yardstick's zero.

What the domains count and log by themselves is taken out of the process, too: metrics do nothing, nothing
listens to the log, and what would run after a commit is not even kept.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from fastapi import FastAPI
from loguru import logger
from prometheus_client import Counter, Gauge, Histogram

from app.infrastructure import outbox
from app.infrastructure.cache import create_cache
from app.infrastructure.database import Database
from app.infrastructure.rate_limit import RateLimiter
from app.observability import business
from app.orders import routes as orders_routes
from app.orders import service as orders
from app.settings import Settings
from app.telemetry import Telemetry
from app.users import kpis as users_kpis
from app.users import routes as users_routes
from app.users import service as users
from bench.handlers import add_handlers


def create_bare(settings: Settings, *, routes: int) -> FastAPI:
    """Return the service's routes on their database, and nothing around them."""
    _take_out_what_the_domains_emit()
    return plain_app(settings, routes=routes)


def plain_app(settings: Settings, *, routes: int, telemetry: Telemetry | None = None) -> FastAPI:
    """Return the routes on their database; what the domains emit is emitted. `telemetry` runs meanwhile."""
    database = Database(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with telemetry.running() if telemetry else nullcontext():
            yield
            await database.dispose()

    app = FastAPI(lifespan=lifespan)
    app.state.settings = settings
    app.state.database = database
    app.state.session_cache = create_cache("sessions", settings, None)
    app.state.rate_limiter = RateLimiter(settings, None)
    app.include_router(users_routes.router)
    app.include_router(orders_routes.router)
    add_handlers(app, routes)
    return app


def _take_out_what_the_domains_emit() -> None:
    logger.remove()

    def nothing(*_: Any, **__: Any) -> None:
        pass

    for metric, method in ((Counter, "inc"), (Gauge, "set"), (Histogram, "observe")):
        setattr(metric, method, nothing)
    for kind in (business.KpiCounter, business.KpiHistogram):
        for method in ("inc", "observe"):
            if method in vars(kind):
                setattr(kind, method, nothing)
    for module in (orders, users, users_routes, users_kpis):
        if hasattr(module, "after_commit"):
            module.after_commit = nothing  # type: ignore[attr-defined]
    outbox.inject_trace = nothing  # type: ignore[attr-defined]

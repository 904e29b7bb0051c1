"""The two applications that are compared: the service, and the same handlers with nothing around them.

Both have the domains' own routes on a database of their own, and `/ping` beside them. The bare one has no
middleware, no error handlers, no log, no spans and no database insight; probes are the same functions.
"""

import itertools
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from limits.aio.storage import MemoryStorage
from loguru import logger
from prometheus_client import Counter as Metric
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pydantic import SecretStr

from app.infrastructure.cache import create_cache
from app.infrastructure.database import Database
from app.infrastructure.rate_limit import RateLimiter
from app.main import create_app
from app.observability import access_line, context, database, logs, span_export
from app.observability.health import Health, install_health_routes
from app.observability.metrics import metrics_page
from app.observability.settling import Later
from app.observability.tracing import business_span
from app.orders import routes as orders_routes
from app.payments import routes as payments_routes
from app.settings import Settings
from app.users import passwords
from app.users import routes as users_routes
from tests.service import test_settings

MORE_ROUTES: Final = 48
UNLIMITED: Final = "1000000/day"
"""None of whose windows ends in between."""
_TIDYING: Final = "_MemoryStorage__schedule_expiry"


def settings_for(directory: Path, *, collector: str, ratio: float) -> Settings:
    """Return settings with every signal on; nothing slow is found, however busy the machine is."""
    return test_settings(
        f"sqlite+aiosqlite:///{directory / 'service.db'}",
        log_format="json",
        otel_exporter_otlp_endpoint=collector,
        otel_traces_sampler_arg=ratio,
        sentry_dsn=SecretStr("http://key@127.0.0.1:9/1"),  # nobody listens; nothing fails either
        database_slow_query_ms=600_000,
        rate_limit_login=UNLIMITED,
        rate_limit_registration=UNLIMITED,
        payment_provider_url="http://127.0.0.1:9",
    )


def _do_nothing(_: object) -> None:
    pass


def be_quick_and_steady() -> None:
    """Let Argon2 do little, and nothing depend on time: that is beside what is counted.

    A hash is one call in another thread, whatever it takes. The tidying of rate limits is a task of its own,
    begun by a request when the one before has ended; and what is put off is done when it is told to, and by
    no timer, for as many requests as it happens to be.
    """

    async def no_tidying(_: MemoryStorage) -> None:
        pass

    setattr(MemoryStorage, _TIDYING, no_tidying)
    passwords._hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
    # How long something took decides how many buckets a histogram has to add to, and a second that begins
    # is written down for the lines: time stands still. And whether the exporter has to be woken depends on
    # how fast it is; whether lines find others that wait, on how fast those are written.
    stands_still = itertools.repeat(1_763_000_000.0).__next__
    for module, name, value in (
        (context, "perf_counter", stands_still),
        (context, "time", stands_still),
        (database, "perf_counter", stands_still),
        (access_line, "second_of", str),
        (logs, "second_of", str),
        (logs, "_GATHER_SECONDS", 600.0),
        (span_export, "BATCH_SPANS", span_export.MAX_QUEUED_SPANS),
        (Later, "_on_time", _do_nothing),
        (Later, "_settle_next", _do_nothing),
    ):
        setattr(module, name, value)


def make_service(settings: Settings) -> FastAPI:
    """Return the service with `/ping`."""
    app = create_app(settings)
    _add_ping(app)
    return app


def make_bare(settings: Settings) -> FastAPI:
    """Return the handlers alone."""
    logger.remove()
    app = FastAPI(title="Bare")
    app.state.settings = settings
    app.state.database = Database(settings)
    app.state.session_cache = create_cache("sessions", settings, None)
    app.state.rate_limiter = RateLimiter(settings, None)
    app.include_router(users_routes.router)
    app.include_router(orders_routes.router)
    app.include_router(payments_routes.router)
    install_health_routes(app, Health([]), settings)
    app.add_route("/metrics", metrics_page, include_in_schema=False)
    _add_ping(app)
    return app


def add_routes(app: FastAPI, number: int = MORE_ROUTES) -> None:
    """Add routes that nobody asks, behind all others."""

    async def nothing() -> dict[str, int]:
        return {}

    for n in range(number):
        app.add_api_route(f"/v1/more/{n}/{{item}}", nothing)


def _add_ping(app: FastAPI) -> None:
    async def ping() -> dict[str, str]:
        return {"ping": "pong"}

    async def new_route(item: str) -> dict[str, str]:
        return {"item": item}

    app.add_api_route("/new/{item}", new_route)
    app.add_api_route("/ping", ping)
    _put_first(app)


def _put_first(app: FastAPI) -> None:
    # What stands before a route is matched against each request to it, and the service has more routes.
    app.routes.insert(0, app.routes.pop())


# What must be noticed ---------------------------------------------------------------------------------

Defect = Callable[[FastAPI], Callable[[], None]]
"""Does its harm to the application, and returns what happens in each request to `/ping`."""


class _Layer:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def _nothing() -> None:
    pass


def _layer(app: FastAPI) -> Callable[[], None]:
    app.add_middleware(_Layer)
    return _nothing


def _span(_: FastAPI) -> Callable[[], None]:
    def harm() -> None:
        with business_span("one.more"):
            pass

    return harm


def _line(_: FastAPI) -> Callable[[], None]:
    return lambda: logger.bind(type="business").info("one more")


def _label(_: FastAPI) -> Callable[[], None]:
    metric = Metric("one_more", "A label for each request.", ["request"])
    numbers = itertools.count()
    return lambda: metric.labels(str(next(numbers))).inc()


def _leak(_: FastAPI) -> Callable[[], None]:
    kept: list[object] = []
    return lambda: kept.append(object())


def _thread(_: FastAPI) -> Callable[[], None]:
    threading.Thread(target=threading.Event().wait, name="one-more", daemon=True).start()
    return _nothing


DEFECTS: Final[dict[str, Defect]] = {
    "layer": _layer, "span": _span, "line": _line, "label": _label, "leak": _leak, "thread": _thread,
}  # fmt: skip


def spoil(app: FastAPI, defect: str) -> None:
    """Put the defect into `app`, which has not been asked yet."""
    harm = DEFECTS[defect](app)
    handler: Callable[[], Awaitable[dict[str, str]]] = app.routes.pop(0).endpoint  # type: ignore[attr-defined]

    async def spoiled() -> dict[str, str]:
        harm()
        return await handler()

    app.add_api_route("/ping", spoiled)
    _put_first(app)

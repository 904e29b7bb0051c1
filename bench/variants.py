"""What is compared: one application each, named as in the report."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fastapi import FastAPI

from app.observability.context import identify_requests
from app.observability.database import instrument_database
from app.observability.error_tracking import report_warning, setup_error_tracking
from app.observability.exceptions import instrument_exceptions
from app.observability.logs import instrument_access_log, setup_logs
from app.observability.metrics import instrument_metrics
from app.observability.tracing import instrument_tracing, setup_tracing, trace_engine
from app.settings import Settings
from app.telemetry import Telemetry
from bench.bare import create_bare, plain_app
from bench.handlers import add_handlers
from bench.typical import create_typical

FEW: Final = 2
MANY: Final = 50


@dataclass(frozen=True, slots=True)
class Variant:
    """One application to measure."""

    name: str
    create: Callable[..., FastAPI]
    shown: str
    """What it is, for the report."""
    routes: int = FEW
    environment: dict[str, str] = field(default_factory=dict)
    spans: float = 0.0
    """The share of requests that is traced, for the check that they were."""
    lines: int = 0
    """Log lines of one ping, for the same."""


def _service(settings: Settings, *, routes: int) -> FastAPI:
    from app.main import create_app  # noqa: PLC0415 - the whole service is not loaded by the others

    app = create_app(settings)
    add_handlers(app, routes)
    return app


def _signals(settings: Settings, *, routes: int) -> FastAPI:
    # As app/main.py wires them.
    telemetry = Telemetry(settings)
    app = plain_app(settings, routes=routes, telemetry=telemetry)
    engine = app.state.database.engine
    instrument_exceptions(app)
    instrument_access_log(app, settings)
    instrument_metrics(app, settings)
    instrument_tracing(app, telemetry.tracing)
    identify_requests(app, settings)
    trace_engine(engine)
    instrument_database(engine, settings, on_finding=report_warning)
    return app


def _ids(settings: Settings, *, routes: int) -> FastAPI:
    app = create_bare(settings, routes=routes)
    identify_requests(app, settings)
    return app


def _metrics(settings: Settings, *, routes: int) -> FastAPI:
    app = plain_app(settings, routes=routes)
    identify_requests(app, settings)
    instrument_metrics(app, settings)
    return app


def _logs(settings: Settings, *, routes: int) -> FastAPI:
    app = create_bare(settings, routes=routes)
    setup_logs(settings)
    instrument_access_log(app, settings)
    identify_requests(app, settings)
    return app


def _traces(settings: Settings, *, routes: int) -> FastAPI:
    app = create_bare(settings, routes=routes)
    tracing = setup_tracing(settings)
    instrument_tracing(app, tracing)
    identify_requests(app, settings)
    trace_engine(app.state.database.engine)
    return app


def _errors(settings: Settings, *, routes: int) -> FastAPI:
    app = create_bare(settings, routes=routes)
    setup_error_tracking(settings)
    instrument_exceptions(app)
    return app


def _database(settings: Settings, *, routes: int) -> FastAPI:
    app = plain_app(settings, routes=routes)
    identify_requests(app, settings)
    instrument_database(app.state.database.engine, settings)
    return app


def _share(share: float) -> dict[str, str]:
    return {"OTEL_TRACES_SAMPLER_ARG": str(share)}


VARIANTS: Final = {
    variant.name: variant
    for variant in (
        Variant("bare", create_bare, "FastAPI with the same handlers and database"),
        Variant("bare_again", create_bare, "the same once more: the difference is noise"),
        Variant("signals_0.01", _signals, "all signals on it, 1 % of traces",
                environment=_share(0.01), spans=0.01, lines=1),
        Variant("signals_1.0", _signals, "all signals on it, every trace",
                environment=_share(1.0), spans=1.0, lines=1),
        Variant("sampling_0.01", _service, "the service, 1 % of traces",
                environment=_share(0.01), spans=0.01, lines=1),
        Variant("sampling_0.1", _service, "the service, 10 % of traces",
                environment=_share(0.1), spans=0.1, lines=1),
        Variant("sampling_1.0", _service, "the service, every trace",
                environment=_share(1.0), spans=1.0, lines=1),
        Variant("only_ids", _ids, "request ids and context alone"),
        Variant("only_metrics", _metrics, "HTTP metrics alone"),
        Variant("only_logs", _logs, "the access line alone", lines=1),
        Variant("only_traces_0.01", _traces, "traces alone, 1 %",
                environment=_share(0.01), spans=0.01),
        Variant("only_traces_1.0", _traces, "traces alone, every one",
                environment=_share(1.0), spans=1.0),
        Variant("only_errors", _errors, "error tracking alone"),
        Variant("only_database", _database, "database insight alone"),
        Variant("typical", create_typical, "the same libraries, wired as templates do",
                spans=1.0, lines=1),
        Variant("bare_50_routes", create_bare, "bare, 50 routes", routes=MANY),
        Variant("sampling_0.01_50_routes", _service, "the service, 1 %, 50 routes", routes=MANY,
                environment=_share(0.01), spans=0.01, lines=1),
        Variant("typical_50_routes", create_typical, "typical, 50 routes", routes=MANY,
                spans=1.0, lines=1),
    )
}  # fmt: skip

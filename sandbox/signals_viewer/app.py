"""The viewer's application: takes signals, shows them."""

from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, HTTPException, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from sandbox.signals_viewer import intake
from sandbox.signals_viewer.documents import describe_error, describe_trace, describe_trace_in_full
from sandbox.signals_viewer.error_page import error_page
from sandbox.signals_viewer.overview import overview
from sandbox.signals_viewer.settings import HOST, ViewerSettings
from sandbox.signals_viewer.store import SignalStore
from sandbox.signals_viewer.trace_page import trace_page

Store = Annotated[SignalStore, Depends(intake.get_store)]


def create_viewer(settings: ViewerSettings, store: SignalStore | None = None) -> FastAPI:
    """Return the viewer; it keeps what arrives in `store`, a new one by default."""
    app = FastAPI(
        title="Glasshouse signals viewer",
        version=settings.service_version,
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
    )
    app.state.store = store or SignalStore()
    app.include_router(intake.router)
    app.add_api_route("/", show_overview, include_in_schema=False)
    app.add_api_route("/traces/{trace_id}", show_trace, include_in_schema=False)
    app.add_api_route("/errors/{event_id}", show_error, include_in_schema=False)
    app.add_api_route("/api/traces", list_traces)
    app.add_api_route("/api/traces/{trace_id}", get_trace)
    app.add_api_route("/api/errors", list_errors)
    app.add_api_route("/api/version", get_version, include_in_schema=False)
    app.add_api_route("/health", get_health, methods=["GET", "HEAD"], include_in_schema=False)
    # A page of another site whose name was made to lead to this machine (DNS rebinding) reads nothing.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return app


async def show_overview(store: Store) -> Response:
    """Show the newest traces and errors."""
    return overview(store)


async def show_trace(trace_id: str, store: Store) -> Response:
    """Show one trace."""
    return trace_page(store, trace_id)


async def show_error(event_id: str, store: Store) -> Response:
    """Show one error."""
    return error_page(store, event_id)


async def list_traces(store: Store) -> Response:
    """List the traces in outline, the one that began last first."""
    return _json({"traces": [describe_trace(store, trace) for trace in store.traces()]})


async def get_trace(trace_id: str, store: Store) -> Response:
    """Return one trace with its spans and errors."""
    trace = store.trace(trace_id)
    if trace is None:
        raise HTTPException(404, "this trace is not here (yet, or any more)")
    return _json(describe_trace_in_full(store, trace))


async def list_errors(store: Store) -> Response:
    """List the errors, the one that arrived last first."""
    return _json({"errors": [describe_error(error) for error in store.errors()]})


async def get_version(store: Store) -> dict[str, str]:
    """Return what changes with everything that arrives."""
    return {"version": store.version}


async def get_health() -> dict[str, str]:
    """Say that the viewer runs."""
    return {"status": "ok"}


def _json(document: Any) -> Response:
    # orjson, since an attribute may be NaN, which the standard library's strict JSON refuses.
    return Response(orjson.dumps(document), media_type="application/json")

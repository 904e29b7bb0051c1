"""The application: takes notifications, shows them, and serves the runbooks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import orjson
from fastapi import FastAPI, Query, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from app.observability.context import RequestContextMiddleware
from app.observability.logs import instrument_access_log
from app.observability.metrics import instrument_metrics
from sandbox.notifications import intake
from sandbox.notifications.documents import describe
from sandbox.notifications.intake import Store
from sandbox.notifications.overview import overview, runbook_list, runbook_page
from sandbox.notifications.runbooks import Runbooks
from sandbox.notifications.settings import NotificationsSettings
from sandbox.notifications.shown import Channel
from sandbox.notifications.store import NotificationStore
from sandbox.payment_provider.problems import install_problem_handlers


def create_notifications(
    settings: NotificationsSettings, store: NotificationStore | None = None
) -> FastAPI:
    """Return the application; its lifespan opens and closes the store."""
    app = FastAPI(
        title="Glasshouse notifications",
        version=settings.service_version,
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.store = store or NotificationStore(settings.notifications_database)
    app.state.runbooks = Runbooks(settings.notifications_runbooks)
    install_problem_handlers(app)
    app.include_router(intake.router)
    app.add_api_route("/", show_overview, include_in_schema=False)
    app.add_api_route("/runbooks", show_runbooks, include_in_schema=False)
    app.add_api_route("/runbooks/{name}", show_runbook, include_in_schema=False)
    app.add_api_route("/v1/notifications", list_notifications)
    app.add_api_route("/v1/version", get_version, include_in_schema=False)
    app.add_api_route("/health", get_health, methods=["GET", "HEAD"], include_in_schema=False)
    # A page of another site whose name was made to lead to this machine (DNS rebinding) reads nothing.
    app.add_middleware(
        TrustedHostMiddleware,
        allowed_hosts=["localhost", "127.0.0.1", "notifications", settings.notifications_host],
    )
    instrument_metrics(app, settings)
    instrument_access_log(app)
    app.add_middleware(RequestContextMiddleware)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.store.open()
    try:
        yield
    finally:
        app.state.store.close()


# Plain `def` where SQLite or a file is read: Starlette runs these in threads.


def show_overview(store: Store, channel: Channel | None = None) -> Response:
    """Show the newest notifications."""
    return overview(store, channel)


def show_runbooks(request: Request) -> Response:
    """Show which runbooks there are."""
    return runbook_list(request.app.state.runbooks)


def show_runbook(request: Request, name: str) -> Response:
    """Show one runbook."""
    return runbook_page(request.app.state.runbooks, name)


def list_notifications(
    store: Store,
    channel: Channel | None = None,
    receiver: Annotated[str | None, Query(max_length=200)] = None,
    after: Annotated[int, Query(ge=0, le=2**62, description="Only those with an id above.")] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    """List the notifications, newest first."""
    found = store.newest(channel=channel, receiver=receiver, after=after, limit=limit)
    # orjson, since it puts what was sent into the answer as it was sent.
    document = {"notifications": [describe(stored) for stored in found]}
    return Response(orjson.dumps(document), media_type="application/json")


def get_version(store: Store) -> dict[str, str]:
    """Return what changes with everything that arrives."""
    return {"version": store.version()}


async def get_health() -> dict[str, str]:
    """Say that it runs."""
    return {"status": "ok"}

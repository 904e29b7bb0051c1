"""How templates usually wire the same signals: each library as its page shows it. The yardstick's far end.

A BaseHTTPMiddleware for the access line and the request id, the instrumentator's defaults, OpenTelemetry's
FastAPI and SQLAlchemy instrumentation at 100 %, loguru with `serialize=True`, Sentry with its traces.
Nothing is made worse than it is found: batches go out in the background, and the log to the same pipe.
"""

import sys
import time
import uuid
from typing import Any

import sentry_sdk
from fastapi import FastAPI, Request, Response
from loguru import logger
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator import Instrumentator
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from app.settings import Settings
from bench.bare import plain_app


class AccessLog(BaseHTTPMiddleware):
    """One line for each request, with an id."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Serve the request and log it."""
        request_id = request.headers.get("x-request-id") or str(uuid.uuid4())
        started = time.perf_counter()
        with logger.contextualize(request_id=request_id):
            response = await call_next(request)
            logger.info(
                "{} {} {}",
                request.method,
                request.url.path,
                response.status_code,
                duration_ms=(time.perf_counter() - started) * 1000,
                client=request.client.host if request.client else "",
                user_agent=request.headers.get("user-agent", ""),
            )
        response.headers["X-Request-ID"] = request_id
        return response


def create_typical(settings: Settings, *, routes: int) -> FastAPI:
    """Return the same routes, instrumented as it is usually done."""
    dsn = settings.sentry_dsn
    logger.remove()
    logger.add(sys.stdout, serialize=True)
    sentry_sdk.init(dsn=dsn.get_secret_value() if dsn else None, traces_sample_rate=1.0)
    provider = TracerProvider(resource=Resource.create())  # named by OTEL_SERVICE_NAME
    exporter = OTLPSpanExporter(f"{settings.otel_exporter_otlp_endpoint}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    app = plain_app(settings, routes=routes)
    app.add_middleware(AccessLog)
    # In a registry of its own: the default one has the service's metrics of the same names, since its
    # domains are in this process, and then the instrumentator would silently count nothing.
    Instrumentator(registry=CollectorRegistry()).instrument(app).expose(app)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    instrumentor: Any = SQLAlchemyInstrumentor()
    # It declares that it wants an older SQLAlchemy, and would silently do nothing.
    instrumentor.instrument(
        engine=app.state.database.engine.sync_engine, tracer_provider=provider, skip_dep_check=True
    )
    return app

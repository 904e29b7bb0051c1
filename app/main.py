"""The API. `create_app` is its table of contents: one line for each thing that is attached."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI

from app.errors import install_error_handlers, problem_responses
from app.infrastructure.audit import record_use
from app.infrastructure.audit_configuration import recording_configuration
from app.infrastructure.cache import create_cache
from app.infrastructure.database import Database, install_database_errors
from app.infrastructure.migrations import check_applied
from app.infrastructure.rate_limit import RateLimiter
from app.infrastructure.redis import RedisConnection, connect_redis
from app.infrastructure.shutdown import drain_on_sigterm
from app.infrastructure.web import (
    allow_origins,
    install_home,
    limit_bodies,
    send_security_headers,
)
from app.observability.context import identify_requests
from app.observability.database import instrument_database
from app.observability.error_tracking import report_warning
from app.observability.health import Check, Health, disk_space_check, install_health_routes
from app.observability.logs import instrument_access_log
from app.observability.metrics import instrument_metrics
from app.observability.profiling import install_profiling_routes
from app.observability.query_plans import QueryPlans
from app.observability.security import count_denied_operations
from app.observability.slo import ServiceLevelMonitor, install_slo_route
from app.observability.tracing import instrument_tracing, trace_engine
from app.orders import routes as orders_routes
from app.orders import service as orders
from app.payments import routes as payments_routes
from app.payments import service as payments
from app.payments.provider import PaymentProvider
from app.settings import Settings, load_settings
from app.telemetry import Telemetry
from app.users import routes as users_routes

MIN_FREE_DISK_BYTES = 100 * 1024 * 1024


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the API, wired and instrumented. Opens no connection before it is started."""
    settings = settings or load_settings()
    telemetry = Telemetry(settings)

    # What the routes stand on
    database = Database(settings)
    redis = connect_redis(settings)
    plans = QueryPlans(database.engine, settings, on_finding=report_warning)
    provider = PaymentProvider(settings)
    health = Health(_checks(database, redis, provider))
    service_levels = ServiceLevelMonitor(settings)
    app = FastAPI(
        title="Glasshouse",
        version=settings.service_version,
        lifespan=_lifespan(
            settings, telemetry, database, plans, redis, provider, health, service_levels
        ),
        responses=problem_responses(400, 413, 422, 500, 503),
    )
    app.state.settings = settings
    app.state.health = health
    app.state.database = database
    app.state.payment_provider = provider
    app.state.session_cache = create_cache("sessions", settings, redis)
    app.state.rate_limiter = RateLimiter(settings, redis)
    app.state.export_sections = {
        "orders": orders.export_orders,
        "payments": payments.export_payments,
    }

    # What can be asked
    install_home(app)
    app.include_router(users_routes.router)
    app.include_router(orders_routes.router)
    app.include_router(payments_routes.router)
    install_health_routes(app, health, settings, on_denied=count_denied_operations)
    install_slo_route(app, service_levels)
    install_profiling_routes(
        app,
        settings,
        on_denied=count_denied_operations,
        on_use=partial(record_use, database),
        is_ending=lambda: health.draining,
    )

    # What every request passes, from the innermost layer to the outermost. The first records what escapes.
    install_error_handlers(app)
    install_database_errors(app)
    limit_bodies(app, settings)
    allow_origins(app, settings)
    send_security_headers(app)
    instrument_access_log(app, settings)
    instrument_metrics(app, settings)
    instrument_tracing(app, telemetry.tracing)
    identify_requests(app, settings)

    trace_engine(database.engine)
    instrument_database(database.engine, settings, on_finding=report_warning, explain=plans.explain)
    return app


def _checks(
    database: Database, redis: RedisConnection | None, provider: PaymentProvider
) -> list[Check]:
    checks = [
        Check("database", database.ping),
        Check("migrations", lambda: check_applied(database)),
        # Orders and log-ins work without these two: traffic must go on.
        Check("payment_provider", provider.ping, critical=False),
        disk_space_check(Path(), MIN_FREE_DISK_BYTES),
    ]
    if redis is not None:
        checks.append(Check("cache", redis.ping, critical=False))
    return checks


def _lifespan(
    settings: Settings,
    telemetry: Telemetry,
    database: Database,
    plans: QueryPlans,
    redis: RedisConnection | None,
    provider: PaymentProvider,
    health: Health,
    service_levels: ServiceLevelMonitor,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(telemetry.running())
            stack.push_async_callback(database.dispose)
            await stack.enter_async_context(plans.running())
            stack.push_async_callback(provider.aclose)
            if redis is not None:
                stack.push_async_callback(redis.aclose)
            await stack.enter_async_context(
                recording_configuration(
                    database,
                    settings,
                    service=settings.otel_service_name,
                    key=settings.secret_key,
                )
            )
            await stack.enter_async_context(health.keep_fresh())
            await stack.enter_async_context(service_levels.running())
            stack.enter_context(drain_on_sigterm(health, settings))
            health.mark_started()
            yield

    return lifespan

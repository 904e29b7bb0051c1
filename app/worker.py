"""The worker: relays the outbox, handles deliveries, reconciles payments, samples what is counted in rows.

An ASGI application like the API, so that probes, metrics, draining and the end work the same way; the
work runs beside it, for the time of its lifespan. Any number of workers may run.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI
from loguru import logger
from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure import idempotency, outbox, purge
from app.infrastructure.audit import record_use
from app.infrastructure.audit_chain import SEAL_BATCH, audit_keys, sample_unsealed, seal
from app.infrastructure.audit_configuration import recording_configuration
from app.infrastructure.broker import Broker, create_broker
from app.infrastructure.database import Database
from app.infrastructure.handover import REDELIVER_SECONDS, RELAY_SECONDS, HandOver
from app.infrastructure.migrations import check_applied
from app.infrastructure.redis import connect_redis
from app.infrastructure.samples import Sample
from app.infrastructure.shutdown import drain_on_sigterm
from app.observability.business import set_active_users
from app.observability.context import identify_requests
from app.observability.database import instrument_database
from app.observability.error_tracking import report_warning
from app.observability.exceptions import instrument_exceptions, record_exception
from app.observability.health import Check, Health, install_health_routes
from app.observability.jobs import (
    count_dead_letter,
    count_retry,
    count_round,
    declare_jobs,
    run_job,
)
from app.observability.metrics import instrument_metrics
from app.observability.profiling import install_profiling_routes
from app.observability.query_plans import QueryPlans
from app.observability.security import count_denied_operations, set_active_sessions
from app.observability.tracing import consume_span, trace_engine, untraced
from app.orders import consumers as orders_consumers
from app.orders import kpis as orders_kpis
from app.orders import service as orders
from app.payments import consumers as payments_consumers
from app.payments.provider import PaymentProvider
from app.payments.reconciliation import reconcile
from app.settings import Settings, load_settings
from app.telemetry import Telemetry
from app.users import service as users

CONSUMERS = (*orders_consumers.CONSUMERS, *payments_consumers.CONSUMERS)
SAMPLE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 30.0
"""A round that keeps failing is tried this often: soon enough, and without drowning the log."""
TIDY_SECONDS = 1.0
"""What is broken off at the end has this long to tidy up: to roll back, or to tell Redis."""


@dataclass(frozen=True, slots=True)
class Periodic:
    """Something done again and again: `run` returns whether there may be more to do at once."""

    task: str
    run: Callable[[], Awaitable[bool]]
    every_seconds: float


class Worker:
    """What one worker process does."""

    def __init__(self, settings: Settings, database: Database, provider: PaymentProvider) -> None:
        self._settings = settings
        self._database = database
        self._provider = provider
        self._consumers = {consumer.name: consumer for consumer in CONSUMERS}
        self._audit_keys = audit_keys(settings, settings.secret_key)
        self._slots = asyncio.Semaphore(settings.worker_concurrency)
        self._stopping = asyncio.Event()
        self._begun: set[asyncio.Task[None]] = set()
        self._purged = 0
        # What grows with the order book comes last: it may take longest, or fail.
        self._samples = tuple(
            map(Sample, (outbox.sample, sample_unsealed, sample_active, sample_paid, sample_orders))
        )
        self.broker: Broker = create_broker(settings, self.deliver)
        self._hand_over = HandOver(
            database, self.broker, CONSUMERS, concurrency=settings.worker_concurrency
        )
        self._periodic = (
            Periodic("relay", self._hand_over.relay, RELAY_SECONDS),
            Periodic("redeliver", self._hand_over.redeliver, REDELIVER_SECONDS),
            Periodic("reconcile", self._reconcile, 5.0),
            Periodic("seal", self._seal, 1.0),
            Periodic("sample", self._sample, SAMPLE_SECONDS),
            Periodic("purge", self._purge, 600.0),
        )
        declare_jobs((*self._consumers, *(periodic.task for periodic in self._periodic)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work for the time of the block; at its end finish what has begun, within the time allowed."""
        await self.broker.start()
        work = [
            asyncio.create_task(self.broker.consume(self._stopping), name="consume"),
            *(
                asyncio.create_task(self._repeat(periodic), name=periodic.task)
                for periodic in self._periodic
            ),
        ]
        try:
            yield
        finally:
            self._stopping.set()
            # What is not finished then is rolled back, and handed over again when its lease is over.
            await asyncio.wait([*work, *self._begun], timeout=self._settings.graceful_seconds)
            # Deliveries end before the broker's tasks around them, which then acknowledge.
            await _cancel(self._begun)
            await asyncio.wait(work, timeout=TIDY_SECONDS)
            await _cancel(work)
            await self.broker.stop()

    async def deliver(self, delivery_id: uuid.UUID) -> None:
        """Handle one delivery: its effects and the mark "done" are committed together."""
        # A task of our own: the broker's would live on when the time to end is over.
        task = asyncio.create_task(self._deliver_in_slot(delivery_id), name="deliver")
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        await asyncio.wait([task])

    async def _deliver_in_slot(self, delivery_id: uuid.UUID) -> None:
        try:
            async with self._slots:
                await self._deliver(delivery_id)
        except Exception as error:  # noqa: BLE001 - noted in the outbox, which tries again
            record_exception(error, where="job")
        finally:
            self._hand_over.finish(delivery_id)

    async def _deliver(self, delivery_id: uuid.UUID) -> None:
        async with AsyncExitStack() as stack:
            # What the message brings, its trace among it, is not known before it is read: the transaction
            # begins outside of what observes the run, and ends inside.
            session = await stack.enter_async_context(self._database.transaction())
            claimed = await outbox.claim_with_message(session, delivery_id)
            found = claimed[1] if claimed else await outbox.read(session, delivery_id)
            consumer = self._consumers.get(found.consumer) if found else None
            if found is None or consumer is None:
                return  # long gone, or meant for a newer version of this worker
            message = found.message
            with consume_span(message.topic, str(message.id), dict(message.headers)):
                async with run_job(
                    consumer.name,
                    message_id=str(message.id),
                    request_id=message.headers.get("request_id", ""),
                    synthetic=outbox.is_synthetic_message(message),
                    attempt=found.attempts + 1,
                    on_error=lambda error: record_exception(error, where="job", task=consumer.name),
                ) as run:
                    if claimed is None:
                        run.status = "duplicate"
                        return
                    try:
                        async with stack.pop_all():
                            await consumer.handle(session, message)
                            outbox.finish(claimed[0])
                    except Exception as error:
                        async with self._database.transaction() as noting:
                            state = await outbox.fail(noting, delivery_id, error)
                        if state is outbox.DeliveryState.DEAD:
                            run.status = "dead"
                            count_dead_letter(consumer.name)
                        elif state is outbox.DeliveryState.RETRYING:
                            count_retry(consumer.name)
                        raise

    async def _repeat(self, periodic: Periodic) -> None:
        """Run something until the worker stops; a failure is recorded, and the next round comes."""
        failures = 0
        while not self._stopping.is_set():
            pause = periodic.every_seconds
            try:
                with untraced():  # several rounds a second: their statements would bury the rest
                    is_more = await periodic.run()
                count_round(periodic.task, succeeded=True)
                failures = 0
                if is_more:
                    pause = 0.0
            except Exception as error:  # noqa: BLE001 - the database may be away: the worker stays
                record_exception(error, where="job", task=periodic.task)
                count_round(periodic.task, succeeded=False)
                failures += 1
                pause = max(pause, min(2.0**failures, LONGEST_PAUSE_SECONDS))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _reconcile(self) -> bool:
        asked = await reconcile(self._database, self._provider)
        if asked:
            logger.bind(type="job", task="reconcile", asked=asked).info("reconciled")
        return False

    async def _seal(self) -> bool:
        async with self._database.transaction() as session:
            sealed = await seal(session, self._audit_keys)
        return sealed == SEAL_BATCH

    async def _sample(self) -> bool:
        for sample in self._samples:
            await sample.take(self._database)
        return False

    async def _purge(self) -> bool:
        """Delete one batch of each, in transactions of their own: locks are held for moments."""
        is_more = False
        for purge_some in (
            idempotency.purge_expired,
            users.purge_sessions,
            outbox.purge_finished,
        ):
            async with self._database.transaction() as session:
                purged = await purge_some(session)
            self._purged += purged
            is_more |= purged == purge.PURGE_BATCH
        if not is_more:
            logger.bind(type="job", task="purge", rows=self._purged).info("purged")
            self._purged = 0
        return is_more


async def sample_active(session: AsyncSession) -> None:
    """Publish how many users were active, and how many sessions are good."""
    active, sessions = await users.count_active(session)
    for window, count in active.items():
        set_active_users(window, count)
    set_active_sessions(sessions)


async def sample_paid(session: AsyncSession) -> None:
    """Publish how many orders wait for fulfilment: few, and asked for even where the rest is many."""
    orders_kpis.set_current(await orders.count_paid(session))


async def sample_orders(session: AsyncSession) -> None:
    """Publish how many orders there are in each status."""
    orders_kpis.set_current(await orders.count_by_status(session))


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel `tasks` and wait for them; not for ever, since what they wait for may swallow it."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    if ending:
        await asyncio.wait(ending, timeout=TIDY_SECONDS)


def _named_as_worker(settings: Settings) -> Settings:
    # A service of its own in logs and traces, so that both tell who did what.
    return settings.model_copy(update={"otel_service_name": f"{settings.otel_service_name}-worker"})


def create_worker(settings: Settings | None = None) -> FastAPI:
    """Return the worker, wired and instrumented; it works while its lifespan lasts."""
    settings = _named_as_worker(settings or load_settings())
    telemetry = Telemetry(settings)
    database = Database(settings)
    plans = QueryPlans(database.engine, settings, on_finding=report_warning)
    provider = PaymentProvider(settings)
    redis = connect_redis(settings)
    checks = [
        Check("database", database.ping),
        Check("migrations", lambda: check_applied(database)),
        Check("payment_provider", provider.ping, critical=False),
    ]
    if redis is not None:
        checks.append(Check("broker", redis.ping))
    health = Health(checks)

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
            worker = Worker(settings, database, provider)
            await stack.enter_async_context(worker.running())
            await stack.enter_async_context(health.keep_fresh())
            stack.enter_context(drain_on_sigterm(health, settings))
            health.mark_started()
            yield

    app = FastAPI(title="Glasshouse worker", lifespan=lifespan, openapi_url=None)
    app.state.health = health
    install_health_routes(app, health, settings, on_denied=count_denied_operations)
    install_profiling_routes(
        app,
        settings,
        on_denied=count_denied_operations,
        on_use=partial(record_use, database),
        is_ending=lambda: health.draining,
    )
    instrument_exceptions(app)
    instrument_metrics(app, settings)
    identify_requests(app)
    trace_engine(database.engine)
    instrument_database(database.engine, settings, on_finding=report_warning, explain=plans.explain)
    return app

"""The worker: deliveries have their effects once, failures are tried again, the end loses nothing.

Run on the two combinations that people use: SQLite with the broker in memory, PostgreSQL with Redis.
The effect of these consumers is an event of the topic `cup.served`, written in their transaction.
"""

import asyncio
import datetime as dt
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

import app.worker
from app.infrastructure import broker as broker_module
from app.infrastructure import outbox, purge
from app.infrastructure.broker import StreamBroker, create_broker
from app.infrastructure.database import Database, now
from app.infrastructure.handover import DEPTH
from app.infrastructure.outbox import Consumer, Message, OutboxDelivery, OutboxMessage
from app.observability.context import RequestContext, bind_context, current_context
from app.payments.provider import PaymentProvider
from app.settings import Settings
from app.worker import Worker
from bench.burst import CONSUMERS as BURST_CONSUMERS
from bench.burst import write_burst
from tests.provider import RunningProvider
from tests.service import open_service, start_process, test_settings
from tests.tools import RedisServer

WITHIN_SECONDS = 60.0


class Kitchen:
    """A database, a broker and as many workers as a test starts."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database

    @asynccontextmanager
    async def worker(self, **changes: Any) -> AsyncIterator[Worker]:
        """Run one more worker for the time of the block."""
        settings = self.settings.model_copy(update=changes)
        database = Database(settings)
        provider = PaymentProvider(settings)
        worker = Worker(settings, database, provider)
        try:
            async with worker.running():
                yield worker
        finally:
            await provider.aclose()
            await database.dispose()

    async def brew(self, cups: int = 1) -> None:
        """Write so many events that ask for a cup."""
        async with self.database.transaction() as session:
            for number in range(cups):
                outbox.publish(session, topic="tea.brewed", payload={"cup": number})

    async def served(self) -> Counter[int]:
        """Return how often each cup was served."""
        async with self.database.transaction() as session:
            found = await session.scalars(
                select(OutboxMessage).where(OutboxMessage.topic == "cup.served")
            )
            return Counter(message.payload["cup"] for message in found.all())

    async def deliveries(self) -> Sequence[OutboxDelivery]:
        """Return all deliveries."""
        async with self.database.transaction() as session:
            return (await session.scalars(select(OutboxDelivery))).all()

    async def states(self) -> Counter[str]:
        """Return how many deliveries are in each state."""
        return Counter(delivery.state for delivery in await self.deliveries())

    async def pass_time(self) -> None:
        """Let every lease and back-off be over."""
        async with self.database.transaction() as session:
            await session.execute(
                update(OutboxDelivery)
                .where(OutboxDelivery.state.in_(("queued", "retrying")))
                .values(due_at=now() - dt.timedelta(seconds=1))
            )

    async def until(self, condition: Callable[[], Awaitable[bool]], *, hurry: bool = False) -> None:
        """Wait for `condition`; with `hurry`, let leases and back-offs run out meanwhile."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while not await condition():
                if hurry:
                    await self.pass_time()
                await asyncio.sleep(0.05)

    async def until_states(self, hurry: bool = False, **states: int) -> None:
        """Wait until exactly so many deliveries are in each state."""

        async def reached() -> bool:
            return await self.states() == Counter(states)

        await self.until(reached, hurry=hurry)

    async def until_failed(self, consumer: str, *, times: int) -> None:
        """Wait until the delivery to `consumer` has failed so often."""

        async def reached() -> bool:
            found = await self.deliveries()
            return any(row.consumer == consumer and row.attempts == times for row in found)

        await self.until(reached)


@pytest_asyncio.fixture(params=["sqlite+memory", "postgresql+redis"])
async def kitchen(request: pytest.FixtureRequest) -> AsyncIterator[Kitchen]:
    """Both combinations."""
    if request.param == "sqlite+memory":
        settings = test_settings(request.getfixturevalue("sqlite_service_database"))
    else:
        settings = test_settings(
            request.getfixturevalue("postgres_service_database"),
            redis_url=SecretStr(request.getfixturevalue("redis_database")),
        )
    database = Database(settings)
    yield Kitchen(settings, database)
    await database.dispose()


@pytest_asyncio.fixture
async def shared_kitchen(
    postgres_service_database: str, redis_database: str
) -> AsyncIterator[Kitchen]:
    """PostgreSQL and Redis, for what is about several workers or about Redis."""
    settings = test_settings(postgres_service_database, redis_url=SecretStr(redis_database))
    database = Database(settings)
    yield Kitchen(settings, database)
    await database.dispose()


@pytest_asyncio.fixture
async def fragile_kitchen(
    postgres_service_database: str, private_redis: RedisServer
) -> AsyncIterator[Kitchen]:
    """PostgreSQL and a Redis of this test's own."""
    settings = test_settings(postgres_service_database, redis_url=SecretStr(private_redis.url))
    database = Database(settings)
    yield Kitchen(settings, database)
    await database.dispose()


Handle = Callable[[AsyncSession, Message], Awaitable[None]]
Hire = Callable[..., None]


@pytest.fixture
def hire(monkeypatch: pytest.MonkeyPatch) -> Hire:
    """Make the given functions the consumers of `tea.brewed`; the default serves the cup."""

    def consume(**handlers: Handle) -> None:
        consumers = tuple(
            Consumer(name, "tea.brewed", handle)
            for name, handle in (handlers or {"serve_cup": serve}).items()
        )
        monkeypatch.setattr(app.worker, "CONSUMERS", consumers)

    return consume


async def serve(session: AsyncSession, message: Message) -> None:
    outbox.publish(session, topic="cup.served", payload={"cup": message.payload["cup"]})


def processed(task: str, status: str) -> float:
    value = REGISTRY.get_sample_value("jobs_processed_total", {"task": task, "status": status})
    return value or 0.0


def counted(name: str, task: str) -> float:
    return REGISTRY.get_sample_value(name, {"task": task}) or 0.0


async def test_each_event_has_its_effect_once(kitchen: Kitchen, hire: Hire) -> None:
    hire()
    await kitchen.brew(20)
    async with kitchen.worker():
        await kitchen.until_states(done=20)
    assert await kitchen.served() == Counter(range(20))


async def test_an_event_that_is_written_while_the_worker_runs_is_handled_soon(
    kitchen: Kitchen, hire: Hire
) -> None:
    hire()
    async with kitchen.worker():
        await kitchen.brew()
        await kitchen.until_states(done=1)
    assert await kitchen.served() == Counter([0])


async def test_the_effects_of_a_consumer_that_fails_are_rolled_back_and_come_with_a_later_attempt(
    kitchen: Kitchen, hire: Hire
) -> None:
    attempts = 0

    async def serve_and_stumble(session: AsyncSession, message: Message) -> None:
        nonlocal attempts
        attempts += 1
        await serve(session, message)
        await session.flush()
        if attempts == 1:
            raise RuntimeError("holds a secret")

    hire(serve_cup=serve_and_stumble)
    retries = counted("job_retries_total", "serve_cup")
    await kitchen.brew()
    async with kitchen.worker():
        await kitchen.until_states(retrying=1)
        (failed,) = await kitchen.deliveries()
        assert await kitchen.served() == Counter()
        assert (failed.attempts, failed.last_error) == (1, "RuntimeError")
        assert failed.due_at > failed.created_at + dt.timedelta(seconds=1), "there is a back-off"
        assert counted("job_retries_total", "serve_cup") == retries + 1
        await kitchen.until_states(hurry=True, done=1)
    assert await kitchen.served() == Counter([0])
    assert attempts == 2


async def test_done_is_committed_with_the_effects_and_not_before(
    shared_kitchen: Kitchen, hire: Hire
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def serve_slowly(session: AsyncSession, message: Message) -> None:
        await serve(session, message)
        await session.flush()
        reached.set()
        await go_on.wait()

    hire(serve_cup=serve_slowly)
    await shared_kitchen.brew()
    async with shared_kitchen.worker():
        await reached.wait()
        assert await shared_kitchen.states() == Counter(queued=1)
        assert await shared_kitchen.served() == Counter()
        go_on.set()
        await shared_kitchen.until_states(done=1)
    assert await shared_kitchen.served() == Counter([0])


async def test_the_effects_are_rolled_back_where_done_cannot_be_marked(
    kitchen: Kitchen, hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    mark_done = outbox.finish

    def stumble_once(delivery: OutboxDelivery) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise RuntimeError
        mark_done(delivery)

    monkeypatch.setattr(outbox, "finish", stumble_once)
    hire()
    await kitchen.brew()
    async with kitchen.worker():
        await kitchen.until_states(hurry=True, done=1)
    assert attempts == 2
    assert await kitchen.served() == Counter([0])


async def test_a_consumer_that_keeps_failing_leaves_a_dead_letter_and_does_not_stop_the_others(
    kitchen: Kitchen, hire: Hire
) -> None:
    attempts: list[int] = []

    async def spill(session: AsyncSession, message: Message) -> None:
        await serve(session, message)
        attempts.append(1)
        raise RuntimeError("spilt")

    async def pour(session: AsyncSession, message: Message) -> None:
        await serve(session, message)

    hire(spill=spill, pour=pour)
    dead = counted("dead_letters_total", "spill")
    runs_that_failed, runs_that_died = processed("spill", "failed"), processed("spill", "dead")
    retries = counted("job_retries_total", "spill")
    await kitchen.brew()
    async with kitchen.worker():
        for number in range(1, outbox.MAX_ATTEMPTS):
            await kitchen.until_failed("spill", times=number)
            await kitchen.pass_time()
        await kitchen.until_states(done=1, dead=1)
    assert len(attempts) == outbox.MAX_ATTEMPTS
    assert await kitchen.served() == Counter([0]), "of the one that did not fail"
    assert counted("dead_letters_total", "spill") == dead + 1
    assert counted("job_retries_total", "spill") == retries + outbox.MAX_ATTEMPTS - 1
    assert processed("spill", "dead") == runs_that_died + 1
    assert processed("spill", "failed") == runs_that_failed + outbox.MAX_ATTEMPTS - 1


async def test_what_the_broker_repeats_has_no_effect_and_is_counted_as_a_duplicate(
    kitchen: Kitchen, hire: Hire, log_records: list[dict[str, Any]]
) -> None:
    hire()
    await kitchen.brew()
    async with kitchen.worker() as worker:
        await kitchen.until_states(done=1)
        duplicates = processed("serve_cup", "duplicate")
        (delivery,) = await kitchen.deliveries()

        async def gone() -> bool:
            return not worker.broker.waiting()  # the one in memory takes nothing that it has

        for number in (1, 2):
            await kitchen.until(gone)
            await worker.broker.send(delivery.id)

            async def noticed(times: int = number) -> bool:
                return processed("serve_cup", "duplicate") == duplicates + times

            await kitchen.until(noticed)
    assert await kitchen.served() == Counter([0])
    (still,) = await kitchen.deliveries()
    assert (still.state, still.attempts) == ("done", 1)
    statuses = [record["extra"].get("status") for record in job_lines(log_records, "serve_cup")]
    assert Counter(statuses) == {"succeeded": 1, "duplicate": 2}


async def test_an_id_that_nobody_knows_is_passed_over(kitchen: Kitchen, hire: Hire) -> None:
    hire()
    async with kitchen.worker() as worker:
        await worker.broker.send(uuid.uuid4())
        await kitchen.brew()
        await kitchen.until_states(done=1)


async def test_an_id_that_the_broker_lost_is_handed_over_again_after_its_lease(
    shared_kitchen: Kitchen, hire: Hire, redis_database: str
) -> None:
    hire()
    await shared_kitchen.brew()

    async def nobody(_: uuid.UUID) -> None:
        return

    sender = create_broker(shared_kitchen.settings, nobody)
    await sender.start()
    async with shared_kitchen.database.transaction() as session:
        _, ids = await outbox.relay(session, consumers=app.worker.CONSUMERS, limit=10)
    for delivery_id in ids:
        await sender.send(delivery_id)
    await sender.stop()
    with redis.Redis.from_url(redis_database) as client:
        assert client.xlen(broker_module.STREAM) == 1
        client.flushdb()

    async with shared_kitchen.worker():
        # The lease is not over: it may still be with somebody.
        (delivery,) = await shared_kitchen.deliveries()
        assert delivery.due_at > now()
        await shared_kitchen.until_states(hurry=True, done=1)
    assert await shared_kitchen.served() == Counter([0])


async def test_a_redis_that_forgets_everything_does_not_stop_a_running_worker(
    shared_kitchen: Kitchen, hire: Hire, redis_database: str
) -> None:
    hire()
    async with shared_kitchen.worker():
        await shared_kitchen.brew()
        await shared_kitchen.until_states(done=1)
        with redis.Redis.from_url(redis_database) as client:
            client.flushdb()  # stream and consumer group are gone
        await shared_kitchen.brew()
        await shared_kitchen.until_states(hurry=True, done=2)
    assert await shared_kitchen.served() == Counter({0: 2})


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_a_broker_outage_loses_nothing_and_the_worker_recovers_without_a_restart(
    fragile_kitchen: Kitchen, hire: Hire, private_redis: RedisServer, how: str
) -> None:
    hire()
    kitchen = fragile_kitchen
    async with kitchen.worker():
        await kitchen.brew()
        await kitchen.until_states(done=1)
        if how == "stopped":
            await asyncio.to_thread(private_redis.stop)
        else:
            private_redis.freeze()
        await kitchen.brew(3)
        failures = processed("relay", "failed")

        async def relay_has_failed() -> bool:
            return processed("relay", "failed") > failures

        await kitchen.until(relay_has_failed)
        assert await kitchen.states() == Counter(done=1, queued=3), (
            "the events wait in the database"
        )
        if how == "stopped":
            await asyncio.to_thread(private_redis.start)
        else:
            private_redis.thaw()
        await kitchen.until_states(hurry=True, done=4)
    assert await kitchen.served() == Counter({0: 2, 1: 1, 2: 1})


async def test_a_worker_that_starts_while_the_broker_is_down_works_when_it_is_back(
    fragile_kitchen: Kitchen, hire: Hire, private_redis: RedisServer
) -> None:
    hire()
    await asyncio.to_thread(private_redis.stop)
    await fragile_kitchen.brew()
    async with fragile_kitchen.worker():
        await fragile_kitchen.until_states(queued=1)
        await asyncio.to_thread(private_redis.start)
        await fragile_kitchen.until_states(hurry=True, done=1)
    assert await fragile_kitchen.served() == Counter([0])


async def test_workers_share_the_work_and_do_each_delivery_once(
    shared_kitchen: Kitchen, hire: Hire
) -> None:
    # With one slot each, three cups are served at the same time by three workers, or never.
    together = asyncio.Barrier(3)

    async def serve_together(session: AsyncSession, message: Message) -> None:
        await together.wait()
        await serve(session, message)

    hire(serve_cup=serve_together)
    await shared_kitchen.brew(30)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(shared_kitchen.worker(worker_concurrency=1))
        await shared_kitchen.until_states(done=30)
    assert await shared_kitchen.served() == Counter(range(30))


@pytest.mark.parametrize("broker", ["memory", "redis"])
async def test_a_worker_handles_no_more_at_once_than_it_was_told(
    shared_kitchen: Kitchen, hire: Hire, broker: str
) -> None:
    at_once = most = 0
    full = asyncio.Event()

    async def serve_slowly(session: AsyncSession, message: Message) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 2:
            full.set()
        await full.wait()
        await session.execute(text("SELECT pg_sleep(0.05)"))  # a third one would come now
        at_once -= 1
        await serve(session, message)

    hire(serve_cup=serve_slowly)
    await shared_kitchen.brew(10)
    changes = {"redis_url": None} if broker == "memory" else {}
    async with shared_kitchen.worker(worker_concurrency=2, **changes):
        await shared_kitchen.until_states(done=10)
    assert most == 2


async def test_a_delivery_for_a_consumer_of_a_newer_version_is_left_for_that_version(
    kitchen: Kitchen, hire: Hire
) -> None:
    hire(serve_cup=serve, from_tomorrow=serve)
    await kitchen.brew()
    async with kitchen.database.transaction() as session:
        # A newer relay made these.
        await outbox.relay(session, consumers=app.worker.CONSUMERS, limit=10)
    hire(serve_cup=serve)
    errors = REGISTRY.get_sample_value("unhandled_exceptions_total", {"where": "job"})
    async with kitchen.worker() as old:
        await kitchen.until_states(hurry=True, done=1, queued=1)
        left = next(row for row in await kitchen.deliveries() if row.state == "queued")
        await old.deliver(left.id)
    assert REGISTRY.get_sample_value("unhandled_exceptions_total", {"where": "job"}) == errors
    (untouched,) = [row for row in await kitchen.deliveries() if row.state == "queued"]
    assert (untouched.consumer, untouched.attempts) == ("from_tomorrow", 0)

    hire(serve_cup=serve, from_tomorrow=serve)
    async with kitchen.worker():
        await kitchen.until_states(hurry=True, done=2)
    assert await kitchen.served() == Counter({0: 2})


async def test_a_stopping_worker_finishes_what_it_has_begun_and_leaves_the_rest_for_the_next(
    shared_kitchen: Kitchen, hire: Hire
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def serve_slowly(session: AsyncSession, message: Message) -> None:
        begun.set()
        await go_on.wait()
        await serve(session, message)

    hire(serve_cup=serve_slowly)
    await shared_kitchen.brew()
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(shared_kitchen.worker())
        await begun.wait()
        stopping = asyncio.create_task(stack.aclose())
        await wait_for_stop(worker)
        await shared_kitchen.brew()  # too late for this worker
        assert not stopping.done()
        go_on.set()
        await stopping
    assert await shared_kitchen.served() == Counter([0])
    assert await shared_kitchen.states() == Counter(done=1)

    async with shared_kitchen.worker():
        await shared_kitchen.until_states(done=2)


async def wait_for_stop(worker: Worker) -> None:
    """Wait until the worker relays no more: its periodic jobs have ended."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while any(task.get_name() == "relay" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)


async def test_what_does_not_end_in_time_is_rolled_back_and_handed_over_again(
    kitchen: Kitchen, hire: Hire
) -> None:
    begun = asyncio.Event()
    ended: list[BaseException | None] = []

    async def hang(session: AsyncSession, message: Message) -> None:
        await serve(session, message)
        await session.flush()
        begun.set()
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            ended.append(error)
            raise

    hire(serve_cup=hang)
    cancelled = processed("serve_cup", "cancelled")
    await kitchen.brew()
    async with asyncio.timeout(WITHIN_SECONDS):
        async with kitchen.worker(graceful_seconds=1):
            await begun.wait()
    assert [type(error) for error in ended] == [asyncio.CancelledError], "it does not live on"
    assert processed("serve_cup", "cancelled") == cancelled + 1
    assert await kitchen.served() == Counter()
    (delivery,) = await kitchen.deliveries()
    assert (delivery.state, delivery.attempts) == ("queued", 0), "an interruption is no failure"

    hire()
    async with kitchen.worker():
        await kitchen.until_states(hurry=True, done=1)
    assert await kitchen.served() == Counter([0])


async def test_a_worker_outlives_the_loss_of_its_database_connections(
    shared_kitchen: Kitchen, hire: Hire
) -> None:
    hire()
    async with shared_kitchen.worker():
        await shared_kitchen.brew()
        await shared_kitchen.until_states(done=1)
        async with shared_kitchen.database.engine.connect() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        await shared_kitchen.brew()
        await shared_kitchen.until_states(hurry=True, done=2)


async def test_the_sizes_of_outbox_and_order_book_are_published(
    kitchen: Kitchen, hire: Hire
) -> None:
    async def refuse(session: AsyncSession, message: Message) -> None:
        raise RuntimeError

    hire(serve_cup=refuse)
    await kitchen.brew(3)
    async with kitchen.database.transaction() as session:
        _, ids = await outbox.relay(session, consumers=app.worker.CONSUMERS, limit=10)
    async with kitchen.database.transaction() as session:
        for _ in range(outbox.MAX_ATTEMPTS):
            await outbox.fail(session, ids[0], RuntimeError())
    async with kitchen.database.transaction() as session:
        await outbox.fail(session, ids[1], RuntimeError())
        await session.execute(
            update(OutboxDelivery)
            .where(OutboxDelivery.state == "retrying")
            .values(due_at=now() + dt.timedelta(hours=1))
        )
        await session.execute(
            update(OutboxMessage).values(created_at=now() - dt.timedelta(seconds=700))
        )

    def size(state: str) -> float | None:
        return REGISTRY.get_sample_value("outbox_messages", {"state": state})

    async with open_service(kitchen.settings.database_url) as service:
        await (await service.person()).order()
    outbox.set_depth({"pending": -1, "queued": -1, "retrying": -1, "dead": -1}, -1)

    def rounds() -> float:
        labels = {"task": "sample", "status": "succeeded"}
        return REGISTRY.get_sample_value("jobs_processed_total", labels) or 0

    before = rounds()
    async with kitchen.worker():

        async def sampled() -> bool:
            # The first figures are there before the last ones: the round is over when it is counted.
            return rounds() > before

        await kitchen.until(sampled)
        # The queued one and the events of the order may be handled already, or not.
        assert (size("dead"), size("retrying")) == (1, 1)
        age = REGISTRY.get_sample_value("outbox_oldest_age_seconds")
        assert age == pytest.approx(700, abs=60)
        assert REGISTRY.get_sample_value("orders_current", {"status": "pending"}) == 1
        assert REGISTRY.get_sample_value("orders_current", {"status": "paid"}) == 0
        assert REGISTRY.get_sample_value("auth_sessions_active") == 1
        assert REGISTRY.get_sample_value("active_users", {"window": "1d"}) == 1


def job_lines(log_records: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    return [
        record
        for record in log_records
        if record["message"] == "Job finished" and record["extra"].get("task") == task
    ]


async def test_each_job_is_counted_and_logged_once_under_the_request_that_caused_it(
    service_database: str, provider: RunningProvider, log_records: list[dict[str, Any]]
) -> None:
    tasks = ("fulfil_order", "write_receipt")
    before = {task: processed(task, "succeeded") for task in tasks}
    durations = {task: counted("job_duration_seconds_count", task) for task in tasks}
    async with open_service(service_database, provider_url=provider.url, worker=True) as service:
        seen: dict[str, str] = {}
        person = await service.person()
        order = await person.order()
        body = {"order_id": order["id"], "payment_token": "tok_ok"}
        paid = await person.post("/v1/payments", body, **{"X-Request-ID": "the-paying-request"})
        assert paid.json()["status"] == "captured"
        async with asyncio.timeout(WITHIN_SECONDS):
            while any(processed(task, "succeeded") == before[task] for task in tasks):
                await asyncio.sleep(0.05)
    for task in tasks:
        assert processed(task, "succeeded") == before[task] + 1
        assert counted("job_duration_seconds_count", task) == durations[task] + 1
        (line,) = job_lines(log_records, task)
        assert line["extra"]["type"] == "job"
        assert line["extra"]["status"] == "succeeded"
        assert line["extra"]["attempt"] == 1
        seen[task] = line["extra"]["message_id"]
    assert len(set(seen.values())) == 1, "one event, two consumers"


async def test_the_consumers_context_carries_the_id_of_the_originating_request(
    kitchen: Kitchen, hire: Hire
) -> None:
    seen: list[str] = []

    async def note(session: AsyncSession, message: Message) -> None:
        context = current_context()
        assert context is not None
        seen.append(context.request_id)

    hire(note=note)
    with bind_context(RequestContext("the-originating-request")):
        await kitchen.brew()
    async with kitchen.worker():
        await kitchen.until_states(done=1)
    assert seen == ["the-originating-request"]


async def test_the_worker_process_writes_the_originating_request_into_its_job_line(
    postgres_service_database: str,
    redis_database: str,
    provider: RunningProvider,
    tmp_path: Path,
) -> None:
    async with open_service(postgres_service_database, provider_url=provider.url) as service:
        person = await service.person()
        order = await person.order()
        body = {"order_id": order["id"], "payment_token": "tok_ok"}
        await person.post("/v1/payments", body, **{"X-Request-ID": "the-paying-request"})
    with start_process(
        "worker",
        tmp_path,
        database_url=postgres_service_database,
        provider_url=provider.url,
        REDIS_URL=redis_database,
    ) as worker:
        async with asyncio.timeout(WITHIN_SECONDS):
            while worker.log().count('"Job finished"') < 2:
                await asyncio.sleep(0.1)
        lines = [line for line in worker.log().splitlines() if '"Job finished"' in line]
    assert len(lines) == 2
    assert all('"request_id":"the-paying-request"' in line for line in lines)


@pytest_asyncio.fixture
async def postgres_kitchen(postgres_service_database: str) -> AsyncIterator[Kitchen]:
    """PostgreSQL with the broker in memory: each worker has one of its own."""
    settings = test_settings(postgres_service_database)
    database = Database(settings)
    yield Kitchen(settings, database)
    await database.dispose()


@pytest.mark.parametrize("broker", ["memory", "redis"])
async def test_a_burst_that_takes_longer_than_the_lease_is_handled_without_a_duplicate(
    shared_kitchen: Kitchen, hire: Hire, monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    lease = dt.timedelta(seconds=4)
    monkeypatch.setattr(outbox, "LEASE", lease)

    async def serve_slowly(session: AsyncSession, message: Message) -> None:
        await asyncio.sleep(0.1)
        await serve(session, message)

    hire(serve_cup=serve_slowly)
    duplicates = processed("serve_cup", "duplicate")
    cups = 60
    began = now()
    await shared_kitchen.brew(cups)
    changes = {"redis_url": None} if broker == "memory" else {}
    async with shared_kitchen.worker(worker_concurrency=1, **changes):
        await shared_kitchen.until_states(done=cups)
    assert now() - began > lease * 1.25, "or nothing was shown"
    assert await shared_kitchen.served() == Counter(range(cups))
    assert processed("serve_cup", "duplicate") == duplicates


async def test_what_waits_in_the_memory_of_a_living_worker_is_not_handed_to_another(
    postgres_kitchen: Kitchen, hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LEASE", dt.timedelta(seconds=3))
    monkeypatch.setattr(app.worker, "REDELIVER_SECONDS", 0.1)
    full, go_on = asyncio.Event(), asyncio.Event()

    async def serve_late(session: AsyncSession, message: Message) -> None:
        full.set()
        await go_on.wait()
        await serve(session, message)

    hire(serve_cup=serve_late)
    duplicates = processed("serve_cup", "duplicate")
    await postgres_kitchen.brew(5)
    async with postgres_kitchen.worker(worker_concurrency=1):
        await full.wait()
        async with postgres_kitchen.worker(worker_concurrency=1):
            over = max(row.due_at for row in await postgres_kitchen.deliveries())

            async def lease_is_over() -> bool:
                return now() > over + dt.timedelta(seconds=0.5)

            await postgres_kitchen.until(lease_is_over)
            go_on.set()
            await postgres_kitchen.until_states(done=5)
    assert await postgres_kitchen.served() == Counter(range(5))
    assert processed("serve_cup", "duplicate") == duplicates


@pytest.mark.parametrize("taken", [0, 2])
async def test_a_batch_that_broke_off_is_sent_again_without_waiting_for_its_lease(
    shared_kitchen: Kitchen, hire: Hire, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    monkeypatch.setattr(outbox, "LEASE", dt.timedelta(hours=1))
    hire()
    await shared_kitchen.brew(5)
    send, failed = StreamBroker.send, False

    async def break_off_once(self: StreamBroker, *delivery_ids: uuid.UUID) -> None:
        nonlocal failed
        if not failed:
            failed = True
            await send(self, *delivery_ids[:taken])
            raise redis.exceptions.ConnectionError
        await send(self, *delivery_ids)

    monkeypatch.setattr(StreamBroker, "send", break_off_once)
    async with shared_kitchen.worker():
        await shared_kitchen.until_states(done=5)
    assert failed
    assert await shared_kitchen.served() == Counter(range(5))


async def test_what_the_broker_could_not_take_is_handled_as_soon_as_it_is_back(
    fragile_kitchen: Kitchen,
    hire: Hire,
    private_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "LEASE", dt.timedelta(hours=1))
    hire()
    failures = processed("relay", "failed")
    async with fragile_kitchen.worker(worker_concurrency=1):
        await asyncio.to_thread(private_redis.stop)
        await fragile_kitchen.brew(30)

        async def relay_has_failed_again() -> bool:
            return processed("relay", "failed") >= failures + 2

        await fragile_kitchen.until(relay_has_failed_again)
        assert (await fragile_kitchen.states()).total() == DEPTH, "the others wait without a lease"
        await asyncio.to_thread(private_redis.start)
        await fragile_kitchen.until_states(done=30)
    assert await fragile_kitchen.served() == Counter(range(30))


async def test_a_worker_that_is_killed_with_its_queue_full_loses_nothing(
    postgres_kitchen: Kitchen, provider: RunningProvider, tmp_path: Path
) -> None:
    captured, consumers = 50, len(BURST_CONSUMERS)
    database = postgres_kitchen.database
    await write_burst(database.engine, captured)
    worker = start_process(
        "worker",
        tmp_path,
        database_url=postgres_kitchen.settings.database_url,
        provider_url=provider.url,
        WORKER_CONCURRENCY="4",
    )
    with worker:
        async with database.transaction() as session:
            # PostgreSQL would end it after half a minute, in which a slow machine has not filled the queue.
            await session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            # Its slots wait for these.
            await session.execute(text("SELECT 1 FROM orders FOR UPDATE"))
            await session.execute(text("SELECT 1 FROM payments FOR UPDATE"))
            await session.execute(text("LOCK TABLE receipts"))

            async def is_full() -> bool:
                return (await postgres_kitchen.states()).total() == 4 * DEPTH

            await postgres_kitchen.until(is_full)
            await asyncio.to_thread(worker.kill)
        assert "done" not in await postgres_kitchen.states()
        await asyncio.to_thread(worker.start)
        await postgres_kitchen.until_states(hurry=True, done=captured * consumers)
    async with database.transaction() as session:
        assert await session.scalar(text("SELECT count(*) FROM receipts")) == captured
        paid = text("SELECT count(*) FROM orders WHERE status <> 'fulfilled'")
        assert await session.scalar(paid) == 0


async def test_a_purge_deletes_all_that_is_old_in_small_transactions(
    kitchen: Kitchen, hire: Hire, monkeypatch: pytest.MonkeyPatch, log_records: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(purge, "PURGE_BATCH", 10)
    hire()
    old = now() - outbox.KEEP - dt.timedelta(hours=1)
    async with kitchen.database.transaction() as session:
        session.add_all(
            OutboxMessage(
                topic="tea.drunk", payload={}, headers={}, created_at=old, published_at=old
            )
            for _ in range(25)
        )
    commits: list[int] = []
    purge_finished = outbox.purge_finished

    async def noted(session: AsyncSession) -> int:
        commits.append(await purge_finished(session))
        return commits[-1]

    monkeypatch.setattr(outbox, "purge_finished", noted)

    def lines() -> list[dict[str, Any]]:
        return [record for record in log_records if record["message"] == "purged"]

    async with kitchen.worker():

        async def purged() -> bool:
            return bool(lines())

        await kitchen.until(purged)
    assert commits == [10, 10, 5]
    assert [line["extra"]["rows"] for line in lines()] == [25], "one line for all of it"

"""How fast the outbox is emptied: events a second from committed to handled, with one worker and with two.

A burst of captured payments is written in one transaction, as `outbox.publish` would write them, to idle
workers: real processes, with the broker in memory or in Redis. Each event has two consumers, so two
deliveries. How long an event took is read from the rows afterwards; nothing is added to the way.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Final

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bench.burst import CONSUMERS, Watch, write_burst
from bench.columns import aligned
from bench.family import Family, cpu_seconds, postgres_processes, stopping
from bench.process import ServerProcess
from bench.stage import Stage
from tests.service import migrate_database
from tests.tools import RedisServer, create_database, drop_database, free_port

BURST: Final = 10_000
PATIENCE_SECONDS: Final = 300.0
IDLE_SECONDS: Final = 3.0

_LAGS: Final = """
    SELECT percentile_cont(ARRAY[0.5, 0.99, 1.0]) WITHIN GROUP (
               ORDER BY extract(epoch FROM deliveries.finished_at - messages.created_at)),
           (SELECT max(extract(epoch FROM published_at - created_at)) FROM outbox_messages)
    FROM outbox_deliveries AS deliveries JOIN outbox_messages AS messages ON messages.id = message_id
    WHERE deliveries.state = 'done'
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One burst."""

    broker: str
    workers: int
    events: int
    handled: int
    """Deliveries, one for each of CONSUMERS and event, that were done when we stopped waiting."""
    seconds: float
    """From the burst's commit until the last was handled."""
    worker_cpu_us: float
    """Of all workers, for each event."""
    database_cpu_us: float | None
    """Of PostgreSQL, for each event, where its processes can be seen."""
    busy: float
    """Cores that a worker used on average."""
    idle_ms: float
    """CPU of one worker a second while there is nothing to do."""
    relayed_seconds: float
    """Until the last event was handed to the broker."""
    lag_p50: float
    lag_p99: float
    lag_max: float
    """Seconds from an event's commit until a consumer was done with it."""
    oldest_age_max: float
    """The most that `outbox_oldest_age_seconds` of a worker said."""
    resident_max: int
    """Bytes that a worker held at most."""
    outcomes: dict[str, int]
    """Runs of the consumers by status; `duplicate` are those for nothing."""

    @property
    def events_a_second(self) -> float:
        """Events of which every consumer was done."""
        return self.handled / len(CONSUMERS) / self.seconds


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen."""

    runs: tuple[Run, ...]
    notes: tuple[str, ...]
    """What was not measured, and why."""


async def measure(
    stage: Stage,
    progress: Callable[[str], None],
    *,
    burst: int = BURST,
    patience_seconds: float = PATIENCE_SECONDS,
    idle_seconds: float = IDLE_SECONDS,
) -> Result:
    """Send the burst to one worker with its own broker, then to one and to two that share Redis."""
    if not stage.on_postgres:
        return Result((), ("without PostgreSQL only one worker makes sense: not measured",))
    runs: list[Run] = []
    with ExitStack() as stack:
        redis_url = _redis(stage, stack)
        ways = [("memory", 1, "")]
        if redis_url:
            ways += [("redis", 1, redis_url), ("redis", 2, redis_url.removesuffix("/0") + "/1")]
        for broker, workers, url in ways:
            progress(f"{burst} events, {workers} workers, broker in {broker}")
            runs.append(
                await _run(
                    stage, broker, workers, url, burst, patience_seconds, idle_seconds, progress
                )
            )
    notes = () if redis_url else ("redis-server is not installed: two workers were not measured",)
    return Result(tuple(runs), notes)


def _redis(stage: Stage, stack: ExitStack) -> str:
    try:
        server = RedisServer(name="redis", owner=os.getpid(), directory=stage.directory)
        server.start()
    except pytest.skip.Exception:
        return ""
    stack.callback(server.stop)
    return server.url


async def _run(
    stage: Stage,
    broker: str,
    workers: int,
    redis_url: str,
    burst: int,
    patience_seconds: float,
    idle_seconds: float,
    progress: Callable[[str], None],
) -> Run:
    url = await asyncio.to_thread(create_database, stage.database_url)
    engine = create_async_engine(url)
    try:
        await asyncio.to_thread(migrate_database, url)
        with ExitStack() as stack:
            started = [
                stack.enter_context(stopping(_worker(stage, url, redis_url)))
                for _ in range(workers)
            ]
            await asyncio.sleep(1)  # for the first round of everything
            before = _used(started)
            await asyncio.sleep(idle_seconds)
            idle = (_used(started) - before) / workers / idle_seconds * 1e3
            watch = Watch(engine, started, burst, patience_seconds)
            database = await postgres_processes(url)
            before, database_before = _used(started), cpu_seconds(database)
            await write_burst(engine, burst)
            seconds, handled = await watch.until_empty(progress)
            used = _used(started) - before
            database = await postgres_processes(url)
            database_used = cpu_seconds(database) - database_before
            outcomes = await watch.outcomes()
        async with engine.connect() as connection:
            lags, relayed = (await connection.execute(text(_LAGS))).one()
    finally:
        await engine.dispose()
        await asyncio.to_thread(drop_database, url)
    p50, p99, most = map(float, lags or (0, 0, 0))
    return Run(
        broker=broker,
        workers=workers,
        events=burst,
        handled=handled,
        seconds=seconds,
        worker_cpu_us=used / burst * 1e6,
        database_cpu_us=database_used / burst * 1e6 if database else None,
        busy=used / seconds / workers,
        idle_ms=idle,
        relayed_seconds=float(relayed or 0),
        lag_p50=p50,
        lag_p99=p99,
        lag_max=most,
        oldest_age_max=watch.oldest_age_max,
        resident_max=watch.resident_max,
        outcomes=outcomes,
    )


def _worker(stage: Stage, database_url: str, redis_url: str) -> Family:
    port = free_port()
    environment = stage.environment("glasshouse") | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "WORKER_METRICS_PORT": str(port),
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
        "PAYMENT_PROVIDER_URL": "http://127.0.0.1:9",  # nobody; nothing is due to be asked about
    }
    return Family("worker", port, environment, ("app", "worker"))


def _used(workers: Sequence[ServerProcess]) -> float:
    return sum(worker.cpu_seconds() for worker in workers)


def show(result: Result) -> str:
    """Return a table for people."""
    head = [
        "outbox and worker",
        "events/s",
        "until empty s",
        "relayed s",
        "lag p50 s",
        "p99 s",
        "worker us",
    ]
    rows = [[*head, "database us", "cores each", "idle ms/s"]]
    for run in result.runs:
        database = "?" if run.database_cpu_us is None else f"{run.database_cpu_us:.0f}"
        empty = f"{run.seconds:.1f}" if run.handled >= run.events * len(CONSUMERS) else "never"
        rows.append(
            [
                f"{run.events} events, {run.workers} workers, {run.broker}",
                f"{run.events_a_second:.0f}",
                empty,
                f"{run.relayed_seconds:.1f}",
                f"{run.lag_p50:.1f}",
                f"{run.lag_p99:.1f}",
                f"{run.worker_cpu_us:.0f}",
                database,
                f"{run.busy:.2f}",
                f"{run.idle_ms:.0f}",
            ]
        )
    outcomes = [
        f"{run.workers} {run.broker}: outbox_oldest_age_seconds up to {run.oldest_age_max:.0f}, "
        f"a worker held up to {run.resident_max / 1e6:.0f} MB, "
        + ", ".join(f"{count} {status}" for status, count in sorted(run.outcomes.items()))
        for run in result.runs
    ]
    return "\n".join([aligned(rows), *outcomes, *result.notes])


def as_json(result: Result) -> dict[str, object]:
    """Return the same for machines."""
    runs = [asdict(run) | {"events_a_second": run.events_a_second} for run in result.runs]
    return {"runs": runs, "notes": list(result.notes)}

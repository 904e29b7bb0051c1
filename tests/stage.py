"""A stage for tests: all processes of the system, and the ways to listen to them and to trip them up.

API, worker and payment provider on PostgreSQL and Redis, with a receiver of spans and one of error
reports. What goes wrong goes wrong outside of the processes, as it does in earnest: a trigger or a lock
in the database, a Redis that stops, a provider that fails or forgets, a collector that refuses.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from tests.envelopes import Mailbox
from tests.otlp import ReceivedSpan, Receiver
from tests.prober import TOKEN, start_prober
from tests.provider import RunningProvider, start_provider
from tests.service import ROOT, RunningProcess, start_process
from tests.tools import RedisServer, create_database, drop_database, run_async, wait_until

SECONDS = 120.0
"""For one thing to happen: far more than it takes, since the machine may be busy."""

_SETTINGS = {
    "OTEL_TRACES_SAMPLER_ARG": "1.0",
    "DATABASE_SLOW_QUERY_MS": "200",
    "DATABASE_N_PLUS_ONE_THRESHOLD": "2",
    "DATABASE_EXPLAIN_SLOW_QUERIES": "true",
    "RATE_LIMIT_REGISTRATION": "8/hour",
    # For locks that tests hold: on a busy machine that may take a while.
    "DATABASE_LOCK_TIMEOUT_MS": "60000",
    "DATABASE_STATEMENT_TIMEOUT_MS": "60000",
    "EXTERNAL_READ_TIMEOUT_SECONDS": "1.5",
    "EXTERNAL_ATTEMPTS": "1",
    "CIRCUIT_FAILURE_THRESHOLD": "4",
    "CIRCUIT_RECOVERY_SECONDS": "1",
    "REDIS_BACKOFF_SECONDS": "0.1",
    "SYNTHETIC_TOKEN": TOKEN,
}


@dataclass(slots=True)
class Everything:
    """What was said, by signal."""

    pages: list[tuple[str, str]] = field(default_factory=list)
    """Process (api, worker, provider, synthetic) and text of /metrics, before that process ended."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    spans: list[ReceivedSpan] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    response_headers: set[str] = field(default_factory=set)
    message_headers: set[str] = field(default_factory=set)


class Stage:
    """The processes, from their start on an empty database to the end of the `stack`."""

    def __init__(self, directory: Path, postgres_url: str, stack: ExitStack) -> None:
        self.seen = Everything()
        self._stack = stack
        self._directory = directory
        self._database_url = create_database(postgres_url)
        stack.callback(drop_database, self._database_url)
        self.redis = RedisServer(name="redis-stage", owner=os.getpid(), directory=directory)
        self.redis.start()
        stack.callback(self.redis.stop)
        self.receiver = stack.enter_context(Receiver().running())
        self._mailbox = stack.enter_context(Mailbox().running())
        self._signals = {
            **_SETTINGS,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.url,
            "SENTRY_DSN": self._mailbox.dsn,
            "TRACE_URL_TEMPLATE": "http://127.0.0.1/traces/{trace_id}",
            "LOGS_URL_TEMPLATE": "http://127.0.0.1/logs/{trace_id}",
            "REDIS_URL": self.redis.url,
            "no_proxy": "127.0.0.1",
        }
        self.provider = stack.enter_context(
            start_provider(
                directory,
                environment={"ENVIRONMENT": "test", **self._signals},
                slow_seconds=0.1,
                timeout_seconds=30,
            )
        )
        self.api = self._start("serve")
        self.says(self.api, "Audit entry could not be stored yet")  # for lack of tables
        self.command("migrate")
        self.worker = self._start("worker")
        wait_until(lambda: self.api.answers("/health/ready"), "the API is ready", SECONDS)

    def _start(self, command: str) -> RunningProcess:
        where = {"database_url": self._database_url, "provider_url": self.provider.url}
        process = start_process(command, self._directory, **where, **self._signals)
        return self._stack.enter_context(process)

    def client(self) -> httpx2.Client:
        """Return a client of the API, whose answers' headers are noted."""

        def note(response: httpx2.Response) -> None:
            self.seen.response_headers |= {name.lower() for name in response.headers}

        client = httpx2.Client(
            base_url=self.api.url, timeout=60, trust_env=False, event_hooks={"response": [note]}
        )
        return self._stack.enter_context(client)

    def end(self) -> Everything:
        """End the processes in order; return what was said."""
        rows = self.sql("SELECT DISTINCT json_object_keys(headers) FROM outbox_messages")
        self.seen.message_headers = {row[0] for row in rows}
        for process in (self.worker, self.api, self.provider):
            self.collect(process)
        self.seen.spans = self.receiver.spans()
        self.seen.reports = self._mailbox.events()
        return self.seen

    def says(self, process: RunningProcess, message: str, **fields: str) -> None:
        """Wait until a process has said something."""
        wait_until(lambda: _has_said(process, message, fields), f"{message} {fields}", SECONDS)

    def until(self, act: Callable[[], object], message: str, **fields: str) -> None:
        """Do something again and again, until the API has said something."""

        def acted() -> bool:
            act()
            return _has_said(self.api, message, fields)

        wait_until(acted, f"{message} {fields}", SECONDS)

    def collect(self, process: RunningProcess | RunningProvider) -> None:
        """Take down what a process says, and end it as an orchestrator does."""
        names = {self.api: "api", self.worker: "worker", self.provider: "provider"}
        name = names.get(process, "synthetic")
        page = httpx2.get(f"{process.url}/metrics", timeout=60, trust_env=False)
        self.seen.pages.append((name, page.raise_for_status().text))
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
        self.seen.lines += _lines(process.log())

    def probe(self, result: str) -> None:
        """Make one synthetic journey, which ends with `result`."""
        prober = start_prober(self._directory, api_url=self.api.url, **self._signals)
        with prober:
            self.says(prober, "Synthetic journey ended", result=result)
            self.collect(prober)

    def command(self, *arguments: str) -> None:
        """Run `python -m app` with these arguments."""
        done = subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=self._directory,
            env={
                "PYTHONPATH": str(ROOT),
                "ENVIRONMENT": "test",
                "LOG_FORMAT": "json",
                "DATABASE_URL": self._database_url,
            },
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,  # what it complained of is told below
        )
        assert done.returncode == 0, done.stderr
        self.seen.lines += _lines(done.stdout)

    def sql(self, *statements: str) -> list[Any]:
        """Execute statements in one transaction; return the rows of the last one."""

        async def execute() -> list[Any]:
            async with _connected(self._database_url) as connection, connection.begin():
                for statement in statements:
                    answer = await connection.exec_driver_sql(statement)
                return list(answer.all()) if answer.returns_rows else []

        return run_async(execute())

    @contextmanager
    def refusing(self, operation: str) -> Iterator[None]:
        """Let a constraint that nobody knows of refuse an operation, such as "INSERT ON receipts"."""
        table = operation.rpartition(" ")[2]
        self.sql(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '23514'; END $$",
            f"CREATE TRIGGER refuse BEFORE {operation} FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        yield
        self.sql(f"DROP TRIGGER refuse ON {table}")

    def wait_for_lock(
        self, ask: Callable[[], httpx2.Response], statement: str, *, also_the_plan: bool = False
    ) -> None:
        """Lock the orders until the statement that `ask` causes has waited for longer than is usual.

        With `also_the_plan` another lock comes behind it, and keeps EXPLAIN waiting until it gives up.
        """

        async def waits(connection: AsyncConnection, what: str) -> None:
            find = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1"
            while not (await connection.exec_driver_sql(find, (what,))).all():
                await asyncio.sleep(0.02)

        async def act() -> None:
            async with (
                _connected(self._database_url) as eye,
                _connected(self._database_url) as first,
                _connected(self._database_url) as second,
            ):
                await eye.execution_options(isolation_level="AUTOCOMMIT")
                await first.exec_driver_sql("LOCK TABLE orders")
                asked = asyncio.create_task(asyncio.to_thread(ask))
                await waits(eye, f"%{statement}%")
                await asyncio.sleep(0.3)  # beyond DATABASE_SLOW_QUERY_MS
                if also_the_plan:
                    behind = asyncio.create_task(second.exec_driver_sql("LOCK TABLE orders"))
                    await waits(eye, "LOCK TABLE%")
                await first.rollback()
                (await asked).raise_for_status()
                if also_the_plan:
                    await behind
                    said = "A slow statement could not be explained"
                    while not _has_said(self.api, said, {}):
                        await asyncio.sleep(0.05)

        run_async(act())


def _lines(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def _has_said(process: RunningProcess, message: str, fields: dict[str, str]) -> bool:
    return any(
        line["message"] == message and fields.items() <= line.items()
        for line in _lines(process.log().rpartition("\n")[0])
    )


@asynccontextmanager
async def _connected(database_url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(database_url, poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()

"""Telemetry that cannot be delivered costs telemetry, which is counted, and nothing else.

The real service under a light load, while one sink after the other fails with every buffer in front of
it overflowing: all requests get their answers, probes stay quick, memory stays bounded, the end comes
in time, and when the sink is well again, so is the telemetry. `hurt/harmful.py` shows that the
measuring has eyes.
"""

import asyncio
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import make_url

from app.observability.span_export import BATCH_SPANS, MAX_QUEUED_SPANS
from tests.integration.hurt.measuring import (
    SLOWEST_SECONDS,
    Ask,
    Hurt,
    Load,
    Service,
    Sinks,
    assert_unhurt,
)
from tests.integration.hurt.sinks import Backend, LogFile, Mode, Reader, open_backend
from tests.provider import RunningProvider
from tests.service import open_service
from tests.tools import wait_until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="memory and waiting times are read from /proc"
)

ACCESS_LINE = b'"type":"http_request"'


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody with an account and an order, and what such a person asks for."""

    database_url: str
    orders: Ask
    order: Ask
    profile: Ask

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return Path(make_url(self.database_url).database or "")

    @property
    def usual(self) -> tuple[Ask, ...]:
        """A mix that is answered from the database or refused."""
        return (self.orders, self.order, self.profile, STRANGER, NOWHERE)


STRANGER = Ask("/v1/users/me", 401)
NOWHERE = Ask("/" + "no/" * 170, 404, {"User-Agent": "\xe9" * 256})
"""Its line is about the longest that a client can make: the log's buffer is full the sooner."""


@pytest_asyncio.fixture
async def customer(sqlite_service_database: str) -> Customer:
    """A customer in a database of this test's own."""
    async with open_service(sqlite_service_database) as service:
        person = await service.person()
        order = await person.order()
    return Customer(
        sqlite_service_database,
        orders=Ask("/v1/orders", 200, person.headers),
        order=Ask(f"/v1/orders/{order['id']}", 200, person.headers),
        profile=Ask("/v1/users/me", 200, person.headers),
    )


@pytest.fixture
def reader() -> Iterator[Reader]:
    """Whoever reads the service's stdout. Ends after the service."""
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture
def collector() -> Iterator[Backend]:
    """Where spans go."""
    with open_backend() as backend:
        yield backend


@pytest.fixture
def sentry() -> Iterator[Backend]:
    """Where error reports go."""
    with open_backend() as backend:
        yield backend


@pytest.fixture
def output(tmp_path: Path) -> Iterator[LogFile]:
    """A file for stdout."""
    file = LogFile(tmp_path / "service.log")
    yield file
    file.close()


def warm_up(service: Service, load: Load) -> None:
    """Ask everything often enough for the memory to be what it is in the long run."""
    service.until_ready()
    load.ask(300)
    service.details()
    service.dropped("logs")


def flood(service: Service, load: Load, kind: str) -> None:
    """Ask until telemetry of this kind is lost."""
    before = service.dropped(kind)
    while service.dropped(kind) == before:
        load.ask(200)
        load.assert_all_answered()


# Logs -------------------------------------------------------------------------------------------------


def test_a_reader_that_stalls_costs_lines_and_nothing_else(
    customer: Customer, reader: Reader, collector: Backend, tmp_path: Path
) -> None:
    with Service(
        tmp_path,
        reader.descriptor,
        {
            "DATABASE_URL": customer.database_url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
        },
    ) as service:
        os.close(reader.descriptor)
        usual, long_lines = Load(service, customer.usual), Load(service, [NOWHERE])
        warm_up(service, usual)

        def stall() -> None:
            reader.stall()
            flood(service, long_lines, "logs")

        def no_line_is_unaccounted_for() -> bool:
            written = reader.count(ACCESS_LINE)
            return written + service.dropped("logs") == usual.total + long_lines.total

        assert_unhurt(service, usual, Sinks(stall, reader.resume))
        reader.resume()
        wait_until(no_line_is_unaccounted_for, "each request is one line, written or counted")

        dropped = service.dropped("logs")
        usual.ask(50)
        wait_until(no_line_is_unaccounted_for, "lines are written again")
        assert service.dropped("logs") == dropped
        assert service.dropped("traces") == 0

        reader.stall()
        usual.ask(50)
        assert service.details() == "degraded"  # no payment provider; it is answered in any case
        service.end()
    assert all(line["message"] for line in reader.lines()), "each line is whole"


def test_a_full_disk_costs_lines_and_nothing_else(
    customer: Customer, output: LogFile, tmp_path: Path
) -> None:
    with Service(tmp_path, output.descriptor, {"DATABASE_URL": customer.database_url}) as service:
        load = Load(service, customer.usual)
        warm_up(service, load)

        def fill() -> None:
            output.fill_disk_of(service.pid, left=1000)  # not a whole number of lines
            flood(service, load, "logs")

        def free() -> None:
            output.free_disk_of(service.pid)

        def no_line_is_unaccounted_for() -> bool:
            return output.count(ACCESS_LINE) + service.dropped("logs") == load.total

        assert_unhurt(service, load, Sinks(fill, free))
        free()
        load.ask(50)
        wait_until(no_line_is_unaccounted_for, "each request is one line, written or counted")
        assert all(line["message"] for line in output.lines()), "each line is whole"

        output.fill_disk_of(service.pid)
        load.ask(50)
        assert service.details() == "degraded"
        service.end()


# Spans ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["refuses", "swallows", 500, 429])
def test_a_collector_that_fails_costs_spans_and_nothing_else(
    mode: Mode, customer: Customer, output: LogFile, collector: Backend, tmp_path: Path
) -> None:
    with Service(
        tmp_path,
        output.descriptor,
        {
            "DATABASE_URL": customer.database_url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
        },
    ) as service:
        load = Load(service, [customer.order])
        warm_up(service, load)
        # A server span ends last of its trace and spans leave in order, so these traces are complete.
        wait_until(lambda: collector.requests_traced == load.total, "spans arrive")
        # The state of the session comes from the cache (few spans) or from the database.
        few, many = min(collector.spans.values()), max(collector.spans.values())
        assert 1 < few < many

        def fail() -> None:
            collector.be(mode)
            load.ask(round(1.25 * MAX_QUEUED_SPANS / few))

        def missing() -> int:
            misses = service.metric("cache_requests_total", cache="sessions", result="miss")
            made = few * load.total + (many - few) * int(misses)
            return made - collector.spans.total()

        def no_span_is_unaccounted_for() -> bool:
            return service.dropped("traces") == missing()

        assert_unhurt(service, load, Sinks(fail, lambda: collector.be("answers")))
        assert service.details() == "degraded"
        under_way = MAX_QUEUED_SPANS + BATCH_SPANS
        assert service.dropped("traces") >= missing() - under_way, "what is kept is bounded"
        collector.be("answers")
        wait_until(no_span_is_unaccounted_for, "each span has arrived or is counted")

        dropped = service.dropped("traces")
        assert dropped > 0
        load.ask(50)
        wait_until(no_span_is_unaccounted_for, "spans arrive again")
        assert service.dropped("traces") == dropped
        assert service.dropped("logs") == 0

        collector.be(mode)
        load.ask(50)
        service.end()
    told = [line["message"] for line in output.lines() if line["type"] == "telemetry"]
    assert set(told[::2]) == {"Spans cannot be exported"}
    assert set(told[1::2]) == {"Spans are exported again"}


# Error reports ----------------------------------------------------------------------------------------


def test_a_sentry_server_that_hangs_costs_reports_and_nothing_else(
    customer: Customer, output: LogFile, sentry: Backend, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(customer.database)) as database:
        database.execute("ALTER TABLE orders RENAME TO mislaid")
    broken = [Ask(ask.path, 503, ask.headers) for ask in (customer.orders, customer.order)]
    with Service(
        tmp_path,
        output.descriptor,
        {
            "DATABASE_URL": customer.database_url,
            "SENTRY_DSN": f"http://public@{sentry.address}/1",
        },
    ) as service:
        well = [customer.profile, STRANGER, NOWHERE]
        load = Load(service, [*well, *well, *well, broken[0]])
        # Of each kind, a limited number of reports is made; so there is a kind for each state.
        other = Load(service, [broken[1]])
        third = Load(service, [Ask("/v1/users/me/export", 503, customer.orders.headers)])
        warm_up(service, load)
        wait_until(lambda: len(sentry.reports) > 0, "reports arrive")

        def hang() -> None:
            sentry.be("swallows")
            other.ask(5)

        def no_report_is_unaccounted_for() -> bool:
            suppressed = service.metric("error_reports_suppressed_total")
            failed = load.answered[broken[0]] + other.total + third.total
            return len(sentry.reports) + service.dropped("errors") + suppressed == failed

        assert_unhurt(service, load, Sinks(hang, lambda: sentry.be("answers")))
        assert service.details() == "degraded"
        wait_until(lambda: service.dropped("errors") > 0, "a report is given up")
        arrived = len(sentry.reports)
        sentry.be("answers")
        third.ask(1)
        wait_until(no_report_is_unaccounted_for, "each report has arrived or is counted")
        assert len(sentry.reports) > arrived, "reports arrive again"
        other.assert_all_answered()
        third.assert_all_answered()

        hang()
        service.end()


# All at once ------------------------------------------------------------------------------------------


def test_the_service_starts_works_and_ends_while_every_sink_is_dead(
    customer: Customer, collector: Backend, sentry: Backend, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(customer.database)) as database:
        database.execute("ALTER TABLE orders RENAME TO mislaid")
    collector.be("swallows")
    sentry.be("swallows")
    full = os.open("/dev/full", os.O_WRONLY)
    with Service(
        tmp_path,
        full,
        {
            "DATABASE_URL": customer.database_url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
            "SENTRY_DSN": f"http://public@{sentry.address}/1",
        },
    ) as service:
        os.close(full)
        service.until_ready()
        load = Load(service, [customer.profile, Ask("/v1/orders", 503, customer.orders.headers)])
        load.ask(100)
        load.assert_all_answered()
        wait_until(lambda: service.dropped("errors") > 0, "a report is given up")
        assert service.dropped("logs") >= load.total
        assert service.dropped("traces") > 0
        assert service.details() == "degraded"
        service.end()


async def test_a_worker_goes_on_while_its_sinks_fail(
    sqlite_service_database: str,
    provider: RunningProvider,
    reader: Reader,
    collector: Backend,
    tmp_path: Path,
) -> None:
    collector.be("swallows")
    with Service(
        tmp_path,
        reader.descriptor,
        {
            "DATABASE_URL": sqlite_service_database,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
        },
        program=("app", "worker"),
    ) as worker:
        os.close(reader.descriptor)
        worker.until_ready()
        reader.stall()
        # What the API samples, the worker samples, too.
        async with open_service(
            sqlite_service_database,
            provider_url=provider.url,
            otel_exporter_otlp_endpoint=f"http://{collector.address}",
        ) as api:
            person = await api.person()
            for _ in range(5):
                assert (await person.pay((await person.order())["id"])).status_code == 201

        def done(task: str) -> float:
            return worker.metric("jobs_processed_total", status="succeeded", task=task)

        def all_done() -> bool:
            return done("fulfil_order") == done("write_receipt") == 5

        def spans_are_lost() -> bool:
            return worker.dropped("traces") > 0

        await asyncio.to_thread(wait_until, all_done, "the orders are handled")
        assert reader.count(b'"Job finished"') < 10, "the lines have nowhere to go"
        await asyncio.to_thread(wait_until, spans_are_lost, "spans are given up")
        assert worker.details() == "degraded"
        await asyncio.to_thread(worker.end)


# The measuring has eyes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("writes", "requests went wrong"),
        ("exports", "the probe's p99"),
        ("hoards", "memory grew"),
    ],
)
def test_harm_is_seen(
    kind: str, seen: str, customer: Customer, reader: Reader, collector: Backend, tmp_path: Path
) -> None:
    with Service(
        tmp_path,
        reader.descriptor,
        {
            "DATABASE_URL": customer.database_url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
        },
        program=("tests.integration.hurt.harmful", kind),
    ) as service:
        os.close(reader.descriptor)
        service.until_ready()
        # What is written never gets through; what is exported takes its time, and does.
        load = Load(service, [NOWHERE], patience=3.0 if kind == "writes" else SLOWEST_SECONDS)
        load.ask(30)

        def fail() -> None:
            if kind == "writes":
                reader.stall()
            elif kind == "exports":
                collector.be("swallows")
            else:
                load.ask(1500)

        with pytest.raises(Hurt, match=seen):
            assert_unhurt(service, load, Sinks(fail, fail), attempts=1)
        if kind == "writes":
            with pytest.raises(Hurt, match="still ran"):
                service.end()

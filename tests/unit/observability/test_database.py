"""Statements, findings and the pool, on engines of a bare application (SQLite; PostgreSQL in integration)."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from sqlalchemy import Engine, bindparam, create_engine, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool
from sqlalchemy.util import greenlet_spawn

from app.observability.context import RequestContext, bind_context, current_context
from app.observability.database import (
    DatabaseInsightSettings,
    SlowStatement,
    error_type_of,
    instrument_database,
    repetition_is_meant,
    watch_n_plus_one,
)


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


NEVER_SLOW = DatabaseInsightSettings(database_slow_query_ms=60_000)
ALWAYS_SLOW = DatabaseInsightSettings(database_slow_query_ms=0.000001)
BY_ID = text("SELECT name FROM people WHERE id = :id")
LogRecords = list[dict[str, Any]]


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Findings:
    def __init__(self) -> None:
        self.reported: list[dict[str, Any]] = []

    def __call__(
        self,
        message: str,
        *,
        fingerprint: tuple[str, ...],
        contexts: Mapping[str, Mapping[str, object]],
        **tags: str,
    ) -> None:
        report = {
            "message": message,
            "fingerprint": fingerprint,
            "contexts": contexts,
            "tags": tags,
        }
        self.reported.append(report)


def engine_of(path: Path, **options: Any) -> AsyncEngine:
    return create_async_engine(
        f"sqlite+aiosqlite:///{path / 'people.db'}", poolclass=AsyncAdaptedQueuePool, **options
    )


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = engine_of(tmp_path)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)"))
        people = [{"id": number, "name": f"name-{number}"} for number in range(20)]
        await connection.execute(text("INSERT INTO people VALUES (:id, :name)"), people)
    yield engine
    await engine.dispose()


# Statements -------------------------------------------------------------------------------------------


async def test_a_statement_is_timed_and_its_rows_counted(engine: AsyncEngine) -> None:
    instrument_database(engine, NEVER_SLOW)
    labels = {"operation": "SELECT", "table": "people"}
    before = [
        sample(f"database_{name}", **labels)
        for name in ("query_duration_seconds_count", "rows_returned_count", "rows_returned_sum")
    ]
    async with engine.connect() as connection:
        await connection.execute(text("SELECT * FROM people WHERE id < 7"))
        await connection.execute(BY_ID, {"id": 99})
    after = [
        sample(f"database_{name}", **labels)
        for name in ("query_duration_seconds_count", "rows_returned_count", "rows_returned_sum")
    ]
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, 2, 7]


async def test_the_use_of_a_request_is_told_by_its_context_and_its_metrics(
    engine: AsyncEngine,
) -> None:
    instrument_database(engine, NEVER_SLOW)
    with bind_context(RequestContext("request-1", route="/people")) as context:
        async with engine.connect() as connection:
            for number in range(3):
                await connection.execute(BY_ID, {"id": number})
    assert context.database.statements == 3
    assert context.database.seconds > 0
    assert sample("database_queries_per_request_sum", handler="/people") == 3
    assert sample("database_queries_per_request_count", handler="/people") == 1
    assert sample("database_time_per_request_seconds_count", handler="/people") == 1


async def test_a_request_without_a_statement_is_not_observed() -> None:
    with bind_context(RequestContext("request-1", route="/without")):
        pass
    assert sample("database_queries_per_request_count", handler="/without") == 0


def test_a_synchronous_engine_is_measured_as_well(tmp_path: Path, log_records: LogRecords) -> None:
    engine: Engine = create_engine(f"sqlite:///{tmp_path / 'people.db'}")
    instrument_database(engine, ALWAYS_SLOW, pool="synchronous", application="tests")
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE pets (id INTEGER)"))
        connection.execute(text("SELECT 1 FROM pets"))
    engine.dispose()
    assert sample("database_query_duration_seconds_count", operation="SELECT", table="pets") == 1
    assert "test_a_synchronous_engine" in log_records[-1]["extra"]["caller"]


ERRORS: list[tuple[Exception, str]] = [
    (type("QueryCanceled", (Exception,), {"sqlstate": "57014"})(), "timeout"),
    (type("LockNotAvailable", (Exception,), {"sqlstate": "55P03"})(), "timeout"),
    (type("Deadlock", (Exception,), {"sqlstate": "40P01"})(), "deadlock"),
    (type("Unique", (Exception,), {"pgcode": "23505"})(), "integrity"),
    (type("AdminShutdown", (Exception,), {"sqlstate": "57P01"})(), "connection"),
    (type("TooMany", (Exception,), {"sqlstate": "53300"})(), "connection"),
    (type("WrongPassword", (Exception,), {"sqlstate": "28P01"})(), "connection"),
    (type("NoSuchDatabase", (Exception,), {"sqlstate": "3D000"})(), "connection"),
    (type("Syntax", (Exception,), {"sqlstate": "42601"})(), "other"),
    (sqlite3.OperationalError("database is locked"), "timeout"),
    (sqlite3.OperationalError("unable to open database file"), "connection"),
    (sqlite3.OperationalError("no such table: x"), "other"),
    (sqlite3.IntegrityError("UNIQUE constraint failed"), "integrity"),
    (TimeoutError(), "timeout"),
    (ConnectionRefusedError(), "connection"),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS, ids=[f"{e!r}-{k}" for e, k in ERRORS])
def test_the_kind_of_an_error(error: Exception, kind: str) -> None:
    assert error_type_of(error) == kind


def test_a_lost_connection_is_a_connection_error() -> None:
    assert error_type_of(RuntimeError("gone"), is_disconnect=True) == "connection"


async def test_a_failed_statement_is_counted_and_told_to_an_error_report(
    engine: AsyncEngine,
) -> None:
    instrument_database(engine, NEVER_SLOW)
    before = sample("database_errors_total", error_type="integrity")
    with bind_context(RequestContext("request-1")) as context:
        async with engine.connect() as connection:
            with pytest.raises(IntegrityError):
                await connection.execute(text("INSERT INTO people VALUES (1, 'secret')"))
    assert sample("database_errors_total", error_type="integrity") == before + 1
    assert context.database.describe is not None
    told = context.database.describe()
    assert told["query"] == "INSERT INTO people VALUES (?)"
    assert told["error_type"] == "integrity"
    assert told["analysis"] == {"kind": "write", "complexity": "low"}
    assert "secret" not in str(told)


def test_a_database_that_cannot_be_opened_is_a_connection_error(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/no/such/directory/x.db")
    instrument_database(engine, NEVER_SLOW)
    before = sample("database_errors_total", error_type="connection")
    with pytest.raises(OperationalError):
        engine.connect()
    assert sample("database_errors_total", error_type="connection") == before + 1


async def test_a_failed_statement_costs_its_time_as_any_other(
    engine: AsyncEngine, log_records: LogRecords
) -> None:
    instrument_database(engine, ALWAYS_SLOW)
    labels = {"operation": "INSERT", "table": "people"}
    before = sample("database_query_duration_seconds_count", **labels)
    slow = sample("database_slow_queries_total", **labels)
    with bind_context(RequestContext("request-1", route="/failing")) as context:
        async with engine.connect() as connection:
            with pytest.raises(IntegrityError):
                await connection.execute(text("INSERT INTO people VALUES (1, 'x')"))
    assert context.database.statements == 1
    assert context.database.seconds > 0
    assert sample("database_query_duration_seconds_count", **labels) == before + 1
    assert sample("database_slow_queries_total", **labels) == slow + 1
    assert sample("database_queries_per_request_count", handler="/failing") == 1
    line = log_records[-1]["extra"]
    assert (line["error_type"], line["handler"], line["rows"]) == ("integrity", "/failing", None)


async def test_what_the_application_cancels_is_no_error_of_the_database(
    engine: AsyncEngine,
) -> None:
    instrument_database(engine, NEVER_SLOW)
    endless = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000)"
        " SELECT count(*) FROM n"
    )

    def errors() -> float:
        kinds = ("timeout", "deadlock", "integrity", "connection", "pool_timeout", "other")
        return sum(sample("database_errors_total", error_type=kind) for kind in kinds)

    before = errors()
    with bind_context(RequestContext("request-1")) as context:
        async with engine.connect() as connection:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await connection.execute(endless)
    assert errors() == before
    assert context.database.describe is not None
    assert context.database.describe()["error_type"] == "cancelled"


async def test_rows_are_those_returned_or_changed(
    engine: AsyncEngine, log_records: LogRecords
) -> None:
    instrument_database(engine, ALWAYS_SLOW)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE people SET name = 'x' WHERE id < 5"))
        assert log_records[-1]["extra"]["rows"] == 5
        await connection.execute(text("SELECT * FROM people WHERE id < 3"))
        assert log_records[-1]["extra"]["rows"] == 3
    labels = {"operation": "UPDATE", "table": "people"}
    assert REGISTRY.get_sample_value("database_rows_returned_count", labels) is None


# Slow statements --------------------------------------------------------------------------------------


async def test_a_slow_statement_is_counted_logged_and_reported_without_its_values(
    engine: AsyncEngine, log_records: LogRecords
) -> None:
    findings = Findings()
    instrument_database(engine, ALWAYS_SLOW, application="tests", on_finding=findings)
    before = sample("database_slow_queries_total", operation="SELECT", table="people")
    async with engine.connect() as connection:
        await connection.execute(
            text("SELECT name FROM people WHERE name = 'secret' AND id = :id"), {"id": 1}
        )
    assert sample("database_slow_queries_total", operation="SELECT", table="people") == before + 1
    line = log_records[-1]
    assert line["level"].name == "WARNING"
    told = line["extra"]
    assert told["type"] == "db_query"
    assert told["query"] == "SELECT name FROM people WHERE name = ? AND id = ?"
    assert told["duration_ms"] > 0
    assert told["rows"] == 0
    assert told["analysis"] == {"kind": "lookup", "complexity": "low"}
    assert told["pool"] == {"name": "main", "active": 1, "idle": 0, "max": 15, "overflow": 0}
    place, name = told["caller"].split(" ")
    assert place.startswith("tests/unit/observability/test_database.py:")
    assert name == "test_a_slow_statement_is_counted_logged_and_reported_without_its_values"
    (report,) = findings.reported
    assert report["message"] == "Slow statement: SELECT people"
    assert report["fingerprint"] == ("slow-statement", told["query_id"])
    assert report["contexts"]["database"]["query"] == told["query"]
    assert "secret" not in str(report)
    assert "secret" not in str(told)


async def test_a_quick_statement_is_no_finding(
    engine: AsyncEngine, log_records: LogRecords
) -> None:
    instrument_database(engine, NEVER_SLOW)
    async with engine.connect() as connection:
        await connection.execute(BY_ID, {"id": 1})
    assert not [line for line in log_records if line["extra"].get("type") == "db_query"]


async def test_the_flush_of_a_library_s_task_has_no_caller_but_a_handler(
    engine: AsyncEngine, log_records: LogRecords
) -> None:
    instrument_database(engine, ALWAYS_SLOW, application="tests")
    sessions = async_sessionmaker(engine)
    with bind_context(RequestContext("request-1", route="/flush")):
        async with sessions.begin() as session:
            session.add(Person(id=100, name="x"))
    (line,) = [line["extra"] for line in log_records if line["extra"].get("operation") == "INSERT"]
    assert (line["caller"], line["handler"]) == ("", "/flush")


async def test_a_broken_hook_does_not_fail_the_statement(
    engine: AsyncEngine, log_records: LogRecords
) -> None:
    def broken(message: str, **_: object) -> None:
        raise RuntimeError(message)

    instrument_database(engine, ALWAYS_SLOW, on_finding=broken)
    async with engine.connect() as connection:
        assert (await connection.execute(BY_ID, {"id": 1})).scalar() == "name-1"
    assert log_records[-1]["message"] == "A finding could not be reported"


async def test_what_explain_takes_over_is_not_reported_twice(engine: AsyncEngine) -> None:
    findings = Findings()
    taken: list[SlowStatement] = []

    def explain(slow: SlowStatement) -> bool:
        taken.append(slow)
        return slow.statement.table == "people"

    instrument_database(engine, ALWAYS_SLOW, on_finding=findings, explain=explain)
    async with engine.connect() as connection:
        await connection.execute(BY_ID, {"id": 1})
        assert findings.reported == []
        await connection.execute(text("SELECT 1"))
    assert len(findings.reported) == 1
    assert taken[0].parameters == (1,)


# N+1 --------------------------------------------------------------------------------------------------


async def _ask(engine: AsyncEngine, times: int) -> None:
    async with engine.connect() as connection:
        for number in range(times):
            await connection.execute(BY_ID, {"id": number})


async def test_one_statement_again_and_again_is_found_once_a_request(
    engine: AsyncEngine, log_records: LogRecords
) -> None:
    findings = Findings()
    instrument_database(engine, NEVER_SLOW, application="tests", on_finding=findings)
    with watch_n_plus_one() as found, bind_context(RequestContext("r-1", route="/n+1")):
        await _ask(engine, 10)
        assert found == []
        await _ask(engine, 20)
    assert sample("database_n_plus_one_total", handler="/n+1") == 1
    (line,) = [line["extra"] for line in log_records if line["extra"].get("event") == "n_plus_one"]
    assert line["times"] == 11
    assert line["query"] == "SELECT name FROM people WHERE id = ?"
    assert line["caller"].endswith("_ask")
    (report,) = findings.reported
    assert report["fingerprint"] == ("n-plus-one", line["query_id"])
    (one,) = found
    assert (one.handler, one.statement) == ("/n+1", line["query"])


async def test_each_request_begins_to_count_anew(engine: AsyncEngine) -> None:
    instrument_database(engine, NEVER_SLOW)
    with watch_n_plus_one() as found:
        for _ in range(5):
            with bind_context(RequestContext("r-1")):
                await _ask(engine, 9)
    assert found == []


async def test_batches_are_no_n_plus_one(engine: AsyncEngine) -> None:
    instrument_database(engine, NEVER_SLOW)
    people = [{"id": number, "name": "x"} for number in range(100, 200)]
    with watch_n_plus_one() as found, bind_context(RequestContext("r-1")):
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO people VALUES (:id, :name)"), people)
            for person in people:  # writes are what a request is there for
                await connection.execute(
                    text("UPDATE people SET name = :name WHERE id = :id"), person
                )
        with repetition_is_meant():
            await _ask(engine, 50)
        await _ask(engine, 10)
    assert found == []


async def test_a_select_in_portions_is_no_n_plus_one(engine: AsyncEngine) -> None:
    instrument_database(engine, NEVER_SLOW)
    portion = text("SELECT name FROM people WHERE id IN :ids").bindparams(
        bindparam("ids", expanding=True)
    )
    with watch_n_plus_one() as found, bind_context(RequestContext("r-1")):
        async with engine.connect() as connection:
            for _ in range(20):
                await connection.execute(portion, {"ids": list(range(100))})
            assert found == []
            for _ in range(20):
                await connection.execute(portion, {"ids": list(range(99))})
    assert len(found) == 1


async def test_work_outside_of_a_request_is_not_counted(engine: AsyncEngine) -> None:
    instrument_database(engine, NEVER_SLOW)
    assert current_context() is None
    with watch_n_plus_one() as found:
        await _ask(engine, 50)
    assert found == []


FIXTURE_TEST = """
import pytest
from sqlalchemy import create_engine, text
from app.observability.context import RequestContext, bind_context
from app.observability.database import DatabaseInsightSettings, instrument_database
from tests.n_plus_one import no_n_plus_one

@pytest.mark.parametrize("times", [10, 11])
@pytest.mark.usefixtures("no_n_plus_one")
def test_it(times):
    engine = create_engine("sqlite://")
    instrument_database(engine, DatabaseInsightSettings())
    with bind_context(RequestContext("r-1", route="/orders")), engine.connect() as connection:
        for number in range(times):
            connection.execute(text("SELECT :number"), {"number": number})
"""


def test_the_fixture_fails_a_test_that_has_one(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FIXTURE_TEST)
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", root / "pyproject.toml",
         "--rootdir", root, tmp_path / "test_it.py"],
        capture_output=True, text=True, check=False, timeout=200, cwd=root,
    )  # fmt: skip
    assert "2 passed, 1 error" in run.stdout
    assert "N+1, one statement again and again:\n/orders at " in run.stdout


# The pool ---------------------------------------------------------------------------------------------


def gauges(pool: str) -> dict[str, float]:
    names = ("active", "idle", "max", "overflow")
    return {name: sample(f"database_connections_{name}", pool=pool) for name in names}


async def test_the_pool_is_told_as_it_is(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, pool_size=2, max_overflow=1)
    instrument_database(engine, NEVER_SLOW, pool="told")
    assert gauges("told") == {"active": 0, "idle": 0, "max": 3, "overflow": 0}
    first, second, third = [await engine.connect() for _ in range(3)]
    assert gauges("told") == {"active": 3, "idle": 0, "max": 3, "overflow": 1}
    await first.close()
    assert gauges("told") == {"active": 2, "idle": 1, "max": 3, "overflow": 1}
    await second.close()
    assert gauges("told") == {"active": 1, "idle": 2, "max": 3, "overflow": 1}
    await third.close()
    assert gauges("told") == {"active": 0, "idle": 2, "max": 3, "overflow": 0}
    await engine.dispose()
    assert gauges("told") == {"active": 0, "idle": 0, "max": 3, "overflow": 0}
    async with engine.connect():
        assert gauges("told") == {"active": 1, "idle": 0, "max": 3, "overflow": 0}
    assert sample("database_connection_wait_seconds_count", pool="told") == 4
    await engine.dispose()


async def test_two_engines_have_series_of_their_own(tmp_path: Path) -> None:
    one, other = engine_of(tmp_path), engine_of(tmp_path)
    instrument_database(one, NEVER_SLOW, pool="one")
    instrument_database(other, NEVER_SLOW, pool="other")
    async with one.connect():
        assert gauges("one")["active"] == 1
        assert gauges("other")["active"] == 0
    await one.dispose()
    await other.dispose()


async def test_a_wait_in_vain_is_counted(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, pool_size=1, max_overflow=0, pool_timeout=0.05)
    instrument_database(engine, NEVER_SLOW, pool="vain")
    before = sample("database_errors_total", error_type="pool_timeout")
    async with engine.connect():
        with pytest.raises(PoolTimeoutError):
            await engine.connect()
    assert sample("database_connection_timeouts_total", pool="vain") == 1
    assert sample("database_errors_total", error_type="pool_timeout") == before + 1
    assert sample("database_connection_wait_seconds_sum", pool="vain") >= 0.05
    await engine.dispose()


async def test_gauges_are_right_after_many_that_came_and_went(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, pool_size=2, max_overflow=2, pool_timeout=30)
    instrument_database(engine, NEVER_SLOW, pool="busy")

    async def use() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async with asyncio.TaskGroup() as group:
        for _ in range(60):
            group.create_task(use())
    assert gauges("busy")["active"] == 0
    assert gauges("busy")["overflow"] == 0
    assert gauges("busy")["idle"] in {0, 1, 2}
    await engine.dispose()
    assert gauges("busy") == {"active": 0, "idle": 0, "max": 4, "overflow": 0}


def test_a_connection_that_could_not_be_opened_was_never_in_use(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/no/x.db", poolclass=QueuePool)
    instrument_database(engine, NEVER_SLOW, pool="never")
    for _ in range(3):
        with pytest.raises(OperationalError):
            engine.connect()
    assert gauges("never") == {"active": 0, "idle": 0, "max": 15, "overflow": 0}


@pytest.mark.parametrize("close", [True, False])
async def test_a_pool_disposed_of_while_in_use_is_forgotten_with_its_last_connection(
    tmp_path: Path, close: bool
) -> None:
    engine = engine_of(tmp_path)
    instrument_database(engine, NEVER_SLOW, pool=f"disposed-{close}")
    other = await engine.connect()
    used = await engine.connect()
    await other.close()
    old = engine.sync_engine.pool
    await engine.dispose(close=close)
    assert gauges(f"disposed-{close}") == {"active": 1, "idle": 0, "max": 15, "overflow": 0}
    async with engine.connect():
        assert gauges(f"disposed-{close}")["active"] == 2
        await used.close()
        assert gauges(f"disposed-{close}") == {"active": 1, "idle": 0, "max": 15, "overflow": 0}
    assert gauges(f"disposed-{close}") == {"active": 0, "idle": 1, "max": 15, "overflow": 0}
    await engine.dispose()
    await greenlet_spawn(old.dispose)
    assert gauges(f"disposed-{close}") == {"active": 0, "idle": 0, "max": 15, "overflow": 0}


async def test_who_waits_while_the_pool_is_disposed_of_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path / 'one.db'}", pool_size=1, max_overflow=0
    )
    instrument_database(engine, NEVER_SLOW, pool="waited-for")
    used = await engine.connect()

    async def wait() -> None:
        async with engine.connect():
            assert gauges("waited-for")["active"] == 1

    old = engine.sync_engine.pool
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.1)  # until it waits: in either order nothing may be left behind
    await engine.dispose()
    await used.close()  # it goes to who waits for it, from the old pool
    await waiting
    await greenlet_spawn(old.dispose)

    assert gauges("waited-for") == {"active": 0, "idle": 0, "max": 1, "overflow": 0}


async def test_a_detached_connection_belongs_to_the_pool_no_longer(tmp_path: Path) -> None:
    engine = engine_of(tmp_path)
    instrument_database(engine, NEVER_SLOW, pool="detached")
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        await connection.run_sync(lambda sync: sync.detach())
        assert gauges("detached") == {"active": 0, "idle": 0, "max": 15, "overflow": 0}
    assert gauges("detached")["active"] == 0
    await driver.close()  # type: ignore[union-attr]
    await engine.dispose()


async def test_a_connection_that_outlived_its_pool_may_be_detached(tmp_path: Path) -> None:
    engine = engine_of(tmp_path)
    instrument_database(engine, NEVER_SLOW, pool="outlived")
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        await engine.dispose()
        assert gauges("outlived") == {"active": 1, "idle": 0, "max": 15, "overflow": 0}
        await connection.run_sync(lambda sync: sync.detach())
    assert gauges("outlived") == {"active": 0, "idle": 0, "max": 15, "overflow": 0}
    await driver.close()  # type: ignore[union-attr]
    await engine.dispose()


async def test_a_pool_that_keeps_nothing_tells_what_is_in_use(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", poolclass=NullPool)
    instrument_database(engine, NEVER_SLOW, pool="none")
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        assert gauges("none") == {"active": 1, "idle": 0, "max": -1, "overflow": 1}
    assert gauges("none") == {"active": 0, "idle": 0, "max": -1, "overflow": 0}
    assert sample("database_connection_wait_seconds_count", pool="none") == 1

"""What the service tells of its database: on both kinds, through the API, with the real drivers."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.infrastructure.database import Database
from app.observability.context import RequestContext, bind_context
from app.observability.database import (
    DatabaseInsightSettings,
    SlowStatement,
    error_type_of,
    instrument_database,
)
from app.observability.executions import watch_executions
from app.observability.query_plans import QueryPlans, QueryPlanSettings, read_plan
from app.observability.statements import read_statement
from app.settings import Settings
from tests.integration.conftest import OpenService
from tests.service import Service, open_service
from tests.service import test_settings as settings_for

LogRecords = list[dict[str, Any]]


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def findings_in(records: LogRecords, event: str) -> list[dict[str, Any]]:
    return [line["extra"] for line in records if line["extra"].get("event") == event]


# Statements of the service ------------------------------------------------------------------------------


async def test_statements_are_told_by_operation_and_table(service: Service) -> None:
    person = await service.person()
    inserted = {"operation": "INSERT", "table": "orders"}
    before = sample("database_query_duration_seconds_count", **inserted)
    await person.order()
    assert sample("database_query_duration_seconds_count", **inserted) == before + 1
    assert sample("database_queries_per_request_count", handler="/v1/orders") >= 1


async def test_what_sqlalchemy_asks_before_the_first_statement_is_not_told(
    postgres_database: str,
) -> None:
    asked, told = list[str](), list[str]()
    engine = create_async_engine(postgres_database)
    event.listen(
        engine.sync_engine, "do_execute", lambda _, statement, *__: asked.append(statement)
    )
    watch_executions(
        engine.sync_engine, before=lambda _, __, statement, *___: told.append(statement)
    )

    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    await engine.dispose()

    assert told == ["SELECT 1"]
    assert asked[-1] == "SELECT 1"
    assert any("version" in statement for statement in asked)


async def test_rows_are_counted_on_both_drivers(service: Service) -> None:
    person = await service.person()
    for _ in range(3):
        await person.order()
    selected = {"operation": "SELECT", "table": "orders"}
    before = sample("database_rows_returned_sum", **selected)
    page = (await person.get("/v1/orders")).json()
    assert len(page["items"]) == 3
    assert sample("database_rows_returned_sum", **selected) == before + 3


async def test_the_access_line_tells_statements_and_their_time(
    service: Service, log_records: LogRecords
) -> None:
    person = await service.person()
    order = await person.order()
    await person.get(f"/v1/orders/{order['id']}")
    line = [one["extra"] for one in log_records if one["extra"].get("type") == "http_request"][-1]
    assert line["route"] == "/v1/orders/{order_id}"
    assert line["db_statements"] >= 1
    assert 0 < line["db_duration_ms"] < line["duration_ms"]


async def test_a_slow_statement_names_the_line_of_the_domain_that_waits_for_it(
    open_here: OpenService, log_records: LogRecords
) -> None:
    async with open_here(database_slow_query_ms=0.000001) as service:
        person = await service.person()
        order = await person.order()
        log_records.clear()
        await person.get(f"/v1/orders/{order['id']}")
    slow = [line for line in findings_in(log_records, "slow_query") if line["table"] == "orders"]
    assert slow[0]["caller"].startswith("app/orders/service.py:")
    assert slow[0]["pool"]["active"] >= 1
    assert order["id"] not in json.dumps(slow)


async def test_the_journey_has_no_n_plus_one(service_with_worker: Service) -> None:
    # The autouse fixture no_n_plus_one looks at all tests; this one makes long lists on purpose.
    person = await service_with_worker.person()
    for _ in range(15):
        order = await person.order()
        assert (await person.pay(order["id"])).json()["status"] == "captured"
    assert len((await person.get("/v1/orders", limit=15)).json()["items"]) == 15
    assert (await person.get("/v1/users/me/export")).status_code == 200


async def test_an_exhausted_pool_is_a_503_with_retry_after_and_counted(
    open_here: OpenService,
) -> None:
    async with open_here(
        database_pool_size=1, database_max_overflow=0, database_pool_timeout_seconds=0.1
    ) as service:
        person = await service.person()
        database: Database = service.app.state.database
        before = sample("database_connection_timeouts_total", pool="main")
        async with database.engine.connect():
            answer = await person.get("/v1/orders")
        assert answer.status_code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["code"] == "database_unavailable"
        assert sample("database_connection_timeouts_total", pool="main") == before + 1
        assert (await person.get("/v1/orders")).status_code == 200
        assert sample("database_connections_active", pool="main") == 0


async def test_an_exhausted_pool_is_no_database_that_is_down(
    postgres_service_database: str,
) -> None:
    """Who is called about the pool must not be told of the database, and no process goes out of service."""
    async with open_service(
        postgres_service_database,
        database_pool_size=1,
        database_max_overflow=0,
        database_pool_timeout_seconds=0.1,
    ) as service:
        database: Database = service.app.state.database
        async with database.engine.connect():
            answer = await service.http.get("/health/ready")
        assert answer.status_code == 200
        assert set(answer.json()["failed"]) <= {"payment_provider"}


# PostgreSQL's errors and plans ----------------------------------------------------------------------------


@pytest_asyncio.fixture
async def shop(postgres_database: str) -> AsyncIterator[AsyncEngine]:
    """20,000 orders of 200 customers, analysed; indexed by nothing but their id."""
    engine = create_async_engine(postgres_database)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE customers (id int PRIMARY KEY, name text)"))
        await connection.execute(
            text("CREATE TABLE orders (id int PRIMARY KEY, customer_id int, note text, total int)")
        )
        await connection.execute(
            text("INSERT INTO customers SELECT i, 'name' FROM generate_series(1, 200) i")
        )
        await connection.execute(
            text(
                "INSERT INTO orders SELECT i, i % 200 + 1, 'note', i FROM generate_series(1, 20000) i"
            )
        )
        await connection.execute(text("ANALYZE"))
    yield engine
    await engine.dispose()


async def test_a_plan_is_put_into_words_without_values(shop: AsyncEngine) -> None:
    async with shop.connect() as connection:
        plan = await read_plan(
            connection,
            "SELECT * FROM orders WHERE customer_id = $1 AND note = 'secret' ORDER BY total",
            (17,),
        )
    assert plan.hints[0] == (
        "sequential scan on orders, 20.0 k rows, filter on customer_id, note: consider an index"
    )
    assert plan.nodes.startswith("Sort > Seq Scan on orders")
    assert plan.total_cost > 0
    assert "secret" not in str(plan)
    assert "17" not in plan.nodes + "".join(plan.hints)


async def test_a_large_sort_and_a_scan_without_a_filter_are_told(shop: AsyncEngine) -> None:
    async with shop.connect() as connection:
        await connection.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
        plan = await read_plan(connection, "SELECT * FROM orders ORDER BY total, note", ())
    assert set(plan.hints) == {
        "sort of 20.0 k rows by total, note: consider an index in this order",
        "sequential scan on orders, 20.0 k rows, without a filter",
    }


async def test_a_hint_speaks_of_the_table_in_the_schema_of_the_statement(
    shop: AsyncEngine,
) -> None:
    async with shop.begin() as connection:
        await connection.execute(text("CREATE SCHEMA tiny"))
        await connection.execute(text("CREATE SCHEMA big"))
        await connection.execute(text("CREATE TABLE tiny.orders (customer_id int)"))
        await connection.execute(text("CREATE TABLE big.orders AS SELECT * FROM public.orders"))
        await connection.execute(text("ANALYZE"))
        tiny = await read_plan(connection, "SELECT * FROM tiny.orders WHERE customer_id = $1", (1,))
        big = await read_plan(connection, "SELECT * FROM big.orders WHERE customer_id = $1", (1,))
    assert tiny.hints == ()
    assert big.hints[0].startswith(
        "sequential scan on big.orders, 20.0 k rows, filter on customer_id"
    )


async def test_an_indexed_lookup_has_no_hint(shop: AsyncEngine) -> None:
    async with shop.connect() as connection:
        plan = await read_plan(connection, "SELECT * FROM orders WHERE id = $1", (5,))
    assert plan.hints == ()


class Findings:
    def __init__(self) -> None:
        self.reported: list[dict[str, Any]] = []
        self.heard = asyncio.Event()

    def __call__(self, message: str, **details: Any) -> None:
        self.reported.append({"message": message, **details})
        self.heard.set()


ON = QueryPlanSettings(database_explain_slow_queries=True)
ALL_SLOW = DatabaseInsightSettings(database_slow_query_ms=0.000001)
BY_CUSTOMER = text("SELECT sum(total) FROM orders WHERE customer_id = :customer")


async def test_a_slow_select_is_reported_with_its_plan(
    shop: AsyncEngine, log_records: LogRecords
) -> None:
    findings = Findings()
    plans = QueryPlans(shop, ON, on_finding=findings)
    instrument_database(shop, ALL_SLOW, on_finding=findings, explain=plans.explain)
    async with plans.running():
        async with shop.connect() as connection:
            await connection.execute(BY_CUSTOMER, {"customer": 7})
        await asyncio.wait_for(findings.heard.wait(), 30)
        first = findings.reported.pop()
        details = first["contexts"]["database"]
        assert details["query"] == "SELECT sum(total) FROM orders WHERE customer_id = ?"
        assert "filter on customer_id" in details["plan"]["hints"][0]
        (line,) = findings_in(log_records, "query_plan")
        assert line["hints"] == details["plan"]["hints"]
        assert line["query_id"] == details["query_id"]
        # The same statement again, soon: reported at once, and not asked about again.
        async with shop.connect() as connection:
            await connection.execute(BY_CUSTOMER, {"customer": 8})
        (again,) = findings.reported
        assert "plan" not in again["contexts"]["database"]


def slow_statement(sql: str, parameters: object = ()) -> SlowStatement:
    return SlowStatement(read_statement(sql), sql, parameters, {"query": "..."})


async def test_only_selects_of_postgresql_are_explained_and_only_when_asked(
    shop: AsyncEngine,
) -> None:
    select = slow_statement("SELECT 1")
    off = QueryPlans(shop, QueryPlanSettings(), on_finding=None)
    async with off.running():
        assert off.explain(select) is False
    sqlite = QueryPlans(create_async_engine("sqlite+aiosqlite://"), ON, on_finding=None)
    async with sqlite.running():
        assert sqlite.explain(select) is False
    plans = QueryPlans(shop, ON, on_finding=None)
    assert plans.explain(select) is False
    async with plans.running():
        assert plans.explain(slow_statement("DELETE FROM orders")) is False
        assert plans.explain(slow_statement("WITH x AS (SELECT 1) UPDATE orders SET id=1")) is False
        assert plans.explain(select) is True
    assert plans.explain(slow_statement("SELECT 2 FROM orders")) is False


async def test_a_plan_is_asked_for_on_a_connection_like_the_application_s(
    postgres_database: str,
) -> None:
    engine = create_async_engine(
        postgres_database, connect_args={"server_settings": {"search_path": "hidden"}}
    )
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA hidden"))
        await connection.execute(text("CREATE TABLE hidden.things (id int)"))
    findings = Findings()
    plans = QueryPlans(engine, ON, on_finding=findings)
    async with plans.running():
        assert plans.explain(slow_statement("SELECT id FROM things"))
        await asyncio.wait_for(findings.heard.wait(), 30)
    await engine.dispose()
    assert (
        findings.reported[0]["contexts"]["database"]["plan"]["nodes"] == "Seq Scan on hidden.things"
    )


async def test_rows_that_come_later_are_not_counted_as_none(shop: AsyncEngine) -> None:
    instrument_database(shop, DatabaseInsightSettings())
    labels = {"operation": "SELECT", "table": "orders"}
    before = sample("database_rows_returned_count", **labels)
    async with shop.connect() as connection:
        result = await connection.stream(text("SELECT * FROM orders"))
        assert len(await result.all()) == 20_000
        assert sample("database_rows_returned_count", **labels) == before
        await connection.execute(text("SELECT * FROM orders"))
        assert sample("database_rows_returned_count", **labels) == before + 1


async def test_a_statement_that_times_out_is_slow_and_in_the_books(
    postgres_service_database: str, log_records: LogRecords
) -> None:
    settings: Settings = settings_for(
        postgres_service_database, database_statement_timeout_ms=100, database_slow_query_ms=50
    )
    database = Database(settings)
    instrument_database(database.engine, settings, pool="timing-out")
    with (
        bind_context(RequestContext("request-1", route="/slow")) as context,
        pytest.raises(DBAPIError),
    ):
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(5)"))
    await database.dispose()
    assert context.database.statements == 1
    assert context.database.seconds >= 0.1
    (line,) = findings_in(log_records, "slow_query")
    assert (line["error_type"], line["handler"]) == ("timeout", "/slow")
    assert line["duration_ms"] >= 100


async def test_a_write_inside_of_a_select_is_not_executed(shop: AsyncEngine) -> None:
    gone = "WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone"
    async with shop.connect() as connection:
        plan = await read_plan(connection, gone, ())
        assert "ModifyTable on orders" in plan.nodes
        assert await connection.scalar(text("SELECT count(*) FROM orders")) == 20_000


async def test_a_hook_that_fails_once_is_told_the_next_time(
    shop: AsyncEngine, log_records: LogRecords
) -> None:
    findings = Findings()

    def fails_first(message: str, **details: Any) -> None:
        findings(message, **details)
        if len(findings.reported) == 1:
            raise RuntimeError("not now")

    plans = QueryPlans(shop, ON, on_finding=fails_first)
    async with plans.running():
        for name in ("customers", "orders"):
            findings.heard.clear()
            assert plans.explain(slow_statement(f"SELECT id FROM {name}"))
            await asyncio.wait_for(findings.heard.wait(), 30)
    assert len(findings.reported) == 2
    failed = [one for one in log_records if one["message"] == "A finding could not be reported"]
    assert len(failed) == 1


async def test_a_finding_is_not_lost_when_it_cannot_be_explained(
    shop: AsyncEngine, log_records: LogRecords
) -> None:
    findings = Findings()
    plans = QueryPlans(shop, ON, on_finding=findings)
    failed = sample("database_explains_total", result="failed")
    async with plans.running():
        assert plans.explain(slow_statement("SELECT secret FROM nowhere"))
        await asyncio.wait_for(findings.heard.wait(), 30)
    assert sample("database_explains_total", result="failed") == failed + 1
    assert "plan" not in findings.reported[0]["contexts"]["database"]
    (line,) = findings_in(log_records, "query_plan")
    assert line["error"]
    assert "secret" not in json.dumps(line)


async def test_what_waits_at_the_end_is_reported_and_too_many_are_skipped(
    shop: AsyncEngine,
) -> None:
    findings = Findings()
    plans = QueryPlans(shop, ON, on_finding=findings)
    async with plans.running():
        # Without an await in between nothing is taken out of the queue.
        taken = [
            plans.explain(slow_statement(f"SELECT {name} FROM orders")) for name in "abcdefghij"
        ]
    assert taken == [True] * 8 + [False] * 2
    assert len(findings.reported) == 8


async def test_errors_of_postgresql_have_their_kind(
    postgres_service_database: str, log_records: LogRecords
) -> None:
    settings: Settings = settings_for(
        postgres_service_database, database_statement_timeout_ms=100, database_lock_timeout_ms=100
    )
    database = Database(settings)
    instrument_database(database.engine, settings)
    kinds = []
    for statement in ("SELECT pg_sleep(5)", "SELECT 1/0", "INSERT INTO users (id) VALUES (NULL)"):
        with pytest.raises(DBAPIError) as caught:
            async with database.engine.connect() as connection:
                await connection.execute(text(statement))
        kinds.append(error_type_of(caught.value.orig or caught.value))
    await database.dispose()
    assert kinds == ["timeout", "other", "integrity"]


async def test_a_deadlock_is_told_from_other_errors(shop: AsyncEngine) -> None:
    instrument_database(shop, DatabaseInsightSettings())
    before = sample("database_errors_total", error_type="deadlock")
    first_has_one, second_has_two = asyncio.Event(), asyncio.Event()

    async def lock(mine: int, other: int, done: asyncio.Event, wait: asyncio.Event) -> bool:
        update = text("UPDATE customers SET name = 'x' WHERE id = :id")
        try:
            async with shop.begin() as connection:
                await connection.execute(update, {"id": mine})
                done.set()
                await wait.wait()
                await connection.execute(update, {"id": other})
        except DBAPIError:
            return False
        return True

    outcomes = await asyncio.gather(
        lock(1, 2, first_has_one, second_has_two), lock(2, 1, second_has_two, first_has_one)
    )
    assert sorted(outcomes) == [False, True]
    assert sample("database_errors_total", error_type="deadlock") == before + 1

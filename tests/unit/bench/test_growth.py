"""Growth: what the plans say, how a cost follows a size, and a small real run."""

import json

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bench import growth
from bench.fits import exponent, fitted, percentile
from bench.growth import Point, Result, as_json, order_of, show
from bench.plans import Plan, explaining
from bench.rows import add_waiting_messages, fill
from bench.stage import open_stage
from bench.tables import Requests, Statement, Tables
from tests.service import migrate_database

INDEXED = """Limit  (cost=0.42..5.1 rows=50 width=90) (actual time=0.020..0.041 rows=50 loops=1)
  Buffers: shared hit=4 read=2
  ->  Index Scan Backward using ix_orders_user_id_created_at_id on orders  (actual time=0.01..0.03 rows=50)
        Index Cond: (user_id = '018f4e1c-7b1a-7c3e-9f21-000000000000'::uuid)
        Buffers: shared hit=4 read=2
Planning:
  Buffers: shared hit=100
Planning Time: 0.100 ms
Execution Time: 0.061 ms"""
SCANNED = """Aggregate  (actual time=9.0..9.1 rows=1.00 loops=1)
  Buffers: shared hit=12000
  ->  Nested Loop  (actual time=9.0..9.1 rows=0 loops=1)
        ->  Seq Scan on outbox_deliveries  (actual time=0.01..8.03 rows=1000 loops=1)
        ->  Index Scan using pk_outbox_messages on outbox_messages  (never executed)
        ->  Bitmap Heap Scan on users  (actual time=0.1..0.2 rows=1 loops=1)
              ->  Bitmap Index Scan on ix_users_synthetic  (actual time=0.1..0.1 rows=1 loops=1)
Execution Time: 9.3 ms"""


def test_a_plan_tells_index_rows_pages_and_time() -> None:
    plan = Plan("SELECT", INDEXED)
    assert plan.indexes == ("ix_orders_user_id_created_at_id",)
    assert plan.scanned == ()
    assert (plan.rows, plan.buffers, plan.milliseconds) == (50, 6, 0.061)
    assert plan.summary == "ix_orders_user_id_created_at_id: 50 rows, 6 pages, 0.06 ms"


def test_a_scan_of_a_whole_table_is_named_and_what_was_not_executed_is_not() -> None:
    plan = Plan("SELECT", SCANNED)
    assert plan.scanned == ("outbox_deliveries",)
    assert plan.indexes == ("ix_users_synthetic",)
    assert plan.summary.startswith("ix_users_synthetic, all of outbox_deliveries: 1 rows")


def _pages(number: int) -> Plan:
    return Plan("SELECT", f"Result\n  Buffers: shared hit={number}")


@pytest.mark.parametrize(
    ("pages", "grows"),
    [
        ((10, 100, 1_000, 10_000), True),
        ((4, 4, 5, 6), False),
        ((1_000, 1_000, 1_000, 1_000), False),
        # In proportion, and yet nothing to worry about.
        ((1, 3, 30, 300), False),
    ],
)
def test_a_statement_grows_that_reads_ever_more_pages(pages: tuple[int, ...], grows: bool) -> None:
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    plans = tuple((size, _pages(count)) for size, count in zip(sizes, pages, strict=True))
    assert Statement("work", "SELECT", plans).grows is grows


def test_one_size_says_nothing_about_growth() -> None:
    assert Statement("work", "SELECT", ((1_000, _pages(10_000)),)).grows is False


def test_the_exponent_is_that_of_the_power_law() -> None:
    assert exponent((1, 10, 100), (5, 50, 500)) == pytest.approx(1)
    assert exponent((1, 10, 100), (5, 5, 5)) == pytest.approx(0)
    assert exponent((1, 100), (5, 50)) == pytest.approx(0.5)


def test_the_line_of_least_squares() -> None:
    assert fitted((0, 1, 2), (1, 3, 5)) == pytest.approx((2, 1))
    assert fitted((1, 1), (3, 5)) == (0, 4)


def test_percentiles_are_values_that_occurred() -> None:
    values = list(range(100, 0, -1))
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([], 0.5) != percentile([], 0.5)  # not a number


def test_what_is_added_is_the_difference_within_a_round() -> None:
    # The machine is slower in each round, and what is added is the same in all of them.
    found = growth.point("routes", "ping", 2, [1e-4, 2e-4, 4e-4], [1.5e-4, 2.5e-4, 4.5e-4])
    assert (found.bare_us, found.service_us) == pytest.approx((200, 250))
    assert found.added_us == pytest.approx(50)
    assert found.added_error_us == pytest.approx(0, abs=1e-6)


def test_an_order_has_as_many_lines_as_asked() -> None:
    assert [len(json.loads(order_of(lines))["lines"]) for lines in (1, 100)] == [1, 100]


def test_the_report_names_what_grows_first() -> None:
    flat = Statement("worker: relay", "SELECT 1", ((1_000, Plan("SELECT 1", INDEXED)),))
    growing = Statement(
        "worker: sample", "SELECT 2", ((1_000, _pages(100)), (1_000_000, _pages(100_000)))
    )
    points = (Point("routes", "ping", 200, 100.0, 135.0, 35.0, 4.0),)
    tables = Tables((Requests("list", 1_000, 5.0, 2_000.0),), (flat, growing))
    result = Result(points, tables)
    shown = show(result)
    assert "ping, routes 200" in shown
    assert "1.35" in shown
    assert shown.index("GROWS  worker: sample") < shown.index("flat   worker: relay")
    said = json.loads(json.dumps(as_json(result)))
    assert said["points"][0]["added_us"] == 35.0
    assert said["tables"]["statements"][0]["plans"][0]["plan"] == INDEXED
    assert [one["grows"] for one in said["tables"]["statements"]] == [False, True]


async def test_what_is_explained_is_not_done_twice(postgres_database: str) -> None:
    engine = create_async_engine(postgres_database)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE counters (number int)"))
        await connection.execute(text("INSERT INTO counters VALUES (1)"))
    with explaining(engine) as plans:
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE counters SET number = number + :one"), {"one": 1})
            number = await connection.scalar(text("SELECT number FROM counters"))
    await engine.dispose()
    assert number == 2
    assert [plan.scanned for plan in plans] == [("counters",), ("counters",)]
    assert plans[0].statement.startswith("UPDATE")


async def test_the_tables_are_filled_step_by_step(postgres_database: str) -> None:
    migrate_database(postgres_database)
    engine = create_async_engine(postgres_database)
    someone = "018f4e1c-7b1a-7c3e-9f21-000000000000"
    await fill(engine, first=1, last=100, customer_id=someone)
    await fill(engine, first=101, last=300, customer_id=someone)
    await add_waiting_messages(engine)
    counts = {}
    async with engine.connect() as connection:
        for table in ("users", "orders", "order_lines", "payments", "outbox_deliveries"):
            counts[table] = await connection.scalar(text(f"SELECT count(*) FROM {table}"))
        theirs = await connection.scalar(
            text("SELECT count(*) FROM orders WHERE user_id = :id"), {"id": someone}
        )
        waiting = await connection.scalar(
            text("SELECT count(*) FROM outbox_messages WHERE published_at IS NULL")
        )
    await engine.dispose()
    assert counts == {
        "users": 3,
        "orders": 300,
        "order_lines": 600,
        "payments": 300,
        "outbox_deliveries": 300,
    }
    assert (theirs, waiting) == (30, 1000)


async def test_a_small_one_measures_all_four(postgres_database: str) -> None:
    with open_stage(postgres_database) as stage:
        result = await growth.measure(
            stage,
            lambda _: None,
            rounds=1,
            seconds=0.05,
            concurrency=(1, 4),
            routes=(2, 9),
            lines=(1, 3),
            most_orders=10_000,
            table_seconds=0.1,
        )
    measured = {(one.dimension, one.operation, one.value) for one in result.points}
    assert measured == {
        *(("concurrency", name, value) for name in ("ping", "read") for value in (1, 4)),
        *(("lines", name, value) for name in ("create", "read") for value in (1, 3)),
        *(("routes", "ping", value) for value in (2, 9)),
    }
    assert all(one.bare_us > 0 and one.service_us > 0 for one in result.points)
    assert {(one.operation, one.orders) for one in result.tables.requests} == {
        (name, size) for name in ("read", "list") for size in (1_000, 10_000)
    }
    plans: dict[str, list[Plan]] = {}
    for one in result.tables.statements:
        plans.setdefault(one.work, []).append(one.plans[-1][1])
    # The page comes out of the index, wherever in the list it is.
    for work in ("list", "list, halfway"):
        assert plans[work][0].indexes == ("ix_orders_user_id_created_at_id",)
        assert plans[work][0].rows == 50
    assert plans["worker: relay"][0].indexes == (
        "ix_outbox_messages_unpublished",
        "pk_outbox_messages",
    )
    assert {"worker: sample", "worker: redeliver", "worker: reconcile", "worker: seal"} <= set(
        plans
    )

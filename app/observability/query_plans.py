"""Why a statement was slow: PostgreSQL's plan for it, asked in the background and put into words.

Off unless DATABASE_EXPLAIN_SLOW_QUERIES is set. A slow SELECT is handed over by database.py; a task with
a connection of its own then asks EXPLAIN (never ANALYZE: nothing is executed) in a read-only transaction
with a time-out, logs what it found (type `db_query`) and reports the finding together with the plan.

Owns `database_explains_total{result}` and the log line "Plan of a slow statement". Must never delay a
request, never ask about one statement more than once in EVERY_SECONDS, and never show a value: only node
types, tables, columns and estimates leave; conditions, which quote parameters, do not.
"""

import asyncio
import contextvars
import json
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from loguru import logger
from prometheus_client import Counter
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from app.observability.database import OnFinding, SlowStatement, log_unreported, report_slow
from app.observability.statements import fingerprint_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

ExplainResult = Literal["explained", "failed", "skipped"]

EXPLAINS = Counter(
    "database_explains_total",
    "Slow statements handed over to be explained. Skipped: too many at a time; reported without a plan.",
    ["result"],
)
for _result in get_args(ExplainResult):
    EXPLAINS.labels(_result)

EVERY_SECONDS: Final = 600.0
MAX_WAITING: Final = 8
MAX_REMEMBERED: Final = 1_000
TIMEOUT_SECONDS: Final = 2.0
LARGE_ROWS: Final = 10_000
"""A table or a sort below this is not worth an index."""


class QueryPlanSettings(BaseSettings):
    """Whether to ask."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_explain_slow_queries: bool = Field(
        False, description="Ask PostgreSQL for the plan of slow SELECTs, in the background."
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What a plan says without values: nodes from the outermost, and what might help."""

    nodes: str
    total_cost: float
    estimated_rows: int
    hints: tuple[str, ...]


_Waiting = asyncio.Queue[tuple[SlowStatement, contextvars.Context]]


class QueryPlans:
    """Explains the slow statements of one engine, while `running`."""

    def __init__(
        self, engine: AsyncEngine, settings: QueryPlanSettings, *, on_finding: OnFinding | None
    ) -> None:
        self._is_on = settings.database_explain_slow_queries and engine.dialect.name == "postgresql"
        self._engine = engine
        self._on_finding = on_finding
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._waiting: _Waiting | None = None

    def explain(self, slow: SlowStatement) -> bool:
        """Take a slow statement over; False when it is to be reported without a plan. Never waits."""
        if self._waiting is None or slow.statement.operation != "SELECT":
            return False
        key, now = slow.statement.fingerprint_id, time.monotonic()
        if now - self._asked.get(key, -EVERY_SECONDS) < EVERY_SECONDS:
            return False
        try:
            # The context carries the identity of the request into the log line and the report.
            self._waiting.put_nowait((slow, contextvars.copy_context()))
        except asyncio.QueueFull:
            EXPLAINS.labels("skipped").inc()
            return False
        self._asked[key] = now
        if len(self._asked) > MAX_REMEMBERED:
            self._asked.popitem(last=False)
        return True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Explain during the block; what waits at its end is reported without a plan."""
        if not self._is_on:
            yield
            return
        waiting: _Waiting = asyncio.Queue(maxsize=MAX_WAITING)
        self._waiting = waiting
        task = asyncio.create_task(
            self._work(waiting), name="explain", context=contextvars.Context()
        )
        try:
            yield
        finally:
            self._waiting = None
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            while not waiting.empty():
                slow, context = waiting.get_nowait()
                context.run(self._tell, slow)

    async def _work(self, waiting: "_Waiting") -> None:
        # No pool: the application's is for requests, and this one is used once in a while. It connects
        # as that one does, so with its TLS and its search path.
        like = self._engine.sync_engine
        pool = NullPool(like.pool._creator, dialect=like.dialect)
        engine = AsyncEngine(Engine(pool, like.dialect, like.url))
        while True:
            slow, context = await waiting.get()
            plan: Plan | None = None
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS), engine.connect() as connection:
                    plan = await read_plan(connection, slow.text, slow.parameters)
                EXPLAINS.labels("explained").inc()
            except asyncio.CancelledError:
                context.run(self._tell, slow)
                raise
            except Exception as error:  # noqa: BLE001 - a plan is nice to have; the finding is not lost
                EXPLAINS.labels("failed").inc()
                context.run(_log_failure, slow, error)
            context.run(self._tell, slow, plan)

    def _tell(self, slow: SlowStatement, plan: Plan | None = None) -> None:
        try:
            report_slow(self._on_finding, slow, plan=_log_plan(slow, plan) if plan else None)
        except Exception as error:  # noqa: BLE001 - the next one wants to be told, too
            log_unreported(error)


def _log_plan(slow: SlowStatement, plan: Plan) -> dict[str, object]:
    told: dict[str, object] = {
        "nodes": plan.nodes,
        "total_cost": plan.total_cost,
        "estimated_rows": plan.estimated_rows,
        "hints": list(plan.hints),
    }
    logger.bind(
        type="db_query",
        event="query_plan",
        query_id=slow.statement.fingerprint_id,
        table=slow.statement.table,
        **told,
    ).warning("Plan of a slow statement")
    return told


def _log_failure(slow: SlowStatement, error: Exception) -> None:
    # The message may quote parameters, so its type has to do.
    logger.bind(
        type="db_query",
        event="query_plan",
        query_id=slow.statement.fingerprint_id,
        error=type(getattr(error, "orig", None) or error).__name__,
    ).warning("A slow statement could not be explained")


async def read_plan(connection: "AsyncConnection", statement: str, parameters: Any) -> Plan:
    """Ask for the plan of `statement` with these parameters. Executes nothing.

    Raises:
        sqlalchemy.exc.DBAPIError: PostgreSQL does not explain it.
    """
    await connection.execute(text("SET TRANSACTION READ ONLY"))
    await connection.execute(text(f"SET LOCAL statement_timeout = {int(TIMEOUT_SECONDS * 1000)}"))
    answer = await connection.exec_driver_sql(
        f"EXPLAIN (VERBOSE, FORMAT JSON) {statement}", parameters
    )
    said = answer.scalar_one()
    document = json.loads(said) if isinstance(said, str) else said
    root: dict[str, Any] = document[0]["Plan"]
    nodes = list(_walk(root))
    tables = {_table(node) for node in nodes if "Relation Name" in node}
    found = await connection.execute(
        text(
            "SELECT nspname, relname, reltuples FROM pg_class"
            " JOIN pg_namespace ON pg_namespace.oid = relnamespace"
            " WHERE relname = ANY(:tables) AND relkind IN ('r', 'p', 'm')"
        ),
        {"tables": sorted({name for _, name in tables})},
    )
    sizes = {(row.nspname, row.relname): int(row.reltuples) for row in found}
    return Plan(
        nodes=" > ".join(_title(node) for node in nodes)[:1000],
        total_cost=float(root["Total Cost"]),
        estimated_rows=int(root["Plan Rows"]),
        hints=tuple(dict.fromkeys(hint for node in nodes if (hint := _hint(node, sizes)))),
    )


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)


def _table(node: dict[str, Any]) -> tuple[str, str]:
    return node.get("Schema", ""), node["Relation Name"]


def _named(node: dict[str, Any]) -> str:
    schema, name = _table(node)
    return name if schema in {"", "public"} else f"{schema}.{name}"


def _title(node: dict[str, Any]) -> str:
    kind: str = node["Node Type"]
    return f"{kind} on {_named(node)}" if "Relation Name" in node else kind


def _hint(node: dict[str, Any], sizes: dict[tuple[str, str], int]) -> str:
    kind: str = node["Node Type"]
    if kind == "Seq Scan":
        table = _named(node)
        size = sizes.get(_table(node), -1)  # -1: never analysed
        columns = _columns(node.get("Filter", ""))
        if size >= LARGE_ROWS and columns:
            return (
                f"sequential scan on {table}, {_count(size)} rows, "
                f"filter on {', '.join(columns)}: consider an index"
            )
        if size >= LARGE_ROWS:
            return f"sequential scan on {table}, {_count(size)} rows, without a filter"
    if kind in {"Sort", "Incremental Sort"} and node["Plan Rows"] >= LARGE_ROWS:
        keys = ", ".join(_columns(" , ".join(node.get("Sort Key", ())), bare=True))
        by = f" by {keys}" if keys else ""
        return f"sort of {_count(node['Plan Rows'])} rows{by}: consider an index in this order"
    return ""


_COMPARED = re.compile(r'(?:\w+\.)?("[^"]+"|[a-z_]\w*)\)*(?:::[\w ]+\)*)?\s*(?:=|<|>|!|~|IS\b)')
_NAMED = re.compile(r'(?:\w+\.)?("[^"]+"|[a-z_]\w*)')


def _columns(condition: str, *, bare: bool = False) -> tuple[str, ...]:
    """Return the columns that a condition compares; its values were made `?` before."""
    found = (_NAMED if bare else _COMPARED).findall(fingerprint_of(condition))
    return tuple(dict.fromkeys(name.strip('"') for name in found))[:4]


def _count(rows: float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if rows >= size:
            return f"{rows / size:.1f}{unit}"
    return str(int(rows))

"""The database as the application sees it: statements, slow ones, repeated ones (N+1), and the pool.

Owns: `database_query_duration_seconds` and `database_rows_returned` {operation,table},
`database_errors_total{error_type}`, `database_slow_queries_total{operation,table}`,
`database_n_plus_one_total{handler}`, `database_queries_per_request` and
`database_time_per_request_seconds` {handler}, `database_connections_active|idle|max|overflow{pool}`,
`database_connection_wait_seconds` and `database_connection_timeouts_total` {pool}, and the log lines of
type `db_query`. Works with every SQLAlchemy engine, asynchronous or not:

    instrument_database(engine, DatabaseInsightSettings())

A statement is shown as its fingerprint: without literals and without parameters, which are customers'.
A finding (a slow statement, an N+1) is counted, logged with the line of the application that caused it,
and handed to `on_finding`, such as `error_tracking.report_warning`.

Must never show a value, never execute anything by itself, and never fail a statement.
"""

import asyncio
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast, get_args

from greenlet import getcurrent  # type: ignore[import-untyped]  # it has no stubs
from loguru import logger
from prometheus_client import Counter, Gauge, Histogram
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool, QueuePool

from app.observability.cardinality import fold
from app.observability.context import (
    DatabaseUse,
    RequestContext,
    current_context,
    observe_database_use,
)
from app.observability.executions import watch_executions
from app.observability.observations import COUNT_SECONDS, observe_later
from app.observability.settling import Later
from app.observability.statements import MAX_REMEMBERED_TEXT, Statement, read_statement

if TYPE_CHECKING:
    from sqlalchemy import ExceptionContext

ErrorType = Literal["timeout", "deadlock", "integrity", "connection", "pool_timeout", "other"]

QUERY_DURATION = Histogram(
    "database_query_duration_seconds",
    "Time from sending a statement to having its rows.",
    ["operation", "table"],
    # A primary key is found within a millisecond; beyond 5 s our own time-out ends it.
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
ROWS = Histogram(
    "database_rows_returned",
    "Rows that a statement returned.",
    ["operation", "table"],
    buckets=(0, 1, 10, 100, 1_000, 10_000, 100_000),
)
ERRORS = Counter("database_errors_total", "Statements and connections that failed.", ["error_type"])
SLOW = Counter(
    "database_slow_queries_total", "Statements slower than the threshold.", ["operation", "table"]
)
N_PLUS_ONE = Counter(
    "database_n_plus_one_total",
    "Requests and jobs that repeated one SELECT more often than the threshold.",
    ["handler"],
)
QUERIES_PER_REQUEST = Histogram(
    "database_queries_per_request",
    "Statements of one request or job, if it had any.",
    ["handler"],
    buckets=(1, 2, 3, 5, 10, 20, 50, 100, 500),
)
TIME_PER_REQUEST = Histogram(
    "database_time_per_request_seconds",
    "Time that one request or job waited for statements, if it had any.",
    ["handler"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
ACTIVE = Gauge(
    "database_connections_active", "Connections in use.", ["pool"], multiprocess_mode="livesum"
)
IDLE = Gauge(
    "database_connections_idle",
    "Open connections that wait for use.",
    ["pool"],
    multiprocess_mode="livesum",
)
MAX = Gauge(
    "database_connections_max",
    "Connections that may be open at a time, the overflow included.",
    ["pool"],
    multiprocess_mode="livesum",
)
OVERFLOW = Gauge(
    "database_connections_overflow",
    "Connections open beyond the size of the pool.",
    ["pool"],
    multiprocess_mode="livesum",
)
WAIT = Histogram(
    "database_connection_wait_seconds",
    "Time to get a usable connection: waiting for a free one, opening and testing it.",
    ["pool"],
    buckets=(0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 3, 10),
)
TIMEOUTS = Counter(
    "database_connection_timeouts_total", "Waits for a connection that were given up.", ["pool"]
)
for _type in get_args(ErrorType):
    ERRORS.labels(_type)


class DatabaseInsightSettings(BaseSettings):
    """What counts as slow, and as too often."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_slow_query_ms: float = Field(
        200.0,
        gt=0,
        allow_inf_nan=False,
        description="A statement that takes longer is counted, logged and reported.",
    )
    database_n_plus_one_threshold: int = Field(
        10, ge=2, description="One SELECT may run so often in one request or job."
    )


class OnFinding(Protocol):
    """What is told of a slow statement or an N+1, such as `error_tracking.report_warning`."""

    def __call__(
        self,
        message: str,
        *,
        fingerprint: tuple[str, ...],
        contexts: Mapping[str, Mapping[str, object]],
        **tags: str,
    ) -> object:
        """Take note of it. `contexts["database"]` has the details."""


@dataclass(frozen=True, slots=True)
class SlowStatement:
    """One slow execution, as `explain` gets it. `text` and `parameters` must not be shown."""

    statement: Statement
    text: str
    parameters: object
    details: Mapping[str, object]


Explain = Callable[[SlowStatement], bool]
"""Takes a slow statement over, to report it later together with its plan; False if it will not."""


def instrument_database(
    engine: AsyncEngine | Engine,
    settings: DatabaseInsightSettings,
    *,
    pool: str = "main",
    application: str = "app",
    on_finding: OnFinding | None = None,
    explain: Explain | None = None,
) -> None:
    """Measure every statement of `engine` and its pool, under the name `pool`.

    `application` is the package in which the caller of a statement is looked for.
    """
    target = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    _Insight(target, settings, pool, application, on_finding, explain)
    observe_database_use(_observe_end)


# Statements -------------------------------------------------------------------------------------------

_STARTED: Final = "_glasshouse_started"
# Cancelled, no lock in time, idle for too long.
_DEADLINE_STATES: Final = {"57014", "55P03", "25P03"}
# Shut down, crashed, starting, full, no such database; all of the classes 08 and 28 (who are you) as well.
_CONNECTION_STATES: Final = {"57P01", "57P02", "57P03", "53300", "3D000"}


class _Known:
    """A statement with its series, found by its text."""

    __slots__ = ("duration", "rows", "statement", "table")

    def __init__(self, text: str) -> None:
        self.statement = statement = read_statement(text)
        operation = statement.operation
        self.table = fold("database_query_duration_seconds", "table", statement.table)
        self.duration = QUERY_DURATION.labels(operation, self.table)
        self.rows = ROWS.labels(operation, self.table) if operation == "SELECT" else None


def _known(text: str) -> _Known:
    return _remembered(text) if len(text) <= MAX_REMEMBERED_TEXT else _Known(text)


@lru_cache(maxsize=2048)
def _remembered(text: str) -> _Known:
    return _Known(text)


class _Latest:
    """The latest statement of a request, told when an error report asks for it."""

    __slots__ = ("error_type", "insight", "seconds", "statement")

    def __init__(self, insight: "_Insight") -> None:
        self.insight = insight
        self.statement: Statement | None = None
        self.seconds = 0.0
        self.error_type = ""

    def __call__(self) -> dict[str, object]:
        details = self.insight.details(self.statement, self.seconds)
        return {**details, "error_type": self.error_type} if self.error_type else details


class _Insight:
    """Listens to one engine."""

    def __init__(
        self,
        engine: Engine,
        settings: DatabaseInsightSettings,
        pool: str,
        application: str,
        on_finding: OnFinding | None,
        explain: Explain | None,
    ) -> None:
        self._slow_seconds = settings.database_slow_query_ms / 1000
        self._threshold = settings.database_n_plus_one_threshold
        self._application = application
        self._on_finding = on_finding
        self._explain = explain
        self._pool = _PoolGauges(engine, pool)
        watch_executions(engine, before=self._before, after=self._after)
        event.listen(engine, "handle_error", self._on_error)

    @staticmethod
    def _before(
        _connection: Any, _cursor: Any, _text: str, _parameters: Any, context: Any, _many: bool
    ) -> None:
        setattr(context, _STARTED, perf_counter())

    def _after(
        self, _connection: Any, cursor: Any, text: str, parameters: Any, context: Any, many: bool
    ) -> None:
        known = _known(text)
        rows = _rows(cursor, is_select=known.rows is not None)
        if rows >= 0 and known.rows is not None:
            observe_later(known.rows, rows)
        self._observe(context, known, text, parameters, many=many, rows=rows)

    def _observe(
        self,
        context: Any,
        known: _Known,
        text: str,
        parameters: Any,
        *,
        many: bool,
        rows: int,
        error_type: str = "",
    ) -> None:
        """Take note of one execution, failed or not."""
        seconds = perf_counter() - getattr(context, _STARTED, perf_counter())
        observe_later(known.duration, seconds)
        current = current_context()
        is_n_plus_one = False
        if current is not None:
            is_batch = many or _number_of(parameters) >= BATCH_PARAMETERS
            self._note(current.database, known.statement, seconds, error_type)
            is_n_plus_one = self._is_n_plus_one(
                current.database, known.statement, is_batch=is_batch
            )
        if not is_n_plus_one and seconds <= self._slow_seconds:
            return
        try:
            if current is not None and is_n_plus_one:
                self._report_n_plus_one(current, known.statement)
            if seconds > self._slow_seconds:
                self._report_slow(known, seconds, rows, text, parameters, error_type)
        except Exception as error:  # noqa: BLE001 - the statement has done its work
            log_unreported(error)

    def _note(
        self, use: DatabaseUse, statement: Statement, seconds: float, error_type: str
    ) -> None:
        use.seconds += seconds
        if statement.operation != "TRANSACTION":  # nobody wrote it
            use.statements += 1
        latest = _latest_of(use, self)
        latest.statement, latest.seconds, latest.error_type = statement, seconds, error_type

    def _is_n_plus_one(self, use: DatabaseUse, statement: Statement, *, is_batch: bool) -> bool:
        """Count a SELECT; return whether this execution is the one too many."""
        if statement.operation != "SELECT" or is_batch or _repetition_is_meant.get():
            return False
        times = use.repeated.get(statement.fingerprint_id, 0) + 1
        use.repeated[statement.fingerprint_id] = times
        return times == self._threshold + 1

    def _on_error(self, error: "ExceptionContext") -> None:
        original = error.original_exception
        if isinstance(original, asyncio.CancelledError):
            kind = "cancelled"  # by the application: nothing is wrong with the database
        else:
            kind = error_type_of(original, is_disconnect=error.is_disconnect)
            ERRORS.labels(kind).inc()
        if error.statement is not None and error.execution_context is not None:
            self._observe(
                error.execution_context,
                _known(error.statement),
                error.statement,
                error.parameters,
                many=False,
                rows=-1,
                error_type=kind,
            )
        elif (current := current_context()) is not None:
            _latest_of(current.database, self).error_type = kind

    def details(self, statement: Statement | None, seconds: float) -> dict[str, object]:
        """Return the database context of a report: statement, duration, pool, analysis."""
        found: dict[str, object] = {"pool": self._pool.usage()}
        if statement is not None:
            found |= {
                "query": statement.fingerprint,
                "query_id": statement.fingerprint_id,
                "operation": statement.operation,
                "table": statement.table,
                "duration_ms": round(seconds * 1000, 3),
                "analysis": {"kind": statement.kind, "complexity": statement.complexity},
            }
        return found

    def _report_slow(
        self,
        known: _Known,
        seconds: float,
        rows: int,
        text: str,
        parameters: object,
        error_type: str,
    ) -> None:
        statement = known.statement
        SLOW.labels(statement.operation, known.table).inc()
        details = self.details(statement, seconds) | {
            "rows": rows if rows >= 0 else None,
            "error_type": error_type,
            "handler": _handler_now(),
            "caller": _caller(self._application),
        }
        logger.bind(type="db_query", event="slow_query", **details).warning("Slow statement")
        slow = SlowStatement(statement, text, parameters, details)
        if self._explain is not None and self._explain(slow):
            return  # it reports the finding together with the plan
        report_slow(self._on_finding, slow)

    def _report_n_plus_one(self, current: RequestContext, statement: Statement) -> None:
        N_PLUS_ONE.labels(_handler(current)).inc()
        details = self.details(statement, current.database.seconds) | {
            "times": self._threshold + 1,
            "handler": current.handler,
            "caller": _caller(self._application),
        }
        logger.bind(type="db_query", event="n_plus_one", **details).warning(
            "One statement again and again: N+1"
        )
        for found in _watchers:
            found.append(NPlusOne(statement.fingerprint, current.handler, str(details["caller"])))
        if self._on_finding is not None:
            self._on_finding(
                f"N+1: {statement.name} more than {self._threshold} times",
                fingerprint=("n-plus-one", statement.fingerprint_id),
                contexts={"database": details},
                operation=statement.operation,
                table=statement.table,
            )


def log_unreported(error: Exception) -> None:
    """Say that a finding could not be handed over, which must not concern who caused it."""
    logger.bind(type="error", where="database").opt(exception=error).error(
        "A finding could not be reported"
    )


def report_slow(
    on_finding: OnFinding | None, slow: SlowStatement, *, plan: Mapping[str, object] | None = None
) -> None:
    """Hand a slow statement to `on_finding`, with what is known of its plan."""
    if on_finding is None:
        return
    details = {**slow.details, "plan": dict(plan)} if plan else slow.details
    on_finding(
        f"Slow statement: {slow.statement.name}",
        fingerprint=("slow-statement", slow.statement.fingerprint_id),
        contexts={"database": details},
        operation=slow.statement.operation,
        table=slow.statement.table,
    )


def _latest_of(use: DatabaseUse, insight: _Insight) -> _Latest:
    if use.describe is None:
        use.describe = _Latest(insight)
    latest = cast("_Latest", use.describe)
    latest.insight = insight
    return latest


def _rows(cursor: Any, *, is_select: bool) -> int:
    """Return how many rows came or were changed; -1 where they come later, or nobody knows."""
    if getattr(cursor, "server_side", False):
        return -1
    # SQLAlchemy's asynchronous cursors fetch what a SELECT returns at once.
    buffered = getattr(cursor, "_rows", None) if is_select else None
    if buffered is not None:
        return len(buffered)
    count = getattr(cursor, "rowcount", -1)
    return count if isinstance(count, int) else -1


def _number_of(parameters: object) -> int:
    return len(parameters) if isinstance(parameters, Sized) else 0


def error_type_of(error: BaseException, *, is_disconnect: bool = False) -> ErrorType:
    """Return the kind of a driver's error, by its SQLSTATE where it has one (PostgreSQL, appendix A)."""
    state = str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")
    said = str(error)
    if state == "40P01":
        return "deadlock"
    # SQLite says that it is locked when it has waited for the other writer in vain.
    if (
        state in _DEADLINE_STATES
        or isinstance(error, TimeoutError)
        or said.startswith(("database is locked", "database table is locked"))
    ):
        return "timeout"
    if state.startswith("23") or type(error).__name__ == "IntegrityError":
        return "integrity"
    if is_disconnect or state.startswith(("08", "28")) or state in _CONNECTION_STATES:
        return "connection"
    if isinstance(error, OSError) or said.startswith("unable to open database"):
        return "connection"
    return "other"


@lru_cache(maxsize=1024)
def _per_request(handler: str) -> tuple[Histogram, Histogram]:
    return QUERIES_PER_REQUEST.labels(handler), TIME_PER_REQUEST.labels(handler)


def _handler_now() -> str:
    context = current_context()
    return context.handler if context is not None else ""


def _handler(context: RequestContext) -> str:
    return fold("database_queries_per_request", "handler", context.handler)


def _observe_end(context: RequestContext) -> None:
    use = context.used_database
    if use is not None and use.statements:
        queries, seconds = _per_request(_handler(context))
        observe_later(queries, use.statements)
        observe_later(seconds, use.seconds)


# N+1 --------------------------------------------------------------------------------------------------

BATCH_PARAMETERS: Final = 100
"""So many at a time are asked for by who works in portions, and not one by one."""

_repetition_is_meant: ContextVar[bool] = ContextVar("glasshouse_repetition_is_meant", default=False)


@dataclass(frozen=True, slots=True)
class NPlusOne:
    """One statement that a request or job repeated."""

    statement: str
    handler: str
    caller: str


_watchers: list[list[NPlusOne]] = []


@contextmanager
def repetition_is_meant() -> Iterator[None]:
    """Let the block repeat a SELECT as often as it wants, as a batch that works in portions does.

    The rule, otherwise: within one request or job, executions of one SELECT count, whatever their
    parameters and the length of their lists. What does not: `executemany`, writes, transaction control,
    and a SELECT with BATCH_PARAMETERS or more parameters, as `selectinload` makes for many parents.
    """
    token = _repetition_is_meant.set(True)
    try:
        yield
    finally:
        _repetition_is_meant.reset(token)


@contextmanager
def watch_n_plus_one() -> Iterator[list[NPlusOne]]:
    """Collect what is found in this process during the block: for a test to assert on."""
    found: list[NPlusOne] = []
    _watchers.append(found)
    try:
        yield found
    finally:
        _watchers[:] = [one for one in _watchers if one is not found]


# The caller -------------------------------------------------------------------------------------------

_LOOPS: Final = {
    "asyncio.events",
    "asyncio.base_events",
    "asyncio.runners",
    "uvloop",
    "uvicorn.server",
}
_OURS: Final = {__name__, watch_executions.__module__}
_PLUMBING: Final = re.compile(r"\.(?:observability|infrastructure)(?:\.|$)")


def _caller(application: str) -> str:
    """Return `file:line` of the innermost frame of the application, of its domains where there is one.

    An asynchronous statement runs in a greenlet of SQLAlchemy's; the coroutine that waits for it is on
    the stack of the parent. Empty where a task of a library's executes it: `session.begin()` commits,
    and hence flushes, in one of its own.
    """
    plumbing = ""
    for frame in _frames():
        module: str = frame.f_globals.get("__name__", "")
        if module in _LOOPS:
            break  # what called the loop has not asked for this: the task is all there is
        if module in _OURS or (module != application and not module.startswith(f"{application}.")):
            continue
        place = f"{module.replace('.', '/')}.py:{frame.f_lineno} {frame.f_code.co_name}"
        if not _PLUMBING.search(module):
            return place
        plumbing = plumbing or place
    return plumbing


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    current = getcurrent()
    while True:
        while frame is not None:
            yield frame
            frame = frame.f_back
        parent = current.parent
        if parent is None:
            return
        current, frame = parent, parent.gr_frame


# The pool ---------------------------------------------------------------------------------------------

_IN_USE: Final = "glasshouse_in_use"
_GENERATION: Final = "glasshouse_generation"
"""Which pool of the engine a connection is from: dispose() replaces the pool."""


class _PoolGauges:
    """Counts the connections of one pool by its events.

    What the pool itself counts is not right at the moment of an event: it waits for a connection to
    open or to close in between, while other tasks go on.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._lock = threading.Lock()
        self._used = self._used_of_disposed = self._generation = 0
        self._open = engine.pool.checkedin() if isinstance(engine.pool, QueuePool) else 0
        self._active, self._idle = ACTIVE.labels(name), IDLE.labels(name)
        self._overflow, self._max = OVERFLOW.labels(name), MAX.labels(name)
        self._wait, self._timeouts = WAIT.labels(name), TIMEOUTS.labels(name)
        event.listen(engine, "connect", self._on_connect)
        event.listen(engine, "close", self._on_close)
        event.listen(engine, "checkout", self._on_checkout)
        event.listen(engine, "checkin", self._on_checkin)
        event.listen(engine, "detach", self._on_detach)
        self._listen_to_disposal()
        self._time_waits(engine.pool)
        self._changes = Later(self._publish, seconds=COUNT_SECONDS)
        self._is_published = True
        self._publish(None)

    def usage(self) -> dict[str, object]:
        """Return the state of the pool now."""
        size, limit = _size(self._engine.pool)
        return {
            "name": self._name,
            "active": self._used + self._used_of_disposed,
            "idle": self._open - self._used,
            "max": limit,
            "overflow": max(self._open - size, 0),
        }

    def _count(self, *, opened: int = 0, used: int = 0, used_of_disposed: int = 0) -> None:
        with self._lock:
            self._open += opened
            self._used += used
            self._used_of_disposed += used_of_disposed
        if self._is_published:
            self._is_published = False
            self._changes.add(None)

    def _publish(self, _: None) -> None:
        self._is_published = True  # first: what changes meanwhile is published once more
        size, limit = _size(self._engine.pool)
        with self._lock:
            self._active.set(self._used + self._used_of_disposed)
            self._idle.set(self._open - self._used)
            self._overflow.set(max(self._open - size, 0))
            self._max.set(limit)

    def _on_connect(self, _connection: Any, record: Any) -> None:
        record.record_info[_GENERATION] = self._generation
        self._count(opened=1)

    def _on_close(self, _connection: Any, record: Any) -> None:
        if self._is_current(record):
            self._count(opened=-1)

    def _on_checkout(self, _connection: Any, record: Any, _proxy: Any) -> None:
        record.record_info[_IN_USE] = True
        if self._is_current(record):
            self._count(used=1)
        else:  # somebody has waited for it while the pool was disposed of
            self._count(used_of_disposed=1)

    def _on_checkin(self, _connection: Any, record: Any) -> None:
        if not record.record_info.pop(_IN_USE, False):
            return  # it could not be opened to begin with
        if self._is_current(record):
            self._count(used=-1)
        else:  # back to a pool that was disposed of: nobody gets it any more
            self._count(used_of_disposed=-1)

    def _on_detach(self, _connection: Any, record: Any) -> None:
        record.record_info.pop(_IN_USE, None)
        if self._is_current(record):
            self._count(opened=-1, used=-1)
        else:
            self._count(used_of_disposed=-1)

    def _listen_to_disposal(self) -> None:
        # This event is told all the same, and as long as an engine does not know of a listener, each use of a
        # connection costs less (see executions.py).
        knows_of_listeners = self._engine._has_events
        event.listen(self._engine, "engine_disposed", self._on_disposed)
        self._engine._has_events = knows_of_listeners

    def _on_disposed(self, engine: Engine) -> None:
        with self._lock:
            self._generation += 1
            self._used_of_disposed += self._used
            self._open = self._used = 0
        self._count()
        self._time_waits(engine.pool)  # a new one has taken the old one's place

    def _is_current(self, record: Any) -> bool:
        generation: int = record.record_info.get(_GENERATION, self._generation)
        return generation == self._generation

    def _time_waits(self, pool: Pool) -> None:
        connect = pool.connect

        def timed_connect() -> Any:
            started = perf_counter()
            try:
                return connect()
            except PoolTimeoutError:
                self._timeouts.inc()
                ERRORS.labels("pool_timeout").inc()
                raise
            except Exception as error:
                # What the driver says comes by as handle_error; this is what said it otherwise.
                if not isinstance(error, (DBAPIError, self._engine.dialect.loaded_dbapi.Error)):
                    ERRORS.labels(error_type_of(error.__cause__ or error)).inc()
                raise
            finally:
                seconds = perf_counter() - started
                observe_later(self._wait, seconds)
                if (current := current_context()) is not None:
                    current.database.wait_seconds += seconds

        pool.connect = timed_connect  # type: ignore[method-assign]  # no event tells when a wait begins


def _size(pool: Pool) -> tuple[int, int]:
    """Return how many connections a pool keeps, and how many it opens at the most (-1: no limit)."""
    if not isinstance(pool, QueuePool):
        return 0, -1
    return pool.size(), pool.size() + pool._max_overflow if pool._max_overflow >= 0 else -1

"""Logs: one JSON object a line, from every logger of the process, to one destination.

Owns: the log line (its fields are a contract, tested in tests/contract) and the access line, one for
each request, or for a share of those to a busy route (LOG_SAMPLE). Everything passes through loguru: the
application's own `logger`, the standard library's loggers (uvicorn, SQLAlchemy, asyncio, ...) and
warnings. Ids are read where the line is written; every line is redacted; exceptions carry their stack and
never the values of local variables.

    from loguru import logger
    logger.bind(type="order", order_id=str(order.id)).info("order created")

The sentence is static and the values are bound: lines can be counted by their message, and a brace in
a value can do no harm. Must never block a request (a stalled reader of stdout costs lines, which are
counted, and not time) and never raise.
"""

import atexit
import fcntl
import json
import logging
import os
import re
import secrets
import select
import stat
import sys
import threading
import traceback
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TextIO, cast

import orjson
from fastapi import FastAPI
from loguru import logger
from loguru._logger import context as _loguru_context
from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from app.observability.access_line import SERVED, AccessLine, access_fields, second_of
from app.observability.context import (
    RequestContext,
    ServiceSettings,
    current_context,
    current_trace_ids,
    observe_requests,
)
from app.observability.redaction import redact, redact_text
from app.observability.settling import Later, settle

if TYPE_CHECKING:
    from loguru import Message as LoguruMessage
    from loguru import Record


class LogSettings(ServiceSettings):
    """How much is logged, and for whom."""

    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["json", "console"] | None = Field(
        None, description="json for machines, console for people. Unset: console in development."
    )

    log_sample: Annotated[Mapping[str, float], NoDecode] = Field(
        default_factory=dict,
        description="Share of access lines to write, by method and route template: GET /v1/orders=0.1",
    )
    log_sample_slow_ms: float = Field(
        1000.0,
        gt=0,
        allow_inf_nan=False,
        description="A request that takes longer has its access line, sampled or not.",
    )

    @field_validator("log_sample", mode="before")
    @classmethod
    def _shares_by_route(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        shares = {}
        for entry in filter(None, map(str.strip, value.split(","))):
            route, _, share = entry.rpartition("=")
            if not _SAMPLED_ROUTE.fullmatch(route.strip()) or not _is_share(share):
                raise ValueError(
                    "must look like GET /v1/orders=0.1, several with commas between; "
                    "a share is above 0 and at most 1"
                )
            shares[route.strip()] = float(share)
        return shares

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @property
    def for_people(self) -> bool:
        """Whether a person reads the lines."""
        if self.log_format is None:
            return self.environment == "development"
        return self.log_format == "console"


_SAMPLED_ROUTE = re.compile(r"[A-Z]+ /[^\s,=]*")


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False


# The line ---------------------------------------------------------------------------------------------

_MAY_BE_BOUND: Final = frozenset({"type", "request_id", "user_id"})
_MAX_STACK: Final = 16_384


def _fields(record: "Record", service: Mapping[str, str]) -> dict[str, object]:
    """Return everything the line says, in order, redacted."""
    trace_id, span_id = current_trace_ids()
    context = current_context()
    line: dict[str, object] = {
        "timestamp": _timestamp(record["time"]),
        "level": record["level"].name,
        "message": redact_text(record["message"]),
        "logger": record["name"],
        **service,
        "trace_id": trace_id,
        "span_id": span_id,
        "request_id": context.request_id if context else "",
        "user_id": context.user_id if context else "",
        "type": "application",
    }
    if context is not None and context.synthetic:
        line["synthetic"] = True  # only then: every line of a customer would be longer for it
    extra = redact(record["extra"])
    assert isinstance(extra, dict)  # noqa: S101 - a mapping in, a dictionary out
    for key, value in extra.items():
        taken = key in line and key not in _MAY_BE_BOUND
        line[f"extra_{key}" if taken else key] = value
    if record["exception"] is not None:
        line["exception"] = _exception(record["exception"].value)
    return line


def _last_resort(
    record: "Record", service: Mapping[str, str], error: Exception
) -> dict[str, object]:
    """Return the line that stands for one that could not be made: every field, and none from outside."""
    context = current_context()
    return {
        "timestamp": _timestamp(record["time"]),
        "level": "ERROR",
        "message": "a log line could not be written",
        "logger": record["name"],
        **service,
        "trace_id": "",
        "span_id": "",
        "request_id": context.request_id if context else "",
        "user_id": "",
        "type": "telemetry",
        "error": type(error).__name__,
    }


def _timestamp(moment: datetime) -> str:
    return f"{second_of(int(moment.timestamp()))}.{moment.microsecond // 1000:03d}Z"


def _exception(error: BaseException | None) -> dict[str, str]:
    if error is None:
        return {"type": "", "message": "", "stacktrace": ""}
    shown = traceback.TracebackException.from_exception(error, capture_locals=False, compact=True)
    stack = "".join(shown.format())
    if len(stack) > _MAX_STACK:  # both ends matter: where it began and what it was
        begin, end = stack[: _MAX_STACK // 2], stack[-_MAX_STACK // 2 :]
        stack = f"{begin.rpartition(chr(10))[0]}\n... [cut] ...\n{end.partition(chr(10))[2]}"
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    return {
        "type": name,
        "message": redact_text(_message_of(error)),
        "stacktrace": redact_text(stack),
    }


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not cost the line
        return ""


def _json_line(line: dict[str, object]) -> bytes:
    try:
        rendered = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        # A copy: orjson's own sits in 8 kB, which a full buffer would take ten times its bound of.
        return bytes(memoryview(rendered))
    except TypeError:  # a lone surrogate, which is text in Python and not in UTF-8
        return json.dumps(line, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"


_COLOURS: Final = {
    "TRACE": "2", "DEBUG": "36", "INFO": "32", "SUCCESS": "32",
    "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31",
}  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HEADER_FIELDS: Final = {
    "timestamp", "level", "message", "logger", "service", "version", "environment", "trace_id", "span_id",
    "request_id", "type", "exception",
}  # fmt: skip
_ACCESS_FIELDS: Final = {
    "method", "path", "route", "status", "duration_ms", "client_ip", "user_agent", "db_statements",
    "db_duration_ms", "db_wait_ms", "sample_rate",
}  # fmt: skip


class _Console:
    """The same line for a person: time, level, what happened, with what, and where to look further."""

    def __init__(self, *, coloured: bool) -> None:
        self._coloured = coloured

    def __call__(self, line: dict[str, object]) -> bytes:
        level = str(line["level"])
        message, hidden = str(line["message"]), _HEADER_FIELDS
        if line["type"] == "http_request":
            message = "{method} {path} {status} {duration_ms} ms".format_map(line)
            hidden = _HEADER_FIELDS | _ACCESS_FIELDS
        values = (
            f"{self._paint('2', key + '=')}{_one_line(value)}"
            for key, value in line.items()
            if key not in hidden and value != ""
        )
        trace = str(line["trace_id"])[:8]
        parts = [
            self._paint("2", str(line["timestamp"])[11:23]),
            self._paint(_COLOURS.get(level, "0"), f"{level:<8}"),
            self._paint("1", _one_line(message)),
            *values,
            self._paint("2", f"{line['logger']}{' trace ' + trace if trace else ''}"),
        ]
        text = " ".join(parts)
        error = line.get("exception")
        if isinstance(error, dict):
            stack = _CONTROL.sub(_escaped, str(error["stacktrace"])).rstrip()
            text += "\n    " + stack.replace("\n", "\n    ")
        return f"{text}\n".encode("utf-8", "replace")

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text


def _one_line(value: object) -> str:
    """Return `value` as text that cannot forge a line or move the cursor."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return _CONTROL.sub(_escaped, text).replace("\n", "\\n").replace("\t", "\\t")


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


# The way out ------------------------------------------------------------------------------------------

MAX_BUFFERED_LINES: Final = 20_000
MAX_BUFFERED_BYTES: Final = 8 * 1024 * 1024
_BATCH_BYTES: Final = 65_536
_GATHER_SECONDS: Final = 0.02
"""Lines are written together at most this late: one system call and one thread switch for many."""


_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)


class _Destination:
    """A text stream, written to directly through a copy of its file descriptor if it has one."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._rest = b""
        self._descriptor: int | None = None
        self._is_stream_of_bytes = self._may_refuse = False
        with suppress(OSError, ValueError, AttributeError):  # None, closed, or in memory
            self._descriptor = os.dup(stream.fileno())  # type: ignore[union-attr]
            mode = os.fstat(self._descriptor).st_mode
            self._is_stream_of_bytes = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
            self._may_refuse = bool(_NOWAIT) and stat.S_ISFIFO(mode)

    def write_at_once(self, lines: Sequence[bytes]) -> int:
        """Write what goes without waiting; return how many of `lines` need not be given to `write`.

        A pipe can be asked to refuse what it has no room for, without a word to others who write to it
        (RWF_NOWAIT of pwritev(2); O_NONBLOCK would be theirs as well). A line of which it took a part has
        to be finished by the next `write`, see `has_rest`; until then nobody else has his turn.
        """
        if self._descriptor is None or not self._may_refuse or self._rest:
            return 0
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another process writes, and may be waiting for the reader
            return 0
        data = b"".join(lines)
        written = 0
        try:
            written = os.pwritev(self._descriptor, [data], -1, _NOWAIT)
        except BlockingIOError:
            pass
        except OSError:  # an old kernel, or nobody reads any more: `write` knows what to do
            self._may_refuse = False
        taken = len(lines)
        if written < len(data):
            ends = list(accumulate(map(len, lines), initial=0))
            taken = bisect_left(ends, written)
            self._rest = data[written : ends[taken]]
        if not self._rest:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        return taken

    @property
    def has_rest(self) -> bool:
        """Whether a part of a line is left to be written."""
        return bool(self._rest)

    def forget_rest(self) -> None:
        """Leave the part of a line that is left to the process that has begun it."""
        self._rest = b""

    def write(self, lines: Sequence[bytes]) -> int:
        """Write `lines`, waiting for the reader where necessary; return how many of them were lost.

        What several processes write to one pipe at once gets mixed up beyond 4,096 bytes (PIPE_BUF of
        write(2)), so they take turns; the system gives the turn back when a process dies.
        """
        if self._descriptor is None or not self._is_stream_of_bytes:
            return self._write(lines)
        with suppress(OSError):
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            return self._write(lines)
        finally:
            with suppress(OSError):
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _write(self, lines: Sequence[bytes]) -> int:
        if self._descriptor is None:
            if self._stream is not None:
                self._stream.write(b"".join(lines).decode())
                self._stream.flush()
            return 0
        # A disk that fills up may take a part of a line. Its rest goes first when there is room again,
        # so that no line is cut or runs into another.
        data = b"".join([self._rest, *lines])
        view = memoryview(data)
        try:
            while view:
                try:
                    view = view[os.write(self._descriptor, view) :]
                except BlockingIOError:  # whoever shares this stdout has made it non-blocking
                    select.select([], [self._descriptor], [], 1.0)
        except OSError:
            written = len(data) - len(view)
            ends = list(accumulate(map(len, lines), initial=len(self._rest)))
            begun = bisect_left(ends, written)  # so many lines were written, the last maybe in part
            self._rest = data[written : ends[begun]]
            return len(lines) - begun
        self._rest = b""
        return 0

    def close(self) -> None:
        """Give the copy back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Writer:
    """A bounded buffer in memory and the one thread that empties it into a destination.

    The lock is re-entrant: a finaliser that runs inside `put` may log.
    """

    def __init__(self, destination: _Destination, on_drop: Callable[[int], None]) -> None:
        self._destination = destination
        self._on_drop = on_drop
        self._start()

    def _start(self) -> None:
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = self._accepted = self._finished = 0
        self._hurry = self._closed = self._is_writing = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Take a line over, or count it as dropped when the buffer is full."""
        with self._changed:
            fits = (
                len(self._lines) < MAX_BUFFERED_LINES
                and self._bytes + len(line) <= MAX_BUFFERED_BYTES
                and not self._closed
            )
            if fits:
                self._lines.append(line)
                self._bytes += len(line)
                self._accepted += 1
                if len(self._lines) == 1:
                    self._changed.notify_all()
        if not fits:
            self._on_drop(1)

    def put_all(self, lines: Sequence[bytes]) -> None:
        """Do the same to several lines, of which some may be dropped.

        Where none wait, they are written here and now, as far as the reader has room: a thread that is
        woken for them costs more than the writing does.
        """
        with self._changed:
            if not self._lines and not self._is_writing and not self._closed:
                taken = self._destination.write_at_once(lines)
                self._accepted += taken
                self._finished += taken
                lines = lines[taken:]
                if self._destination.has_rest and not lines:
                    lines = [b""]  # the thread is to write it
            if not lines:
                return
            size = sum(map(len, lines))
            fit = (
                len(self._lines) + len(lines) <= MAX_BUFFERED_LINES
                and self._bytes + size <= MAX_BUFFERED_BYTES
                and not self._closed
            )
            if fit:
                was_empty = not self._lines
                self._lines.extend(lines)
                self._bytes += size
                self._accepted += len(lines)
                if was_empty:
                    self._changed.notify_all()
        if not fit:
            for line in lines:
                self.put(line)

    def flush(self, timeout: float) -> bool:
        """Wait until what was put before is written. False when `timeout` seconds did not do."""
        with self._changed:
            goal = self._accepted
            if self._finished < goal:  # else the next lines would be hurried that nobody waits for
                self._hurry = True
                self._changed.notify_all()
            return self._changed.wait_for(lambda: self._finished >= goal, timeout)

    def close(self, timeout: float) -> None:
        """Flush, then end the thread if it can be ended."""
        self.flush(timeout)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def restart_in_child(self) -> None:
        """Begin anew after a fork, which copies the buffer but not the thread."""
        self._destination.forget_rest()
        self._start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closed)
                if self._closed and not self._lines:
                    break
                if self._bytes < _BATCH_BYTES and not self._closed:
                    self._changed.wait_for(lambda: self._hurry, _GATHER_SECONDS)
                batch = self._take()
                self._is_writing = True
            try:
                lost = self._destination.write(batch)
            except Exception:  # noqa: BLE001 - whatever became of stdout, the service goes on
                lost = len(batch)
            if lost:
                self._on_drop(lost)
            with self._changed:
                self._is_writing = False
                self._finished += len(batch)
                self._hurry = self._hurry and bool(self._lines)
                self._changed.notify_all()
        self._destination.close()

    def _take(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        while self._lines and size < _BATCH_BYTES:
            batch.append(self._lines.popleft())
            size += len(batch[-1])
        self._bytes -= size
        return batch


# Set-up -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Installed:
    handler_id: int
    writer: _Writer
    emit: "_Emit"


_installed: _Installed | None = None
_loguru: Final = cast("Any", logger)._core

_CHATTY_LIBRARIES: Final = ("httpx", "httpx2", "httpcore", "httpcore2")
"""They log every call at INFO; spans and metrics say the same with less."""


def setup_logs(
    settings: LogSettings,
    *,
    on_drop: Callable[[int], None] | None = None,
    destination: TextIO | None = None,
) -> None:
    """Send everything this process logs to `destination` (stdout), in one format.

    May be called again: the last call counts.

    Args:
        on_drop: Called with a number of lines that were lost, from any thread; count them. (A function
            and not a metric, so that this file works in an application that has no metrics.)
    """
    global _installed  # noqa: PLW0603 - one process has one log
    stream = sys.stdout if destination is None else destination
    render = _Console(coloured=_wants_colour(stream)) if settings.for_people else _json_line
    writer = _Writer(_Destination(stream), on_drop or (lambda _: None))
    settle()
    previous, _installed = _installed, None
    for handler_id in (0, previous.handler_id if previous else 0):  # 0 is loguru's own, to stderr
        with suppress(ValueError):
            logger.remove(handler_id)
    emit = _Emit(settings, render, writer)
    handler_id = logger.add(
        _nowhere,
        # Work is done in the filter, the one step that loguru takes before it copies the record,
        # renders the exception a second time and holds its lock: it costs half of what a sink does.
        filter=emit,
        level=settings.log_level,
        format="",
        diagnose=False,
        backtrace=False,
    )
    _installed = _Installed(handler_id, writer, emit)
    if previous:
        previous.writer.close(timeout=1.0)
    else:
        atexit.register(_flush_at_exit)
        os.register_at_fork(after_in_child=_restart_in_child)
    _intercept_standard_logging(logger.level(settings.log_level).no)


_reader_stands_still = False


def flush_logs(timeout: float = 2.0) -> bool:
    """Wait up to `timeout` seconds until all lines are written; return whether they are."""
    global _reader_stands_still  # noqa: PLW0603 - one process has one log
    settle()
    flushed = _installed is None or _installed.writer.flush(timeout)
    _reader_stands_still = not flushed
    return flushed


def _flush_at_exit() -> None:
    # Who has waited in vain a moment ago need not wait a second time.
    flush_logs(0.1 if _reader_stands_still else 2.0)


def _restart_in_child() -> None:
    if _installed:
        _installed.writer.restart_in_child()


def _wants_colour(stream: TextIO | None) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream is not None and stream.isatty())


def _nowhere(_: "LoguruMessage") -> None:
    """Never called: the filter has done the work."""


class _Emit:
    """Renders a record in the caller's context and hands it to the writer."""

    def __init__(
        self,
        settings: LogSettings,
        render: Callable[[dict[str, object]], bytes],
        writer: _Writer,
    ) -> None:
        self._service = {
            "service": settings.otel_service_name,
            "version": settings.service_version,
            "environment": settings.environment,
        }
        lowest = logger.level(settings.log_level).no
        self._levels = {name: logger.level(name).no >= lowest for name in ("INFO", "ERROR")}
        self._access_line = (
            AccessLine(self._service, logger=__name__) if render is _json_line else None
        )
        self._render = render
        self._writer = writer

    def __call__(self, record: "Record") -> bool:
        try:
            line = self._render(_fields(record, self._service))
        except Exception as error:  # noqa: BLE001 - the caller wanted to log, not to fail
            line = _json_line(_last_resort(record, self._service, error))
        self._writer.put(line)
        return False

    def puts_access_lines_together(self) -> bool:
        """Whether an access line need not go through loguru.

        It must where lines are for people, and where loguru would hand it to somebody else as well, or add
        something to it. (Loguru can be asked in no other way; test_access_line.py tries each case.)
        """
        return not (
            self._access_line is None
            or len(_loguru.handlers) != 1
            or _loguru.patcher is not None
            or _loguru.extra
            or _loguru.activation_list
            or _loguru_context.get()
        )

    def access_line(self, context: RequestContext, status: int, rate: float) -> bytes:
        """Return the line where it is put together; empty if nobody wants its level."""
        if self._access_line is None or not self._levels[_level(status)]:
            return b""
        return self._access_line(context, status, rate)

    def write(self, lines: Sequence[bytes]) -> None:
        """Hand lines to the writer."""
        self._writer.put_all(lines)


_STANDARD_ATTRIBUTES: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message", "asctime", "taskName", "color_message",
}  # fmt: skip


class _ToLoguru(logging.Handler):
    """Hands the standard library's records to loguru, under the name of the logger they came from."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit: the sentence says enough
            message = str(record.msg)
        level: str | int = record.levelname
        if level not in _COLOURS:
            level = record.levelno
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD_ATTRIBUTES}

        def from_its_origin(line: "Record") -> None:
            line["name"] = record.name
            line["function"] = record.funcName or ""
            line["line"] = record.lineno
            line["module"] = record.module

        origin = logger.patch(from_its_origin).opt(exception=record.exc_info)
        origin.bind(**{"type": "library", **extra}).log(level, message)


def _intercept_standard_logging(level: int) -> None:
    logging.root.handlers = [_ToLoguru()]
    # A library's DEBUG lines hold what nobody checked for secrets (headers, parameters, rows).
    logging.root.setLevel(max(level, logging.INFO))
    for known in list(logging.root.manager.loggerDict.values()):
        if isinstance(known, logging.Logger):
            known.handlers.clear()
            known.propagate = True
    for name in _CHATTY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").propagate = False  # ours is the one access line
    logging.captureWarnings(capture=True)


# The access line --------------------------------------------------------------------------------------


def instrument_access_log(app: FastAPI, settings: LogSettings | None = None) -> None:
    """Log one line for each request of `app`, after it has ended.

    Of the routes in `settings.log_sample` a share is logged, and always what failed, was slow or is
    told by the audit log. `sample_rate` in the line says which share it stands for: 1 / sample_rate
    requests.
    """
    sampling = _Sampling(settings) if settings is not None and settings.log_sample else None
    observe_requests(app, _AccessLog(sampling))


_LOW_BITS: Final = 2**64 - 1


class _Sampling:
    """Decides by the trace id, so that a sampled trace (by the same bits) has its lines, too."""

    def __init__(self, settings: LogSettings) -> None:
        self._shares = settings.log_sample
        self._slow_seconds = settings.log_sample_slow_ms / 1000

    def rate_of(self, context: RequestContext, status: int) -> float:
        """Return the share that this request's line stands for, 0 when it is not to be written."""
        share = self._shares.get(f"{context.method} {context.route}", 1.0)
        if share == 1.0 or status >= 400 or context.seconds > self._slow_seconds:  # noqa: PLR2004 - errors
            return 1.0
        if context.audited:
            return 1.0
        trace_id, _ = context.trace_ids
        drawn = int(trace_id, 16) & _LOW_BITS if trace_id else secrets.randbits(64)
        return share if drawn < share * 2**64 else 0.0


_SERVER_ERROR: Final = 500


def _level(status: int) -> str:
    return "ERROR" if status >= _SERVER_ERROR else "INFO"


class _AccessLog:
    """One line for each request: what was asked, what was answered, how long it took.

    Status 499 stands for a client that left early and 500 for an exception that came through, even
    after the response had begun: the client saw a broken body.

    It is the one line that every request writes. Where nobody but us listens to loguru, and for machines, it
    is put together from the parts that are known (access_line.py) instead of by way of a record.
    """

    def __init__(self, sampling: _Sampling | None) -> None:
        self._sampling = sampling
        self._later = Later(self._put_together, self._write)
        self._lines: list[bytes] = []

    def __call__(self, context: RequestContext) -> None:
        if _installed is not None and _installed.emit.puts_access_lines_together():
            self._later.add(context)
        else:
            status = context.status
            if rate := self._rate(context, status):
                logger.bind(**access_fields(context, rate)).log(_level(status), SERVED)

    def _rate(self, context: RequestContext, status: int) -> float:
        return 1.0 if self._sampling is None else self._sampling.rate_of(context, status)

    def _put_together(self, context: RequestContext) -> None:
        status = context.status
        rate = self._rate(context, status)
        if not rate:
            return
        try:
            assert _installed is not None  # noqa: S101 - it was, and none is taken away
            if line := _installed.emit.access_line(context, status, rate):
                self._lines.append(line)
        except Exception:  # noqa: BLE001 - loguru's way has a last resort
            whose = {"request_id": context.request_id, "user_id": context.user_id}
            logger.bind(**access_fields(context, rate), **whose).log(_level(status), SERVED)

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if lines and _installed is not None:
            _installed.emit.write(lines)

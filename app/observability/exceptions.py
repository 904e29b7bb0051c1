"""Unhandled exceptions: whatever escapes is logged once, counted once and reported once.

Owns `unhandled_exceptions_total{where}` and the log line of type `error`. Everything that can let an
exception escape leads here: the request (`instrument_exceptions`, or app/errors.py, which answers as well),
start-up and shut-down (the same layer), asyncio tasks (`install_loop_hook`), threads, finalizers and the
process itself (`install_exception_hooks`), and jobs, which call `record_exception` themselves.

An exception often passes several of these on its way out; the object carries a mark, so the first one
records it. Must never raise, whatever fails inside logging or reporting, and never touches the
exceptions that are requests to stop (KeyboardInterrupt, SystemExit, CancelledError).
"""

import asyncio
import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args

from loguru import logger
from prometheus_client import Counter

from app.observability.context import is_operational, route_template

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

Where = Literal["request", "task", "thread", "job", "startup", "process"]

unhandled_exceptions = Counter(
    "unhandled_exceptions_total",
    "Exceptions that nothing handled, by where they escaped.",
    ["where"],
)
for _where in get_args(Where):
    unhandled_exceptions.labels(_where)  # at 0 from the start: increase() sees the first one

_MARK = "__recorded_by_glasshouse__"


class Reporter(Protocol):
    """What sends an exception to the error tracker, such as `error_tracking.report_exception`."""

    def __call__(self, error: BaseException, /, **tags: str) -> object:
        """Report `error`; may raise, which is then logged."""


_reporter: Reporter | None = None


def use_reporter(reporter: Reporter | None) -> None:
    """Report every recorded exception through `reporter` from now on; None stops it."""
    global _reporter  # noqa: PLW0603 - one process has one error tracker
    _reporter = reporter


def is_recorded(error: BaseException) -> bool:
    """Whether `error`, or every error of a group, was recorded before."""
    if _MARK in vars(error):
        return True
    return isinstance(error, BaseExceptionGroup) and all(map(is_recorded, error.exceptions))


def record_exception(
    error: BaseException, *, where: Where, handled: bool = False, **tags: str
) -> None:
    """Log, count and report `error`, unless another layer has done so or it is a request to stop.

    One that is `handled` was foreseen, and its caller knows what to say, such as a 503 while a dependency
    is away: it is logged and reported as well, and not counted as unhandled. `tags` are short, bounded
    strings such as `route` or `task`: they are fields of the log line and tags of the report. Never raises.
    """
    if not isinstance(error, Exception) or is_recorded(error):
        return
    # Straight into __dict__: an exception may be a frozen dataclass, which refuses setattr.
    vars(error)[_MARK] = True
    if not handled:
        unhandled_exceptions.labels(where).inc()
    try:
        fields = {
            "type": "error",
            "where": where,
            "exception_type": type(error).__qualname__,
            **tags,
        }
        line = logger.bind(**fields).opt(exception=error)
        if handled:
            line.error("A foreseen failure ended a request")
        else:
            line.error("Unhandled exception")
    except Exception:  # noqa: BLE001 - the last place to speak is standard error
        with contextlib.suppress(Exception):
            traceback.print_exception(error)
    try:
        if _reporter is not None:
            _reporter(error, where=where, **tags)
    except Exception as failure:  # noqa: BLE001 - a broken reporter must not break its caller
        with contextlib.suppress(Exception):
            logger.bind(type="error", where=where).opt(exception=failure).error(
                "Error report could not be made"
            )


def record_request_error(error: BaseException, scope: "Scope", *, handled: bool = False) -> None:
    """Record what went wrong in the request of `scope`, with the route it went wrong in.

    It is `handled` when the answer says what is the matter, as a 503 does, and not only that something is.
    """
    route = scope["path"] if is_operational(scope["path"]) else route_template(scope)
    method = scope.get("method", "")
    record_exception(error, where="request", handled=handled, route=route, method=method)


def install_exception_hooks() -> Callable[[], None]:
    """Record what escapes the process, its threads and its finalizers. Returns what undoes it.

    Also silences uvicorn's own copy of an exception that is recorded already.
    """
    previous_process, previous_thread = sys.excepthook, threading.excepthook
    previous_unraisable = sys.unraisablehook

    def on_process(
        kind: type[BaseException], error: BaseException, trace: "TracebackType | None"
    ) -> None:
        if isinstance(error, Exception):
            record_exception(error, where="process")
        else:
            previous_process(kind, error, trace)

    def on_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:  # None for SystemExit, which ends a thread silently
            name = args.thread.name if args.thread is not None else ""
            record_exception(args.exc_value, where="thread", thread=name)

    def on_unraisable(args: "sys.UnraisableHookArgs") -> None:
        if args.exc_value is not None:
            record_exception(args.exc_value, where="process", source="finalizer")

    def not_recorded(entry: logging.LogRecord) -> bool:
        error = entry.exc_info[1] if entry.exc_info else None
        return error is None or not is_recorded(error)

    sys.excepthook, threading.excepthook, sys.unraisablehook = on_process, on_thread, on_unraisable
    logging.getLogger("uvicorn.error").addFilter(not_recorded)

    def uninstall() -> None:
        sys.excepthook, threading.excepthook = previous_process, previous_thread
        sys.unraisablehook = previous_unraisable
        logging.getLogger("uvicorn.error").removeFilter(not_recorded)

    return uninstall


def install_loop_hook(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Record what escapes the tasks and callbacks of `loop`. Returns what undoes it.

    asyncio tells about a failed task nobody awaited only when the task is garbage collected.
    """
    previous = loop.get_exception_handler()

    def on_loop(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        source = context.get("task") or context.get("future")
        name = source.get_name() if isinstance(source, asyncio.Task) else ""
        if isinstance(error, BaseException):
            record_exception(error, where="task", task_name=name)
        else:  # such as "Task was destroyed but it is pending!"
            logger.bind(
                type="error", where="task", task_name=name, detail=context["message"]
            ).error("Event loop reported a problem")

    loop.set_exception_handler(on_loop)
    return lambda: loop.set_exception_handler(previous)


class UnhandledExceptionMiddleware:
    """Record what escapes the application and let it go on to the 500 handler: pure ASGI."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            record_request_error(error, scope)
            raise

    async def _lifespan(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        where: Where = "startup"

        async def send_without_traceback(message: "Message") -> None:
            nonlocal where
            if message["type"] == "lifespan.startup.complete":
                where = "process"
            if message["type"] in {"lifespan.startup.failed", "lifespan.shutdown.failed"}:
                # The server would log the traceback a second time, as unstructured text.
                message = {**message, "message": ""}
            await send(message)

        try:
            await self.app(scope, receive, send_without_traceback)
        except Exception as error:
            record_exception(error, where=where)
            raise


def instrument_exceptions(app: "Starlette") -> None:
    """Record what escapes requests, start-up and shut-down of `app`.

    Add it first, hence innermost: the request's context and span must still be there.
    """
    app.add_middleware(cast("Any", UnhandledExceptionMiddleware))

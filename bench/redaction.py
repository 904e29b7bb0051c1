"""What redaction costs a log line: `python -m bench redaction`.

Renders ordinary and nasty lines with the service's own code, once as they are and once with redaction
replaced by nothing, and prints microseconds for both, the difference, and its share of the line. Each
round uses texts of its own, as requests do: what is remembered as clean is remembered across rounds, what is
not is paid for each time. Medians of alternating rounds; CPU time of this thread.
"""

import asyncio
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from app.observability import access_line, logs
from app.observability.context import UNMATCHED_ROUTE, RequestContext

if TYPE_CHECKING:
    from loguru import Record

LINES: Final = 2_000
ROUNDS: Final = 9
BROWSER: Final = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36"
)
SERVICE: Final = {"service": "glasshouse", "version": "0.1.0", "environment": "production"}
_access_line = access_line.AccessLine(SERVICE, logger="app.observability.logs")
ORDER: Final = "018f4e1c-7b1a-7c3e-9f21-{:012d}"


def _line(message: str, extra: dict[str, Any], error: Exception | None = None) -> bytes:
    record = {
        "time": datetime.now(UTC),
        "level": SimpleNamespace(name="INFO", no=20),
        "message": message,
        "name": "app.observability.logs",
        "extra": extra,
        "exception": SimpleNamespace(value=error) if error else None,
    }
    return logs._json_line(logs._fields(cast("Record", record), SERVICE))


def access(number: int, *, user_agent: str = BROWSER, path: str = "") -> bytes:
    """Write an access line of its own."""
    order_id = ORDER.format(number)
    context = RequestContext(f"{number:032x}", route=UNMATCHED_ROUTE)
    context.method, context.path = "GET", path
    if not path:
        context.route, context.path = "/v1/orders/{order_id}", f"/v1/orders/{order_id}"
        context.path_parameters = {"order_id": order_id}
    context.client = ("203.0.113.77", 40_000)
    context.user_agent = user_agent.encode()
    context.answered, context.seconds = 200, 0.003217
    context.database.statements, context.database.seconds = 3, 0.001903
    return _access_line(context, 200, 1.0)


def nasty_access(number: int) -> bytes:
    """Write one whose client has put secrets into everything."""
    agent = f"bot/1.0 (+mailto:jane{number}@example.com) 4111%201111%201111%201111 Bearer x{number}"
    return access(number, user_agent=agent, path=f"/reset/jane%2540example.com/{number:032x}")


def business(number: int) -> bytes:
    """Write a line of the application: ids and amounts."""
    fields = {
        "type": "business",
        "order_id": ORDER.format(number),
        "total_amount": 2500,
        "currency": "EUR",
    }
    return _line("order placed", fields)


def nested(number: int) -> bytes:
    """Write a line with a structure full of secrets."""
    request = {
        "headers": [("authorization", f"Bearer {number}"), ("accept", "*/*"), ("cookie", "s=1")],
        "body": {
            "email": f"jane{number}@example.com",
            "card": "4111111111111111",
            "note": "call me",
        },
    }
    return _line("told", {"request": request})


def failure(number: int) -> bytes:
    """Write an error with a traceback and a database's message."""
    try:
        _fail(number)
    except ValueError as error:
        return _line("Unhandled exception", {"type": "error"}, error)
    raise AssertionError


def _fail(number: int, depth: int = 15) -> None:
    if depth:
        _fail(number, depth - 1)
    raise ValueError(
        f"(IntegrityError) Key (email)=(jane{number}@example.com) already exists.\n"
        "[SQL: INSERT INTO users (id, email) VALUES ($1, $2)]\n"
        f"[parameters: ('{uuid.uuid4()}', 'jane{number}@example.com')]"
    )


Write = Callable[[int], bytes]
"""Writes the line of a number, from what is known of it to the bytes that are written."""

CASES: Final[dict[str, Write]] = {
    "access line": access,
    "access line, secrets in it": nasty_access,
    "business line": business,
    "nested structure, secrets in it": nested,
    "error with traceback": failure,
}


_REDACTS: Final = {
    logs: ("redact", "redact_text"),
    access_line: ("redact_text", "redact_path"),
}


@contextmanager
def without_redaction() -> Iterator[None]:
    """Let the log's redaction do nothing for the time of the block."""
    kept = [
        (module, name, getattr(module, name))
        for module, names in _REDACTS.items()
        for name in names
    ]
    for module, name, _ in kept:
        setattr(module, name, lambda value, *_: value)
    try:
        yield
    finally:
        for module, name, function in kept:
            setattr(module, name, function)
        access_line._agents.clear()  # has texts now that were never redacted


def microseconds(write: Write, first: int, lines: int) -> float:
    """Return what one line costs."""
    started = time.thread_time()
    for number in range(first, first + lines):
        write(number)
    return (time.thread_time() - started) / lines * 1e6


def compare(write: Write, lines: int, rounds: int) -> "Cost":
    """Return the medians with and without redaction."""
    with_it, without = [], []
    for turn in range(rounds + 1):
        took = microseconds(write, turn * lines, lines)
        with without_redaction():
            bare = microseconds(write, turn * lines, lines)
        if turn:  # the first is for warming up
            with_it.append(took)
            without.append(bare)
    return Cost(statistics.median(with_it), statistics.median(without))


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of one line."""

    whole: float
    bare: float
    """With redaction replaced by nothing."""


async def measure(
    stage: object, progress: Callable[[str], None], *, lines: int = LINES, rounds: int = ROUNDS
) -> dict[str, Cost]:
    """Measure all cases; no server is needed for that."""
    del stage
    costs = {}
    for name, write in CASES.items():
        progress(name)
        await asyncio.sleep(0)  # a chance for Ctrl-C
        costs[name] = compare(write, lines, rounds)
    return costs


def show(costs: dict[str, Cost]) -> str:
    """Return the table."""
    rows = [f"{'microseconds a line':34} {'whole':>8} {'bare':>8} {'redaction':>10} {'share':>6}"]
    rows += [
        f"{name:34} {cost.whole:8.1f} {cost.bare:8.1f} {cost.whole - cost.bare:10.1f} "
        f"{1 - cost.bare / cost.whole:6.0%}"
        for name, cost in costs.items()
    ]
    return "\n".join(rows)


def as_json(costs: dict[str, Cost]) -> dict[str, object]:
    """Return the same for machines."""
    return {
        name: {
            "whole_us": round(cost.whole, 2),
            "bare_us": round(cost.bare, 2),
            "redaction_us": round(cost.whole - cost.bare, 2),
        }
        for name, cost in costs.items()
    }

"""What redaction costs a log line: `python -m bench.redaction`.

Renders ordinary and nasty lines with the service's own code, once as they are and once with redaction
replaced by nothing, and prints microseconds for both, the difference, and its share of the line. Each
round uses texts of its own, as requests do: what is remembered as clean is remembered across rounds, what is
not is paid for each time. Medians of alternating rounds; CPU time of this thread.
"""

import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from app.observability import logs, redaction

if TYPE_CHECKING:
    from loguru import Record

LINES: Final = 2_000
ROUNDS: Final = 9
BROWSER: Final = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36"
)
SERVICE: Final = {"service": "glasshouse", "version": "0.1.0", "environment": "production"}
ORDER: Final = "018f4e1c-7b1a-7c3e-9f21-{:012d}"


def _record(message: str, extra: dict[str, Any], error: Exception | None = None) -> "Record":
    record = {
        "time": datetime.now(UTC),
        "level": SimpleNamespace(name="INFO", no=20),
        "message": message,
        "name": "app.observability.logs",
        "extra": extra,
        "exception": SimpleNamespace(value=error) if error else None,
    }
    return cast("Record", record)


def _as_logged(function: str, *given: object) -> object:
    return getattr(logs, function)(*given)  # looked up anew: see without_redaction


def access(number: int, *, user_agent: str = BROWSER, path: str = "") -> "Record":
    """Return an access line of its own."""
    order_id = ORDER.format(number)
    return _record(
        "request served",
        {
            "type": "http_request",
            "method": "GET",
            "path": _as_logged(
                "redact_path", path or f"/v1/orders/{order_id}", {"order_id": order_id}
            ),
            "route": "/v1/orders/{order_id}",
            "status": 200,
            "duration_ms": 3.217,
            "db_statements": 3,
            "db_duration_ms": 1.903,
            "sample_rate": 1.0,
            "client_ip": redaction.redact_address("203.0.113.77"),
            "user_agent": _as_logged("redact_text", user_agent, 256),
        },
    )


def nasty_access(number: int) -> "Record":
    """Return one whose client has put secrets into everything."""
    agent = f"bot/1.0 (+mailto:jane{number}@example.com) 4111%201111%201111%201111 Bearer x{number}"
    return access(number, user_agent=agent, path=f"/reset/jane%2540example.com/{number:032x}")


def business(number: int) -> "Record":
    """Return a line of the application: ids and amounts."""
    fields = {
        "type": "business",
        "order_id": ORDER.format(number),
        "total_amount": 2500,
        "currency": "EUR",
    }
    return _record("order placed", fields)


def nested(number: int) -> "Record":
    """Return a line with a structure full of secrets."""
    request = {
        "headers": [("authorization", f"Bearer {number}"), ("accept", "*/*"), ("cookie", "s=1")],
        "body": {
            "email": f"jane{number}@example.com",
            "card": "4111111111111111",
            "note": "call me",
        },
    }
    return _record("told", {"request": request})


def failure(number: int) -> "Record":
    """Return an error with a traceback and a database's message."""
    try:
        _fail(number)
    except ValueError as error:
        return _record("Unhandled exception", {"type": "error"}, error)
    raise AssertionError


def _fail(number: int, depth: int = 15) -> None:
    if depth:
        _fail(number, depth - 1)
    raise ValueError(
        f"(IntegrityError) Key (email)=(jane{number}@example.com) already exists.\n"
        "[SQL: INSERT INTO users (id, email) VALUES ($1, $2)]\n"
        f"[parameters: ('{uuid.uuid4()}', 'jane{number}@example.com')]"
    )


CASES: Final[dict[str, Callable[[int], "Record"]]] = {
    "access line": access,
    "access line, secrets in it": nasty_access,
    "business line": business,
    "nested structure, secrets in it": nested,
    "error with traceback": failure,
}


@contextmanager
def without_redaction() -> Iterator[None]:
    """Let the log's redaction do nothing for the time of the block."""
    kept = {name: getattr(logs, name) for name in ("redact", "redact_text", "redact_path")}
    for name in kept:
        setattr(logs, name, lambda value, *_: value)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(logs, name, function)


def microseconds(make: Callable[[int], "Record"], first: int, lines: int) -> float:
    """Return what one line costs, from the record that is made to the bytes that are written."""
    started = time.thread_time()
    for number in range(first, first + lines):
        logs._json_line(logs._fields(make(number), SERVICE))
    return (time.thread_time() - started) / lines * 1e6


def measure(make: Callable[[int], "Record"], lines: int, rounds: int) -> tuple[float, float]:
    """Return the medians with and without redaction."""
    with_it, without = [], []
    for turn in range(rounds + 1):
        took = microseconds(make, turn * lines, lines)
        with without_redaction():
            bare = microseconds(make, turn * lines, lines)
        if turn:  # the first is for warming up
            with_it.append(took)
            without.append(bare)
    return statistics.median(with_it), statistics.median(without)


def main(lines: int = LINES, rounds: int = ROUNDS) -> None:
    """Print the table."""
    print(f"{'microseconds a line':34} {'whole':>8} {'bare':>8} {'redaction':>10} {'share':>6}")
    for name, make in CASES.items():
        whole, bare = measure(make, lines, rounds)
        print(f"{name:34} {whole:8.1f} {bare:8.1f} {whole - bare:10.1f} {1 - bare / whole:6.0%}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""The API with its telemetry done wrong on purpose: `python -m tests.integration.hurt.harmful KIND`.

The measuring must see each of these, or it would see nothing.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

from app import cli
from app.observability import logs, span_export

_WRITER: Final[Any] = logs._Writer
_SPANS: Final[Any] = span_export.CountedSpans


def _use(put: Callable[[logs._Writer, bytes], None]) -> None:
    def put_all(writer: logs._Writer, lines: Sequence[bytes]) -> None:
        for line in lines:
            put(writer, line)

    _WRITER.put, _WRITER.put_all = put, put_all


def write_where_it_is_logged() -> None:
    """A log line is written by whoever logs it, as with a plain stream handler."""

    def put(writer: logs._Writer, line: bytes) -> None:
        writer._destination.write([line])

    _use(put)


def export_where_it_ends() -> None:
    """A span is sent by whoever ends it, as OpenTelemetry's SimpleSpanProcessor does."""

    def on_end(processor: span_export.CountedSpans, span: ReadableSpan) -> None:
        if processor._export.has_room():
            processor._export.export([span])

    _SPANS.on_end = on_end


def keep_everything() -> None:
    """What cannot be written is kept, as an unbounded queue does; twenty-fold, to save time."""
    kept: list[bytes] = []

    def put(_: logs._Writer, line: bytes) -> None:
        kept.append(line * 20)

    _use(put)


KINDS: Final[dict[str, Callable[[], None]]] = {
    "writes": write_where_it_is_logged,
    "exports": export_where_it_ends,
    "hoards": keep_everything,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]]()
    cli.app(["serve"])

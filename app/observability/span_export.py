"""The way of a span out of the process: redacted, batched, exported, or counted as lost.

Owns: the queue of spans that have ended, how often and how many of them leave at a time, what becomes of
their attributes, and the two log lines about a collector that is away.

Must never let a secret out, never wait for the collector, and never lose a span uncounted.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Final, cast

from loguru import logger
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status
from opentelemetry.util.types import AttributeValue

from app.observability.redaction import (
    REDACTED,
    is_secret_key,
    redact,
    redact_address,
    redact_text,
    redact_url,
)
from app.observability.settling import Later, is_settling, settle
from app.observability.span_encoding import (
    SPANS_IN_A_ROW,
    EncodedSpanExporter,
    PreparedSpan,
    SpanEncoder,
)

MAX_QUEUED_SPANS: Final = 2048
BATCH_SPANS: Final = 256
"""Sending a batch holds the interpreter for half a millisecond, of however many spans that are encoded."""
QUEUE_SECONDS: Final = 0.05
"""An ended span may wait so long for others: to wake up for each of them costs as much as to encode it."""
SPANS_AT_A_TIME: Final = 2
"""Requests wait for so many to be encoded."""
EXPORT_INTERVAL_MS: Final = 1000
EXPORT_TIMEOUT_SECONDS: Final = 2.0
MAX_ATTRIBUTE: Final = 8192
"""Characters that are exported of one attribute. More are kept until then: a secret that is cut in half
is not recognised."""


class _LastWords(logging.Filter):
    """Holds back what the exporter logs, two lines for each batch, and keeps the first of a batch."""

    reason = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.reason = self.reason or record.getMessage()
        return False


_last_words = _LastWords()
logging.getLogger(OTLPSpanExporter.__module__).addFilter(_last_words)


class _WithoutValues(logging.Filter):
    """Keeps what OpenTelemetry could not read, a header with a credential in it, out of its warning."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.args = (REDACTED,) * len(record.args or ())
        return True


logging.getLogger("opentelemetry.util.re").addFilter(_WithoutValues())
# It warns of every stack trace that is longer than an attribute may be; it is cut, which is meant.
logging.getLogger("opentelemetry.attributes").setLevel(logging.ERROR)


class _Export(SpanExporter):
    """Redacts spans on their way to an exporter, behind the answer, and counts what is lost."""

    def __init__(self, exporter: SpanExporter, on_drop: Callable[[int], None]) -> None:
        self._exporter: SpanExporter | None = exporter
        self._encoder = SpanEncoder(redacted, redacted_attribute, redact_text)
        self._on_drop = on_drop
        self._lock = threading.Lock()
        self._queued = self._leaving = self._lost = 0
        self.closed = self._failing = False
        forget = weakref.WeakMethod(self._forget)
        os.register_at_fork(after_in_child=lambda: (own := forget()) and own())

    def _forget(self) -> None:
        """Leave what waits to the process that we were forked from."""
        self._lock = threading.Lock()
        self._queued = self._leaving = self._lost = 0

    def prepare(self, span: ReadableSpan) -> ReadableSpan | PreparedSpan:
        """Redact and encode a span that has ended, if the exporter takes that and it is done at once."""
        if isinstance(self._exporter, EncodedSpanExporter):
            return self._encoder.prepare(span)
        return span

    def has_room(self) -> bool:
        """Whether one more span may be queued; if not, it is counted as lost."""
        with self._lock:
            fits = self._queued < MAX_QUEUED_SPANS and not self.closed
            self._queued += fits
            self._lost += not fits
        if not fits:
            self._on_drop(1)
        return fits

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch. Called by the processor's thread."""
        with self._lock:
            self._queued -= len(spans)
            self._leaving = len(spans)
        exporter, result = self._exporter, SpanExportResult.FAILURE
        _last_words.reason = ""
        try:
            if isinstance(exporter, EncodedSpanExporter):
                result = exporter.export_encoded(self._encoder.encode(spans))
            elif exporter is not None:
                result = exporter.export([redacted(span) for span in spans])
        finally:
            with self._lock:
                lost = 0 if result is SpanExportResult.SUCCESS or self.closed else len(spans)
                self._leaving = 0
                self._lost += lost
            if lost:
                self._on_drop(lost)
            self._tell(failed=result is not SpanExportResult.SUCCESS)
        return result

    def _tell(self, *, failed: bool) -> None:
        """Say once that spans cannot be exported, and once that they can again."""
        if failed and not self._failing:
            logger.bind(type="telemetry", reason=_last_words.reason).warning(
                "Spans cannot be exported"
            )
        elif self._failing and not failed:
            logger.bind(type="telemetry", lost=self._lost).info("Spans are exported again")
            self._lost = 0
        self._failing = failed

    def close(self) -> None:
        """Count what is still here as lost, and end what is under way.

        What is under way may have arrived all the same: rather one too many is counted than one too few.
        """
        with self._lock:
            lost = 0 if self.closed else self._queued + self._leaving
            self.closed = True
        if lost:
            self._on_drop(lost)
        self.shutdown()

    def shutdown(self) -> None:
        """End the exporter, once: a retry that waits is woken."""
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.shutdown()


class CountedSpans(BatchSpanProcessor):
    """Batches spans in the background, as small and as often as the constants above say."""

    def __init__(self, exporter: SpanExporter, on_drop: Callable[[int], None]) -> None:
        self._export = _Export(exporter, on_drop)
        # Of the spans of several requests, one after the other: see settling.py.
        self._ended: Later[ReadableSpan] = Later(
            self._queue, seconds=QUEUE_SECONDS, limit=SPANS_IN_A_ROW, in_a_row=SPANS_AT_A_TIME
        )
        super().__init__(
            self._export,
            max_queue_size=MAX_QUEUED_SPANS,
            schedule_delay_millis=EXPORT_INTERVAL_MS,
            max_export_batch_size=BATCH_SPANS,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that has ended, soon and where there is room."""
        if span.context and span.context.trace_flags.sampled:
            if is_settling() or self._export.closed:  # it is lost, and there may be no later
                self._queue(span)
            else:
                self._ended.add(span)

    def _queue(self, span: ReadableSpan) -> None:
        # The queue of the base class would push its oldest one out, uncounted. (It looks at nothing of
        # what it queues but whether it is sampled.)
        if self._export.has_room():
            super().on_end(cast("ReadableSpan", self._export.prepare(span)))

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Export what has ended so far."""
        try:
            settle()
        finally:
            flushed = super().force_flush(timeout_millis)
        return flushed

    def shutdown(self) -> None:
        """Export what has ended so far, and nothing that ends later."""
        try:
            settle()
        finally:
            super().shutdown()  # type: ignore[no-untyped-call]  # the library has no types here

    def close(self) -> None:
        """Count what has not left by now as lost, and whatever ends from now on."""
        self._export.close()
        settle()


def redacted(span: ReadableSpan) -> ReadableSpan:
    status = span.status
    if status.description:
        status = Status(status.status_code, _encodable(redact_text(status.description)))
    return ReadableSpan(
        name=_encodable(redact_text(span.name)),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_redacted_attributes(span),
        events=[
            Event(_encodable(redact_text(event.name)), _redacted_attributes(event), event.timestamp)
            for event in span.events
        ],
        links=[Link(link.context, _redacted_attributes(link)) for link in span.links],
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _encodable(text: str) -> str:
    """Return it without half a character: the library would raise, and all of the batch be lost."""
    return text.encode("utf-8", "replace").decode()


def _redacted_attributes(of: ReadableSpan | Event | Link) -> BoundedAttributes:
    redacted = BoundedAttributes(
        attributes={
            _encodable(redact_text(key)): redacted_attribute(key, value)
            for key, value in (of.attributes or {}).items()
        }
    )
    redacted.dropped = of.dropped_attributes
    return redacted


def redacted_attribute(key: str, value: AttributeValue) -> AttributeValue:
    if is_secret_key(key):
        return REDACTED
    if isinstance(value, str):
        if special := _SPECIAL_ATTRIBUTES.get(key):
            return special(value)
        return redact_text(value, MAX_ATTRIBUTE)
    if isinstance(value, (int, float)) and abs(value) < _MAX_COUNT:
        return value
    if isinstance(value, Sequence) and value and all(isinstance(item, str) for item in value):
        return [redact_text(str(item), MAX_ATTRIBUTE) for item in value]
    return cast("AttributeValue", redact(value))


_MAX_COUNT: Final = 10**12
"""Numbers that are greater may be a card's."""
_SPECIAL_ATTRIBUTES: Final[dict[str, Callable[[str], str]]] = {
    "url.full": redact_url,
    "url.query": lambda query: redact_url(f"?{query}")[1:],
    "client.address": redact_address,
}

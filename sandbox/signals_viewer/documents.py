"""Traces and errors as JSON, for scripts and tests: GET /api/traces, /api/traces/{trace_id}, /api/errors.

Times are RFC 3339 in UTC, durations milliseconds, ids lower-case hexadecimal.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sandbox.signals_viewer.signals import ErrorReport
from sandbox.signals_viewer.store import SignalStore, Trace
from sandbox.signals_viewer.waterfall import Row, arrange, root_of


def moment(nanoseconds: int) -> datetime:
    """Return a Unix time as a moment; the largest that OTLP can write is in the year 2554."""
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def milliseconds(nanoseconds: int) -> float:
    """Return nanoseconds as milliseconds, to the microsecond."""
    return round(nanoseconds / 1e6, 3)


def services(store: SignalStore, trace: Trace) -> dict[str, int]:
    """Return the names of the processes that took part with their colours, in order of their first span."""
    in_time = sorted(trace.spans.values(), key=lambda span: span.start)
    return {store.process_name(span): store.process_index(span) for span in in_time}


def describe_trace(store: SignalStore, trace: Trace) -> dict[str, Any]:
    """Return the outline of a trace."""
    return {
        "trace_id": trace.trace_id,
        "name": root_of(trace.spans.values()).name,
        "services": list(services(store, trace)),
        "spans": len(trace.spans),
        "spans_left_out": trace.left_out,
        "started_at": moment(trace.start).isoformat(),
        "duration_ms": milliseconds(trace.end - trace.start),
        "failed": trace.failed_spans > 0,
        "failed_spans": trace.failed_spans,
        "errors": [error.event_id for error in store.errors_of(trace.trace_id)],
    }


def describe_trace_in_full(store: SignalStore, trace: Trace) -> dict[str, Any]:
    """Return a trace with its spans, in the order of the page, and the errors that share its id."""
    rows = arrange(trace.spans.values())
    return describe_trace(store, trace) | {
        "spans": [_describe_row(store, row, trace.start) for row in rows],
        "errors": [describe_error(error) for error in store.errors_of(trace.trace_id)],
    }


def _describe_row(store: SignalStore, row: Row, begin: int) -> dict[str, Any]:
    span = row.span
    return {
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "depth": row.depth,
        "detached": row.detached,
        "service": span.service,
        "process": store.process_name(span),
        "name": span.name,
        "kind": span.kind,
        "offset_ms": milliseconds(span.start - begin),
        "duration_ms": milliseconds(span.end - span.start),
        "failed": span.failed,
        "status_message": span.status_message,
        "attributes": span.attributes,
        "events": [
            {
                "name": event.name,
                "offset_ms": milliseconds(event.at - begin),
                "attributes": event.attributes,
            }
            for event in span.events
        ],
    }


def describe_error(error: ErrorReport) -> dict[str, Any]:
    """Return an error report in full."""
    described = asdict(error) | {"at": moment(error.at).isoformat()}
    del described["size"]
    return described

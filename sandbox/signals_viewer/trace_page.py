"""GET /traces/{trace_id}: the spans of one trace as a waterfall, with the errors that share its id."""

from typing import Any, Final

import orjson
from starlette.responses import Response

from sandbox.signals_viewer.documents import services
from sandbox.signals_viewer.error_page import definitions, stacks
from sandbox.signals_viewer.layout import (
    colour,
    not_found,
    page,
    table,
    write_duration,
    write_services,
    write_status,
    write_time,
)
from sandbox.signals_viewer.markup import Child, Markup, element, fragment
from sandbox.signals_viewer.signals import ErrorReport
from sandbox.signals_viewer.store import SignalStore, Trace
from sandbox.signals_viewer.waterfall import Row, arrange, root_of

DEEPEST: Final = 12
"""Below that spans are not indented further: there would be no room for their names."""
STATUS: Final = "http.response.status_code"
TELLING: Final = ("db.query.text", "url.full", "messaging.message.id")
"""Attributes that are seen without opening a span (OpenTelemetry semantic conventions)."""
_WIDTH: Final = 1000
_LEAST: Final = 4


def trace_page(store: SignalStore, trace_id: str) -> Response:
    """Return the page of one trace, or say that it is not kept."""
    trace = store.trace(trace_id)
    if trace is None:
        return not_found(
            "Trace",
            "It may arrive within a second (this page looks again), it was not sampled, it was pushed out by "
            "newer ones, or the viewer was started anew.",
            version=store.version,
        )
    errors = store.errors_of(trace_id)
    return page(
        root_of(trace.spans.values()).name,
        element("p", element("a", "All traces and errors", href="/"), class_="back"),
        element("h1", root_of(trace.spans.values()).name),
        _facts(store, trace),
        element("section", element("h2", "Errors"), *map(_error, errors)) if errors else None,
        element("section", element("h2", "Spans"), _waterfall(store, trace, errors)),
        version=store.version,
    )


def _facts(store: SignalStore, trace: Trace) -> Markup:
    spans = str(len(trace.spans))
    if trace.left_out:
        spans += f", {trace.left_out} more were not kept"
    return definitions(
        {
            "Trace": element("code", trace.trace_id),
            "Started": write_time(trace.start),
            "Duration": write_duration(trace.end - trace.start),
            "Spans": spans,
            "Outcome": write_status(trace.failed_spans),
            "Services": write_services(services(store, trace)),
        },
        layout="row",
    )


def _error(error: ErrorReport) -> Markup:
    summary = element(
        "summary",
        element("b", error.type),
        " ",
        element("span", error.message.partition("\n")[0], class_="message"),
        " ",
        write_time(error.at),
    )
    more = element("p", element("a", "All about this error", href=f"/errors/{error.event_id}"))
    return element(
        "details", summary, stacks(error), more, id=f"error-{error.event_id}", class_="panel error"
    )


def _waterfall(store: SignalStore, trace: Trace, errors: list[ErrorReport]) -> Markup:
    reported = {error.span_id: error for error in errors if error.span_id}
    rows = [
        _row(store, row, trace, reported.get(row.span.span_id))
        for row in arrange(trace.spans.values())
    ]
    total = trace.end - trace.start
    scale = element(
        "div",
        *(element("span", write_duration(total * part // 4)) for part in range(5)),
        class_="scale",
        aria_hidden="true",
    )
    columns: list[tuple[Child, str]] = [
        ("Operation", "operation"),
        (fragment("Timeline", scale), "timeline"),
        ("Duration", "number"),
    ]
    return table("Spans, each below the one that it is part of", columns, rows, "spans")


def _row(store: SignalStore, row: Row, trace: Trace, report: ErrorReport | None) -> Markup:
    span = row.span
    process = store.process_name(span)
    hue = colour(store.process_index(span))
    notes = [
        element("span", "failed", class_="badge bad") if span.failed else None,
        element("a", "error", href=f"#error-{report.event_id}", class_="badge bad")
        if report
        else None,
        element("span", "parent not here", class_="badge odd") if row.detached else None,
    ]
    summary = element(
        "summary",
        element("span", element("i", class_=f"dot {hue}"), span.name, class_="name"),
        element("span", f"{process}, {span.kind}", class_="quiet"),
        *(fragment(" ", note) for note in notes if note),
        element("span", _told(span.attributes), class_="told"),
    )
    return element(
        "tr",
        element(
            "th",
            element("details", summary, _details(row), id=f"span-{span.span_id}"),
            scope="row",
            class_=f"operation d{min(row.depth, DEEPEST)}",
        ),
        element("td", _bar(row, trace, hue), class_="timeline"),
        element("td", write_duration(span.end - span.start), class_="number"),
        class_="failed" if span.failed else None,
    )


def _told(attributes: dict[str, Any]) -> str:
    """Return in one line what tells most: the answer, the statement, the address, the service's own."""
    told = [f"HTTP {attributes[STATUS]}"] if STATUS in attributes else []
    told += [_write(attributes[name]) for name in TELLING if name in attributes]
    told += [f"{name}={_write(value)}" for name, value in attributes.items() if "." not in name]
    return ", ".join(told)


def _write(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _details(row: Row) -> Markup:
    span = row.span
    facts: dict[str, Markup | str] = {
        "status": span.status_message,
        "span id": span.span_id,
        "process id": span.instance,
        **{name: _write(value) for name, value in sorted(span.attributes.items())},
    }
    for number, event in enumerate(span.events):
        for name, value in event.attributes.items():
            facts[f"event {number + 1} ({event.name}) {name}"] = _write(value)
    return definitions(facts)


def _bar(row: Row, trace: Trace, hue: str) -> Markup:
    span = row.span
    total = max(1, trace.end - trace.start)
    width = max(_LEAST, round((span.end - span.start) / total * _WIDTH))
    begin = min(_WIDTH - width, round((span.start - trace.start) / total * _WIDTH))
    return element(
        "svg",
        element("rect", x=begin, y=0, width=width, height=10, class_=hue),
        viewBox=f"0 0 {_WIDTH} 10",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"begins after {write_duration(span.start - trace.start)}",
    )

"""GET /: the newest traces and the newest errors."""

from typing import Final

from starlette.responses import Response

from sandbox.signals_viewer.documents import services
from sandbox.signals_viewer.layout import (
    count,
    empty,
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
from sandbox.signals_viewer.waterfall import root_of

_RENAME: Final = (
    'import sqlite3; sqlite3.connect("var/glasshouse.db").execute("ALTER TABLE {} RENAME TO {}")'
)
TAKE_AWAY: Final = _RENAME.format("orders", "lost")
GIVE_BACK: Final = _RENAME.format("lost", "orders")


def overview(store: SignalStore) -> Response:
    """Return the first page."""
    traces, errors = store.traces(), store.errors()
    failed = sum(trace.failed_spans > 0 for trace in traces)
    figures = element(
        "ul",
        _figure(len(traces), "trace", "#traces"),
        _figure(failed, "failed trace", "#traces", bad=failed > 0),
        _figure(len(errors), "error", "#errors", bad=bool(errors)),
        class_="figures",
    )
    return page(
        "Traces and errors",
        element("h1", "Traces and errors"),
        figures,
        element(
            "div",
            element("section", element("h2", "Traces"), _traces(store, traces), id="traces"),
            element("section", element("h2", "Errors"), _errors(store, errors), id="errors"),
            class_="columns",
        ),
        version=store.version,
    )


def _figure(number: int, noun: str, target: str, *, bad: bool = False) -> Markup:
    name = count(number, noun).removeprefix(f"{number} ")
    return element(
        "li",
        element("a", element("b", str(number)), f" {name}", href=target),
        class_="bad" if bad else None,
    )


def _traces(store: SignalStore, traces: list[Trace]) -> Markup:
    if not traces:
        return empty(
            "No traces yet",
            "Paste the journey that ",
            element("code", "make run"),
            " printed into a second terminal, or try a call on the API's documentation page (its address "
            "was printed, too). A trace shows here about a second after the request; the worker's part "
            "joins it.",
        )
    columns: list[tuple[Child, str]] = [
        ("Started", "time"),
        ("Request or job", ""),
        ("Services", "wide"),
        ("Spans", "number"),
        ("Duration", "number"),
        ("Outcome", ""),
    ]
    return table("Traces, newest first", columns, [_trace(store, one) for one in traces], "traces")


def _trace(store: SignalStore, trace: Trace) -> Markup:
    root = root_of(trace.spans.values())
    errors = store.errors_of(trace.trace_id)
    return element(
        "tr",
        element("td", write_time(trace.start), class_="time"),
        element(
            "td",
            element("a", root.name, href=f"/traces/{trace.trace_id}", class_="name"),
            element("span", trace.trace_id, class_="id"),
        ),
        element("td", write_services(services(store, trace)), class_="wide"),
        element("td", str(len(trace.spans)), class_="number"),
        element("td", write_duration(trace.end - trace.start), class_="number"),
        element(
            "td",
            write_status(trace.failed_spans),
            fragment(" ", element("span", count(len(errors), "error"), class_="badge bad"))
            if errors
            else None,
        ),
    )


def _errors(store: SignalStore, errors: list[ErrorReport]) -> Markup:
    if not errors:
        return empty(
            "No errors",
            "Exceptions that nothing handled are reported here, with their stack and the trace that they "
            "happened in. Answers such as 404 or a declined card are none. To see one, take a table away, "
            "place an order, and give the table back: ",
            element("code", f"python3 -c '{TAKE_AWAY}'", class_="command"),
            element("code", f"python3 -c '{GIVE_BACK}'", class_="command"),
        )
    columns: list[tuple[Child, str]] = [("Time", "time"), ("Error", ""), ("Trace", "")]
    return table("Errors, newest first", columns, [_error(store, one) for one in errors], "errors")


def _error(store: SignalStore, error: ErrorReport) -> Markup:
    shown = error.trace_id and store.trace(error.trace_id)
    return element(
        "tr",
        element("td", write_time(error.at), class_="time"),
        element(
            "td",
            element("a", error.type, href=f"/errors/{error.event_id}", class_="name"),
            element("span", error.message or "(no message)", class_="message"),
            element("span", error.route or "outside of a request", class_="route"),
        ),
        element(
            "td",
            element("a", "trace", href=f"/traces/{error.trace_id}")
            if shown
            else element("span", "none" if not error.trace_id else "not here", class_="quiet"),
        ),
    )

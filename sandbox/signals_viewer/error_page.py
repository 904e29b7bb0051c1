"""GET /errors/{event_id}: one error with its stack; the trace page shows the same in short."""

from itertools import groupby

from starlette.responses import Response

from sandbox.signals_viewer.layout import count, not_found, page, write_time
from sandbox.signals_viewer.markup import Markup, element, fragment
from sandbox.signals_viewer.signals import Breadcrumb, ErrorReport, Frame, Raised
from sandbox.signals_viewer.store import SignalStore


def error_page(store: SignalStore, event_id: str) -> Response:
    """Return the page of one error, or say that it is not kept."""
    error = store.error(event_id)
    if error is None:
        return not_found(
            "Error",
            "It was pushed out by newer ones, or the viewer was started anew.",
            version=store.version,
        )
    return page(
        error.type,
        element("p", element("a", "All traces and errors", href="/"), class_="back"),
        element("h1", error.type),
        element("p", error.message, class_="lead") if error.message else None,
        _facts(store, error),
        element("section", element("h2", "Stack"), stacks(error)),
        _breadcrumbs(error.breadcrumbs),
        version=store.version,
    )


def _facts(store: SignalStore, error: ErrorReport) -> Markup:
    trace = (
        element("a", error.trace_id, href=f"/traces/{error.trace_id}#error-{error.event_id}")
        if store.trace(error.trace_id)
        else f"{error.trace_id} (not here)"
        if error.trace_id
        else "none"
    )
    facts: dict[str, Markup | str] = {
        "Time": write_time(error.at),
        "Route": error.route or "outside of a request",
        "Trace": trace,
        "Service": error.service or "unknown",
        "Release": error.release,
        **{name: value for name, value in error.tags.items() if name not in {"service", "route"}},
    }
    return definitions(facts)


def definitions(facts: dict[str, Markup | str], layout: str = "list") -> Markup:
    """Return names with their values, as a `list` or in a `row`; what is empty is left out."""
    pairs = (
        element("div", element("dt", name), element("dd", value))
        for name, value in facts.items()
        if value
    )
    return element("dl", *pairs, class_=f"facts {layout}")


def stacks(error: ErrorReport) -> Markup:
    """Return the chain of exceptions, what was reported first, each with its calls, the innermost first."""
    return fragment(
        *(
            _stack(raised, f"{error.event_id}-{number}")
            for number, raised in enumerate(reversed(error.chain))
        )
    )


def _stack(raised: Raised, name: str) -> Markup:
    said = f"{raised.type}: {raised.message}" if raised.message else raised.type
    runs = [(ours, list(run)) for ours, run in groupby(reversed(raised.frames), lambda f: f.ours)]
    calls = [
        _fold(run, f"{name}-{number}") if not ours and len(runs) > 1 else fragment(*map(_call, run))
        for number, (ours, run) in enumerate(runs)
    ]
    return element(
        "div",
        element("p", said, class_="raised"),
        element("ol", *calls, class_="frames") if calls else None,
        class_="panel stack",
    )


def _fold(frames: list[Frame], name: str) -> Markup:
    # A driver's twenty calls hide the one line of ours that one looks for.
    summary = element("summary", f"{count(len(frames), 'call')} in libraries")
    inside = element("ol", *map(_call, frames), class_="frames")
    return element("li", element("details", summary, inside, id=name), class_="fold")


def _call(frame: Frame) -> Markup:
    return element(
        "li",
        element("code", frame.code or "(no source)", class_="code"),
        element("span", f"{frame.function}, {frame.place}", class_="quiet"),
        class_="ours" if frame.ours else None,
    )


def _breadcrumbs(crumbs: tuple[Breadcrumb, ...]) -> Markup | None:
    if not crumbs:
        return None
    lines = (
        element(
            "li",
            element("b", crumb.category),
            f" {crumb.message} ",
            element("span", ", ".join(f"{k}={v}" for k, v in crumb.data.items()), class_="quiet"),
        )
        for crumb in crumbs
    )
    return element(
        "section", element("h2", "Before it"), element("ol", *lines, class_="panel crumbs")
    )

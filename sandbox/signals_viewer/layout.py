"""What all pages share: the frame, how times and durations are written, how services look.

A page is one file: style.css and refresh.js are written into it, and its Content-Security-Policy allows
these two by their hash and nothing else, so that a script in a span's name would not run even if it got
through markup.py. Hence no style attributes either: bars are SVG, colours and indents are classes.
"""

import base64
import hashlib
from pathlib import Path
from typing import Final

from starlette.responses import Response

from sandbox.signals_viewer.documents import milliseconds, moment
from sandbox.signals_viewer.markup import Child, Markup, element

_HERE: Final = Path(__file__).parent
_STYLE: Final = (_HERE / "style.css").read_text("utf-8")
_SCRIPT: Final = (_HERE / "refresh.js").read_text("utf-8")
_COLOURS: Final = 8
"""How many classes .s0, .s1 ... style.css has."""
_SECOND_MS: Final = 1_000


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page(title: str, *content: Child, version: str, status: int = 200) -> Response:
    """Return the answer that is a page; `version` is that of the store which it shows."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} · Glasshouse signals"),
        element("link", rel="icon", href="data:,"),
        element("style", Markup(_STYLE)),
    )
    refresh = element(
        "label",
        element("input", type="checkbox", id="refresh", checked=True),
        element("span", "Live", id="refresh-state"),
        class_="refresh",
        hidden=True,
    )
    header = element(
        "header",
        element("a", _mark(), element("span", "Glasshouse signals"), href="/", class_="brand"),
        refresh,
    )
    notice = element(
        "p",
        element("strong", "Development viewer: "),
        "the newest traces and errors of this machine, in memory only. ",
        "Set ",
        element("code", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        " and ",
        element("code", "SENTRY_DSN"),
        " to send them to a real trace store and error tracker instead.",
        class_="notice",
    )
    body = element(
        "body",
        header,
        notice,
        element("main", *content, data_version=version),
        element("script", Markup(_SCRIPT)),
    )
    document = Markup("<!doctype html>") + element("html", head, body, lang="en")
    return Response(document, status, _HEADERS, "text/html")


def _mark() -> Markup:
    bars = ((0, 2, 14), (5, 8, 9), (9, 14, 11))
    return element(
        "svg",
        *(element("rect", x=x, y=y, width=width, height=4, rx=1) for x, y, width in bars),
        viewBox="0 0 20 20",
        aria_hidden="true",
    )


def write_time(nanoseconds: int) -> Markup:
    """Return a moment as this machine's time of day."""
    at = moment(nanoseconds)
    local = at.astimezone()
    day = f"{local:%Y-%m-%d}"
    text = f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}"
    return element("time", text, datetime=at.isoformat(), title=f"{day} {text}")


def write_duration(nanoseconds: int) -> str:
    """Return a duration with three digits or so: 0.42 ms, 12.3 ms, 1.50 s."""
    duration = milliseconds(nanoseconds)
    if duration >= _SECOND_MS:
        return f"{duration / _SECOND_MS:.2f} s"
    return f"{duration:.2f} ms" if duration < 10 else f"{duration:.1f} ms"  # noqa: PLR2004 - digits


def colour(index: int) -> str:
    """Return the class that colours the process of this number."""
    return f"s{index % _COLOURS}"


def write_services(services: dict[str, int]) -> Markup:
    """Return the processes of a trace, each with its colour."""
    return element(
        "ul",
        *(
            element("li", element("i", class_=f"dot {colour(index)}"), element("span", name))
            for name, index in services.items()
        ),
        class_="services",
    )


def write_status(failed: int) -> Markup:
    """Return whether all went well, or how many spans failed."""
    if not failed:
        return element("span", "ok", class_="badge good")
    return element("span", f"{failed} failed", class_="badge bad")


def count(number: int, noun: str) -> str:
    """Return `1 span`, `2 spans`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def empty(title: str, *text: Child) -> Markup:
    """Return what stands where nothing is yet: it says what to do."""
    return element("div", element("h3", title), element("p", *text), class_="empty")


def table(caption: str, columns: list[tuple[Child, str]], rows: list[Markup], kind: str) -> Markup:
    """Return a table; `columns` are headings with the class of their column."""
    headings = (
        element("th", heading, scope="col", class_=class_ or None) for heading, class_ in columns
    )
    return element(
        "div",
        element(
            "table",
            element("caption", caption, class_="hidden"),
            element("thead", element("tr", *headings)),
            element("tbody", *rows),
            class_=kind,
        ),
        class_="panel",
    )


def not_found(what: str, *text: Child, version: str) -> Response:
    """Return the page for what is not kept (any more); `what` is its name."""
    back = element("p", element("a", "All traces and errors", href="/"), class_="back")
    content = empty(f"This {what.lower()} is not here", *text)
    title = f"{what} not found"
    return page(title, back, element("h1", title), content, version=version, status=404)

"""The frame of every page, and how times are written.

A page is one file: style.css and refresh.js are written into it, and its Content-Security-Policy allows these
two by their hash and nothing else, so that a script in an alert's text would not run even if it got through.
"""

import base64
import hashlib
from datetime import datetime
from pathlib import Path
from typing import Final

from starlette.responses import Response

from sandbox.signals_viewer.markup import Child, Markup, element

_HERE: Final = Path(__file__).parent
_STYLE: Final = (_HERE / "style.css").read_text("utf-8")
_SCRIPT: Final = (_HERE / "refresh.js").read_text("utf-8")


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


def page(title: str, *content: Child, version: str = "", status: int = 200) -> Response:
    """Return the answer that is a page; with the `version` of what it shows it refreshes itself."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} · Glasshouse notifications"),
        element("link", rel="icon", href="data:,"),
        element("style", Markup(_STYLE)),
    )
    header = element(
        "header",
        element(
            "a", _bell(), element("span", "Glasshouse notifications"), href="/", class_="brand"
        ),
        element(
            "nav",
            element("a", "Runbooks", href="/runbooks"),
            element("span", "Live", id="state", class_="quiet") if version else None,
        ),
    )
    notice = element(
        "p",
        element("strong", "Local receiver: "),
        "what Alertmanager sent to people, wherever else it went. E-mail is in Mailpit. ",
        "With secrets for Slack, PagerDuty or SMTP (monitoring/alertmanager/start.sh), ",
        "these go to the real services, and the webhooks still come here.",
        class_="notice",
    )
    body = element(
        "body",
        header,
        notice,
        element("main", *content, data_version=version or None),
        element("script", Markup(_SCRIPT)) if version else None,
    )
    document = Markup("<!doctype html>") + element("html", head, body, lang="en")
    return Response(document, status, _HEADERS, "text/html")


def _bell() -> Markup:
    # Of rectangles, since markup.py closes what it knows.
    bars = ((9, 1, 2, 3, 1), (5, 4, 10, 9, 4), (3, 12, 14, 2, 1), (8, 15, 4, 3, 1))
    return element(
        "svg",
        *(element("rect", x=x, y=y, width=w, height=h, rx=r) for x, y, w, h, r in bars),
        viewBox="0 0 20 20",
        aria_hidden="true",
    )


def write_time(at: datetime) -> Markup:
    """Return a moment as this machine's date and time of day."""
    local = at.astimezone()
    return element("time", f"{local:%Y-%m-%d %H:%M:%S}", datetime=at.isoformat())


def empty(title: str, *text: Child) -> Markup:
    """Return what stands where nothing is yet: it says what to do."""
    return element("div", element("h3", title), element("p", *text), class_="empty")

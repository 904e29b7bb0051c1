"""The pages: GET / with the newest notifications, GET /runbooks and GET /runbooks/{name}."""

from typing import Final

from starlette.responses import Response

from sandbox.notifications.channels import NAMES
from sandbox.notifications.documents import show
from sandbox.notifications.layout import empty, page, write_time
from sandbox.notifications.runbooks import Runbooks, names_after
from sandbox.notifications.shown import Channel, Paragraph, Part
from sandbox.notifications.store import WATCHDOG, NotificationStore, Stored
from sandbox.signals_viewer.markup import Markup, element

SHOWN: Final = 100
"""Notifications on the page; GET /v1/notifications has all."""
_SEVERITIES: Final = {"critical", "error", "warning", "info"}


def overview(store: NotificationStore, channel: Channel | None) -> Response:
    """Return the first page: of all channels, or of one."""
    version = store.version()
    notifications = store.newest(channel=channel, limit=SHOWN, without_watchdog=True)
    heading = f"Notifications: {NAMES[channel]}" if channel else "Notifications"
    return page(
        heading,
        element("h1", "Notifications"),
        element("div", _filters(channel), _watchdog(store), class_="bar"),
        *(_notification(stored) for stored in notifications),
        None if notifications else _nothing(channel),
        version=version,
    )


def _filters(chosen: Channel | None) -> Markup:
    entries = [("All", "/", chosen is None)]
    entries += [(NAMES[name], f"/?channel={name}", chosen == name) for name in NAMES]
    links = (
        element("a", text, href=href, aria_current="page" if current else None)
        for text, href, current in entries
    )
    return element("nav", *links, class_="filters", aria_label="Channels")


def _watchdog(store: NotificationStore) -> Markup:
    heard = store.newest(receiver=WATCHDOG, limit=1)
    if not heard:
        return element("p", "The watchdog has not been heard yet.", class_="watchdog quiet")
    return element("p", "Watchdog last heard ", write_time(heard[0].received_at), class_="watchdog")


def _notification(stored: Stored) -> Markup:
    shown = show(stored)
    resolved = shown.status == "resolved"
    severity = shown.severity if shown.severity in _SEVERITIES else "unknown"
    return element(
        "article",
        element(
            "p",
            element("span", shown.status, class_=f"badge {'good' if resolved else 'bad'}"),
            element("span", shown.severity, class_=f"badge {severity}") if shown.severity else None,
            element("span", NAMES[stored.channel], class_="channel"),
            element("span", f"receiver {shown.receiver}" if shown.receiver else ""),
            write_time(stored.received_at),
            class_="meta",
        ),
        element("h2", _part(shown.title)),
        *map(_paragraph, shown.paragraphs),
        id=f"n{stored.id}",
        class_="resolved" if resolved else f"firing {severity}",
    )


def _paragraph(paragraph: Paragraph) -> Markup:
    # What is set in bold begins something: the next alert of the message, the next detail.
    begins = any(piece.strong for piece in paragraph)
    return element("p", *map(_part, paragraph), class_="head" if begins else None)


def _part(piece: Part) -> Markup:
    text = element("b", piece.text) if piece.strong else element("span", piece.text)
    return element("a", text, href=piece.url, rel="noreferrer") if piece.url else text


def _nothing(channel: Channel | None) -> Markup:
    what = f"Nothing came by {NAMES[channel]} yet" if channel else "No notifications yet"
    return empty(
        what,
        "An alert shows here when Alertmanager's group_wait has passed. To see one at once: ",
        element(
            "code",
            "amtool alert add TryOut severity=critical service=glasshouse environment=development "
            '--annotation=summary="A try-out" --alertmanager.url=http://localhost:9093',
            class_="command",
        ),
    )


def runbook_list(runbooks: Runbooks) -> Response:
    """Return the page with all runbooks."""
    kinds = names_after(runbooks.names())
    lists = (
        element(
            "section",
            element("h2", title),
            element(
                "ul",
                *(element("li", element("a", name, href=f"/runbooks/{name}")) for name in names),
                class_="names",
            ),
        )
        for title, names in kinds
    )
    nothing = (
        None if kinds else empty("No runbooks here", "NOTIFICATIONS_RUNBOOKS names their folder.")
    )
    return page("Runbooks", element("h1", "Runbooks"), *lists, nothing)


def runbook_page(runbooks: Runbooks, name: str) -> Response:
    """Return the page of one runbook, or say that there is none."""
    back = element("p", element("a", "All runbooks", href="/runbooks"), class_="back")
    content = runbooks.page(name)
    if content is None:
        missing = empty("There is no such runbook", "Each alert has one, by its name.")
        return page("Runbook not found", back, element("h1", "Runbook"), missing, status=404)
    return page(name, back, element("article", content, class_="runbook"))

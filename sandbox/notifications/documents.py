"""Notifications as JSON, for scripts and tests: GET /v1/notifications."""

from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_core import from_json

from sandbox.notifications.channels import READERS
from sandbox.notifications.shown import Part, Shown, links_of, text_of
from sandbox.notifications.store import Stored


def show(stored: Stored) -> Shown:
    """Return how a notification reads."""
    try:
        return READERS[stored.channel](from_json(stored.body))
    except (KeyError, ValidationError, ValueError):
        # An earlier version of this program took it.
        return Shown(stored.receiver, "firing", "", Part("(kept by an earlier version)"), ())


def describe(stored: Stored) -> dict[str, Any]:
    """Return a notification; `payload` is what was sent, as it was sent."""
    shown = show(stored)
    return {
        "id": stored.id,
        "received_at": stored.received_at.isoformat(),
        "channel": stored.channel,
        "receiver": shown.receiver,
        "status": shown.status,
        "severity": shown.severity,
        "title": shown.title.text,
        "text": text_of(shown),
        "alerts": list(shown.alerts),
        "links": [{"text": link.text, "url": link.url} for link in links_of(shown)],
        "payload": orjson.Fragment(stored.body),
    }

"""PagerDuty's Events API v2: events that open, or resolve, an incident under a deduplication key.

https://developer.pagerduty.com/docs/send-alert-event
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from sandbox.notifications.shown import MAX_PARAGRAPHS, Paragraph, Shown, in_a_row, part

MAX_SUMMARY: Final = 1_024

_Key = Annotated[str, Field(min_length=32, max_length=32)]
"""An integration key has 32 characters; a shorter one is refused there, too."""


class Link(BaseModel):
    """A link of the incident."""

    href: str
    text: str = ""


class Payload(BaseModel):
    """What happened."""

    summary: Annotated[str, Field(min_length=1, max_length=MAX_SUMMARY)]
    source: Annotated[str, Field(min_length=1)]
    severity: Literal["critical", "error", "warning", "info"]
    custom_details: dict[str, Any] = Field(default_factory=dict)


class Event(BaseModel):
    """The event. A resolved incident needs its key and no payload."""

    routing_key: _Key
    event_action: Literal["trigger", "acknowledge", "resolve"]
    dedup_key: Annotated[str, Field(max_length=255)] = ""
    payload: Payload | None = None
    client_url: str = ""
    links: Annotated[list[Link], Field(max_length=100)] = Field(default_factory=list)


class IncompleteEvent(ValueError):
    """PagerDuty refuses it, too."""


def read_pagerduty(message: Any) -> Shown:
    """Return what to show of an event.

    Raises:
        pydantic.ValidationError: It is not one.
        IncompleteEvent: It opens an incident of which it says nothing, or ends one without naming it.
    """
    event = Event.model_validate(message)
    if event.event_action == "trigger" and event.payload is None:
        raise IncompleteEvent("an event that triggers needs a payload")
    if event.event_action != "trigger" and not event.dedup_key:
        raise IncompleteEvent("an event that acknowledges or resolves needs a dedup_key")
    payload = event.payload
    details = payload.custom_details if payload else {}
    return Shown(
        receiver=part(str(details.get("receiver", ""))).text,
        status="resolved" if event.event_action == "resolve" else "firing",
        severity=payload.severity if payload else "",
        title=part(payload.summary if payload else event.dedup_key, event.client_url),
        paragraphs=tuple(_paragraphs(details, event.links))[:MAX_PARAGRAPHS],
    )


def _paragraphs(details: dict[str, Any], links: list[Link]) -> list[Paragraph]:
    lines: list[Paragraph] = []
    for name, value in details.items():
        text = "" if value is None else str(value).strip()
        if not text:
            continue
        first, *rest = text.split("\n")
        lines.append((part(f"{name}: ", strong=True), part(first)))
        lines += [(part(line),) for line in rest if line]
    lines.append(in_a_row([part(link.text or link.href, link.href) for link in links]))
    return [line for line in lines if line]

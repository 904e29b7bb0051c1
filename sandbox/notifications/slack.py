"""Slack's incoming webhooks: attachments with text in its own marks (mrkdwn), read as Slack shows them.

https://docs.slack.dev/messaging/formatting-message-text
"""

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from sandbox.notifications.shown import MAX_PARAGRAPHS, Paragraph, Part, Shown, Status, part

_MARK: Final = re.compile(r"<([^<>|]*)(?:\|([^<>]*))?>|\*([^*\n]+)\*")
_RECEIVER: Final = re.compile(r"receiver (\S+)$")
_SEVERITY: Final = re.compile(r"severity (\w+)")
_RESOLVED_COLOUR: Final = "good"
_EMOJI: Final = {":white_check_mark:": "✔", ":rotating_light:": "⚠"}


class Attachment(BaseModel):
    """One attachment of the message."""

    title: str = ""
    title_link: str = ""
    text: str = ""
    fallback: str = ""
    footer: str = ""
    color: str = ""


class SlackMessage(BaseModel):
    """The message; Alertmanager sends one attachment, people who try it out send `text`."""

    text: str = ""
    attachments: Annotated[list[Attachment], Field(max_length=100)] = Field(default_factory=list)


class EmptyMessage(ValueError):
    """Slack refuses it with `no_text`."""


def read_slack(message: Any) -> Shown:
    """Return what to show of a message.

    Raises:
        pydantic.ValidationError: It is not one.
        EmptyMessage: There is nothing in it.
    """
    sent = SlackMessage.model_validate(message)
    if not sent.text and not any(one.title or one.text for one in sent.attachments):
        raise EmptyMessage("neither text nor an attachment with a title or a text")
    first = sent.attachments[0] if sent.attachments else Attachment(title=sent.text)
    body = "\n".join(one.text for one in sent.attachments)
    receiver, severity = _RECEIVER.search(first.footer), _SEVERITY.search(body)
    resolved = first.color == _RESOLVED_COLOUR
    status: Status = "resolved" if resolved else "firing"
    return Shown(
        receiver=part(receiver[1]).text if receiver else "",
        status=status,
        severity=part(severity[1]).text if severity else "",
        title=part(_unescape(first.title or first.fallback), first.title_link),
        paragraphs=tuple(_paragraph(line) for line in body.split("\n") if line)[:MAX_PARAGRAPHS],
    )


def _paragraph(line: str) -> Paragraph:
    parts: list[Part] = []
    end = 0
    for mark in _MARK.finditer(line):
        parts.append(part(_unescape(line[end : mark.start()])))
        parts.append(_marked(mark))
        end = mark.end()
    parts.append(part(_unescape(line[end:])))
    return tuple(one for one in parts if one.text)


def _marked(mark: re.Match[str]) -> Part:
    target, text, strong = mark.groups()
    if strong is not None:
        return part(_unescape(strong), strong=True)
    return part(_unescape(text or target), _unescape(target))


def _unescape(text: str) -> str:
    # These three and no others: Slack shows &quot; as it stands.
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    for name, sign in _EMOJI.items():
        text = text.replace(name, sign)
    return text

"""What a notification is for its reader, whichever channel it came by: a title, paragraphs, links.

Everything here passed `clean`: no page and no document has to think of it again.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from sandbox.signals_viewer.signals import clean

Channel = Literal["webhook", "slack", "pagerduty"]
Status = Literal["firing", "resolved"]

MAX_PARAGRAPHS: Final = 500
"""A message of a hundred alerts has as many; nobody reads further."""
MAX_URL: Final = 4_096


@dataclass(frozen=True, slots=True)
class Part:
    """A run of text; `url` makes it a link."""

    text: str
    url: str = ""
    strong: bool = False


Paragraph: TypeAlias = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """A notification as its channel would show it."""

    receiver: str
    """The receiver of Alertmanager's that it was for; empty if the message does not say."""
    status: Status
    severity: str
    title: Part
    paragraphs: tuple[Paragraph, ...]
    alerts: tuple[str, ...] = ()
    """The names of the alerts, where the channel tells them."""


def part(text: str, url: str = "", *, strong: bool = False) -> Part:
    """Return text from outside as a part; what is no web address becomes no link."""
    return Part(clean(text), url if is_web_address(url) else "", strong)


def in_a_row(links: list[Part]) -> Paragraph:
    """Return links as one paragraph, with dots between them; without links an empty one."""
    spread: list[Part] = []
    for link in links:
        spread += [Part(" · "), link] if spread else [link]
    return tuple(spread)


def is_web_address(url: str) -> bool:
    """Whether a link may lead there: `javascript:` and its like may not be clicked."""
    try:
        pieces = urlsplit(url)
    except ValueError:
        return False
    return pieces.scheme in {"http", "https"} and bool(pieces.netloc) and len(url) <= MAX_URL


def text_of(shown: Shown) -> str:
    """Return everything that is shown as plain text, a line for each paragraph."""
    lines = ["".join(piece.text for piece in paragraph) for paragraph in shown.paragraphs]
    return "\n".join([shown.title.text, *lines])


def links_of(shown: Shown) -> list[Part]:
    """Return the links, in the order of reading."""
    parts = [shown.title, *(piece for paragraph in shown.paragraphs for piece in paragraph)]
    return [piece for piece in parts if piece.url]

"""What the viewer keeps: spans and error reports, cut to what a person reads.

Everything that comes from outside is text of any length and any content: `clean` is what it has to pass
to get in here, so that no page and no document has to think of it again.
"""

from dataclasses import dataclass, field
from typing import Any, Final

MAX_TEXT: Final = 4_096
"""Characters of one value; what is longer ends in an ellipsis."""
MAX_NAME: Final = 256

_CONTROLS = {*range(32), *range(127, 160)} - {ord("\n"), ord("\t")}
_TURNS_TEXT_AROUND = {0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_REPLACED: Final = dict.fromkeys(_CONTROLS | _TURNS_TEXT_AROUND, "\ufffd") | {ord("\r"): ""}


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Return `text` without invisible characters that make a page say something else, and not too long."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return cut.translate(_REPLACED)


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened at one moment of a span, such as an exception."""

    name: str
    at: int
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """One operation; ids in lower-case hexadecimal (a root has no `parent_id`), times in Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    instance: str
    """Tells apart the processes of one service (`service.instance.id`)."""
    name: str
    kind: str
    start: int
    end: int
    failed: bool
    status_message: str
    attributes: dict[str, Any]
    events: tuple[SpanEvent, ...]
    size: int
    """Roughly what it takes, in bytes."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a stack."""

    place: str
    """File and line."""
    function: str
    code: str
    ours: bool
    """Whether it is the application's own and not a library's."""


@dataclass(frozen=True, slots=True)
class Raised:
    """One exception of a chain; the innermost call is the last frame."""

    type: str
    message: str
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Breadcrumb:
    """What the request did before it failed."""

    category: str
    message: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """One reported error; `at` is when it arrived, in Unix nanoseconds."""

    event_id: str
    at: int
    type: str
    message: str
    service: str
    route: str
    trace_id: str
    span_id: str
    release: str
    size: int
    """Roughly what it takes, in bytes."""
    tags: dict[str, str] = field(default_factory=dict)
    chain: tuple[Raised, ...] = ()
    """Cause first, what was reported last."""
    breadcrumbs: tuple[Breadcrumb, ...] = ()

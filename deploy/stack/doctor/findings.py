"""What a check finds, and how it says that it could not."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "failed", "not checked"]


class Failed(Exception):
    """Something is not as it has to be.

    Args:
        seen: What was found instead.
        remedy: What to do about it.
    """

    def __init__(self, seen: str, remedy: str) -> None:
        super().__init__(seen)
        self.seen = seen
        self.remedy = remedy


class NotChecked(Exception):
    """It cannot be known; the text is the reason."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    component: str
    check: str
    status: Status
    seen: str
    remedy: str = ""
    seconds: float = 0.0


def listed(names: Iterable[str], most: int = 6) -> str:
    """Return names as a person reads them: the first ones, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more

"""A request of a customer and its answer, whoever carries them: locust under load, anything else in tests."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

UNANSWERED = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes:
        name: The route's template, under which requests are counted together.
        expected: The statuses that are well; empty for any answer at all.
    """

    method: str
    path: str
    name: str
    expected: Collection[int]
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; the status is UNANSWERED where nothing did."""

    status: int
    body: Any = None
    retry_after: float = 0.0

    @property
    def fields(self) -> dict[str, Any]:
        """The body, if it is an object."""
        return self.body if isinstance(self.body, dict) else {}


class Http(Protocol):
    """Carries requests."""

    def ask(self, request: Request) -> Answer:
        """Return the answer; never raise because there is none."""


def is_well(request: Request, answer: Answer) -> bool:
    """Whether an answer is one of those that are well."""
    if answer.status == UNANSWERED:
        return False
    return not request.expected or answer.status in request.expected

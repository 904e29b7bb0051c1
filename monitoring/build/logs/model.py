"""What an alert on log lines is: an alert whose expression is LogQL, with the lines that prove it.

promtool knows no LogQL: tests/monitoring/test_loki_live.py sends the lines of each case to a real Loki.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from monitoring.build.model import Alert, Fires, Silent


@dataclass(frozen=True, slots=True)
class Line:
    """Lines as the collector hands them over.

    With `fields` it is one of ours: JSON, whose fields are structured metadata as well. With `text` it is
    what another program wrote. `age` is how long ago it was said when the rule is evaluated.
    """

    service: str
    fields: Mapping[str, str | int | float] = field(default_factory=dict)
    text: str = ""
    times: int = 1
    age: str = "1m"
    audit: bool = False
    """Whether it is of the stream that is kept for longer."""


@dataclass(frozen=True, slots=True)
class Alarming:
    """Proof: after these lines the alert fires, once, with these labels of its own.

    `value` is how `{{ $value | ... }}` of the description then reads.
    """

    lines: tuple[Line, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    value: str = ""


@dataclass(frozen=True, slots=True)
class Harmless:
    """Proof: after these lines it does not fire; `why` says what is being told apart."""

    why: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogAlert(Alert):
    """An alert that Loki evaluates. `logs` is the query that shows its lines."""

    reason: str
    """Why no metric can tell it."""
    alarming: tuple[Alarming, ...]
    harmless: tuple[Harmless, ...]
    fires: tuple[Fires, ...] = ()
    silent: tuple[Silent, ...] = ()

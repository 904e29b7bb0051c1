"""Service level objectives as declared in `objectives.yml`: the one place that says what is good enough.

Read by the service for `/slo` (slo.py) and by `monitoring/build`, which makes rules and alerts of them.
An indicator is declared by its metric and label matchers, not as a query: so Prometheus and a process
that looks at its own counters work from the same lines.

Must never accept an objective whose alerts could not fire, or a number that is not exact.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

_MATCHER: Final = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(,|$)')
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Cause = Literal["database", "payment_provider", "cache", "broker", "worker", "api"]
"""What alerts exist for by itself, so that a symptom of it need not be told."""


class ObjectivesError(Exception):
    """The file of objectives cannot be used: one sentence for each mistake."""


def seconds(duration: str) -> int:
    """Return the seconds of a duration such as `5m` or `30d`.

    Raises:
        ValueError: It is not one number with one unit of s, m, h, d, w.
    """
    number, unit = duration[:-1], duration[-1:]
    if unit not in _UNITS or not number.isdecimal() or int(number) == 0:
        raise ValueError(f"{duration!r} is no duration such as 5m, 6h or 30d")
    return int(number) * _UNITS[unit]


@dataclass(frozen=True, slots=True)
class BurnWindow:
    """The budget burns `factor` times too fast over both windows: chapter 5 of Google's SRE workbook."""

    long: str
    short: str
    factor: Decimal
    severity: Literal["page", "ticket"]


BURN_WINDOWS: Final = (
    BurnWindow("1h", "5m", Decimal("14.4"), "page"),  # 2 % of 30 days' budget in an hour
    BurnWindow("6h", "30m", Decimal(6), "page"),  # 5 % in six hours
    BurnWindow("1d", "2h", Decimal(3), "ticket"),  # 10 % in a day
    BurnWindow("3d", "6h", Decimal(1), "ticket"),  # 10 % in three days
)


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label, as PromQL has it: a missing label is the empty string."""

    label: str
    operator: str
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a series with these labels is meant. Regular expressions match the whole value."""
        given = labels.get(self.label, "")
        if self.operator in {"=", "!="}:
            return (given == self.value) == (self.operator == "=")
        return (re.fullmatch(self.value, given) is not None) == (self.operator == "=~")

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.label}{self.operator}"{escaped}"'


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    r"""Return the conditions of `status=~"5..",handler!="/docs"`; an empty text has none.

    Raises:
        ValueError: The text is not a list of matchers, or an expression in it is none.
    """
    matchers = []
    position = 0
    while position < len(text.rstrip()):
        found = _MATCHER.match(text, position)
        if found is None:
            raise ValueError(f'{text!r} is no list of matchers such as status=~"5..",method="GET"')
        label, operator, value, _ = found.groups()
        value = re.sub(r"\\(.)", r"\1", value)
        if operator in {"=~", "!~"}:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is no regular expression: {error}") from None
        matchers.append(Matcher(label, operator, value))
        position = found.end()
    return tuple(matchers)


def _is_matchers(text: str) -> str:
    parse_matchers(text)
    return text


def _is_duration(text: str) -> str:
    seconds(text)
    return text


Matchers = Annotated[str, AfterValidator(_is_matchers)]
Duration = Annotated[str, AfterValidator(_is_duration), Field(pattern=r"^[1-9]\d*[smhdw]$")]
Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=60)]
MetricName = Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")]
Sentence = Annotated[str, Field(min_length=10)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Indicator(_Part):
    metric: MetricName
    job: Slug = Field(description="Scrape job of the processes whose series count.")
    where: Matchers = Field("", description="Which series count, as PromQL matchers.")

    @property
    def selection(self) -> tuple[Matcher, ...]:
        """The matchers of `where`."""
        return parse_matchers(self.where)


class RatioIndicator(_Indicator):
    """Of the events that a counter counts, those whose labels match `bad` are bad."""

    type: Literal["ratio"]
    bad: Annotated[Matchers, Field(min_length=1)] = Field(description="Which of them are bad.")

    @property
    def bad_selection(self) -> tuple[Matcher, ...]:
        """The matchers of `where` and `bad` together."""
        return (*self.selection, *parse_matchers(self.bad))


class LatencyIndicator(_Indicator):
    """Of the events that a histogram observes, those slower than the threshold are bad."""

    type: Literal["latency"]
    threshold_seconds: Decimal = Field(gt=0, description="A bound of the histogram's buckets.")


class FreshnessIndicator(_Indicator):
    """A moment is bad when a timestamp gauge, the newest of each `by`, is older than allowed."""

    type: Literal["freshness"]
    by: str = Field(
        pattern=r"^[a-zA-Z_]\w*$", description="Label that tells apart what must be fresh."
    )
    max_age_seconds: int = Field(gt=0)


class ProbeIndicator(_Indicator):
    """A moment is bad when a gauge that is 1 for "works" is 0."""

    type: Literal["probe"]


Indicator = Annotated[
    RatioIndicator | LatencyIndicator | FreshnessIndicator | ProbeIndicator,
    Field(discriminator="type"),
]


class Objective(_Part):
    """One promise: of all events (or moments) in the period, `target` percent are good."""

    name: Slug
    service: Slug
    journey: Slug = Field(description="What a person is doing, or `all`.")
    description: Sentence = Field(description="What is promised, for people.")
    owner: Slug = Field(description="The team that keeps the promise.")
    target: Decimal = Field(gt=0, lt=100, description="Percent of events that are good.")
    minimum_bad_events: int = Field(
        5, ge=2, description="Bad events in the long window without which no alert fires."
    )
    page: bool = Field(True, description="Whether burning fast wakes somebody up.")
    depends_on: tuple[Cause, ...] = Field(
        (), description="What, when it is down, explains the burning: nobody is told twice."
    )
    indicator: Indicator

    @property
    def ratio(self) -> Decimal:
        """The target as a ratio, exactly: 0.999 for 99.9."""
        return plain(self.target / 100)

    @property
    def budget(self) -> Decimal:
        """The share of events that may be bad, exactly: 0.001 for 99.9."""
        return plain(1 - self.target / 100)

    @property
    def runbook(self) -> str:
        """The name of its page in docs/runbooks."""
        return f"slo-{self.name}"

    @property
    def windows(self) -> tuple[BurnWindow, ...]:
        """The windows that it alerts on."""
        return tuple(window for window in BURN_WINDOWS if self.page or window.severity == "ticket")

    @model_validator(mode="after")
    def _alerts_can_fire(self) -> "Objective":
        for window in self.windows:
            if window.factor * self.budget >= 1:
                raise ValueError(
                    f"with a target of {self.target} % the budget cannot burn {window.factor} times too"
                    f" fast, so the alert over {window.long} could never fire: raise the target"
                    + (", or set page to false" if window.severity == "page" else "")
                )
        return self


class Objectives(_Part):
    """The file: a period, and what is promised over it."""

    period: Duration = "30d"
    objectives: tuple[Objective, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Objectives":
        names = [objective.name for objective in self.objectives]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"objectives share a name: {', '.join(twice)}")
        return self


def load_objectives(path: Path) -> Objectives:
    """Return what a file declares.

    Raises:
        ObjectivesError: It cannot be read, is no YAML, or declares something that cannot be.
    """
    try:
        declared = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ObjectivesError(f"{path}: {reason}") from None
    except yaml.YAMLError as error:
        raise ObjectivesError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    try:
        return Objectives.model_validate(declared)
    except ValidationError as error:
        sentences = (_sentence(declared, found) for found in error.errors(include_url=False))
        raise ObjectivesError(f"{path}: " + "; ".join(sentences)) from None


def _sentence(declared: Any, found: Any) -> str:
    """Return one mistake with the name of its objective: nobody counts list items."""
    where: list[str] = []
    for part in found["loc"]:
        if isinstance(part, int) and where == ["objectives"]:
            try:
                name = declared["objectives"][part]["name"]
            except (KeyError, TypeError):
                name = f"number {part + 1}"
            where = [f"objective {name}"]
        elif part not in {"ratio", "latency", "freshness", "probe"}:
            where.append(str(part))
    message = found["msg"].removeprefix("Value error, ")
    return f"{', '.join(where)}: {message}" if where else message


def plain(number: Decimal) -> Decimal:
    """Return the number without trailing zeros, and not in scientific notation when printed."""
    normal = number.normalize()
    return normal.quantize(Decimal(1)) if normal == normal.to_integral() else normal

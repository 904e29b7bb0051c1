"""What is known about each objective, and what follows from it: ok, burning, exhausted or no data.

The document that `/slo` answers with, and the one rule that makes a state of numbers, wherever these
come from: the windows and the minimum of bad events are those of the alerts, so that the answer and the
pager agree.

Must never call silence success: without an event there is no data, not 100 %.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, Field

from app.observability.service_levels.objectives import BURN_WINDOWS, BurnWindow, Objective, seconds

State = Literal["ok", "burning", "exhausted", "no_data"]
Source = Literal["prometheus", "process"]

WINDOWS: Final = tuple(
    sorted({name for pair in BURN_WINDOWS for name in (pair.long, pair.short)}, key=seconds)
)
"""Of all alerts, the shortest first."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known about one window. None: not known; a ratio without an event is not known."""

    error_ratio: float | None = None
    events: float | None = None
    bad_events: float | None = None
    covered_seconds: float | None = None
    """How much of the window was counted, where that is less than all of it."""


class BurnRate(BaseModel):
    """How fast the budget burns over one window: at 1 it lasts exactly for the period."""

    window: str = Field(examples=["1h"])
    burn_rate: float | None = Field(description="null: no event in the window.", examples=[0.4])
    events: float | None = None
    bad_events: float | None = None
    covered_seconds: float | None = Field(
        None, description="How much of the window was counted, where that is less than all of it."
    )


class Burning(BaseModel):
    """The budget burns too fast over both windows: what an alert fires for."""

    long: str = Field(examples=["1h"])
    short: str = Field(examples=["5m"])
    factor: str = Field(description="The burn rate that is too fast, exactly.", examples=["14.4"])
    severity: Literal["page", "ticket"]


class ObjectiveStatus(BaseModel):
    """One objective and how it stands."""

    name: str = Field(examples=["api-errors"])
    service: str
    journey: str
    description: str
    owner: str
    target_percent: str = Field(
        description="Percent of events that are to be good, exactly.", examples=["99.9"]
    )
    period: str = Field(examples=["30d"])
    state: State
    reason: str = Field(description="Why this state; empty when all is well.")
    sli: float | None = Field(
        description="Share of good events in the period; null: no data.", examples=[0.9995]
    )
    error_budget_remaining: float | None = Field(
        description="1: untouched, 0: spent, below: overspent; null: no data.", examples=[0.5]
    )
    events: float | None = Field(description="In the period, where it is known.")
    bad_events: float | None = Field(description="In the period, where it is known.")
    covered_seconds: float | None = Field(
        description="How much of the period was counted, where that is less than all of it."
    )
    burn_rates: list[BurnRate]
    burning: list[Burning]


class ServiceLevels(BaseModel):
    """All objectives, and where the numbers come from."""

    source: Source
    degraded: bool = Field(description="The numbers are not what was asked for: see reason.")
    reason: str = ""
    evaluated_at: datetime
    age_seconds: float = Field(description="Time since then.")
    since: datetime | None = Field(
        None, description="Since when this process counts, where its own counters are the source."
    )
    objectives: list[ObjectiveStatus]


def assess(
    objective: Objective, *, period: str, windows: Mapping[str, Measured], no_data: str
) -> ObjectiveStatus:
    """Return how an objective stands.

    Args:
        objective: As declared.
        period: Over which the budget lasts, such as `30d`.
        windows: What is known, by window; the period is one of them.
        no_data: What to say when nothing is known about the period.
    """
    whole = windows.get(period, Measured())
    remaining = None
    if whole.error_ratio is not None:
        remaining = _rounded(1 - whole.error_ratio / float(objective.budget))
    burning = [pair for pair in objective.windows if _burns(objective, pair, windows)]
    state, reason = _verdict(objective, whole, remaining, burning, no_data)
    return ObjectiveStatus(
        name=objective.name,
        service=objective.service,
        journey=objective.journey,
        description=objective.description,
        owner=objective.owner,
        target_percent=f"{objective.target:f}",
        period=period,
        state=state,
        reason=reason,
        sli=None if whole.error_ratio is None else _rounded(1 - whole.error_ratio),
        error_budget_remaining=remaining,
        events=_rounded(whole.events),
        bad_events=_rounded(whole.bad_events),
        covered_seconds=_rounded(whole.covered_seconds),
        burn_rates=[
            BurnRate(
                window=window,
                burn_rate=_rounded(burn_rate(objective, measured)),
                events=_rounded(measured.events),
                bad_events=_rounded(measured.bad_events),
                covered_seconds=_rounded(measured.covered_seconds),
            )
            for window in WINDOWS
            for measured in (windows.get(window, Measured()),)
        ],
        burning=[
            Burning(
                long=pair.long,
                short=pair.short,
                factor=f"{pair.factor:f}",
                severity=pair.severity,
            )
            for pair in burning
        ],
    )


def burn_rate(objective: Objective, measured: Measured) -> float | None:
    """Return how many times faster than it may the budget burns; None: not known."""
    if measured.error_ratio is None:
        return None
    return measured.error_ratio / float(objective.budget)


def _burns(objective: Objective, pair: BurnWindow, windows: Mapping[str, Measured]) -> bool:
    """Whether the alert over this pair would fire: both rates are above the factor, for enough events."""
    rates = (burn_rate(objective, windows.get(w, Measured())) for w in (pair.long, pair.short))
    if not all(rate is not None and rate > float(pair.factor) for rate in rates):
        return False
    return _is_enough(objective, windows[pair.long].bad_events)


def _is_enough(objective: Objective, bad_events: float | None) -> bool:
    return bad_events is None or bad_events >= objective.minimum_bad_events


def _verdict(
    objective: Objective,
    whole: Measured,
    remaining: float | None,
    burning: list[BurnWindow],
    no_data: str,
) -> tuple[State, str]:
    if remaining is None:
        return "no_data", no_data
    told = [
        f"the budget burns more than {pair.factor:f} times too fast over {pair.long} and {pair.short}"
        for pair in burning[:1]  # the fastest one says the most
    ]
    if remaining <= 0 and _is_enough(objective, whole.bad_events):
        spent = f"{(1 - remaining) * 100:.0f} % of the error budget is spent"
        return "exhausted", _sentence([spent, *told])
    if burning:
        return "burning", _sentence(told)
    if remaining <= 0:
        few = f"{whole.bad_events or 0:.0f} bad, too few to judge by: {objective.minimum_bad_events} count"
        return "ok", f"Of {whole.events or 0:.0f} events {few}."
    return "ok", ""


def _sentence(parts: list[str]) -> str:
    text = ", and ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _rounded(number: float | None) -> float | None:
    """Return the number without the noise of binary fractions; what is no number is not known."""
    if number is None or not math.isfinite(number):
        return None
    return round(number, 9) + 0.0  # and not -0.0

"""The report of some days: what was promised, what was kept, what it cost and who was woken.

Made from what Prometheus has recorded. Numbers of events are sums of five-minute increases, so a quiet
night does not count as much as a busy noon. Where Prometheus is younger than these days, the record of
the whole period has the same events, and more exactly.

Must never average ratios, and must never pass over time of which nothing is known: gaps are told.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from pydantic import BaseModel, computed_field

from app.observability.service_levels.assessment import ObjectiveStatus, assess
from app.observability.service_levels.objectives import Objective, Objectives, seconds
from app.observability.service_levels.prometheus_api import PrometheusAPI, PrometheusError, Series
from app.observability.service_levels.recorded_levels import (
    ALL_LEVELS,
    BAD_EVENTS,
    ERROR_RATIO,
    EVENTS,
    read_levels,
)

STEP_SECONDS: Final = 300
"""The windows of the smallest records, so that their increases add up without overlapping."""
ALERT_STEP_SECONDS: Final = 60
_OURS: Final = 'sloth_id!=""'

Key = tuple[str, str]
Why = Literal["not_recorded", "not_counted", "no_events"]


class Burn(BaseModel):
    """The hour in which the budget burned fastest; `at` is its end."""

    rate: float
    at: datetime


class Span(BaseModel):
    """A stretch of time."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """How long it was."""
        return self.end - self.start


class Gap(Span):
    """Time without data: no record, a record without a count, or a count of no event.

    `not_counted` is no silence: who counts may be down, and that is an incident.
    """

    why: Why


class Days(BaseModel):
    """What was counted in some days."""

    events: float
    bad_events: float

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def sli(self) -> float | None:
        """Share of good events; null: there was none."""
        return 1 - self.bad_events / self.events if self.events > 0 else None


class FiredAlert(BaseModel):
    """An alert about an objective, and when it fired."""

    alert: str
    severity: str
    objective: str
    fired: list[Span]

    @property
    def length(self) -> timedelta:
        """How long in all."""
        return sum((span.length for span in self.fired), timedelta())


class ReportedObjective(BaseModel):
    """One objective in these days."""

    status: ObjectiveStatus
    these_days: Days
    days_before: Days
    covered_seconds: float | None = None
    """For how long its events were counted, where that is less than all of these days."""
    budget_spent: float | None
    """In these days, as a share of the whole period's budget; null: no event in these days."""
    budget_left: float | None
    """At the end of these days, as a share of the whole period's budget."""
    worst_burn: Burn | None
    gaps: list[Gap]


class Report(BaseModel):
    """All objectives in these days."""

    start: datetime
    end: datetime
    days: int
    period: str
    covered_seconds: float | None = None
    """For how long anything was counted, where that is less than all of these days."""
    objectives: list[ReportedObjective]
    alerts: list[FiredAlert]


async def make_report(
    prometheus: PrometheusAPI, declared: Objectives, *, days: int, end: datetime
) -> Report:
    """Return the report of the days before `end`.

    Raises:
        PrometheusError: Prometheus could not be asked, or has recorded nothing in these days.
    """
    until = end.timestamp()
    since = until - days * 86_400

    async def sums(record: str) -> Mapping[Key, float]:
        asked = f"sum_over_time({record}5m{{{_OURS}}}[{days}d:5m])"
        return {_key(s): s.value for s in await prometheus.query(asked, at=since) if s.points}

    async def history(asked: str) -> Mapping[Key, Series]:
        # From the first step's end: a value at the very start speaks of the time before.
        found = await prometheus.query_range(
            asked, start=since + STEP_SECONDS, end=until, step=STEP_SECONDS
        )
        return {_key(series): series for series in found}

    # One after another: a report must not be what makes Prometheus slow.
    recorded = read_levels(await prometheus.query(ALL_LEVELS, at=until))
    # Steps that end with these days: those of a subquery lie elsewhere, and may miss all of a young past.
    events = await history(f"{EVENTS}5m{{{_OURS}}}")
    bad = await history(f"{BAD_EVENTS}5m{{{_OURS}}}")
    events_before, bad_before = await sums(EVENTS), await sums(BAD_EVENTS)
    older = {
        _key(series)
        for series in await prometheus.query(
            f"present_over_time({EVENTS}5m{{{_OURS}}}[{declared.period}])", at=since
        )
    }
    hours = await history(f"{ERROR_RATIO}1h{{{_OURS}}}")
    # Of each step all that was recorded, not only its last moment.
    counted = await history(f"max_over_time({EVENTS}5m{{{_OURS}}}[{STEP_SECONDS}s])")
    promises = await history(f"max_over_time(slo:objective:ratio{{{_OURS}}}[{STEP_SECONDS}s])")
    firing = await prometheus.query_range(
        f'ALERTS{{alertstate="firing",{_OURS}}}', start=since, end=until, step=ALERT_STEP_SECONDS
    )
    if not (counted or promises):
        raise PrometheusError("has recorded no service level in these days")
    steps = [since + STEP_SECONDS * n for n in range(1, days * 86_400 // STEP_SECONDS + 1)]
    objectives = []
    for objective in declared.objectives:
        key = objective.service, objective.name
        status = assess(
            objective,
            period=declared.period,
            windows=recorded.get(key, {}),
            no_data="Nothing is recorded at the end of these days.",
        )
        these = Days(events=_sum(events.get(key)), bad_events=_sum(bad.get(key)))
        is_all = key not in older and days * 86_400 <= seconds(declared.period)
        if is_all:
            these = _fuller(these, status)
        spent = _spent(objective, status, these)
        objectives.append(
            ReportedObjective(
                status=status,
                these_days=these,
                days_before=_days(events_before, bad_before, key),
                covered_seconds=_covered(steps, [counted[key]] if key in counted else []),
                budget_spent=spent,
                budget_left=(
                    1 - spent if is_all and spent is not None else status.error_budget_remaining
                ),
                worst_burn=_worst(objective, hours.get(key)),
                gaps=_gaps(steps, counted=counted.get(key), recorded=promises.get(key)),
            )
        )
    return Report(
        start=_moment(since),
        end=_moment(until),
        days=days,
        period=declared.period,
        covered_seconds=_covered(steps, counted.values()),
        objectives=objectives,
        alerts=_fired(firing),
    )


def _key(series: Series) -> Key:
    return series.labels.get("sloth_service", ""), series.labels.get("sloth_slo", "")


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(round(at), UTC)


def _days(events: Mapping[Key, float], bad: Mapping[Key, float], key: Key) -> Days:
    def known(value: float) -> float:
        return value if math.isfinite(value) else 0.0

    return Days(events=known(events.get(key, 0.0)), bad_events=known(bad.get(key, 0.0)))


def _sum(series: Series | None) -> float:
    points = series.points if series else ()
    return sum(value for _, value in points if math.isfinite(value))


def _fuller(these: Days, status: ObjectiveStatus) -> Days:
    """Return these days as the record of the whole period has them, where that knows of more."""
    if status.events is None or status.bad_events is None or status.events <= these.events:
        return these
    return Days(events=status.events, bad_events=status.bad_events)


def _spent(objective: Objective, status: ObjectiveStatus, days: Days) -> float | None:
    """Return which share of the period's budget these days have spent."""
    if days.events <= 0:
        return None
    in_period = max(status.events or 0.0, days.events)
    return days.bad_events / (in_period * float(objective.budget))


def _worst(objective: Objective, hours: Series | None) -> Burn | None:
    points = [point for point in (hours.points if hours else ()) if math.isfinite(point[1])]
    if not points:
        return None
    at, ratio = max(points, key=lambda point: point[1])
    return Burn(rate=ratio / float(objective.budget), at=_moment(at))


def _known(series: Series | None) -> dict[int, float]:
    points = series.points if series else ()
    return {round(at): value for at, value in points if math.isfinite(value)}


def _covered(steps: list[float], counted: Iterable[Series]) -> float | None:
    """Return for how many seconds one of these series is known; None: for all."""
    known = {at for series in counted for at in _known(series)}
    covered = sum(round(step) in known for step in steps)
    return None if covered == len(steps) else float(covered * STEP_SECONDS)


def _gaps(steps: list[float], *, counted: Series | None, recorded: Series | None) -> list[Gap]:
    """Return the stretches without data; a step stands for the five minutes before it."""
    events, seen = _known(counted), _known(recorded)
    gaps: list[Gap] = []
    for step in steps:
        at = round(step)
        why: Why = "no_events"
        if at not in events:
            why = "not_counted" if at in seen else "not_recorded"
        elif events[at] > 0:
            continue
        start, end = _moment(step - STEP_SECONDS), _moment(step)
        if gaps and gaps[-1].end == start and gaps[-1].why == why:
            gaps[-1].end = end
        else:
            gaps.append(Gap(start=start, end=end, why=why))
    return gaps


def _fired(firing: Iterable[Series]) -> list[FiredAlert]:
    """Return the alerts with the stretches in which they fired; the one that fired longest first."""
    times: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for series in firing:
        labels = series.labels
        alert = (
            labels.get("alertname", ""),
            labels.get("severity", ""),
            labels.get("sloth_slo", ""),
        )
        times[alert].update(round(at) for at, _ in series.points)
    alerts = [
        FiredAlert(alert=name, severity=severity, objective=objective, fired=_spans(sorted(seen)))
        for (name, severity, objective), seen in times.items()
    ]
    return sorted(alerts, key=lambda alert: (-alert.length, alert.alert, alert.objective))


def _spans(times: list[int]) -> list[Span]:
    """Return the stretches that times a step apart make; each stands for the step that it begins."""
    spans: list[Span] = []
    for at in times:
        start, end = _moment(at), _moment(at + ALERT_STEP_SECONDS)
        if spans and spans[-1].end >= start:
            spans[-1].end = end
        else:
            spans.append(Span(start=start, end=end))
    return spans

"""The report of some days for people, as Markdown: the verdict first, then a table, then what stands out.

Must never round a share up to 100 %, nor an empty cell to a zero.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from app.observability.service_levels.report import FiredAlert, Gap, Report, ReportedObjective

_NOTHING: Final = "no data"
_WORTH_TELLING: Final = timedelta(minutes=10)
"""Shorter gaps are a quiet moment, or one failed scrape."""


def markdown(report: Report) -> str:
    """Return the report as one document."""
    parts = [
        f"# Service levels, {report.start:%d %b %Y} to {report.end:%d %b %Y}",
        f"{report.days} days, up to {_moment(report.end)}. Budgets are for {report.period}.",
        *_coverage(report),
        f"**{_verdict(report)}**",
        _table(report),
        "## Alerts",
        _alerts(report.alerts),
        "## Missing data",
        _missing(report.objectives),
        "## What is promised",
        "\n".join(
            f"- **{one.status.name}** ({one.status.owner}): {one.status.description}"
            for one in report.objectives
        ),
    ]
    return "\n\n".join(parts) + "\n"


def percent(ratio: float | None, target: str) -> str:
    """Return a share as percent with two digits more than its target has, rounded down."""
    if ratio is None:
        return _NOTHING
    digits = len(target.partition(".")[2]) + 2
    # A share that was computed is off in its last binary digit: 0.999 must not become 99.899 %.
    exact = Decimal(repr(round(ratio, 12))) * 100
    return f"{exact.quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR):f} %"


def whole_percent(ratio: float | None) -> str:
    """Return a share as percent with one digit."""
    return _NOTHING if ratio is None else f"{ratio * 100:.1f} %"


def _coverage(report: Report) -> list[str]:
    """Say how much of these days has data, if it is less than all."""
    if report.covered_seconds is None:
        return []
    covered = duration(timedelta(seconds=report.covered_seconds))
    return [
        f"**Only {covered} of these {report.days} days have data**: all numbers are of that time."
    ]


def _verdict(report: Report) -> str:
    """Say of each objective one thing: kept, not kept and why, or no data."""
    judged = [one for one in report.objectives if one.these_days.sli is not None]
    broken = [f"{one.status.name} ({why})" for one in judged if (why := _why_not_kept(one))]
    unknown = [one.status.name for one in report.objectives if one.these_days.sli is None]
    told = [
        f"{len(judged) - len(broken)} of {len(report.objectives)} objectives were kept in these days"
    ]
    if broken:
        told.append(f"{len(broken)} not kept: {', '.join(broken)}")
    if unknown:
        told.append(f"{len(unknown)} without data: {', '.join(unknown)}")
    return "; ".join(told) + "."


def _why_not_kept(one: ReportedObjective) -> str:
    reasons = ("missed", _is_missed(one)), ("budget spent", one.status.state == "exhausted")
    return ", ".join(reason for reason, holds in reasons if holds)


def _is_missed(one: ReportedObjective) -> bool:
    return (
        one.these_days.sli is not None
        and one.these_days.sli < float(Decimal(one.status.target_percent) / 100) - 1e-12
    )


def _table(report: Report) -> str:
    head = (
        "Objective",
        "Target",
        f"These {report.days} days",
        f"The {report.days} days before",
        "Budget spent",
        "Budget left",
        "Worst hour",
        "State",
    )
    rows = [_row(one, report) for one in report.objectives]
    lines = (
        f"| {' | '.join(head)} |",
        f"|---|{'---:|' * 6}---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    )
    return "\n".join(lines)


def _row(one: ReportedObjective, report: Report) -> tuple[str, ...]:
    status, worst = one.status, one.worst_burn
    hour = _NOTHING
    if worst is not None:
        hour = f"{worst.rate:.1f}x, {_moment(worst.at)}" if worst.rate > 0 else "0.0x"
    return (
        status.name,
        f"{status.target_percent} %",
        percent(one.these_days.sli, status.target_percent) + _part(one, report),
        percent(one.days_before.sli, status.target_percent),
        whole_percent(one.budget_spent),
        whole_percent(one.budget_left),
        hour,
        status.state.replace("_", " "),
    )


def _part(one: ReportedObjective, report: Report) -> str:
    """Say of how much time a share is, if it is of less than the top of the report says."""
    if one.these_days.sli is None or one.covered_seconds in {None, report.covered_seconds}:
        return ""
    return f" (of {duration(timedelta(seconds=one.covered_seconds or 0))})"


def _alerts(alerts: list[FiredAlert]) -> str:
    if not alerts:
        return "None fired."
    lines = [
        "| Alert | Objective | Severity | Fired for | Times | First |",
        "|---|---|---|---:|---:|---|",
    ]
    for one in alerts:
        cells = (
            one.alert,
            one.objective or "-",
            one.severity,
            duration(one.length),
            str(len(one.fired)),
            _moment(one.fired[0].start),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _missing(objectives: Iterable[ReportedObjective]) -> str:
    lines = []
    for one in objectives:
        told = [
            _stretches([gap for gap in one.gaps if gap.why == why], sentence)
            for why, sentence in (
                ("not_recorded", "nothing was recorded"),
                ("not_counted", "nothing was counted (no event, or nobody to count it)"),
                ("no_events", "there was no event"),
            )
        ]
        if any(told):
            lines.append(f"- **{one.status.name}**: {'; '.join(filter(None, told))}.")
    return "\n".join(lines) or "None."


def _stretches(gaps: list[Gap], what: str) -> str:
    """Tell of the gaps of one kind that are long enough; the longest is named."""
    long = [gap for gap in gaps if gap.length >= _WORTH_TELLING]
    if not long:
        return ""
    longest = max(long, key=lambda gap: gap.length)
    total = duration(sum((gap.length for gap in long), timedelta()))
    since = f"from {_moment(longest.start)}"
    if len(long) == 1:
        return f"{what} for {total}, {since}"
    return f"{what} for {total} in {len(long)} stretches, the longest {duration(longest.length)} {since}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def duration(length: timedelta) -> str:
    """Return a duration in its two largest units: `3 h 20 min`."""
    minutes = round(length.total_seconds() / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    told = [f"{number} {unit}" for number, unit in parts if number][:2]
    return " ".join(told) or "0 min"

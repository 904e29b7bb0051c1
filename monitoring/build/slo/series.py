"""Series for tests of an objective: what its metric looks like while a given share of events is bad.

Beside it there is always what must not be counted: another job's series, and for each matcher of
`where` one that it leaves out, all of them bad and busy. A rule that counts these is seen to be wrong.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, assert_never

from app.observability.service_levels.objectives import (
    FreshnessIndicator,
    LatencyIndicator,
    Objective,
    ProbeIndicator,
    RatioIndicator,
    plain,
)
from monitoring.build.slo.indicators import bound
from monitoring.build.slo.labels import bad_labels, good_labels, strangers

Series = Mapping[str, str]
"""Selectors such as `up{job="api"}`, and their values in promtool's notation, `interval` apart."""

PER_MINUTE: Final = 1_000
TASKS: Final = 100
"""Freshness is counted in whole things: with a hundred of them, shares are whole percents."""
PROBERS: Final = 20
"""So many that their bad moments are enough for an alert, though rules are seldom evaluated here."""
TIMESTAMP_MINUTES: Final = 5
"""Between two values of a timestamp: a hundred of them over days would take promtool half a minute."""
ALWAYS_STALE: Final = -1_000_000


@dataclass(frozen=True, slots=True)
class Phase:
    """A time during which a share of the events is bad."""

    minutes: int
    bad: Decimal = Decimal(0)
    per_minute: int = PER_MINUTE


def share(objective: Objective, wanted: Decimal) -> Decimal:
    """Return a share of bad events that series can show: the wanted one, or a little above it."""
    if isinstance(objective.indicator, FreshnessIndicator):
        return Decimal(math.ceil(wanted * TASKS)) / TASKS
    return wanted


def interval(objective: Objective) -> str:
    """Return the time between two values of the objective's series."""
    return "5m" if isinstance(objective.indicator, FreshnessIndicator) else "1m"


def series(objective: Objective, phases: Sequence[Phase]) -> Series:
    """Return the series of these phases, one after another from time 0."""
    indicator = objective.indicator
    minutes = sum(phase.minutes for phase in phases)
    good = [phase.per_minute * (1 - phase.bad) for phase in phases]
    bad = [phase.per_minute * phase.bad for phase in phases]
    busy = _counter([Phase(minutes)], [Decimal(10 * PER_MINUTE)])
    match indicator:
        case RatioIndicator():
            return {
                _name(indicator.metric, good_labels(indicator)): _counter(phases, good),
                _name(indicator.metric, bad_labels(indicator)): _counter(phases, bad),
                **{_name(indicator.metric, labels): busy for labels in strangers(indicator)},
            }
        case LatencyIndicator():
            labels, le = good_labels(indicator), {"le": bound(indicator.threshold_seconds)}
            every = [Decimal(phase.per_minute) for phase in phases]
            made = {
                _name(f"{indicator.metric}_count", labels): _counter(phases, every),
                _name(f"{indicator.metric}_bucket", labels | le): _counter(phases, good),
                _name(f"{indicator.metric}_bucket", labels | {"le": "+Inf"}): _counter(
                    phases, every
                ),
            }
            for stranger in strangers(indicator):
                made[_name(f"{indicator.metric}_count", stranger)] = busy
                made[_name(f"{indicator.metric}_bucket", stranger | le)] = f"0x{minutes}"
            return made
        case ProbeIndicator():
            # As if each of these were a thousand probers, of which a share says 0.
            levels = [str(plain(1 - phase.bad)) for phase in phases]
            values = " ".join(
                f"{level}x{phase.minutes - 1}" for level, phase in zip(levels, phases, strict=True)
            )
            return {
                **{
                    _name(
                        indicator.metric, good_labels(indicator) | {"instance": f"prober-{number}"}
                    ): f"{levels[0]} {values}"
                    for number in range(PROBERS)
                },
                **{
                    _name(indicator.metric, labels): f"0x{minutes}"
                    for labels in strangers(indicator)
                },
            }
        case FreshnessIndicator():
            labels = good_labels(indicator)
            made = {
                _name(indicator.metric, labels | {indicator.by: f"thing-{number}"}): _timestamps(
                    phases, [phase.bad * TASKS > number for phase in phases]
                )
                for number in range(TASKS)
            }
            for stranger in strangers(indicator):
                values = f"{ALWAYS_STALE}x{minutes // TIMESTAMP_MINUTES}"
                made[_name(indicator.metric, stranger)] = values
            return made
        case _:
            assert_never(indicator)


def few_bad(objective: Objective, number: int) -> Series:
    """Return the series of a time with so many bad events, one in five minutes, and hardly a good one."""
    indicator = objective.indicator
    # Counted in five minutes each, none lies on an edge between two of them.
    steps = "0x6 " + " ".join(f"{count}x4" for count in range(1, number)) + f" {number}x180"
    match indicator:
        case RatioIndicator():
            return {
                _name(indicator.metric, good_labels(indicator)): "0x210",
                _name(indicator.metric, bad_labels(indicator)): steps,
            }
        case LatencyIndicator():
            labels = good_labels(indicator)
            slow = labels | {"le": bound(indicator.threshold_seconds)}
            return {
                _name(f"{indicator.metric}_count", labels): steps,
                _name(f"{indicator.metric}_bucket", slow): "0x210",
            }
        case ProbeIndicator():
            return {
                _name(indicator.metric, good_labels(indicator)): " ".join(
                    ["_x7"] + ["0 _x4"] * number
                )
            }
        case FreshnessIndicator():
            # Old at 10, 15... minutes, when it is looked at; then as fresh as can be. Half as often as
            # asked: before Prometheus 3, what is at the edge of two windows is in both.
            old = number // 2 + 1
            return {
                _name(
                    indicator.metric, good_labels(indicator) | {indicator.by: "thing"}
                ): f"0x{old} {(old + 1) * 300}+300x30"
            }
        case _:
            assert_never(indicator)


def nothing_bad_yet(objective: Objective, minutes: int) -> Series:
    """Return the series of a process in which nothing has failed: there is no series of failures."""
    made = dict(series(objective, [Phase(minutes)]))
    if isinstance(objective.indicator, RatioIndicator):
        made.pop(_name(objective.indicator.metric, bad_labels(objective.indicator)))
    return made


def idle(objective: Objective, minutes: int) -> Series:
    """Return the series of a process that has nothing to do; nothing at all where moments are counted."""
    if isinstance(objective.indicator, ProbeIndicator | FreshnessIndicator):
        return {}
    return dict.fromkeys(series(objective, [Phase(minutes)]), f"7x{minutes}")


# Values -----------------------------------------------------------------------------------------------


def _name(metric: str, labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{metric}{{{inner}}}"


def _counter(phases: Sequence[Phase], slopes: Sequence[Decimal]) -> str:
    value, parts = Decimal(0), ["0"]
    for phase, slope in zip(phases, slopes, strict=True):
        parts.append(f"{plain(value + slope)}+{plain(slope)}x{phase.minutes - 1}")
        value += slope * phase.minutes
    return " ".join(parts)


def _timestamps(phases: Sequence[Phase], stale: Sequence[bool]) -> str:
    """Return a timestamp that goes with the time, and in stale phases stands still."""
    parts = []
    begin = 0
    frozen = ALWAYS_STALE
    for number, (phase, is_stale) in enumerate(zip(phases, stale, strict=True)):
        # As counters do, a phase begins after the one before has ended, the first one at 0.
        length = phase.minutes // TIMESTAMP_MINUTES + (1 if number == 0 else 0)
        # What is stale when a phase begins has had its last success before the end of the one before.
        stops = not is_stale and number + 1 < len(phases) and stale[number + 1]
        still = length if is_stale else 1 if stops else 0
        if not is_stale:
            step = TIMESTAMP_MINUTES * 60
            parts.append(f"{begin * step}+{step}x{length - still - 1}")
            frozen = (begin + length - still - 1) * step
        if still:
            parts.append(f"{frozen}x{still - 1}")
        begin += length
    return " ".join(parts)

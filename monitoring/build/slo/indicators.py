"""What is counted for an objective, in PromQL: all events in a window, and those that were bad.

A ratio is always bad events / events, of the same window: a window's busy hours count for more than its
quiet ones. Windows up to six hours are read from the metric itself; longer ones are sums of recorded five
minutes, side by side, which costs a hundredth and is off by no more than the window's edges.

Must never yield NaN, which would poison whatever is made of it: no events, no sample.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, assert_never

from app.observability.service_levels.objectives import (
    FreshnessIndicator,
    LatencyIndicator,
    Matcher,
    Objective,
    ProbeIndicator,
    RatioIndicator,
    seconds,
)

BASE_WINDOW: Final = "5m"
LONGEST_DIRECT_SECONDS: Final = 6 * 3_600
MEMORY: Final = "1d"
"""A process that is gone leaves its last timestamp to us for so long: that is how it grows old. After a
job was renamed, the old name burns budget for this time."""
SHORTEST_AGE: Final = "15s"
"""The worker keeps its own pace in a demonstration, too: a job that runs every five seconds is as old."""


def series_of(objective: Objective) -> str:
    """Return the matchers of what is recorded for the objective."""
    return f'{{sloth_id="{sloth_id(objective)}"}}'


def sloth_id(objective: Objective) -> str:
    """Return what Sloth calls the objective, among those of all services."""
    return f"{objective.service}-{objective.name}"


def events(objective: Objective, window: str) -> str:
    """Return how many events or moments there were; no sample where nothing says so."""
    if seconds(window) > LONGEST_DIRECT_SECONDS:
        return _sum_of_recorded("slo:events:increase", objective, window)
    indicator = objective.indicator
    match indicator:
        case RatioIndicator():
            return f"sum(increase({_selector(indicator)}[{window}]))"
        case LatencyIndicator():
            return f"sum(increase({_selector(indicator, '_count')}[{window}]))"
        case ProbeIndicator():
            # A prober that is gone leaves no sample: that time was not observed, and is neither good nor bad.
            return f"sum(count_over_time({_selector(indicator)}[{window}]))"
        case FreshnessIndicator():
            return f"sum_over_time(slo:moments:count{series_of(objective)}[{window}])"
        case _:
            assert_never(indicator)


def bad_events(objective: Objective, window: str) -> str:
    """Return how many of them were bad: a sample wherever there are events, 0 where none was bad."""
    if seconds(window) > LONGEST_DIRECT_SECONDS:
        return _sum_of_recorded("slo:bad_events:increase", objective, window)
    indicator = objective.indicator
    total = f"slo:events:increase{window}{series_of(objective)}"
    match indicator:
        case RatioIndicator():
            bad = f"{indicator.metric}{{{_matchers(indicator.job, indicator.bad_selection)}}}"
            # Before the first failure there is no series of it.
            return f"sum(increase({bad}[{window}]))\nor on ()\n0 * {total}"
        case LatencyIndicator():
            within = Matcher("le", "=", bound(indicator.threshold_seconds))
            fast = f"sum(increase({_selector(indicator, '_bucket', within)}[{window}]))"
            # Each of the two is extrapolated by itself: their difference may come out a little below 0.
            return f"clamp_min(\n  {total}\n  - on () {fast},\n  0\n)"
        case ProbeIndicator():
            return f"{total}\n- on () sum(sum_over_time({_selector(indicator)}[{window}]))"
        case FreshnessIndicator():
            return f"sum_over_time(slo:stale_moments:count{series_of(objective)}[{window}])"
        case _:
            assert_never(indicator)


def moments(indicator: FreshnessIndicator) -> str:
    """Return how many things have to be fresh now, those that a process left behind included."""
    return f"count({_newest(indicator)})"


def stale_moments(indicator: FreshnessIndicator) -> str:
    """Return how many of them are too old."""
    age = f"$seconds({indicator.max_age_seconds}s, {SHORTEST_AGE})"
    return f"sum(time() - {_newest(indicator)} > bool {age})"


def _newest(indicator: FreshnessIndicator) -> str:
    # Over a day: after its last scrape the series of a dead worker would vanish, and nothing would be stale.
    return f"max by ({indicator.by}) (max_over_time({_selector(indicator)}[{MEMORY}]))"


def _sum_of_recorded(record: str, objective: Objective, window: str) -> str:
    return f"sum_over_time({record}{BASE_WINDOW}{series_of(objective)}[{window}:{BASE_WINDOW}])"


def _selector(
    indicator: RatioIndicator | LatencyIndicator | ProbeIndicator | FreshnessIndicator,
    suffix: str = "",
    *further: Matcher,
) -> str:
    matchers = _matchers(indicator.job, (*indicator.selection, *further))
    return f"{indicator.metric}{suffix}{{{matchers}}}"


def _matchers(job: str, matchers: Iterable[Matcher]) -> str:
    return ",".join(str(matcher) for matcher in (Matcher("job", "=", job), *matchers))


def bound(threshold: Decimal) -> str:
    """Return a bucket's bound as it stands in the label `le`: always with a point."""
    text = f"{threshold:f}"
    return text if "." in text else f"{text}.0"

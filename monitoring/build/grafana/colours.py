"""Colours by what they mean, the same on every dashboard, and thresholds made of them.

The names are Grafana's own, so that both themes show them well. Colour never stands alone: legends, units and
texts say the same, for who cannot tell red from green.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode

GOOD: Final = "green"
NOTICE: Final = "yellow"
WARNING: Final = "orange"
CRITICAL: Final = "red"
NEUTRAL: Final = "blue"
MUTED: Final = "#8e8e8e"
LIMIT: Final = "dark-red"
"""A line that must not be crossed."""

Colours = Mapping[str, str]
"""Colours by a regular expression for the names of series."""

STATUS_CLASSES: Final[Colours] = {
    "^2xx$": GOOD,
    "^3xx$": NEUTRAL,
    "^4xx$": NOTICE,
    "^5xx$": CRITICAL,
}
QUANTILES: Final[Colours] = {
    "p50": "light-blue",
    "p90": "blue",
    "p95": "blue",
    "p99": "purple",
}
OUTCOMES: Final[Colours] = {
    "^(succeeded|success|ok|hit|paid|completed|published|confirmed)$": GOOD,
    "^(pending|retried|miss|expired|cancelled)$": NOTICE,
    "^(declined|refused|rejected|locked|bypass)$": WARNING,
    "^(failed|failure|error|dead|dead_letter|timeout)$": CRITICAL,
}
"""What became of something: payments, jobs, calls, look-ups."""

Steps = Sequence[tuple[float | None, str]]
"""Thresholds: from this value on, this colour; the first one from nothing on (None)."""

FAILED_LIMITS: Final = ((0.01, WARNING), (0.05, CRITICAL))
"""Of the share of requests that fail: where alerts begin."""
FAILED_STEPS: Final[Steps] = [(None, GOOD), (0.001, NOTICE), *FAILED_LIMITS]
"""The service level is the first step."""
DURATION_LIMITS: Final = ((0.2, NOTICE), (1, WARNING), (2, CRITICAL))
"""Of the duration of requests, in seconds: the service level, and where alerts begin."""
DURATION_STEPS: Final[Steps] = [(None, GOOD), *DURATION_LIMITS]


def above(*, warning: float | None = None, critical: float | None = None) -> Steps:
    """Return thresholds for what is worse the higher it is."""
    steps: list[tuple[float | None, str]] = [(None, GOOD)]
    steps += [(warning, WARNING)] if warning is not None else []
    steps += [(critical, CRITICAL)] if critical is not None else []
    return steps


def below(*, warning: float | None = None, critical: float | None = None) -> Steps:
    """Return thresholds for what is worse the lower it is: from `warning` on all is well."""
    known = [value for value in (critical, warning) if value is not None]
    lowest = CRITICAL if critical is not None else WARNING
    if len(known) == 1:
        return [(None, lowest), (known[0], GOOD)]
    return [(None, CRITICAL), (critical, WARNING), (warning, GOOD)]


def plain(colour: str = NEUTRAL) -> Steps:
    """Return no thresholds: a figure that is neither good nor bad."""
    return [(None, colour)]


def thresholds(steps: Steps) -> ThresholdsConfig:
    """Return the steps as Grafana has them."""
    return (
        ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=colour) for value, colour in steps])
    )

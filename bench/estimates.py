"""The arithmetic of the report: medians with their error, ratios round by round.

A ratio compares two bursts of one round and the median is taken over the rounds, so that a machine that
gets slower in between, or one burst that was disturbed, changes little.
"""

import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.fits import percentile


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and how far off it may be."""

    value: float
    spread: float
    """Half of the distance between the quartiles of the rounds."""
    error: float
    """Of the median: what more rounds make smaller."""

    def over(self, other: "Estimate") -> "Estimate | None":
        """Return the quotient, or None where the other may as well be nothing."""
        if other.value <= other.error:
            return None
        value = self.value / other.value
        relative = abs(self.error / self.value) + other.error / other.value if self.value else 0.0
        return Estimate(value, 0.0, abs(value) * relative)

    def with_doubt(self, doubt: float) -> "Estimate":
        """Return the same with more error: what two equal things were apart."""
        return Estimate(self.value, self.spread, self.error + doubt)


def estimate(values: Sequence[float]) -> Estimate:
    """Return the median of the rounds.

    Its error is that of a median of normally distributed values, 1.2533 standard deviations divided by
    the root of their number; the deviation is taken from the quartiles, which outliers do not move.
    """
    around = spread(values)
    return Estimate(
        statistics.median(values), around, 1.2533 * around / 0.6745 / len(values) ** 0.5
    )


def spread(values: Sequence[float]) -> float:
    """Return half of the distance between the quartiles: half of the values lie so near to the median."""
    if len(values) < 4:  # noqa: PLR2004 - quartiles of fewer say nothing
        return max(values) - min(values)
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2


def ratios(values: Iterable[float], base: Iterable[float]) -> list[float]:
    """Return the ratio of each round that both have: after Ctrl-C, one may have one more."""
    return [one / other for one, other in zip(values, base, strict=False)]


def differences(values: Iterable[float], base: Iterable[float]) -> list[float]:
    """Return the difference of each round that both have."""
    return [one - other for one, other in zip(values, base, strict=False)]


_DRAWS: Final = 200


def p99_ratio(turns: Sequence[Sequence[float]], base: Sequence[Sequence[float]]) -> Estimate:
    """Return the 99th percentile of all turns together, divided by that of the base's.

    Its error is that of the bootstrap: turns are drawn from those that there are, again and again, and nine
    of ten draws are no further off. (Requests of one turn are not independent of each other: who waits
    behind a slow one is slow. And a deviation would not do: where one turn of ten was held up, a third of
    the draws are without it, far below.)
    """
    chance = random.Random(99)  # noqa: S311 - a draw, not a secret
    drawn = [
        _p99(chance.choices(turns, k=len(turns))) / _p99(chance.choices(base, k=len(base)))
        for _ in range(_DRAWS)
    ]
    value = _p99(turns) / _p99(base)
    low, *_, high = statistics.quantiles(drawn, n=20)
    return Estimate(value, spread(drawn), max(value - low, high - value, 0.0))


def _p99(turns: Sequence[Sequence[float]]) -> float:
    return percentile([duration for turn in turns for duration in turn], 0.99)

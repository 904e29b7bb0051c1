"""Percentiles, and lines through measured points: how a cost follows a size or the time."""

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of them lie (nearest rank), NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def fitted(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return slope and intercept of the line of least squares."""
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    squares = sum((one - middle_x) ** 2 for one in x)
    products = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    slope = products / squares if squares else 0.0
    return slope, middle_y - slope * middle_x


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return how the cost follows the size: 0 not at all, 1 in proportion (on logarithmic scales)."""
    x = [math.log(size) for size in sizes]
    y = [math.log(max(cost, 1e-9)) for cost in costs]
    return fitted(x, y)[0]

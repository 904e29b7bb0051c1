"""Day and night: at night fewer come, so that graphs have the shape that everybody knows."""

import math
import time

NIGHT = 0.4
"""How busy the quietest moment is, against 1 for the busiest."""
BUSIEST = 0.625
"""When the busiest moment is, as a share of the day: three in the afternoon, UTC."""


def busy(day_seconds: float, moment: float | None = None) -> float:
    """Return how busy it is, from NIGHT to 1.

    Args:
        day_seconds: How long day and night take together; 0 for a day without a night.
        moment: Unix time; now, by default.
    """
    if not day_seconds:
        return 1.0
    part = ((time.time() if moment is None else moment) % day_seconds) / day_seconds
    height = (1 + math.cos(2 * math.pi * (part - BUSIEST))) / 2
    return NIGHT + (1 - NIGHT) * height

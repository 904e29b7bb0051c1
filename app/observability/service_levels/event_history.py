"""How counters grew in the past, in little memory: finely for the last minutes, coarsely for a month.

A window is answered from two points, now and the newest one that is as old as the window. The farther
back, the fewer points are kept: a window of five minutes is off by 10 seconds at most, one of three
days by an hour, one of a month by six. That is at most 500 points.

Must never claim more than it has seen: a window that is longer than the history says so.
"""

from bisect import bisect_right
from collections import deque
from typing import Final, NamedTuple


class Count(NamedTuple):
    """Events since the process began, and those of them that were bad."""

    events: float
    bad: float


class Increase(NamedTuple):
    """Growth over a window; `covered_seconds` is how much of it was seen, None: all of it."""

    events: float
    bad: float
    covered_seconds: float | None


class _Point(NamedTuple):
    at: float
    counted: Count


_MINUTE: Final = 60.0
_HOUR: Final = 3_600.0
_DAY: Final = 86_400.0
TIERS: Final = (
    (10.0, 11 * _MINUTE),
    (_MINUTE, 2.2 * _HOUR),
    (10 * _MINUTE, 1.1 * _DAY),
    (_HOUR, 3.2 * _DAY),
    (6 * _HOUR, 31 * _DAY),
)
"""Seconds between two points, and how old they become before the next tier takes over."""

_JITTER: Final = 0.9
"""A timer is late at times and not at others: nine tenths of a step are a step."""

_ALWAYS_KEPT: Final = 2
"""After a pause, the point before it is what tells growth then from growth now."""


class EventHistory:
    """One pair of counters over time. Times are seconds of a clock that never goes back."""

    def __init__(self, at: float, count: Count) -> None:
        """Begin with what was counted before: it belongs to no window."""
        self._tiers: tuple[deque[_Point], ...] = tuple(deque() for _ in TIERS)
        self._latest = _Point(at, count)
        self._tiers[0].append(self._latest)

    def __len__(self) -> int:
        return sum(map(len, self._tiers))

    def add(self, at: float, count: Count) -> None:
        """Take what the counters say at a time that is not before the last one."""
        self._latest = _Point(at, count)
        newest = self._tiers[0]
        if not newest or at - newest[-1].at >= TIERS[0][0] * _JITTER:
            newest.append(self._latest)
            self._thin(at)

    def _thin(self, now: float) -> None:
        """Hand points that are too old for their tier to the next one, which keeps one for each step."""
        for number, (points, (_, longest)) in enumerate(zip(self._tiers, TIERS, strict=True)):
            while len(points) > _ALWAYS_KEPT and now - points[0].at > longest:
                point = points.popleft()
                if number + 1 < len(TIERS):
                    older, step = self._tiers[number + 1], TIERS[number + 1][0]
                    if not older or point.at - older[-1].at >= step * _JITTER:
                        older.append(point)

    def increase(self, seconds: float) -> Increase:
        """Return the growth over the last `seconds`, as of the last `add`."""
        start = self._latest.at - seconds
        oldest_known: _Point | None = None
        for points in self._tiers:
            if not points:
                continue
            oldest_known = points[0]
            if oldest_known.at <= start:
                found = points[bisect_right(points, start, key=lambda point: point.at) - 1]
                return self._since(found, None)
        if oldest_known is None:
            oldest_known = self._latest
        return self._since(oldest_known, self._latest.at - oldest_known.at)

    def _since(self, point: _Point, covered: float | None) -> Increase:
        now, then = self._latest.counted, point.counted
        return Increase(now.events - then.events, now.bad - then.bad, covered)

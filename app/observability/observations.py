"""Several observations of one histogram at once: what is the same for all of them is done once.

The library takes a lock for the sum and another one for the bucket, and looks for the bucket by trying them
in turn. The sum and the number in each bucket are the same when they are added up first;
tests/unit/observability/test_observations.py compares the two.

Must never show anything that one observation after the other would not show.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from prometheus_client import REGISTRY, Histogram, Metric
from prometheus_client.registry import Collector

from app.observability.settling import SETTLE_SECONDS, Later, settle
from app.observability.shared_metrics import is_shared


class _Settled(Collector):
    """Has what was put off done before anybody reads the registry; shows nothing itself."""

    def collect(self) -> Iterable[Metric]:
        """Settle."""
        settle()
        return ()


REGISTRY.register(_Settled())  # a registry is read in the order in which it was filled

COUNT_SECONDS: Final = SETTLE_SECONDS if is_shared() else 0.2
"""How long counts may wait. Nobody sees them before a scrape, which settles; there is more of it by then. But
where workers share a page a scrape asks one of them, and one that is killed must not take much along."""

Traced = tuple[float, Mapping[str, str]]
"""A value and its exemplar."""


def observe_all(
    histogram: Histogram, amounts: Sequence[float], traced: Sequence[Traced] = ()
) -> None:
    """Observe all of `amounts` and then all of `traced`.

    A bucket shows one exemplar, the latest, so the others are not even looked at.
    """
    known = cast("Any", histogram)  # the library has no word for this
    bounds = known._upper_bounds
    total = sum(amounts)
    numbers: dict[int, int] = {}
    for amount in amounts:
        bucket = bisect_left(bounds, amount)
        numbers[bucket] = numbers.get(bucket, 0) + 1
    latest: dict[int, Traced] = {}
    for one in traced:
        bucket = bisect_left(bounds, one[0])
        if earlier := latest.pop(bucket, None):
            total += earlier[0]
            numbers[bucket] = numbers.get(bucket, 0) + 1
        latest[bucket] = one
    if numbers:
        known._sum.inc(total)
        for bucket, number in numbers.items():
            known._buckets[bucket].inc(number)
    for amount, exemplar in latest.values():
        histogram.observe(amount, dict(exemplar))


def observe_later(histogram: Histogram, amount: float) -> None:
    """Observe `amount` when things settle: soon, and before anybody reads it."""
    _later.add((histogram, amount))


_waiting: Final[dict[Histogram, list[float]]] = {}


def _gather(observation: tuple[Histogram, float]) -> None:
    histogram, amount = observation
    amounts = _waiting.get(histogram)
    if amounts is None:
        _waiting[histogram] = [amount]
    else:
        amounts.append(amount)


def _observe_waiting() -> None:
    waiting = _waiting.copy()
    _waiting.clear()
    for histogram, amounts in waiting.items():
        observe_all(histogram, amounts)


_MAX_WAITING: Final = 512
"""As many take 0.2 ms, and are some 80 requests."""
_later: Final = Later(_gather, _observe_waiting, seconds=COUNT_SECONDS, limit=_MAX_WAITING)

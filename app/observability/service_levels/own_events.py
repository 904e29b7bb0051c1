"""What this process itself has counted for each objective: events, and those that were bad.

Read from prometheus_client's registry, of which only the metrics are collected that an objective names;
or, where several processes share a page, from the files of all of them (shared_metrics.py). A gauge is
looked at: each look is one event, as each evaluation is for Prometheus.

Must never be called on the event loop: collecting thousands of series takes tens of milliseconds.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.samples import Sample

from app.observability.service_levels.event_history import Count
from app.observability.service_levels.objectives import (
    FreshnessIndicator,
    LatencyIndicator,
    Matcher,
    Objective,
    ProbeIndicator,
    RatioIndicator,
)
from app.observability.shared_metrics import is_shared, shared_registry

Samples = Mapping[str, Sequence[Sample]]
_NOTHING: Final = Count(0, 0)


class OwnEvents:
    """The counters behind the objectives that are about this process.

    Args:
        objectives: All that are declared.
        job: The scrape job that this process belongs to: what others emit is not counted here.
    """

    def __init__(self, objectives: Iterable[Objective], *, job: str) -> None:
        self._objectives = [one for one in objectives if one.indicator.job == job]
        self._names = {name for one in self._objectives for name in _sample_names(one)}
        self._moments: dict[str, Count] = defaultdict(lambda: _NOTHING)

    def read(self) -> dict[str, Count]:
        """Return the counts as of now, by the objective's name. Not from two threads at a time."""
        samples = self._collect()
        return {one.name: self._count(one, samples) for one in self._objectives}

    def _collect(self) -> Samples:
        found: dict[str, list[Sample]] = defaultdict(list)
        shared = is_shared()
        registry = shared_registry() if shared else REGISTRY.restricted_registry(self._names)
        for family in registry.collect():
            for sample in family.samples:
                if sample.name in self._names:
                    found[sample.name].append(sample)
        return found

    def _count(self, objective: Objective, samples: Samples) -> Count:
        indicator = objective.indicator
        if isinstance(indicator, RatioIndicator):
            meant = _selected(samples[indicator.metric], indicator.selection)
            bad = _selected(meant, indicator.bad_selection)
            return Count(_sum(meant), _sum(bad))
        if isinstance(indicator, LatencyIndicator):
            return _slow(indicator, samples)
        return self._looked(objective, samples)

    def _looked(self, objective: Objective, samples: Samples) -> Count:
        """Count one more moment, if the gauge is there at all."""
        indicator = objective.indicator
        before = self._moments[objective.name]
        meant = _selected(samples[indicator.metric], indicator.selection)
        if not meant:
            return before
        bad = 0
        if isinstance(indicator, FreshnessIndicator):
            newest: dict[str, float] = defaultdict(float)
            for sample in meant:
                what = sample.labels.get(indicator.by, "")
                newest[what] = max(newest[what], sample.value)
            bad = int(time.time() - min(newest.values()) > indicator.max_age_seconds)
        elif isinstance(indicator, ProbeIndicator):
            bad = int(any(sample.value == 0 for sample in meant))
        self._moments[objective.name] = Count(before.events + 1, before.bad + bad)
        return self._moments[objective.name]


def _sample_names(objective: Objective) -> tuple[str, ...]:
    metric = objective.indicator.metric
    if isinstance(objective.indicator, LatencyIndicator):
        return f"{metric}_count", f"{metric}_bucket"
    return (metric,)


def _slow(indicator: LatencyIndicator, samples: Samples) -> Count:
    """Count what took longer than the threshold, which must be the bound of a bucket."""
    threshold = float(indicator.threshold_seconds)
    all_of_them = _sum(_selected(samples[f"{indicator.metric}_count"], indicator.selection))
    buckets = _selected(samples[f"{indicator.metric}_bucket"], indicator.selection)
    at_bound = [sample for sample in buckets if float(sample.labels["le"]) == threshold]
    if buckets and not at_bound:
        return _NOTHING  # it cannot be told: no data, rather than a guess
    return Count(all_of_them, all_of_them - _sum(at_bound))


def _selected(samples: Iterable[Sample], matchers: Sequence[Matcher]) -> list[Sample]:
    return [s for s in samples if all(matcher.matches(s.labels) for matcher in matchers)]


def _sum(samples: Iterable[Sample]) -> float:
    return sum(sample.value for sample in samples)

"""What was measured, against the bare application: the numbers of the report."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.cpu import Bursts
from bench.estimates import Estimate, differences, estimate, ratios
from bench.fits import percentile
from bench.rate import Turns
from bench.variants import MANY, VARIANTS

BARE: Final = "bare"
CONTROL: Final = "bare_again"
BARE_MANY: Final = "bare_50_routes"


@dataclass(frozen=True, slots=True)
class Figures:
    """One variant and one operation."""

    cpu_us: float
    """Per request, the median."""
    ratio: Estimate
    """To the CPU of the bare application with as many routes."""
    added_us: Estimate
    """What it uses more than that."""
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    """As fast as it answers; see rate.py for a fixed rate."""
    requests: int
    rounds: int

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "cpu_ratio": round(self.ratio.value, 4),
            "spread": round(self.ratio.spread, 4),
            "error": round(self.ratio.error, 4),
            "cpu_us": round(self.cpu_us, 1),
            "added_us": round(self.added_us.value, 1),
            "added_us_error": round(self.added_us.error, 1),
            "requests_per_second": round(self.requests_per_second, 1),
            "p50_ms": round(self.p50_ms, 3),
            "p99_ms": round(self.p99_ms, 3),
            "requests": self.requests,
            "rounds": self.rounds,
        }


def base_of(variant: str) -> str:
    """Return the bare application with as many routes."""
    return BARE_MANY if VARIANTS[variant].routes == MANY else BARE


def compare(bursts: Mapping[str, Bursts]) -> dict[str, Figures]:
    """Return the figures of each variant of one operation that has a complete round, as its base has."""
    return {
        name: _figures(one, bursts[base_of(name)])
        for name, one in bursts.items()
        if one.cpu_seconds and base_of(name) in bursts and bursts[base_of(name)].cpu_seconds
    }


def _figures(bursts: Bursts, base: Bursts) -> Figures:
    added = estimate(differences(bursts.cpu_seconds, base.cpu_seconds))
    return Figures(
        cpu_us=statistics.median(bursts.cpu_seconds) * 1e6,
        ratio=estimate(ratios(bursts.cpu_seconds, base.cpu_seconds)),
        added_us=Estimate(added.value * 1e6, added.spread * 1e6, added.error * 1e6),
        requests_per_second=statistics.median(bursts.rates),
        p50_ms=percentile(bursts.durations, 0.5) * 1e3,
        p99_ms=percentile(bursts.durations, 0.99) * 1e3,
        requests=bursts.requests,
        rounds=len(bursts.cpu_seconds),
    )


@dataclass(frozen=True, slots=True)
class Latency:
    """One variant at the fixed rate of one operation."""

    p50_ms: float
    p99_ms: float
    p99_ratio: Estimate
    requests: int
    rounds: int

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "p50_ms": round(self.p50_ms, 3),
            "p99_ms": round(self.p99_ms, 3),
            "p99_ratio": round(self.p99_ratio.value, 3),
            "p99_spread": round(self.p99_ratio.spread, 3),
            "p99_error": round(self.p99_ratio.error, 3),
            "requests": self.requests,
        }


def latencies(turns: Mapping[str, Turns]) -> dict[str, Latency]:
    """Return the latency of each variant of one operation that has had a turn, as the bare one has."""
    base = turns[BARE].p99 if BARE in turns else []
    return {
        name: Latency(
            statistics.median(one.p50) * 1e3,
            statistics.median(one.p99) * 1e3,
            estimate(ratios(one.p99, base)),
            one.requests,
            len(one.p99),
        )
        for name, one in turns.items()
        if one.p99 and base
    }

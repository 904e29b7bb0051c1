"""What was measured, against the bare application: the numbers of the report."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.cpu import Bursts
from bench.estimates import Estimate, differences, estimate, p99_ratio, ratios
from bench.fits import percentile
from bench.machine import BURST_STOLEN, TURN_STOLEN
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
    """Those in which the host left both alone. If there is none, all are in the figures."""

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
    # After Ctrl-C, one of them may have one more.
    both = zip(bursts.stolen, base.stolen, strict=False)
    undisturbed = [max(stolen) <= BURST_STOLEN for stolen in both]
    counted = undisturbed if any(undisturbed) else [True] * len(undisturbed)
    own, bases, rates = (
        list(itertools.compress(values, counted))
        for values in (bursts.cpu_seconds, base.cpu_seconds, bursts.rates)
    )
    durations = list(itertools.chain(*itertools.compress(bursts.durations, counted)))
    added = estimate(differences(own, bases))
    return Figures(
        cpu_us=statistics.median(own) * 1e6,
        ratio=estimate(ratios(own, bases)),
        added_us=Estimate(added.value * 1e6, added.spread * 1e6, added.error * 1e6),
        requests_per_second=statistics.median(rates),
        p50_ms=percentile(durations, 0.5) * 1e3,
        p99_ms=percentile(durations, 0.99) * 1e3,
        requests=len(durations),
        rounds=sum(undisturbed),
    )


@dataclass(frozen=True, slots=True)
class Latency:
    """One variant at the fixed rate of one operation."""

    p50_ms: float
    p99_ms: float
    p99_ratio: Estimate
    requests: int
    rounds: int
    """The turns that the host left alone, of this one or the bare one, whichever has fewer."""

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
    if BARE not in turns or not turns[BARE].durations:
        return {}
    bare, bare_rounds = _undisturbed(turns[BARE])
    # Two applications that are equal, so the others are compared with both: a p99 has few requests.
    again = turns.get(CONTROL)
    both = [*bare, *_undisturbed(again)[0]] if again is not None else bare
    found = {}
    for name, one in turns.items():
        if not one.durations:
            continue
        counted, rounds = _undisturbed(one)
        every = [duration for turn in counted for duration in turn]
        found[name] = Latency(
            p50_ms=percentile(every, 0.5) * 1e3,
            p99_ms=percentile(every, 0.99) * 1e3,
            p99_ratio=p99_ratio(counted, bare if name in {BARE, CONTROL} else both),
            requests=len(every),
            rounds=min(rounds, bare_rounds),
        )
    return found


def _undisturbed(turns: Turns) -> tuple[Sequence[Sequence[float]], int]:
    """Return the turns that count, and how many of them the host left alone: all count if it is none."""
    left = [
        turn
        for turn, stolen in zip(turns.durations, turns.stolen, strict=True)
        if stolen <= TURN_STOLEN
    ]
    return left or turns.durations, len(left)

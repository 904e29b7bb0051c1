"""What full instrumentation may cost at most, checked against one run.

A value whose error reaches over its limit is neither met nor missed: it cannot be said. The error is that
of the median over the rounds, and on top of it what two equal applications were apart in the same run.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.comparison import BARE, Figures, Latency
from bench.estimates import Estimate
from bench.noise import FEWEST, TOO_FEW, Noise

MET: Final = "met"
MISSED: Final = "missed"
UNKNOWN: Final = "cannot be said"

FEW_TRACES: Final = "sampling_0.01"
ALL_TRACES: Final = "sampling_1.0"
SIGNALS: Final = {FEW_TRACES: "signals_0.01", ALL_TRACES: "signals_1.0"}
"""The same without what is no telemetry, such as security headers and problem documents."""
TYPICAL: Final = "typical"
RATIOS: Final = (
    # variant, operation, target, stretch
    (FEW_TRACES, "ping", 1.35, 1.25),
    (FEW_TRACES, "read", 1.15, 1.10),
    (ALL_TRACES, "ping", 2.5, 1.9),
    (ALL_TRACES, "read", 1.5, 1.35),
)
"""Of all signals at once on the bare application, and of the whole service."""
LESS_THAN_TYPICAL: Final = 8.0
ROUTES: Final = 1.25
"""Added CPU at 50 routes, compared with 2: independent of their number, as far as noise lets one see. What
looks through all routes once more adds 2.4 times as much."""
P99: Final = 1.5
_ON_POSTGRES: Final = ("read",)
"""What is said of these is said of PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Target:
    """One target and what became of it."""

    what: str
    limit: float
    value: Estimate | None
    at_least: bool = False
    stretch: bool = False
    why_not: str = ""
    """The reason why nothing can be said."""

    @property
    def verdict(self) -> str:
        """Whether it is met, missed, or cannot be said."""
        if self.why_not or self.value is None:
            return UNKNOWN
        if abs(self.value.value - self.limit) < self.value.error:
            return UNKNOWN
        above = self.value.value > self.limit
        return MET if above == self.at_least else MISSED

    @property
    def reason(self) -> str:
        """Why nothing can be said, where that is so."""
        if self.verdict != UNKNOWN:
            return ""
        if self.value is None:
            return self.why_not or "not measured"
        return self.why_not or f"its error, ±{self.value.error:.2f}, reaches over the limit"

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "target": self.what,
            "limit": self.limit,
            "at_least": self.at_least,
            "stretch": self.stretch,
            "value": round(self.value.value, 3) if self.value else None,
            "error": round(self.value.error, 3) if self.value else None,
            "verdict": self.verdict,
            "reason": self.reason,
        }


def check(
    figures: Mapping[str, Mapping[str, Figures]],
    latency: Mapping[str, Mapping[str, Latency]],
    noise: Noise,
    *,
    on_postgres: bool,
) -> list[Target]:
    """Return all targets with what was measured."""
    return [
        *_ratios(figures, noise, on_postgres=on_postgres),
        *_less_than_typical(figures, noise, on_postgres=on_postgres),
        _routes(figures.get("ping", {}), noise),
        *_p99(latency, noise, on_postgres=on_postgres),
    ]


def _why_not(
    noise: Noise, operation: str, *measured: Figures | Latency | None, on_postgres: bool
) -> str:
    """Return why nothing can be said about these; nothing if it is that one of them is not there."""
    there = [one for one in measured if one is not None]
    if len(there) < len(measured):
        return ""
    if operation in _ON_POSTGRES and not on_postgres:
        return "the database is not PostgreSQL"
    if min(one.rounds for one in there) < FEWEST:
        return TOO_FEW
    return noise.why_not(operation, latency=isinstance(there[0], Latency))


def _ratios(
    figures: Mapping[str, Mapping[str, Figures]], noise: Noise, *, on_postgres: bool
) -> Iterator[Target]:
    for service, operation, target, stretch in RATIOS:
        for variant, limit in itertools.product((SIGNALS[service], service), (target, stretch)):
            one = figures.get(operation, {}).get(variant)
            yield Target(
                f"{operation}: CPU of {variant} to bare",
                limit,
                _doubted(one.ratio, noise.apart.get(operation, 0.0)) if one else None,
                stretch=limit == stretch,
                why_not=_why_not(noise, operation, one, on_postgres=on_postgres),
            )


def _doubted(ratio: Estimate, apart: float) -> Estimate:
    """Return a ratio to bare with what two equal applications were apart in its error."""
    return ratio.with_doubt(ratio.value * apart)


def _less_than_typical(
    figures: Mapping[str, Mapping[str, Figures]], noise: Noise, *, on_postgres: bool
) -> Iterator[Target]:
    for operation in ("ping", "read"):
        of = figures.get(operation, {})
        ours = _added(of, FEW_TRACES, noise, operation)
        theirs = _added(of, TYPICAL, noise, operation)
        both = of.get(FEW_TRACES), of.get(TYPICAL)
        why = _why_not(noise, operation, *both, on_postgres=on_postgres) if BARE in of else ""
        value = theirs.over(ours) if ours and theirs else None
        if ours and theirs and value is None:
            why = why or f"{FEW_TRACES} adds so little that noise hides it"
        yield Target(
            f"{operation}: CPU that typical adds to what {FEW_TRACES} adds",
            LESS_THAN_TYPICAL,
            value,
            at_least=True,
            why_not=why,
        )


def _added(
    figures: Mapping[str, Figures], variant: str, noise: Noise, operation: str
) -> Estimate | None:
    if variant not in figures or BARE not in figures:
        return None
    doubt = figures[BARE].cpu_us * noise.apart.get(operation, 0.0)
    return figures[variant].added_us.with_doubt(doubt)


def _routes(figures: Mapping[str, Figures], noise: Noise) -> Target:
    few = _added(figures, FEW_TRACES, noise, "ping")
    many = _added(figures, f"{FEW_TRACES}_50_routes", noise, "ping")
    both = figures.get(FEW_TRACES), figures.get(f"{FEW_TRACES}_50_routes")
    why_not = _why_not(noise, "ping", *both, on_postgres=True) if BARE in figures else ""
    return Target(
        f"ping: CPU that {FEW_TRACES} adds at 50 routes to that at 2",
        ROUTES,
        many.over(few) if few and many else None,
        why_not=why_not,
    )


def _p99(
    latency: Mapping[str, Mapping[str, Latency]], noise: Noise, *, on_postgres: bool
) -> Iterator[Target]:
    for operation in ("ping", "read"):
        for variant in (SIGNALS[ALL_TRACES], ALL_TRACES):
            one = latency.get(operation, {}).get(variant)
            yield Target(
                f"{operation}: p99 of {variant} to bare at a fixed rate",
                P99,
                _doubted(one.p99_ratio, noise.latency_apart.get(operation, 0.0)) if one else None,
                why_not=_why_not(noise, operation, one, on_postgres=on_postgres),
            )

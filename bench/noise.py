"""Whether the machine was quiet enough to conclude anything: the same application, measured as two.

What two equal things were apart is the least that a difference must be to mean something. Beyond the
bounds below, or when others have used the machine, nothing is concluded at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.comparison import CONTROL, Figures, Latency
from bench.estimates import Estimate
from bench.machine import BURST_STOLEN, OTHERS, TURN_STOLEN

FEWEST: Final = 4
"""Rounds that the host did not disturb; fewer have no quartiles, so nobody knows how far off they are."""
TOO_FEW: Final = f"there were fewer than {FEWEST} rounds that its host did not disturb"
CPU_APART: Final = 0.05
"""How far the medians of two equal applications may be apart."""
CPU_ERROR: Final = 0.05
"""How far off the median of their ratios may be."""
LATENCY_APART: Final = 0.25
"""A 99th percentile is made of few requests: it is never as quiet as CPU."""
LATENCY_ERROR: Final = 0.25


@dataclass(frozen=True, slots=True)
class Noise:
    """How quiet it was: for CPU and latency by operation, the reason why nothing can be said, or ''."""

    cpu: dict[str, str]
    latency: dict[str, str]
    apart: dict[str, float]
    """By operation: by how much the control differs from 1, a doubt about every ratio."""
    latency_apart: dict[str, float]
    others: str
    """The reason if others used the machine."""

    @property
    def conclusive(self) -> bool:
        """Whether every measured thing allows a conclusion about CPU."""
        return not self.others and bool(self.cpu) and not any(self.cpu.values())

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.others:
            return f"The machine is too noisy to conclude: {self.others}."
        if not self.cpu:
            return "Nothing was measured twice, so nothing can be said about the noise."
        loud = [f"{name} ({reason})" for name, reason in self.cpu.items() if reason]
        if loud:
            return f"The machine is too noisy to conclude about {', '.join(loud)}."
        most = max(self.apart.values())
        quiet = f"Quiet enough: two equal applications were at most {most:.1%} apart in CPU"
        late = [name for name, reason in self.latency.items() if reason]
        if late:
            return f"{quiet}; too noisy to conclude about the p99 of {', '.join(late)}."
        if self.latency_apart:
            quiet += f" and {max(self.latency_apart.values()):.0%} in p99"
        return f"{quiet}."

    def why_not(self, operation: str, *, latency: bool = False) -> str:
        """Return why nothing can be said about an operation, or ''; `sentence` has the details."""
        known = self.latency if latency else self.cpu
        if operation not in known:
            return "no control"
        return "too noisy" if self.others or known[operation] else ""

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "conclusive": self.conclusive,
            "sentence": self.sentence,
            "others": self.others,
            "cpu": {name: _told(self.apart[name], why) for name, why in self.cpu.items()},
            "p99": {
                name: _told(self.latency_apart[name], why) for name, why in self.latency.items()
            },
            "bounds": {
                "cpu_apart": CPU_APART,
                "cpu_error": CPU_ERROR,
                "p99_apart": LATENCY_APART,
                "p99_error": LATENCY_ERROR,
                "others": OTHERS,
                "burst_stolen": BURST_STOLEN,
                "turn_stolen": TURN_STOLEN,
            },
        }


def _told(apart: float, why: str) -> dict[str, Any]:
    return {"apart": round(apart, 4), "too_noisy": why}


def judge(
    figures: Mapping[str, Mapping[str, Figures]],
    latency: Mapping[str, Mapping[str, Latency]],
    *,
    others: float,
) -> Noise:
    """Return how quiet it was; `others` is the share of the machine that others used beside."""
    controls = {name: of[CONTROL] for name, of in figures.items() if CONTROL in of}
    late = {name: of[CONTROL] for name, of in latency.items() if CONTROL in of}
    return Noise(
        cpu={
            name: _reason(one.ratio, one.rounds, CPU_APART, CPU_ERROR)
            for name, one in controls.items()
        },
        latency={
            name: _reason(one.p99_ratio, one.rounds, LATENCY_APART, LATENCY_ERROR)
            for name, one in late.items()
        },
        apart={name: abs(one.ratio.value - 1) for name, one in controls.items()},
        latency_apart={name: abs(one.p99_ratio.value - 1) for name, one in late.items()},
        others=_who(others),
    )


def _reason(control: Estimate, rounds: int, apart: float, error: float) -> str:
    if rounds < FEWEST:
        return TOO_FEW
    if abs(control.value - 1) > apart:
        return f"two equal applications were {abs(control.value - 1):.0%} apart"
    if control.error > error:
        return f"the ratio of two equal applications may be off by {control.error:.0%}"
    return ""


def _who(others: float) -> str:
    return f"others used {others:.0%} of it while nothing of ours ran" if others > OTHERS else ""

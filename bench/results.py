"""All that a run has measured, filled as it goes on: after Ctrl-C what is there can still be told."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench import comparison, noise, targets
from bench.comparison import Figures, Latency
from bench.cpu import Measured
from bench.footprint import Footprint
from bench.machine import BURST_STOLEN, TURN_STOLEN, Machine
from bench.noise import Noise
from bench.rate import AtRates
from bench.targets import Target


@dataclass
class Results:
    """What was measured, and under which circumstances."""

    machine: Machine
    on_postgres: bool = False
    measured: Measured = field(default_factory=dict)
    at_rates: AtRates = field(default_factory=dict)
    footprints: dict[str, Footprint] = field(default_factory=dict)
    image_bytes: int | None = None
    test_seconds: float | None = None
    others_after: float = 0.0
    """The share of the machine that others used when all of ours had ended."""
    stolen: float = 0.0
    """The share of all the time that the host gave to others."""
    complaints: list[str] = field(default_factory=list)
    """What shows that something did not work that was measured."""
    complete: bool = False
    seconds: float = 0.0
    """How long it took."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not any(self.figures.values())

    @cached_property
    def figures(self) -> dict[str, dict[str, Figures]]:
        """By operation and variant; to be asked for when nothing more comes."""
        return {name: comparison.compare(bursts) for name, bursts in self.measured.items()}

    @cached_property
    def latency(self) -> dict[str, dict[str, Latency]]:
        """By operation and variant."""
        return {name: comparison.latencies(one.variants) for name, one in self.at_rates.items()}

    @cached_property
    def noise(self) -> Noise:
        """How quiet the machine was."""
        others = max(self.machine.others_before, self.others_after)
        return noise.judge(self.figures, self.latency, others=others)

    @property
    def disturbed(self) -> float:
        """The share of bursts and turns that the host disturbed, which do not count."""
        bursts = itertools.chain(*(variants.values() for variants in self.measured.values()))
        turns = itertools.chain(*(one.variants.values() for one in self.at_rates.values()))
        disturbed = [share > BURST_STOLEN for one in bursts for share in one.stolen]
        disturbed += [share > TURN_STOLEN for one in turns for share in one.stolen]
        return sum(disturbed) / len(disturbed) if disturbed else 0.0

    @cached_property
    def targets(self) -> list[Target]:
        """All targets with what became of them."""
        return targets.check(self.figures, self.latency, self.noise, on_postgres=self.on_postgres)

    def as_json(self) -> dict[str, Any]:
        """Return everything for machines."""
        return {
            **{name: _each(variants) for name, variants in self.figures.items()},
            "fixed_rate": {
                name: {
                    "requests_per_second": round(self.at_rates[name].rate, 1),
                    "variants": _each(variants),
                }
                for name, variants in self.latency.items()
            },
            "footprint": {
                "variants": _each(self.footprints),
                "image_bytes": self.image_bytes,
                "test_seconds": self.test_seconds,
            },
            "machine": {
                **self.machine.as_json(),
                "database": "PostgreSQL" if self.on_postgres else "SQLite",
                "others_after": self.others_after,
                "stolen": self.stolen,
                "disturbed": round(self.disturbed, 3),
            },
            "noise": self.noise.as_json(),
            "targets": [target.as_json() for target in self.targets],
            "complaints": self.complaints,
            "complete": self.complete,
            "seconds": round(self.seconds, 1),
        }


def _each(variants: Mapping[str, Figures | Latency | Footprint]) -> dict[str, Any]:
    return {name: one.as_json() for name, one in variants.items()}

"""What a run consists of: which variants and operations, how many rounds, and how long that takes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bench.comparison import BARE, BARE_MANY, CONTROL
from bench.cpu import burst_seconds
from bench.rate import GUESS_SECONDS, turn_seconds
from bench.requests import OPERATIONS
from bench.targets import ALL_TRACES, FEW_TRACES, SIGNALS, TYPICAL
from bench.variants import MANY, VARIANTS

SECONDS: Final = 285.0
QUICK_SECONDS: Final = 57.0
"""What a run may take, without the start of Python and make."""
PREPARE_SECONDS: Final = 6.0
START_SECONDS: Final = 1.6
STOP_SECONDS: Final = 3.0
"""Guesses, for the time left that is shown."""
LOWEST_RATE: Final = 20
"""With fewer, a turn has too few requests to speak of percentiles."""
HIGHEST_RATE: Final = 100_000
LATENCY_OF: Final = (BARE, CONTROL, SIGNALS[ALL_TRACES], ALL_TRACES)
_QUICK: Final = (BARE, CONTROL, *SIGNALS.values(), FEW_TRACES, ALL_TRACES, TYPICAL)
_WITH_TARGETS: Final = ("ping", "read")
_NEAR: Final = (BARE, CONTROL, *SIGNALS.values(), FEW_TRACES, ALL_TRACES)
_CLOSELY: Final = {"ping": (*_NEAR, BARE_MANY, f"{FEW_TRACES}_50_routes"), "read": _NEAR}
"""What has a target that is near to what is measured: it takes more rounds to tell them apart."""


class WrongArgument(ValueError):
    """What was asked for does not exist; the text says what does."""


@dataclass(frozen=True, slots=True)
class Agenda:
    """What is measured, and how thoroughly."""

    variants: tuple[str, ...]
    operations: tuple[str, ...]
    rounds: int
    closer_rounds: int
    """More of them, after the others, for what is compared with a target: as many at the most."""
    burst: float
    """Seconds of one burst."""
    latency_rounds: int
    latency_turn: float
    """Seconds of one turn at the fixed rate."""
    rate: float | None
    """Requests a second for that; None takes what keeps the slowest as busy as it should be (rate.py)."""
    within: float
    """Seconds that all of it may take: a machine that starts everything slowly has fewer closer rounds."""

    @property
    def asked(self) -> dict[str, tuple[str, ...]]:
        """Return the variants of each operation: many routes make a difference only to finding one."""
        return {
            operation: tuple(
                name
                for name in self.variants
                if operation in _WITH_TARGETS or VARIANTS[name].routes != MANY
            )
            for operation in self.operations
        }

    @property
    def asked_closely(self) -> dict[str, tuple[str, ...]]:
        """Return what is asked in the rounds after the others; nothing if there are none."""
        if not self.closer_rounds:
            return {}
        return {
            operation: tuple(name for name in asked if name in _CLOSELY[operation])
            for operation, asked in self.asked.items()
            if operation in _CLOSELY
        }

    @property
    def latency_variants(self) -> tuple[str, ...]:
        """Return whose latency is measured: the bare application twice, and what records every trace."""
        found = tuple(name for name in LATENCY_OF if name in self.variants)
        return found if set(found) - {BARE, CONTROL} else ()

    @property
    def latency_operations(self) -> tuple[str, ...]:
        """Return the operations whose latency is measured: those that have a target."""
        return tuple(name for name in self.operations if name in _WITH_TARGETS)

    @property
    def start_seconds(self) -> float:
        """How long starting everything takes, about."""
        return PREPARE_SECONDS + START_SECONDS * len(self.variants)

    @property
    def cpu_seconds(self) -> float:
        """How long the bursts take."""
        bursts = sum(map(len, self.asked.values())) * (self.rounds + 1)
        bursts += sum(map(len, self.asked_closely.values())) * (self.closer_rounds + 1)
        return burst_seconds(self.burst) * bursts

    @property
    def latency_seconds(self) -> float:
        """How long the turns at the fixed rate take."""
        if not self.latency_variants:
            return 0.0
        a_round = turn_seconds(self.latency_turn) * len(self.latency_variants)
        guess = turn_seconds(GUESS_SECONDS) if self.rate is None else 0.0
        return (a_round * self.latency_rounds + guess) * len(self.latency_operations)

    @property
    def closer_until(self) -> float:
        """How long after the beginning the closer rounds have to be over."""
        return self.within - self.latency_seconds - STOP_SECONDS

    @property
    def seconds(self) -> float:
        """How long all of it takes, about."""
        return self.start_seconds + self.cpu_seconds + self.latency_seconds + STOP_SECONDS


def make_agenda(
    *,
    quick: bool = False,
    variants: str = "",
    operations: str = "",
    rounds: int | None = None,
    rate: float | None = None,
) -> Agenda:
    """Return the agenda for what was asked on the command line; names are separated by commas.

    The bare application and its control are always measured: without them nothing can be compared.

    Raises:
        WrongArgument: There is no such variant or operation, or there would be nothing to measure.
    """
    chosen = _named(variants, VARIANTS, "variant") or (_QUICK if quick else tuple(VARIANTS))
    bases = [BARE, CONTROL]
    if any(VARIANTS[name].routes == MANY for name in chosen):
        bases.append(BARE_MANY)
    wanted = {*bases, *chosen}
    if rounds is not None and rounds < 1:
        raise WrongArgument("there must be at least one round")
    if rate is not None and not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise WrongArgument(
            f"the rate must be from {LOWEST_RATE} to {HIGHEST_RATE}: requests a second"
        )
    return Agenda(
        variants=tuple(name for name in VARIANTS if name in wanted),
        operations=_named(operations, OPERATIONS, "operation")
        or (_WITH_TARGETS if quick else tuple(OPERATIONS)),
        rounds=rounds or (4 if quick else 6),
        closer_rounds=0 if rounds else 1 if quick else 32,
        burst=0.1,
        latency_rounds=rounds or (4 if quick else 8),
        latency_turn=0.35 if quick else 1.0,
        rate=rate,
        within=QUICK_SECONDS if quick else SECONDS,
    )


def _named(text: str, known: Iterable[str], kind: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in set(known):
            raise WrongArgument(f"there is no {kind} {name!r}; there are {', '.join(known)}")
    return names

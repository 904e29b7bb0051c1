"""Latency at a fixed rate: what a customer waits while the service is as busy as it should be.

Every variant is asked at the same rate, in turns, at the same random moments. p50 and p99 are those of all
turns together that the host left alone: a 99th percentile that is made of nine requests tells of three
moments in which the host did something else. The same application measured twice says what is noise.
"""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.client import connected
from bench.cpu import DRAIN_SECONDS
from bench.machine import Steal
from bench.process import ServerProcess
from bench.progress import Progress
from bench.requests import OPERATIONS, Operation
from bench.stage import Customer
from bench.stalls import Stalls

CONNECTIONS: Final = 16
"""As many as may wait before one has to wait for a connection, too."""
WARM_UP_SECONDS: Final = 0.15
"""What fell due while a server was frozen, such as a look at its dependencies every ten seconds, is done
first: otherwise it would be in most turns, and not in one of fourteen."""
BUSY: Final = 0.25
"""How busy the slowest of them is, of one processor. Where it is busier, most who wait for long wait for
others who came just before them, and the p99 tells of the queue."""
_FIRST_GUESS: Final = 0.2
"""Of what it can do at the most. One at a time, requests cost up to twice as much as in a burst."""
GUESS_SECONDS: Final = 0.5


@dataclass(slots=True)
class Turns:
    """What was measured of one variant and one operation, a value for each round."""

    durations: list[list[float]] = field(default_factory=list)
    """Of all of its requests, in seconds."""
    stolen: list[float] = field(default_factory=list)
    """The share of the time of one processor that the host gave to others."""


@dataclass(slots=True)
class AtRate:
    """What was measured for one operation."""

    rate: float
    """Requests a second."""
    variants: dict[str, Turns]


AtRates = dict[str, AtRate]
"""By operation."""


async def measure(
    servers: Mapping[str, ServerProcess],
    rates: Mapping[str, float],
    variants: Sequence[str],
    customer: Customer,
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
    into: AtRates,
    stalls: Stalls | None = None,
) -> None:
    """Run all rounds with each operation at its rate. Expects all servers frozen, and leaves them so.

    Args:
        into: Is filled as it goes on, so that something is there when it is interrupted.
        stalls: What sees the host's disturbances that it does not tell of.
    """
    chance = random.Random(7)  # noqa: S311 - an order, not a secret
    a_round = len(rates) * len(variants) * turn_seconds(seconds)
    for number in range(rounds):
        progress.now_left(a_round * (rounds - number))
        for name, rate in rates.items():
            progress(f"latency, round {number + 1} of {rounds}, {name} at {rate:.0f} a second")
            known = AtRate(rate, {variant: Turns() for variant in variants})
            turns = into.setdefault(name, known).variants
            order = list(variants)
            chance.shuffle(order)
            for variant in order:
                server = servers[variant]
                steal = Steal(stalls)
                durations = await _turn(server, OPERATIONS[name], customer, seconds, rate, number)
                turns[variant].durations.append(durations)
                turns[variant].stolen.append(steal.share_of_one())


async def for_busy(
    server: ServerProcess, operation: str, customer: Customer, *, highest: float
) -> float:
    """Return the rate at which `server` is as busy as it should be; `highest` is what it can do.

    Expects it frozen, and leaves it so.
    """
    rate = _FIRST_GUESS * highest
    cpu, asked = server.cpu_seconds(), server.asked
    await _turn(server, OPERATIONS[operation], customer, GUESS_SECONDS, rate, 0)
    return BUSY * (server.asked - asked) / (server.cpu_seconds() - cpu)


def turn_seconds(seconds: float) -> float:
    """Return how long a turn takes in all."""
    return WARM_UP_SECONDS + seconds + DRAIN_SECONDS + 0.03


async def _turn(
    server: ServerProcess,
    operation: Operation,
    customer: Customer,
    seconds: float,
    rate: float,
    seed: int,
) -> list[float]:
    asked = operation.make(server.port, customer)
    server.thaw()
    async with connected(server.port, CONNECTIONS) as client:
        warm = await client.at_rate(lambda: asked, operation.status, WARM_UP_SECONDS, rate, seed)
        durations = await client.at_rate(lambda: asked, operation.status, seconds, rate, seed)
    time.sleep(DRAIN_SECONDS)  # noqa: ASYNC251 - nothing else is to run
    server.freeze()
    server.asked += len(warm) + len(durations)
    return durations

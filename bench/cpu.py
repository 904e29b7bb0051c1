"""CPU time a request, by interleaved bursts: each round asks every variant in turn, in a new order.

While one server works the others are frozen, so what they do in the background disturbs nobody and is
booked on nobody. Before a burst comes a short one that does not count: a process that was frozen has
nothing left in the processor's caches, and does at once whatever fell due meanwhile. A burst begins with
what that one left in the buffers (spans, lines) and leaves about as much behind: over the rounds all of it
is paid for. A ratio compares two bursts of one round, so a machine that gets slower in between changes both.
A burst during which the host gave the processor to others is noted, and does not count (comparison.py).
"""

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.client import connected
from bench.machine import Steal
from bench.process import ServerProcess
from bench.progress import Progress
from bench.requests import OPERATIONS, Operation
from bench.stage import Customer
from bench.stalls import Stalls

CONNECTIONS = 8
WARM_UP_SECONDS = 0.03
DRAIN_SECONDS = 0.03
"""The log's writer gathers for 20 ms."""


@dataclass(slots=True)
class Bursts:
    """What was measured of one variant and one operation, a value for each round."""

    cpu_seconds: list[float] = field(default_factory=list)
    """Per request."""
    durations: list[list[float]] = field(default_factory=list)
    """Of all of its requests, in seconds."""
    rates: list[float] = field(default_factory=list)
    """Requests a second."""
    stolen: list[float] = field(default_factory=list)
    """The share of the time that the host gave to others."""


Measured = dict[str, dict[str, Bursts]]
"""By operation and variant."""


async def measure(
    servers: Mapping[str, ServerProcess],
    asked: Mapping[str, Sequence[str]],
    customer: Customer,
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
    into: Measured,
    until: float = math.inf,
    stalls: Stalls | None = None,
) -> None:
    """Run the bursts of all rounds; before them, one that does not count. All servers are left frozen.

    Args:
        asked: For each operation, the variants that it is measured on.
        into: Is filled as it goes on, so that something is there when it is interrupted.
        until: A monotonic time; no round begins that would be done later.
        stalls: What sees the host's disturbances that it does not tell of.
    """
    chance = random.Random(6)  # noqa: S311 - an order, not a secret
    for server in servers.values():
        server.freeze()
    a_round = sum(map(len, asked.values())) * burst_seconds(seconds)
    for turn in range(rounds + 1):
        left = until - time.monotonic()
        if left < a_round:
            return
        progress.now_left(min(left, a_round * (rounds + 1 - turn)))
        for name, variants in asked.items():
            progress(f"round {turn} of {rounds}, {name}" if turn else f"warming up, {name}")
            measured = into.setdefault(name, {variant: Bursts() for variant in variants})
            order = list(variants)
            chance.shuffle(order)
            for variant in order:
                bursts = measured[variant] if turn else Bursts()
                await _burst(servers[variant], OPERATIONS[name], customer, bursts, seconds, stalls)


def burst_seconds(seconds: float) -> float:
    """Return how long a burst takes in all."""
    return WARM_UP_SECONDS + seconds + DRAIN_SECONDS + 0.02


async def _burst(
    server: ServerProcess,
    operation: Operation,
    customer: Customer,
    into: Bursts,
    seconds: float,
    stalls: Stalls | None,
) -> None:
    asked = operation.make(server.port, customer)
    server.thaw()
    async with connected(server.port, CONNECTIONS) as client:
        warm = await client.burst(lambda: asked, operation.status, WARM_UP_SECONDS)
        steal = Steal(stalls)
        before = server.cpu_seconds()
        began = time.perf_counter()
        durations = await client.burst(lambda: asked, operation.status, seconds)
        took = time.perf_counter() - began
    time.sleep(DRAIN_SECONDS)  # noqa: ASYNC251 - nothing else is to run
    server.freeze()
    server.asked += len(warm) + len(durations)
    into.cpu_seconds.append((server.cpu_seconds() - before) / len(durations))
    into.stolen.append(steal.share())
    into.durations.append(durations)
    into.rates.append(len(durations) / took)

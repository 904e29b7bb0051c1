"""Results made up for the tests: what a run would have measured, without a server and without a clock."""

from collections.abc import Mapping, Sequence

from bench.cpu import Bursts, Measured
from bench.machine import Machine
from bench.rate import AtRate, Turns
from bench.results import Results

ROUNDS = 8
QUIET = Machine(
    "3.11.7", "Linux 6 x86_64", "a processor", 2, 2**34, others_before=0.01, load_before=0.1
)
PING = {
    "bare": 100.0,
    "bare_again": 101.0,
    "signals_0.01": 127.0,
    "signals_1.0": 195.0,
    "sampling_0.01": 128.0,
    "sampling_1.0": 200.0,
    "typical": 2000.0,
}
READ = {
    "bare": 1000.0,
    "bare_again": 990.0,
    "signals_0.01": 1070.0,
    "signals_1.0": 1290.0,
    "sampling_0.01": 1080.0,
    "sampling_1.0": 1300.0,
    "typical": 5000.0,
}


def bursts(cpu_us: Sequence[float]) -> Bursts:
    """Return what a variant would have measured that used so much CPU in each round."""
    return Bursts(
        cpu_seconds=[one / 1e6 for one in cpu_us],
        durations=[[0.001] * 99 + [0.005]] * len(cpu_us),
        rates=[1e6 / one for one in cpu_us],
        stolen=[0.0] * len(cpu_us),
    )


def measured(ping: Mapping[str, float] = PING, read: Mapping[str, float] = READ) -> Measured:
    """Return a run in which every round was slower than the last one, for all alike."""
    slower = [1 + turn / 100 for turn in range(ROUNDS)]
    return {
        name: {variant: bursts([us * factor for factor in slower]) for variant, us in cpu.items()}
        for name, cpu in (("ping", ping), ("read", read))
        if cpu
    }


def at_rate(bare: float, again: float, service: float) -> AtRate:
    """Return the latency of those that have one, from their p99 in milliseconds."""
    return AtRate(
        400.0,
        {
            name: Turns([[p99 / 4000] * 98 + [p99 / 1000] * 2] * 4, [0.0] * 4)
            for name, p99 in (
                ("bare", bare),
                ("bare_again", again),
                ("signals_1.0", service),
                ("sampling_1.0", service),
            )
        },
    )


def results(machine: Machine = QUIET, **given: object) -> Results:
    """Return a complete run on a quiet machine that meets its targets; `given` replaces parts of it."""
    parts: dict[str, object] = {
        "on_postgres": True,
        "measured": measured(
            PING | {"bare_50_routes": 110.0, "sampling_0.01_50_routes": 138.0},
        ),
        "at_rates": {"ping": at_rate(3.0, 3.1, 3.6), "read": at_rate(8.0, 7.9, 9.0)},
        "complete": True,
        "seconds": 50.0,
    }
    return Results(machine, **(parts | given))  # type: ignore[arg-type]

"""Memory over time: the service at a modest rate, with errors among the requests, and every trace kept.

Resident memory is read each few seconds. The first half is for warming up: caches fill, pools open. The
slope is that of the line of least squares through the second half; its standard error allows for readings
that resemble the ones before them, as memory's do.
"""

import asyncio
import itertools
import json
import math
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from bench.client import connected, request
from bench.columns import aligned
from bench.family import stopping
from bench.fits import fitted
from bench.process import ServerProcess
from bench.serve import EXTRA
from bench.stage import ORDER, Customer, Stage, customer
from tests.tools import free_port

SAMPLE_SECONDS: Final = 5.0
SCRAPE_SECONDS: Final = 15.0
RATE: Final = 40.0
CERTAIN: Final = 2.0
"""Standard errors to either side that are believed."""
NOTHING_BELOW: Final = 10.0
"""MB an hour: a container of 256 MB would live for a day, and less than that a short run cannot tell."""
_MB: Final = 1024 * 1024
_FEWEST: Final = 8
_SHORTEST: Final = 240.0
"""Seconds. Before that, what grows is what warms up."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth in MB an hour, and its standard error."""

    mb_an_hour: float
    error: float

    @property
    def verdict(self) -> str:
        """Say what can be said."""
        low = self.mb_an_hour - CERTAIN * self.error
        high = self.mb_an_hour + CERTAIN * self.error
        if math.isnan(self.error):
            return "cannot be said"
        if high < NOTHING_BELOW:
            return "no growth"
        return f"grows by {self.mb_an_hour:.0f} MB an hour" if low > 0 else "cannot be said"


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen."""

    minutes: float
    rate: float
    requests: dict[str, int]
    samples: tuple[tuple[float, int], ...]
    """Seconds since the start, resident bytes."""
    slope: Slope


def slope_of(samples: Sequence[tuple[float, int]]) -> Slope:
    """Return the growth over the second half of the samples."""
    half = samples[len(samples) // 2 :]
    if len(half) < _FEWEST or samples[-1][0] < _SHORTEST:
        return Slope(math.nan, math.nan)
    hours = [seconds / 3600 for seconds, _ in half]
    sizes = [size / _MB for _, size in half]
    slope, intercept = fitted(hours, sizes)
    rest = [size - intercept - slope * hour for hour, size in zip(hours, sizes, strict=True)]
    squares = sum(one * one for one in rest)
    middle = sum(hours) / len(hours)
    spread = sum((hour - middle) ** 2 for hour in hours)
    error = math.sqrt(squares / (len(half) - 2) / spread)
    return Slope(slope, error * _inflation(rest, squares))


def _inflation(rest: Sequence[float], squares: float) -> float:
    """Return by how much the error grows since a reading tells little that the last one did not."""
    if not squares:
        return 1.0
    alike = sum(one * other for one, other in itertools.pairwise(rest)) / squares
    alike = min(max(alike, 0.0), 0.95)
    return math.sqrt((1 + alike) / (1 - alike))


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    share: float
    status: int
    make: Callable[[], bytes]


def _mix(port: int, who: Customer) -> list[_Kind]:
    numbers = itertools.count()

    def get(path: str, token: str = "") -> bytes:
        return request("GET", path, port, token=token)

    bad = json.dumps({"currency": "EUR", "lines": []}).encode()
    create = request("POST", "/v1/orders", port, token=who.token, body=ORDER)
    invalid = request("POST", "/v1/orders", port, token=who.token, body=bad)
    return [
        _Kind("ping", 0.2, 200, lambda: get("/bench/ping")),
        _Kind("read", 0.25, 200, lambda: get(f"/v1/orders/{who.order_id}", who.token)),
        _Kind("list", 0.15, 200, lambda: get("/v1/orders?limit=20", who.token)),
        _Kind("create", 0.15, 201, lambda: create),
        _Kind("no such path", 0.1, 404, lambda: get(f"/nowhere/{next(numbers)}")),
        _Kind("no such order", 0.05, 404, lambda: get(_unknown_order(next(numbers)), who.token)),
        _Kind("invalid", 0.05, 422, lambda: invalid),
        _Kind("no token", 0.03, 401, lambda: get("/v1/orders")),
        _Kind("fault", 0.02, 500, lambda: get("/bench/fault")),
    ]


def _unknown_order(number: int) -> str:
    return f"/v1/orders/00000000-0000-4000-8000-{number:012d}"


async def measure(
    stage: Stage, progress: Callable[[str], None], *, minutes: float = 10.0, rate: float = RATE
) -> Result:
    """Ask for so many minutes, and watch."""
    port = free_port()
    environment = stage.environment("sampling_1.0") | {
        "OTEL_TRACES_SAMPLER_ARG": "1.0",
        EXTRA: json.dumps({"fault": True}),
    }
    with stopping(ServerProcess("sampling_1.0", port, environment)) as server:
        kinds = _mix(port, customer(port))
        began = time.monotonic()
        watching = asyncio.create_task(_watch(server, began, minutes * 60, progress))
        scraping = asyncio.create_task(_scrape(port))
        try:
            counts = await asyncio.gather(
                *(
                    _ask(port, kind, minutes * 60, rate * kind.share, n)
                    for n, kind in enumerate(kinds)
                )
            )
            samples = await watching
        finally:
            watching.cancel()
            scraping.cancel()
            await asyncio.gather(watching, scraping, return_exceptions=True)
    requests = {kind.name: count for kind, count in zip(kinds, counts, strict=True)}
    return Result(minutes, rate, requests, tuple(samples), slope_of(samples))


async def _ask(port: int, kind: _Kind, seconds: float, rate: float, seed: int) -> int:
    async with connected(port, 2) as client:
        return len(await client.at_rate(kind.make, kind.status, seconds, rate, seed))


async def _watch(
    server: ServerProcess, began: float, seconds: float, progress: Callable[[str], None]
) -> list[tuple[float, int]]:
    samples: list[tuple[float, int]] = []
    every = min(SAMPLE_SECONDS, seconds / (4 * _FEWEST))
    while (passed := time.monotonic() - began) < seconds:
        samples.append((round(passed, 2), server.resident_bytes()))
        progress(f"{passed:.0f} of {seconds:.0f} s, {samples[-1][1] / _MB:.1f} MB")
        await asyncio.sleep(every)
    return samples


async def _scrape(port: int) -> None:
    """Read /metrics as Prometheus would."""

    def read() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            page.read()

    while True:
        await asyncio.to_thread(read)
        await asyncio.sleep(SCRAPE_SECONDS)


def show(result: Result) -> str:
    """Return a table for people."""
    sizes = [size / _MB for _, size in result.samples]
    rows = [
        ["resident memory, MB", "start", "half", "end", "most"],
        [
            "",
            *(f"{size:.1f}" for size in (sizes[0], sizes[len(sizes) // 2], sizes[-1], max(sizes))),
        ],
    ]
    asked = ", ".join(f"{count} {name}" for name, count in result.requests.items())
    slope = result.slope
    return (
        f"Soak: {result.minutes:g} minutes, {result.rate:g} requests a second, every trace kept\n"
        f"{aligned(rows)}\n"
        f"second half: {slope.mb_an_hour:+.1f} MB an hour, standard error {slope.error:.1f}: "
        f"{slope.verdict}\n"
        f"asked: {asked}"
    )


def as_json(result: Result) -> dict[str, object]:
    """Return the same for machines."""
    return asdict(result) | {"verdict": result.slope.verdict}

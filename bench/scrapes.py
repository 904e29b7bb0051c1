"""What a scrape costs: GET /metrics with many series, and what the others notice of it.

The service is started with series beyond its own. CPU is that of all its processes, by the operating
system, over scrapes in a row; the duration is what the scraper sees. Probes and pings are then asked at a
fixed rate, with and without a scraper beside them that never pauses: much worse than any Prometheus.
"""

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from bench.client import connected, request
from bench.columns import aligned
from bench.family import Family, stopping
from bench.fits import percentile
from bench.process import ServerProcess
from bench.routes import Page, series_of_the_service
from bench.serve import EXTRA
from bench.stage import Stage
from tests.tools import free_port

SIZES: Final = (1_000, 5_000, 20_000)
WORKERS: Final = (1, 2)
RATE: Final = 100.0
_FORMS: Final = {
    "text": "text/plain;version=0.0.4",
    "openmetrics": "application/openmetrics-text;version=1.0.0",
}
_PAUSELESS: Final = {False: "alone", True: "scraped without a pause"}
_PROBED: Final = ("/health/live", "/bench/ping")


@dataclass(frozen=True, slots=True)
class Scrape:
    """One kind of scrape of one server."""

    processes: int
    series: int
    form: str
    encoding: str
    size: int
    """Bytes on the wire."""
    cpu_ms: float
    duration_ms: float
    """The median."""
    scrapes: int


@dataclass(frozen=True, slots=True)
class Probed:
    """What somebody else sees of a server, scraped or not."""

    processes: int
    series: int
    path: str
    scraped: bool
    requests: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen."""

    scrapes: tuple[Scrape, ...]
    probed: tuple[Probed, ...]
    own: tuple[Page, ...]
    """The service's own series, without those that are added here."""


async def measure(
    stage: Stage,
    progress: Callable[[str], None],
    *,
    sizes: Sequence[int] = SIZES,
    workers: Sequence[int] = WORKERS,
    seconds: float = 0.5,
    probe_seconds: float = 4.0,
) -> Result:
    """Scrape each kind for `seconds`, probe for `probe_seconds`."""
    scrapes: list[Scrape] = []
    probed: list[Probed] = []
    for processes in workers:
        for size in sizes:
            progress(f"{size} series, {processes} processes")
            port = free_port()
            with stopping(
                Family("sampling_0.01", port, _environment(stage, size, processes))
            ) as server:
                await _all_warm(port, processes)
                series = count_series(read_page(port))
                scrapes += [
                    await _scrape(server, processes, series, form, encoding, seconds)
                    for form in _FORMS
                    for encoding in ("plain", "gzip")
                ]
                if size == max(sizes):
                    for scraped in (False, True):
                        probed += await _probe(port, processes, series, scraped, probe_seconds)
    progress("the service's own series")
    own = await series_of_the_service(stage, workers)
    return Result(tuple(scrapes), tuple(probed), tuple(own))


def _environment(stage: Stage, series: int, processes: int) -> dict[str, str]:
    return stage.environment("sampling_0.01") | {
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
        "WEB_CONCURRENCY": str(processes),
        EXTRA: json.dumps({"series": series}),
    }


async def _all_warm(port: int, processes: int) -> None:
    """Ask until each process has surely been asked: those that start late have no series yet."""
    seen, deadline = -1, time.monotonic() + 20
    steady = 0
    while steady < 3 * processes and time.monotonic() < deadline:
        async with connected(port, 4 * processes) as client:
            await client.burst(lambda: request("GET", "/bench/ping", port), 200, 0.1)
        found = count_series(await asyncio.to_thread(read_page, port))
        steady = steady + 1 if found == seen else 0
        seen = found


def read_page(port: int) -> str:
    """Return /metrics in the text format."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        text: str = page.read().decode()
    return text


def count_series(page: str) -> int:
    """Return how many samples there are on a page."""
    return sum(1 for line in page.splitlines() if line and not line.startswith("#"))


def scrape_request(port: int, form: str, encoding: str) -> bytes:
    """Return what a scraper sends."""
    head = ["GET /metrics HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Accept: {_FORMS[form]}"]
    if encoding == "gzip":
        head.append("Accept-Encoding: gzip")
    return "\r\n".join([*head, "", ""]).encode()


async def _scrape(
    server: ServerProcess, processes: int, series: int, form: str, encoding: str, seconds: float
) -> Scrape:
    asked = scrape_request(server.port, form, encoding)
    async with connected(server.port, 1) as client:
        await client.burst(lambda: asked, 200, 0)  # this one does not count
        before = server.cpu_seconds()
        durations = await client.burst(lambda: asked, 200, seconds)
        used = server.cpu_seconds() - before
    size = await asyncio.to_thread(_size, server.port, form, encoding)
    return Scrape(
        processes,
        series,
        form,
        encoding,
        size,
        used / len(durations) * 1e3,
        percentile(durations, 0.5) * 1e3,
        len(durations),
    )


def _size(port: int, form: str, encoding: str) -> int:
    headers = {"Accept": _FORMS[form], "Accept-Encoding": encoding}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    with urllib.request.urlopen(asked, timeout=30) as page:  # noqa: S310 - our own server
        return len(page.read())


async def _probe(
    port: int, processes: int, series: int, scraped: bool, seconds: float
) -> list[Probed]:
    asked = scrape_request(port, "text", "gzip")

    async def scrape() -> None:
        if scraped:
            async with connected(port, 1) as client:
                await client.burst(lambda: asked, 200, seconds)

    async def probe(path: str, seed: int) -> Probed:
        one = request("GET", path, port)
        async with connected(port, 4) as client:
            took = await client.at_rate(lambda: one, 200, seconds, RATE, seed)
        p50, p99 = (percentile(took, share) * 1e3 for share in (0.5, 0.99))
        return Probed(processes, series, path, scraped, len(took), p50, p99)

    *found, _ = await asyncio.gather(*(probe(path, n) for n, path in enumerate(_PROBED)), scrape())
    return [one for one in found if one is not None]


def show(result: Result) -> str:
    """Return tables for people."""
    pages = [["scrape", "series", "kB", "CPU ms", "ms", "CPU at 15 s"]]
    pages += [
        [
            f"{one.form}, {one.encoding}, {_processes(one.processes)}",
            str(one.series),
            f"{one.size / 1000:.0f}",
            f"{one.cpu_ms:.1f}",
            f"{one.duration_ms:.1f}",
            f"{one.cpu_ms / 15_000:.2%}",
        ]
        for one in result.scrapes
    ]
    probes = [["asked beside it", "series", "p50 ms", "p99 ms"]]
    probes += [
        [
            f"{one.path}, {_processes(one.processes)}, {_PAUSELESS[one.scraped]}",
            str(one.series),
            f"{one.p50_ms:.1f}",
            f"{one.p99_ms:.1f}",
        ]
        for one in result.probed
    ]
    own = [["the service's own series", "at the start", "under load"]]
    own += [[page.name, str(page.at_start), str(page.under_load)] for page in result.own]
    largest = "; ".join(
        f"{page.name}: " + ", ".join(f"{name} {count}" for name, count in page.largest)
        for page in result.own
    )
    return "\n\n".join([aligned(pages), aligned(probes), aligned(own), f"largest: {largest}"])


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def as_json(result: Result) -> dict[str, object]:
    """Return the same for machines."""
    return asdict(result)

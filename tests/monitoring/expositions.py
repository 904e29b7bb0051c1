"""What programs that run in containers only expose: recorded from the real ones, served as if they ran here.

`python -m tests.monitoring.expositions JOB URL` records one, and keeps what dashboards and rules ask for.
While it is served its counters move, so that rates are rates: all of them by the same share of what they
were, so that buckets still add up, and what was 0 (an error that did not happen) stays 0.
"""

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import httpx2

from tests.monitoring import rulebook
from tests.monitoring.dashboards import filled_in
from tests.monitoring.promql import selectors
from tests.monitoring.queries import dashboard_queries

FOLDER: Final = Path(__file__).parent / "expositions"
ADDRESSES: Final = {
    "otel-collector": "otel-collector:8888",
    "span-metrics": "otel-collector:8889",
    "loki": "loki:3100",
    "jaeger": "jaeger:8888",
    "grafana": "grafana:3000",
}
"""Where Prometheus finds each job in the stack."""
ALWAYS: Final = (
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
)
DOUBLED_EVERY_SECONDS: Final = 60.0

_TYPE: Final = re.compile(r"^# TYPE (\S+) (\w+)$")
_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][\w:]*)(\{.*?\})? (\S+)(?: .*)?$")
_SUFFIXES: Final = ("_total", "_bucket", "_sum", "_count", "_created", "_info")


def recorded() -> dict[str, str]:
    """Return the recordings that there are, by job."""
    found = {job: FOLDER / f"{job}.prom" for job in ADDRESSES}
    return {job: path.read_text() for job, path in found.items() if path.exists()}


@contextmanager
def served() -> Iterator[dict[str, int]]:
    """Serve the recordings for the time of the block; yields the port of each `host:port`."""
    servers = {
        ADDRESSES[job]: ThreadingHTTPServer(("127.0.0.1", 0), partial(_Page, page=Page(text)))
        for job, text in recorded().items()
    }
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        for server in servers.values()
    ]
    for thread in threads:
        thread.start()
    try:
        yield {address: server.server_port for address, server in servers.items()}
    finally:
        for server in servers.values():
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


class Page:
    """A recording whose counters move."""

    def __init__(self, text: str) -> None:
        self._started = time.monotonic()
        self._lines = [*_parsed(text)]

    def text(self) -> str:
        """Return it as it is now."""
        grown = 1 + (time.monotonic() - self._started) / DOUBLED_EVERY_SECONDS
        return "".join(
            f"{line} {number * grown if moves else number!r}\n"
            if number is not None
            else f"{line}\n"
            for line, number, moves in self._lines
        )


def _parsed(text: str) -> Iterator[tuple[str, float | None, bool]]:
    """Yield the lines: without their number where they are samples, with it, and whether it grows."""
    kind = ""
    for line in text.splitlines():
        if declared := _TYPE.match(line):
            kind = declared[2]
            # Prometheus' own text format names a counter with its suffix, OpenMetrics without.
            yield line, None, False
        elif sample := _SAMPLE.match(line):
            name = sample[1]
            grows = kind in {"counter", "histogram", "summary"} and not name.endswith("_created")
            grows = grows and 'quantile="' not in (sample[2] or "")
            yield f"{name}{sample[2] or ''}", float(sample[3]), grows


class _Page(BaseHTTPRequestHandler):
    def __init__(self, *arguments: object, page: Page) -> None:
        self._page = page
        super().__init__(*arguments)  # type: ignore[arg-type]  # handed through

    def do_GET(self) -> None:
        content = self._page.text().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as it is called there
        """Say nothing: Prometheus asks every second."""


def asked_for() -> set[str]:
    """Return the names of all series that dashboards and rules read."""
    asked = {one.metric for _, one in rulebook.reads()} | set(ALWAYS)
    for query in dashboard_queries():
        if query.place == "variable":
            asked |= set(re.findall(r"[a-zA-Z_:][\w:]*", query.text))
        elif query.language == "promql":
            asked |= {one.metric for one in selectors(filled_in(query.text))}
    return asked


def trimmed(text: str, asked: set[str]) -> str:
    """Return a page with the families of which something is asked for, without exemplars and timestamps."""
    kept: list[str] = []
    family = ""
    head: list[str] = []
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            family, head = line.split()[2], [line]
        elif sample := _SAMPLE.match(line):
            names = {family, sample[1], *(family + suffix for suffix in _SUFFIXES)}
            if names & asked and not sample[1].endswith("_created"):
                kept += [*head, f"{sample[1]}{sample[2] or ''} {sample[3]}"]
                head = []
    return "\n".join(kept) + "\n"


def main() -> None:
    """Record what a running program exposes: `JOB URL`, or `JOB FILE`."""
    job, source = sys.argv[1:]
    text = (
        httpx2.get(source, headers={"Accept": "text/plain;version=0.0.4"}).raise_for_status().text
        if source.startswith("http")
        else Path(source).read_text()
    )
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{job}.prom").write_text(trimmed(text, asked_for()))


if __name__ == "__main__":
    assert sys.argv[1] in ADDRESSES, f"one of {sorted(ADDRESSES)}"
    main()

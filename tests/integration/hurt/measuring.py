"""Runs the real service, puts it under a light load, and measures what telemetry does to it.

Nothing here depends on how fast the machine is: a probe's latency is compared with that of the same
service a moment before, when all was well; the time that a process waited for a processor is taken off
the time that it took to end; memory is counted in bytes.
"""

import http.client
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from tests.service import OPERATIONS_TOKEN, ROOT
from tests.tools import free_port, wait_until

PROBE_P99_SECONDS = 0.05
MEMORY_BYTES = 20_000_000
END_SECONDS = 5.0

CLIENTS = 3
REQUESTS_PER_SECOND = 60
PROBE_EVERY_SECONDS = 0.01
SLOWEST_SECONDS = 20.0
"""A request that takes longer is lost. Nothing here takes a tenth of it, on any machine."""


class Hurt(AssertionError):
    """Telemetry did something to the service."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request and the answer it must get, always."""

    path: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)


class Service:
    """`python -m app COMMAND` (or a harmful relative of it) as a process of its own."""

    def __init__(
        self,
        directory: Path,
        stdout: int,
        environment: Mapping[str, str],
        *,
        program: Sequence[str] = ("app", "serve"),
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._stderr = directory / "stderr"
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *program],
                cwd=directory,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(ROOT),
                    "ENVIRONMENT": "test",
                    "LOG_FORMAT": "json",
                    "PORT": str(self.port),
                    "WORKER_METRICS_PORT": str(self.port),
                    "OPERATIONS_TOKEN": OPERATIONS_TOKEN,
                    "OTEL_TRACES_SAMPLER_ARG": "1",
                    "PAYMENT_PROVIDER_URL": "http://127.0.0.1:9",
                    "DATABASE_SLOW_QUERY_MS": "1000000",  # whether there is such a line is luck
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        self.pid = self.process.pid

    def until_ready(self) -> None:
        """Wait for the first answer."""
        wait_until(
            lambda: self.process.poll() is not None or self._is_ready(), "the service is ready"
        )
        assert self.process.poll() is None, self._stderr.read_text(errors="replace")

    def _is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health/ready", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the series with these labels on GET /metrics; there must be one."""
        answer = httpx2.get(f"{self.url}/metrics", timeout=SLOWEST_SECONDS)
        assert answer.status_code == 200
        found = [
            sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, f"{name}{labels} is not among the metrics"
        return float(sum(found))

    def dropped(self, kind: str) -> int:
        """Return how much telemetry of a signal was lost."""
        return int(self.metric("telemetry_dropped_total", signal=kind))

    def details(self) -> str:
        """Return the verdict of GET /health/detailed."""
        answer = httpx2.get(
            f"{self.url}/health/detailed",
            headers={"Authorization": f"Bearer {OPERATIONS_TOKEN}"},
            timeout=SLOWEST_SECONDS,
        )
        assert answer.status_code == 200
        status: str = answer.json()["status"]
        return status

    def memory(self) -> int:
        """Return the bytes of memory in use (resident set)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """Send SIGTERM; the process must end with 0, in END_SECONDS and what it waited for a processor.

        Raises:
            Hurt: It did not.
        """
        waited = self._waited_for_processor()
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            took = time.monotonic() - began - (self._waited_for_processor() - waited)
            if took > END_SECONDS:
                raise Hurt(f"it still ran {took:.1f} s after SIGTERM")
            time.sleep(0.01)
        code = self.process.wait()
        if code != 0:
            raise Hurt(f"it ended with {code}: {self._stderr.read_text(errors='replace')}")

    def _waited_for_processor(self) -> float:
        # Time on a processor and time in the queue for one, in nanoseconds, of the main thread.
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


class Load:
    """A few clients that ask the same things again and again, each over one connection."""

    def __init__(
        self, service: Service, asks: Sequence[Ask], *, patience: float = SLOWEST_SECONDS
    ) -> None:
        self._service = service
        self._asks = itertools.cycle(asks)
        self._patience = patience
        self._lock = threading.Lock()
        self.answered: Counter[Ask] = Counter()
        self.wrong: list[str] = []

    def ask(self, count: int) -> None:
        """Ask so many times, as fast as it goes."""
        left = iter(range(count))
        self._run(lambda: self._take(left), pace=0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask at REQUESTS_PER_SECOND for the time of the block."""
        over = threading.Event()
        thread = threading.Thread(
            target=self._run, args=(lambda: not over.is_set(), CLIENTS / REQUESTS_PER_SECOND)
        )
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _take(self, left: Iterator[int]) -> bool:
        with self._lock:
            return next(left, None) is not None

    def _run(self, goes_on: Callable[[], bool], pace: float) -> None:
        clients = [
            threading.Thread(target=self._client, args=(goes_on, pace)) for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def _client(self, goes_on: Callable[[], bool], pace: float) -> None:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._service.port, timeout=self._patience
        )
        try:
            while goes_on():
                with self._lock:
                    ask = next(self._asks)
                try:
                    connection.request("GET", ask.path, headers=dict(ask.headers))
                    answer = connection.getresponse()
                    body = answer.read()
                except (OSError, http.client.HTTPException) as error:
                    self.wrong.append(f"{ask.path[:40]}: {error!r}")
                    return
                with self._lock:
                    self.answered[ask] += 1
                    if answer.status != ask.status:
                        self.wrong.append(f"{ask.path[:40]}: {answer.status} {body[:500]!r}")
                time.sleep(pace)
        finally:
            connection.close()

    def assert_all_answered(self) -> None:
        """No request was lost, and none got another answer than it should.

        Raises:
            Hurt: One was.
        """
        if self.wrong:
            raise Hurt(f"{len(self.wrong)} requests went wrong, such as {self.wrong[0]}")

    @property
    def total(self) -> int:
        """How many were answered."""
        return self.answered.total()


def probe(service: Service, load: Load, seconds: float) -> float:
    """Ask /health/live at a steady rate for so long, under load; return the 99th percentile in seconds.

    Raises:
        Hurt: An answer was missing or not 200.
    """
    script = str(Path(__file__).with_name("probe.py"))
    arguments = [str(service.port), "/health/live", str(PROBE_EVERY_SECONDS)]
    with load.running():
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        time.sleep(seconds)  # how long is measured; nothing is waited for
        output, _ = process.communicate()
    seen = json.loads(output)
    if seen["failures"]:
        raise Hurt(f"{len(seen['failures'])} probes failed, such as {seen['failures'][0]}")
    latencies: list[float] = sorted(seen["seconds"])
    return latencies[math.ceil(0.99 * len(latencies)) - 1]


@dataclass(frozen=True, slots=True)
class Sinks:
    """How telemetry's sinks are broken (with every buffer in front of them overflowing), and mended."""

    fail: Callable[[], None]
    mend: Callable[[], None]


def assert_unhurt(
    service: Service, load: Load, sinks: Sinks, *, seconds: float = 2.5, attempts: int = 5
) -> None:
    """Measure the service under load while its sinks work, and then while they do not; leave them so.

    The 99th percentile of a probe must be below PROBE_P99_SECONDS, or three times what it was a moment
    before, which tells a slow machine from a slow service. Somebody else on the machine may spoil a
    measurement: then it is done again, in both states.

    Raises:
        Hurt: A request was not answered as it should be, the probe was slow in all attempts, or the
            memory grew by more than MEMORY_BYTES.
    """
    seen = []
    for _ in range(attempts):
        healthy = probe(service, load, seconds=1.0)
        before = service.memory()
        sinks.fail()
        failing = probe(service, load, seconds)
        grown = service.memory() - before
        load.assert_all_answered()
        if grown > MEMORY_BYTES:
            raise Hurt(f"memory grew by {grown / 1e6:.1f} MB")
        seen.append(f"{failing * 1000:.1f} ms (healthy: {healthy * 1000:.1f} ms)")
        if failing <= max(PROBE_P99_SECONDS, 3 * healthy):
            return
        sinks.mend()
    raise Hurt(f"the probe's p99: {', '.join(seen)}")

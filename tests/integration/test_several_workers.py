"""Several workers in one container: one port, one page of metrics, one stream of lines, one end.

A worker is told from the others by the files it counts in, and is asked on purpose by stopping the
others for a moment: they share the listening socket, and who is stopped accepts nothing.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx2
import pytest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from tests.service import ROOT, migrate_database
from tests.tools import free_port, wait_until

WORKERS = 4
CLIENTS = 8
PATIENCE = 120.0
"""Seconds: the machine may be busy with other tests."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
Key = tuple[str, str, str]
"""Method, handler, status."""


class Several:
    """`python -m app serve` with several workers, whose output goes through one pipe to this process."""

    def __init__(self, directory: Path, database_url: str, **environment: str) -> None:
        self.port = free_port()
        self.metrics = directory / "metrics"
        self.lines: list[bytes] = []
        self.errors = directory / "stderr"
        given = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "ENVIRONMENT": "test",
            "LOG_FORMAT": "json",
            "DATABASE_URL": database_url,
            "PORT": str(self.port),
            "WEB_CONCURRENCY": str(WORKERS),
            "PROMETHEUS_MULTIPROC_DIR": str(self.metrics),
            **environment,
        }
        with self.errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve"],
                cwd=directory,
                env=given,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, args=[8192])
        self._reader.start()

    def _read(self, at_once: int) -> None:
        """Read as `docker logs` does when it is busy: the pipe is full most of the time."""
        assert self._process.stdout is not None
        received = []
        while data := os.read(self._process.stdout.fileno(), at_once):
            received.append(data)
            time.sleep(0.001)
        self.lines = b"".join(received).splitlines()

    def wait_until_all_serve(self) -> None:
        """Wait until there are as many workers as there should be, all of them ready."""

        def all_serve() -> bool:
            assert self._process.poll() is None, self.errors.read_text()
            return len(self.pids()) == WORKERS and all(map(self.is_ready, self.pids()))

        wait_until(all_serve, "all workers serve", PATIENCE)

    def pids(self) -> set[int]:
        """The workers that have counted and are not buried."""
        files = self.metrics.glob("histogram_*.db")
        return {int(pid) for file in files if (pid := file.stem.partition("_")[2]).isdigit()}

    def is_ready(self, pid: int) -> bool:
        """Whether the worker has begun to watch its event loop, the last that happens at its start."""
        return self.of_worker(pid, "event_loop_lag_seconds_count") > 0

    def of_worker(self, pid: int, name: str) -> float:
        """The sum of the samples of `name` that this worker alone has counted."""
        try:
            files = [str(file) for file in self.metrics.glob(f"*_{pid}.db") if file.stat().st_size]
            families = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        except FileNotFoundError:  # it is being buried
            return 0.0
        samples = [sample for family in families for sample in family.samples]
        return float(sum(sample.value for sample in samples if sample.name == name))

    def hold_a_request_each(self, stack: ExitStack) -> dict[int, "HalfSent"]:
        """Put one request in flight in each worker, until the stack is closed."""
        in_flight = {}
        for pid in self.pids():
            with self.only(pid):
                in_flight[pid] = stack.enter_context(closing(HalfSent(self.port)))
                wait_until(
                    lambda pid=pid: self.of_worker(pid, "http_requests_in_progress") == 1,  # type: ignore[misc]
                    "it has the request",
                )
        return in_flight

    def connect_to_each(self, stack: ExitStack) -> list[httpx2.Client]:
        """Return a connection to each worker."""
        connections = []
        for pid in self.pids():
            with self.only(pid):
                client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE)
                connections.append(stack.enter_context(client))
                client.get("/health/live")  # the connection stays, and is this worker's
        return connections

    @contextmanager
    def only(self, pid: int) -> Iterator[None]:
        """Let only this worker accept connections for the time of the block: be quick."""
        others = self.pids() - {pid}
        try:
            for other in others:
                os.kill(other, signal.SIGSTOP)
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    def kill_a_worker(self) -> int:
        """Kill one as the kernel does when memory is short; return who it was."""
        pid = min(self.pids())
        os.kill(pid, signal.SIGKILL)
        return pid

    def page(self) -> Samples:
        """What one scrape says, whoever answers it."""
        return parse(httpx2.get(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE).text)

    def counted(self) -> Counter[Key]:
        """Requests on the page."""
        return requests_on(self.page())

    def send_signal(self, number: signal.Signals) -> None:
        """To the supervisor."""
        self._process.send_signal(number)

    def end(self, within: float = PATIENCE) -> int:
        """Wait for the end; return the exit code."""
        code = self._process.wait(within)
        self._reader.join()
        return code

    def __enter__(self) -> "Several":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.end()
        assert self._process.stdout is not None
        self._process.stdout.close()


def parse(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(page: Samples, name: str) -> float:
    found = [number for (given, _), number in page.items() if given == name]
    assert found, f"{name} is not there"
    return sum(found)


def requests_on(page: Samples, name: str = "http_requests_total") -> Counter[Key]:
    counted: Counter[Key] = Counter()
    for (given, pairs), number in page.items():
        if given == name:
            labels = dict(pairs)
            counted[labels["method"], labels["handler"], labels["status"]] += int(number)
    return counted


class Clients:
    """Customers that open a connection for each request, so that all workers get some."""

    ASKED: tuple[tuple[str, str, Key], ...] = (
        ("GET", "/v1/users/me", ("GET", "/v1/users/me", "401")),
        ("POST", "/v1/orders", ("POST", "/v1/orders", "401")),
        ("GET", "/nowhere", ("GET", "unmatched", "404")),
        ("PUT", "/v1/orders", ("PUT", "/v1/orders", "405")),
    )

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self.answered: Counter[Key] = Counter()
        self.failed = 0

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask as fast as answers come for the time of the block."""
        enough = threading.Event()
        threads = [threading.Thread(target=self._ask, args=[enough, n]) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            enough.set()
            for thread in threads:
                thread.join()

    def ask_until(self, condition: Callable[[], bool], what: str) -> None:
        """Ask until `condition` holds."""
        with self.asking():
            wait_until(condition, what, PATIENCE)

    def _ask(self, enough: threading.Event, number: int) -> None:
        while not enough.is_set():
            number += 1
            method, path, key = self.ASKED[number % len(self.ASKED)]
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            # A long line for each, so that many of them fill the pipe.
            headers = {"Connection": "close", "User-Agent": "x" * 200}
            try:
                connection.request(method, path, body=b"{}", headers=headers)
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.failed += 1
                continue
            finally:
                connection.close()
            with self._lock:
                self.answered[*key[:2], str(status)] += 1


class HalfSent:
    """A request whose body is on its way: it is in flight until `finish`."""

    BODY = b"username=nobody&password=wrong"

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        head = (
            "POST /v1/auth/token HTTP/1.1\r\nHost: service\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(self.BODY)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + self.BODY[:5])

    def finish(self) -> int:
        """Send the rest; return the status."""
        self._socket.sendall(self.BODY[5:])
        response = http.client.HTTPResponse(self._socket)
        response.begin()
        response.read()
        return response.status

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated SQLite file."""
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('database') / 'service.db'}"
    migrate_database(url)
    return url


def test_the_page_is_complete_and_right_through_the_deaths_of_workers(  # noqa: PLR0915 - one story
    tmp_path: Path, database_url: str
) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "counter_1.db").write_bytes(b"of an earlier run")
    with Several(tmp_path, database_url) as service:
        service.wait_until_all_serve()
        clients = Clients(service.port)

        def all_have_served() -> bool:
            return len(service.pids()) == WORKERS and all(
                service.of_worker(pid, "http_requests_total") for pid in service.pids()
            )

        def page_is_right() -> bool:
            return service.counted() == clients.answered

        # Undisturbed: to the last request.
        clients.ask_until(
            lambda: all_have_served() and clients.answered.total() > 400, "all have served"
        )
        wait_until(page_is_right, "the page counts every answer")
        assert clients.failed == 0

        # One dies in a quiet moment: nothing is forgotten, nothing counted twice.
        used = value(service.page(), "process_cpu_seconds_total")
        first = service.kill_a_worker()
        wait_until(lambda: first not in service.pids(), "the dead one is buried", PATIENCE)
        assert page_is_right()
        clients.ask_until(all_have_served, "its successor has served")
        wait_until(page_is_right, "the page counts every answer")
        assert clients.failed == 0
        assert value(service.page(), "process_cpu_seconds_total") > used

        # One dies at work: what it was doing is lost, and no more; no scrape ever saw less.
        seen: list[Samples] = []

        def successor_has_served() -> bool:
            seen.append(service.page())
            return second not in service.pids() and all_have_served()

        with clients.asking():
            second = service.kill_a_worker()
            wait_until(successor_has_served, "its successor has served", PATIENCE)
        counted = service.counted()
        assert clients.failed <= CLIENTS
        for key, answered in clients.answered.items():
            assert answered - CLIENTS <= counted[key] <= answered + CLIENTS
        for name in ("http_requests_total", "process_cpu_seconds_total"):
            values = [value(page, name) for page in seen]
            assert values == sorted(values)

        # And from then on to the last request again.
        wait_until(lambda: value(service.page(), "http_requests_in_progress") == 0, "all is done")
        counted, before = service.counted(), clients.answered.copy()
        clients.ask_until(
            lambda: (clients.answered - before).total() > 200, "two hundred more are answered"
        )
        wait_until(
            lambda: service.counted() - counted == clients.answered - before,
            "the page counts every answer",
        )

        # The page is the same and whole, whoever is asked.
        pages = []
        for pid in service.pids():
            with service.only(pid):
                pages.append(service.page())
        first_page, *others = (
            {key: number for key, number in page.items() if key[0].startswith("http_")}
            for page in pages
        )
        assert all(other == first_page for other in others)
        for page in pages:
            assert requests_on(page, "http_request_duration_seconds_count") == requests_on(page)
            assert value(page, "build_info") == 1
            assert 0 < value(page, "process_uptime_seconds") < PATIENCE * 10
            assert value(page, "process_open_fds") > 5 * WORKERS
            assert value(page, "process_resident_memory_bytes") > WORKERS * 20_000_000
            assert time.time() - value(page, "process_start_time_seconds") < PATIENCE * 10
            assert value(page, "python_threads") >= WORKERS
            assert value(page, "python_info") == 1
            assert value(page, "telemetry_dropped_total") == 0
            databases = [
                v
                for (name, pairs), v in page.items()
                if name == "dependency_up" and ("dependency", "database") in pairs
            ]
            assert databases == [1]

        # One stream of lines, none torn, none lost (but for what the dead had not written yet).
        service.send_signal(signal.SIGINT)
        assert service.end() == 0
        lines = [json.loads(line) for line in service.lines]
        access = sum(line["type"] == "http_request" for line in lines)
        answered = clients.answered.total()
        assert answered * 0.5 < access <= answered + CLIENTS
    assert service.errors.read_text() == ""


def test_requests_in_flight_are_summed_over_the_living(tmp_path: Path, database_url: str) -> None:
    with Several(tmp_path, database_url) as service, ExitStack() as stack:
        service.wait_until_all_serve()
        in_flight = service.hold_a_request_each(stack)
        assert value(service.page(), "http_requests_in_progress") == WORKERS

        dead = service.kill_a_worker()
        del in_flight[dead]
        wait_until(
            lambda: value(service.page(), "http_requests_in_progress") == WORKERS - 1,
            "the dead one's request is not counted",
            PATIENCE,
        )
        assert [request.finish() for request in in_flight.values()] == [401] * (WORKERS - 1)
        wait_until(lambda: value(service.page(), "http_requests_in_progress") == 0, "all is done")


def test_sigterm_drains_every_worker(tmp_path: Path, database_url: str) -> None:
    with Several(tmp_path, database_url, DRAIN_SECONDS="5") as service, ExitStack() as stack:
        service.wait_until_all_serve()
        probes = service.connect_to_each(stack)
        in_flight = service.hold_a_request_each(stack)

        def readiness() -> list[int]:
            return [probe.get("/health/ready").status_code for probe in probes]

        wait_until(lambda: readiness() == [200] * WORKERS, "all are ready")
        service.send_signal(signal.SIGTERM)
        wait_until(lambda: readiness() == [503] * WORKERS, "all drain")
        assert [probe.get("/health/live").status_code for probe in probes] == [200] * WORKERS
        assert [request.finish() for request in in_flight.values()] == [401] * WORKERS
        assert service.end() == 0
    assert service.errors.read_text() == ""
    messages = Counter(json.loads(line)["message"] for line in service.lines)
    assert messages["draining"] == messages["telemetry flushed"] == WORKERS


def test_the_end_leaves_nothing_behind(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {"PROMETHEUS_MULTIPROC_DIR": "", "TMPDIR": str(temporary)}
    with Several(tmp_path, database_url, **environment) as service:

        def directories() -> list[Path]:
            # Python tries a temporary directory with a file that it removes at once.
            return [path for path in temporary.iterdir() if path.is_dir()]

        wait_until(lambda: len(directories()) == 1, "there is a directory", PATIENCE)
        (service.metrics,) = directories()
        assert service.metrics.stat().st_mode & 0o077 == 0
        service.wait_until_all_serve()
        service.send_signal(signal.SIGTERM)
        assert service.end() == 0
    assert list(temporary.iterdir()) == []


def test_workers_do_not_outlive_their_supervisor(tmp_path: Path, database_url: str) -> None:
    with Several(tmp_path, database_url) as service:
        service.wait_until_all_serve()
        pids = service.pids()
        service.send_signal(signal.SIGKILL)
        wait_until(lambda: not any(map(_exists, pids)), "the workers end", PATIENCE)


def _exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state != b"Z"  # ended, and its parent (some init) has not looked yet


def _refused(tmp_path: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PORT": str(free_port())}
    ended = subprocess.run(
        [sys.executable, *(arguments or ("-m", "app", "serve"))],
        cwd=tmp_path,
        env=given | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return ended.returncode, ended.stderr


_WRITE_LINES = """
from loguru import logger
from app.observability.logs import LogSettings, flush_logs, setup_logs
setup_logs(LogSettings(log_format="json"))
for number in range(3_000):
    logger.bind(number=number, filling="x" * (number % 900)).info("line")
assert flush_logs(100)
"""


def test_lines_of_processes_that_share_a_pipe_stay_whole(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    program = [sys.executable, "-c", _WRITE_LINES]
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen(program, cwd=tmp_path, env=given, stdout=write_end) for _ in range(WORKERS)
    ]
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        lines = [json.loads(line) for line in pipe]

    assert [writer.wait() for writer in writers] == [0] * WORKERS
    numbers = Counter(line["number"] for line in lines)
    assert numbers == dict.fromkeys(range(3_000), WORKERS)


def test_what_cannot_be_served_is_one_sentence(tmp_path: Path) -> None:
    several = {"WEB_CONCURRENCY": "2"}
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        code, said = _refused(tmp_path, PORT=port, **several)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("error: cannot listen on")
    assert said.endswith("set PORT to use another port\n")

    (tmp_path / "file").touch()
    directory = str(tmp_path / "file" / "metrics")
    code, said = _refused(tmp_path, PROMETHEUS_MULTIPROC_DIR=directory, **several)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith(f"error: cannot keep metrics in {directory}: ")
    assert "set PROMETHEUS_MULTIPROC_DIR" in said

    for nonsense in ("0", "many"):
        code, said = _refused(tmp_path, WEB_CONCURRENCY=nonsense)
        assert (code, said.count("\n")) == (1, 1)
        assert said.startswith("error: WEB_CONCURRENCY: ")


def test_an_application_that_cannot_be_made_is_not_tried_for_ever(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from app.server import serve_with_workers\n"
        "def refuse():\n    raise RuntimeError('no application')\n"
        "if __name__ == '__main__':\n"
        f"    serve_with_workers('program:refuse', workers=2, host='127.0.0.1', port={free_port()},"
        " graceful_seconds=1)\n"
    )
    code, _ = _refused(tmp_path, str(program), PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert code == 3

"""One page of metrics for several worker processes: whichever of them answers speaks for all.

Each worker counts in files of its own (prometheus_client's multiprocess mode: PROMETHEUS_MULTIPROC_DIR
must be set before that library is imported) and the page adds the files up. Counters and histograms of
workers that have died stay in the sum, merged into one file for each kind, so that a counter never falls
and a scrape does not become slower with each restart. Their gauges go, for which every gauge needs a
`multiprocess_mode` that begins with "live".

Owns, in this mode only, `process_*` of the supervisor and its workers together: sums, the start time
being the supervisor's. What the mode loses is in docs/decisions/0005-several-workers.md.

Must never count a worker twice: files are merged under a lock that a scrape shares.
"""

import fcntl
import multiprocessing
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from prometheus_client import PLATFORM_COLLECTOR, CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_DEAD: Final = "dead"
_LOCK: Final = "lock"


def is_shared() -> bool:
    """Whether this process is one of several that share a page."""
    return VARIABLE in os.environ


def shared_registry() -> CollectorRegistry:
    """Return the metrics of all workers, read from their files while they are collected."""
    registry = CollectorRegistry()
    _Workers(registry)
    registry.register(PLATFORM_COLLECTOR)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and supervisor.pid is not None:
        registry.register(_Processes(supervisor.pid, Path(os.environ[VARIABLE])))
    return registry


# What the supervisor does -----------------------------------------------------------------------------


def prepare(directory: Path) -> None:
    """Make `directory` ready for a start: there, writable, and without files of an earlier run.

    Raises:
        OSError: It cannot be.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for file in directory.glob("*.db"):
        file.unlink()
    (directory / _LOCK).touch()


def bury(directory: Path, alive: Collection[int]) -> None:
    """Merge the counts of all workers but those `alive` and drop their gauges.

    Does nothing while a scrape is going on: call it again a moment later.
    """
    dead = [
        file
        for file in directory.glob("*.db")
        if (pid := _pid(file)) is not None and pid not in alive
    ]
    if not dead:
        return
    try:
        with _locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB):
            for kind in ("counter", "histogram", "summary"):
                _merge(directory, kind, [file for file in dead if file.name.startswith(kind)])
            for file in dead:
                file.unlink(missing_ok=True)
    except BlockingIOError:
        return


def _merge(directory: Path, kind: str, files: list[Path]) -> None:
    if not files:
        return
    merged = directory / f"{kind}_{_DEAD}.db"
    sums: dict[str, float] = {}
    for file in [merged, *files]:
        if not _is_empty(file):
            for key, value, _, _ in MmapedDict.read_all_values_from_file(file):  # type: ignore[no-untyped-call]
                sums[key] = sums.get(key, 0.0) + value
    unfinished = merged.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    store = MmapedDict(unfinished)  # type: ignore[no-untyped-call]
    for key, value in sums.items():
        store.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    store.close()  # type: ignore[no-untyped-call]
    unfinished.replace(merged)


def _pid(file: Path) -> int | None:
    last = file.stem.rpartition("_")[2]
    return int(last) if last.isdigit() else None


def _is_empty(file: Path) -> bool:
    """Whether the file is not there, or was created this instant and has no header yet."""
    try:
        return file.stat().st_size == 0
    except FileNotFoundError:
        return True


@contextmanager
def _locked(directory: Path, how: int) -> Iterator[None]:
    with (directory / _LOCK).open("ab") as lock:
        fcntl.flock(lock, how)
        yield


# What a scrape reads ----------------------------------------------------------------------------------


class _Workers(MultiProcessCollector):
    """The library's collector, with a lock against the merge and an eye for newborn files."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)  # type: ignore[no-untyped-call]
        self._directory = Path(os.environ[VARIABLE])

    def collect(self) -> Iterator[Metric]:
        with _locked(self._directory, fcntl.LOCK_SH):
            files = [str(file) for file in self._directory.glob("*.db") if not _is_empty(file)]
            merged = self.merge(files, accumulate=True)  # type: ignore[no-untyped-call]
        yield from merged


class _Processes(Collector):
    """`process_*` of the supervisor and the living workers; of the dead, what they have used.

    The kernel adds a child's CPU time to what its parent "waited for" when the parent learns of its
    death: thus the sum does not fall when a worker is replaced. Pages that processes share are counted
    in each, as they are in any sum of resident memory.
    """

    def __init__(self, supervisor: int, directory: Path) -> None:
        self._supervisor = supervisor
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        families = self._consistent()
        cpu = families.get("process_cpu_seconds", [])
        if cpu:
            yield CounterMetricFamily(
                "process_cpu_seconds",
                "CPU time of the supervisor and all its workers, dead ones included.",
                value=sum(cpu),
            )
        for name, values in families.items():
            if name != "process_cpu_seconds":
                of_all = min(values) if name == "process_start_time_seconds" else sum(values)
                yield GaugeMetricFamily(name, "Of the supervisor and its workers.", value=of_all)

    def _consistent(self) -> dict[str, list[float]]:
        """Read until no worker was buried meanwhile: its time would be missing or counted twice."""
        while True:
            waited_for = self._waited_for()
            families: dict[str, list[float]] = {}
            for pid in self._pids():
                for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                    for sample in family.samples:
                        families.setdefault(family.name, []).append(sample.value)
            if waited_for == self._waited_for():
                if families:
                    families["process_cpu_seconds"].append(waited_for)
                return families

    def _pids(self) -> set[int]:
        pids = {self._supervisor}
        for file in self._directory.glob("*.db"):
            pid = _pid(file)
            if pid is not None:
                pids.add(pid)
        return pids

    def _waited_for(self) -> float:
        try:
            after_name = Path(f"/proc/{self._supervisor}/stat").read_bytes().rpartition(b")")[2]
        except OSError:  # it has just been killed, or this is no Linux
            return 0.0
        user, system = after_name.split()[13:15]  # cutime and cstime of proc(5)
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

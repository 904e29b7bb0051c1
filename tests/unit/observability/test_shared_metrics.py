import fcntl
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.parser import text_string_to_metric_families

from app.observability import shared_metrics
from app.observability.shared_metrics import VARIABLE, bury, is_shared, prepare, shared_registry


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers count, ready for a start."""
    prepare(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def count(directory: Path, pid: int, kind: str, name: str, value: float, **labels: str) -> None:
    """Write as the worker `pid` does."""
    store = MmapedDict(str(directory / f"{kind}_{pid}.db"))  # type: ignore[no-untyped-call]
    metric = name.removesuffix("_total").removesuffix("_bucket")
    key = mmap_key(metric, name, list(labels), list(labels.values()), "Help.")
    store.write_value(key, value, 1.0 + pid)  # type: ignore[no-untyped-call]
    store.close()  # type: ignore[no-untyped-call]


def page(registry: CollectorRegistry | None = None) -> dict[str, float]:
    """What a scrape says now, `name` or `name{value}` with the labels' values."""
    families = text_string_to_metric_families(
        generate_latest(registry or shared_registry()).decode()
    )
    return {
        sample.name
        + (f"{{{','.join(sample.labels.values())}}}" if sample.labels else ""): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.startswith("python_info")
    }


def test_a_start_finds_no_file_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "counter_1.db").touch()
    (tmp_path / "new" / "notes.txt").touch()

    prepare(tmp_path / "new")
    prepare(tmp_path / "newer" / "still")

    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["lock", "notes.txt"]
    assert (tmp_path / "newer" / "still" / "lock").exists()


def test_processes_share_a_page_only_where_they_were_told_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not is_shared()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert is_shared()


def test_what_the_dead_have_counted_stays_and_their_gauges_go(directory: Path) -> None:
    for pid in (11, 12, 13):
        count(directory, pid, "counter", "served_total", pid, status="200")
        count(directory, pid, "histogram", "took_seconds_bucket", 1, le="1.0")
        count(directory, pid, "histogram", "took_seconds_bucket", 1, le="+Inf")
        count(directory, pid, "histogram", "took_seconds_sum", 0.5)
        count(directory, pid, "gauge_livesum", "in_progress", 1)
    before = page()
    assert before["served_total{200}"] == 36
    assert before["took_seconds_count"] == 6
    assert before["took_seconds_bucket{1.0}"] == 3

    bury(directory, alive={12})
    bury(directory, alive={12})
    after_two = page()
    bury(directory, alive=set())

    assert after_two == before | {"in_progress": 1}
    assert page() == {name: value for name, value in before.items() if name != "in_progress"}


def test_a_page_costs_no_more_after_many_deaths(directory: Path) -> None:
    for pid in range(1, 201):
        count(directory, pid, "counter", "served_total", 1)
        count(directory, pid, "gauge_livemax", "open", 1)
        bury(directory, alive=set())

    assert page() == {"served_total": 200}
    assert [file.name for file in directory.glob("*.db")] == ["counter_dead.db"]


def test_a_scrape_at_work_makes_the_merge_wait(directory: Path) -> None:
    count(directory, 11, "counter", "served_total", 1)
    with (directory / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        bury(directory, alive=set())
        assert (directory / "counter_11.db").exists()
        assert page() == {"served_total": 1}, "and no other scrape"

    bury(directory, alive=set())
    assert not (directory / "counter_11.db").exists()
    assert page() == {"served_total": 1}


def test_a_file_that_was_created_this_instant_spoils_neither_page_nor_merge(
    directory: Path,
) -> None:
    count(directory, 11, "counter", "served_total", 1)
    (directory / "counter_12.db").touch()
    (directory / "histogram_12.db").touch()

    assert page() == {"served_total": 1}
    bury(directory, alive=set())
    assert page() == {"served_total": 1}


def test_the_processes_are_measured_together(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = SimpleNamespace(pid=os.getpid())
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: supervisor)
    alone = page()
    # The same process in the role of a worker, and one that has just gone.
    count(directory, os.getppid(), "counter", "served_total", 1)
    count(directory, 2**22 + 1, "counter", "served_total", 1)
    together = page()

    assert together["process_open_fds"] > alone["process_open_fds"] > 0
    assert together["process_resident_memory_bytes"] > alone["process_resident_memory_bytes"] > 0
    assert together["process_start_time_seconds"] <= alone["process_start_time_seconds"]
    assert together["process_cpu_seconds_total"] >= alone["process_cpu_seconds_total"] > 0


def test_time_that_moves_from_a_worker_to_the_dead_is_counted_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(pid=os.getpid()))
    answers = iter([1_000.0, 3_000.0, 3_000.0, 3_000.0])
    monkeypatch.setattr(shared_metrics._Processes, "_waited_for", lambda _: next(answers))

    used = page()["process_cpu_seconds_total"]

    assert 3_000 < used < 4_000
    assert next(answers, None) is None, "it was read a second time"


def test_nothing_is_said_of_processes_without_a_supervisor(directory: Path) -> None:
    count(directory, 11, "counter", "served_total", 1)
    assert page() == {"served_total": 1}

import asyncio
import sys
import threading
import time

import pytest
from prometheus_client import REGISTRY

from app.observability.runtime import monitor_event_loop


def value(name: str, labels: dict[str, str] | None = None) -> float:
    found = REGISTRY.get_sample_value(name, labels or {})
    assert found is not None, f"{name} has no series"
    return found


def late(seconds: str) -> float:
    """Measurements so far that found the loop later than `seconds`."""
    below = value("event_loop_lag_seconds_bucket", {"le": seconds})
    return value("event_loop_lag_seconds_count") - below


async def test_a_loop_that_is_blocked_is_measured_as_late() -> None:
    before = late("0.1")

    async with monitor_event_loop(interval=0.02):
        await asyncio.sleep(0.03)
        time.sleep(0.25)  # noqa: ASYNC251 - blocking the loop is the point
        await asyncio.sleep(0.03)

    assert late("0.1") == before + 1


async def test_a_loop_that_is_free_is_measured_as_punctual() -> None:
    measured, before = value("event_loop_lag_seconds_count"), late("0.25")

    async with monitor_event_loop(interval=0.01):
        await asyncio.sleep(0.1)

    assert value("event_loop_lag_seconds_count") > measured
    assert late("0.25") == before


async def test_tasks_are_counted() -> None:
    async with monitor_event_loop(interval=0.01):
        sleepers = [asyncio.create_task(asyncio.sleep(1)) for _ in range(5)]
        await asyncio.sleep(0.05)
        busy = value("asyncio_tasks")
        for sleeper in sleepers:
            sleeper.cancel()
        await asyncio.sleep(0.05)

    assert busy - value("asyncio_tasks") == 5


async def test_the_monitor_ends_with_its_block_and_lets_an_error_through() -> None:
    with pytest.raises(ValueError, match="from the body"):
        async with monitor_event_loop(interval=0.01):
            raise ValueError("from the body")

    assert [task.get_name() for task in asyncio.all_tasks() if "monitor" in task.get_name()] == []


def test_uptime_advances() -> None:
    before = value("process_uptime_seconds")
    time.sleep(0.02)

    assert value("process_uptime_seconds") >= before + 0.02


def test_threads_are_counted() -> None:
    stop = threading.Event()
    before = value("python_threads")
    thread = threading.Thread(target=stop.wait)
    thread.start()
    during = value("python_threads")
    stop.set()
    thread.join()

    assert during == before + 1


@pytest.mark.skipif(sys.platform != "linux", reason="prometheus_client reads /proc")
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("process_cpu_seconds_total", {}),
        ("process_resident_memory_bytes", {}),
        ("process_open_fds", {}),
        ("process_start_time_seconds", {}),
        ("python_gc_collections_total", {"generation": "2"}),
    ],
)
def test_process_and_garbage_collector_are_measured(name: str, labels: dict[str, str]) -> None:
    assert value(name, labels) >= 0

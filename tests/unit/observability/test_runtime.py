import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from app.observability import runtime
from app.observability.runtime import monitor_event_loop
from tests.tools import wait_until


class LoopClock:
    """The clock of the running loop: time passes when the test says so."""

    def __init__(self, now: float) -> None:
        self.now = now

    async def advance(self, seconds: float) -> None:
        """Let time pass at one go, then let everything run that is due."""
        self.now += seconds
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def clock() -> AsyncIterator[LoopClock]:
    loop = asyncio.get_running_loop()
    clock = LoopClock(loop.time())
    vars(loop)["time"] = lambda: clock.now
    yield clock
    del vars(loop)["time"]


def value(name: str, labels: dict[str, str] | None = None) -> float:
    found = REGISTRY.get_sample_value(name, labels or {})
    assert found is not None, f"{name} has no series"
    return found


def late(seconds: str) -> float:
    """Measurements so far that found the loop later than `seconds`."""
    below = value("event_loop_lag_seconds_bucket", {"le": seconds})
    return value("event_loop_lag_seconds_count") - below


async def test_a_loop_that_is_blocked_is_measured_as_late(clock: LoopClock) -> None:
    before, short = late("0.1"), late("0.25")

    async with monitor_event_loop(interval=0.5):
        await clock.advance(0)
        await clock.advance(0.5 + 0.2)  # all that time, nothing else could run

    assert (late("0.1"), late("0.25")) == (before + 1, short)


async def test_a_loop_that_is_free_is_measured_as_punctual(clock: LoopClock) -> None:
    measured, before = value("event_loop_lag_seconds_count"), late("0.001")

    async with monitor_event_loop(interval=0.5):
        await clock.advance(0)
        for _ in range(4):
            await clock.advance(0.5)

    assert value("event_loop_lag_seconds_count") == measured + 4
    assert late("0.001") == before


async def test_tasks_are_counted(clock: LoopClock) -> None:
    async with monitor_event_loop(interval=0.5):
        sleepers = [asyncio.create_task(asyncio.Event().wait()) for _ in range(5)]
        await clock.advance(0)
        await clock.advance(0.5)
        busy = value("asyncio_tasks")
        for sleeper in sleepers:
            sleeper.cancel()
        await clock.advance(0.5)

    assert busy - value("asyncio_tasks") == 5


async def test_the_monitor_ends_with_its_block_and_lets_an_error_through() -> None:
    with pytest.raises(ValueError, match="from the body"):
        async with monitor_event_loop(interval=0.01):
            raise ValueError("from the body")

    assert [task.get_name() for task in asyncio.all_tasks() if "monitor" in task.get_name()] == []


def test_uptime_advances(monkeypatch: pytest.MonkeyPatch) -> None:
    before = value("process_uptime_seconds")
    now = time.monotonic() + 100
    monkeypatch.setattr(runtime, "time", SimpleNamespace(monotonic=lambda: now))

    assert value("process_uptime_seconds") >= before + 100


def test_threads_are_counted() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, daemon=True)

    def is_right() -> bool:
        """Whether it counts those there are; a thread of an earlier test may be about to end."""
        return threading.active_count() == value("python_threads") == threading.active_count()

    wait_until(is_right, "the threads are counted", 30)
    thread.start()
    wait_until(is_right, "one thread more is counted", 30)
    stop.set()
    thread.join()


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

"""The runtime below the application: is the event loop free, how many tasks and threads are there.

Owns `event_loop_lag_seconds`, `asyncio_tasks`, `python_threads` and `process_uptime_seconds`. CPU, memory,
file descriptors and garbage collection (`process_*`, `python_gc_*`) come from prometheus_client's default
collectors, which register themselves on import (`process_*` on Linux only). Where several workers share
a page, tasks and threads are sums over them, and the uptime is the youngest worker's.

Must never become the load it measures: one timer, twice a second.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from prometheus_client import Gauge, Histogram

_STARTED = time.monotonic()

event_loop_lag = Histogram(
    "event_loop_lag_seconds",
    "How late a timer fires: the time during which the event loop served nobody.",
    # An idle loop is late by 0.1 to 1 ms; 0.1 s delays every request at hand noticeably; argon2 run in
    # the loop by mistake costs 0.35 s, a blocking network call a second or more.
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
asyncio_tasks = Gauge("asyncio_tasks", "Unfinished asyncio tasks.", multiprocess_mode="livesum")
python_threads = Gauge(
    "python_threads", "Live threads of the Python interpreter.", multiprocess_mode="livesum"
)
python_threads.set_function(threading.active_count)
process_uptime = Gauge(
    "process_uptime_seconds",
    "Time since this process loaded the application.",
    multiprocess_mode="livemin",
)
process_uptime.set_function(lambda: time.monotonic() - _STARTED)


@asynccontextmanager
async def monitor_event_loop(interval: float = 0.5) -> AsyncIterator[None]:
    """Measure the lag of the running event loop every `interval` seconds, during the block."""
    monitor = asyncio.create_task(_measure(interval), name="event-loop-monitor")
    try:
        yield
    finally:
        monitor.cancel()
        with suppress(asyncio.CancelledError):
            await monitor


async def _measure(interval: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        event_loop_lag.observe(max(0.0, loop.time() - due))
        asyncio_tasks.set(len(asyncio.all_tasks()))
        # For a page that workers share: it reads values from files and calls no function.
        python_threads.set(threading.active_count())
        process_uptime.set(time.monotonic() - _STARTED)

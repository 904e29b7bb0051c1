"""Which lines of code allocated the memory that this process holds, by tracemalloc.

Tracing is expensive. Measured on a small JSON request, CPU time became 5 times as long with depth 1 and
30 times as long with depth 10; a million blocks took 50 MB. A report over a million blocks stops every
thread for 0.4 s and computes for 4 s (depth 1) to 10 s. So it starts when asked, and ends by itself.

Must never show what the memory holds: file:line and sizes only.
"""

import asyncio
import os
import time
import tracemalloc
from pathlib import Path
from typing import Final

from pydantic import BaseModel

TRACING_SECONDS: Final = 900.0
"""Tracing ends by itself when nobody asked for so long: it is easily forgotten."""
_OWN_FILES: Final = {tracemalloc.__file__, __file__}


class Allocations(BaseModel):
    """What is allocated at one place: `where` is file:line, the innermost last."""

    where: list[str]
    bytes: int
    blocks: int
    grown_bytes: int | None


class MemoryReport(BaseModel):
    """What the process holds; `top` and `grown` know only what was allocated since tracing began."""

    note: str
    tracing: bool
    rss_bytes: int | None
    traced_bytes: int = 0
    traced_peak_bytes: int = 0
    tracing_costs_bytes: int = 0
    seconds_since_last: float | None = None
    top: list[Allocations] = []
    grown: list[Allocations] = []


class AllocationTracing:
    """The tracing of allocations, and the sizes by place at the last answer (a snapshot is huge)."""

    def __init__(self) -> None:
        self._last: dict[tracemalloc.Traceback, int] | None = None
        self._last_at = 0.0
        self._end: asyncio.TimerHandle | None = None

    def keep_on(self, depth: int) -> bool:
        """Trace for a while from now; return whether it was on before (then with the depth it had)."""
        was_on = tracemalloc.is_tracing()
        if not was_on:
            self._last = None
            tracemalloc.start(depth)
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(TRACING_SECONDS, self.stop)
        return was_on

    def stop(self) -> None:
        """Trace no more, and forget."""
        self._last = None
        if self._end is not None:
            self._end.cancel()
        tracemalloc.stop()

    def report(self, top: int) -> MemoryReport:
        """Say how much memory is in use, and which `top` places allocated it: that takes its time."""
        last, last_at = self._last, self._last_at
        self._last_at = time.monotonic()
        current, peak = tracemalloc.get_traced_memory()
        found = [
            statistic
            for statistic in tracemalloc.take_snapshot().statistics("traceback")  # largest first
            if statistic.traceback[-1].filename not in _OWN_FILES
        ]
        self._last = {statistic.traceback: statistic.size for statistic in found}

        def grown(statistic: tracemalloc.Statistic) -> int:
            return statistic.size - (last or {}).get(statistic.traceback, 0)

        def describe(statistic: tracemalloc.Statistic) -> Allocations:
            return Allocations(
                where=[f"{frame.filename}:{frame.lineno}" for frame in statistic.traceback],
                bytes=statistic.size,
                blocks=statistic.count,
                grown_bytes=None if last is None else grown(statistic),
            )

        most = [] if last is None else sorted(found, key=grown, reverse=True)[:top]
        return MemoryReport(
            note=f"Tracing is on and expensive; it ends {TRACING_SECONDS / 60:.0f} minutes after this.",
            tracing=True,
            rss_bytes=resident_bytes(),
            traced_bytes=current,
            traced_peak_bytes=peak,
            tracing_costs_bytes=tracemalloc.get_tracemalloc_memory(),
            seconds_since_last=None if last is None else round(self._last_at - last_at, 3),
            top=[describe(statistic) for statistic in found[:top]],
            grown=[describe(statistic) for statistic in most if grown(statistic) > 0],
        )


def resident_bytes() -> int | None:
    """Return the resident memory in bytes, or None where there is no /proc (proc_pid_statm(5))."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")

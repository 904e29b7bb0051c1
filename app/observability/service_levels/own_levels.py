"""The service levels that this process can tell by itself: its own counters, sampled every ten seconds.

What a service without Prometheus has. It sees one process only, and nothing before that began: each
window says how much of it was counted.

Must never hold up the event loop: counters are read in a thread, by one reader at a time.
"""

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from loguru import logger

from app.observability.service_levels.assessment import WINDOWS, Measured
from app.observability.service_levels.event_history import Count, EventHistory, Increase
from app.observability.service_levels.objectives import (
    LatencyIndicator,
    Objective,
    Objectives,
    seconds,
)
from app.observability.service_levels.own_events import OwnEvents

SAMPLE_SECONDS: Final = 10.0
_TIMEOUT_SECONDS: Final = 2.0
_REST: Final = 20
"""A look takes 7 ms of CPU with 80 series of HTTP requests and 230 ms with 2,000, in a thread. After each
comes a rest of so many times that: however often somebody asks, it is at most a twentieth of a core."""


class OwnLevels:
    """The counters of this process over time.

    Args:
        declared: All objectives.
        job: The scrape job that this process belongs to: it counts no events of another.
        clock: Seconds that never go back.
    """

    def __init__(
        self, declared: Objectives, *, job: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.since = datetime.now(UTC)
        self._job = job
        self._clock = clock
        self._windows = (*WINDOWS, declared.period)
        self._events = OwnEvents(declared.objectives, job=job)
        self._histories: dict[str, EventHistory] = {}
        self._sampling: asyncio.Task[None] | None = None
        self._rest_until = 0.0
        self._is_failing = False

    @asynccontextmanager
    async def sampled(self) -> AsyncIterator[None]:
        """Count from now on: what was counted before belongs to no window."""
        self._histories.clear()
        self.since = datetime.now(UTC)
        await self.sample()
        sampler = asyncio.create_task(self._keep_sampling(), name="slo-sampler")
        try:
            yield
        finally:
            sampler.cancel()
            tasks = [task for task in (sampler, self._sampling) if task is not None]
            # First let the thread end: it cannot be cancelled.
            await asyncio.wait(tasks, timeout=_TIMEOUT_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def sample(self) -> None:
        """Look at the counters now. Gives up waiting, not looking, when that takes too long."""
        if self._clock() < self._rest_until:
            return
        if self._sampling is None or self._sampling.done():
            # A context of its own: it belongs to no request, hence to no request's trace.
            self._sampling = asyncio.create_task(
                self._sample(), name="slo-sample", context=contextvars.Context()
            )
        await asyncio.wait({self._sampling}, timeout=_TIMEOUT_SECONDS)

    def measured(self, objective: Objective) -> Mapping[str, Measured]:
        """Return what was counted for an objective, by window; nothing if it is not counted here."""
        history = self._histories.get(objective.name)
        if history is None:
            return {}
        return {window: _measured(history.increase(seconds(window))) for window in self._windows}

    def why_no_data(self, objective: Objective) -> str:
        """Say why there is nothing about an objective."""
        indicator = objective.indicator
        if indicator.job != self._job:
            return (
                f"{indicator.metric} comes from the job {indicator.job}, and this process is one of"
                f" the job {self._job}: only Prometheus sees both."
            )
        if isinstance(indicator, LatencyIndicator):
            return (
                f"{indicator.metric} has counted no event of it since this process began, or none of"
                f" its buckets ends at {indicator.threshold_seconds:f} s."
            )
        return f"{indicator.metric} has counted no event of it since this process began."

    async def _keep_sampling(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            await self.sample()

    async def _sample(self) -> None:
        try:
            counts, cpu_seconds = await asyncio.to_thread(self._read)
        except Exception as error:  # noqa: BLE001 - a collector may raise anything; the next look may work
            if not self._is_failing:
                reason = type(error).__name__
                logger.bind(type="telemetry", reason=reason).warning(
                    "Own counters cannot be read for service levels"
                )
            self._is_failing = True
            return
        self._is_failing = False
        now = self._clock()
        self._rest_until = now + cpu_seconds * _REST
        for name, count in counts.items():
            if name in self._histories:
                self._histories[name].add(now, count)
            else:
                self._histories[name] = EventHistory(now, count)

    def _read(self) -> tuple[dict[str, Count], float]:
        started = time.thread_time()
        return self._events.read(), time.thread_time() - started


def _measured(increase: Increase) -> Measured:
    return Measured(
        error_ratio=increase.bad / increase.events if increase.events > 0 else None,
        events=increase.events,
        bad_events=increase.bad,
        covered_seconds=increase.covered_seconds,
    )

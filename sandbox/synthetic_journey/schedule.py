"""Journeys again and again: one after the other, never two at once.

The next one begins an interval after the beginning of the last one, and up to the jitter later. A journey
that takes longer than the interval is followed by the next at once: late, and never beside it, since two
of them would measure each other.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from loguru import logger

END_SECONDS = 8.0
"""How long the end waits for the journey that is under way, so that its account is erased."""
TIDY_SECONDS = 1.0


class Schedule:
    """Runs `journey` every `interval_seconds`."""

    def __init__(
        self,
        journey: Callable[[], Awaitable[object]],
        *,
        interval_seconds: float,
        jitter_seconds: float,
    ) -> None:
        self._journey = journey
        self._interval = interval_seconds
        self._jitter = jitter_seconds
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether there will be another journey."""
        return self._task is not None and not self._task.done() and not self._stopping.is_set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make journeys for the time of the block; at its end let the one under way finish."""
        self._task = task = asyncio.create_task(self._repeat(), name="journeys")
        try:
            yield
        finally:
            self._stopping.set()
            await asyncio.wait([task], timeout=END_SECONDS)
            task.cancel()
            await asyncio.wait([task], timeout=TIDY_SECONDS)

    async def _repeat(self) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            pause += random.uniform(0, self._jitter)  # noqa: S311 - to spread load, not to keep a secret
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
                return
            started = time.monotonic()
            try:
                await self._journey()
            except Exception as error:  # noqa: BLE001 - a journey that breaks must not be the last one
                logger.bind(type="synthetic").opt(exception=error).error(
                    "Synthetic journey is broken"
                )
            pause = max(0.0, self._interval - (time.monotonic() - started))

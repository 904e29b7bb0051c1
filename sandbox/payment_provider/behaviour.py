"""What goes wrong on purpose: delays, lost answers and failures, tunable while the provider runs.

Owns the metric provider_injected_faults_total{kind}: a fault that a person asked for must be told apart
from one that nobody asked for. The behaviour is kept in memory only: a restart is back to the settings.
"""

import asyncio
import random
from typing import Annotated, Literal, get_args

from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field

Milliseconds = Annotated[float, Field(ge=0, le=60_000, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

Fault = Literal["unavailable_before", "unavailable_after", "processing_failed", "slow", "no_answer"]

INJECTED_FAULTS = Counter(
    "provider_injected_faults_total", "Faults that the provider was told to commit.", ["kind"]
)


class Behaviour(BaseModel):
    """How the provider treats every charge and refund request."""

    model_config = ConfigDict(frozen=True)

    latency_ms: Milliseconds
    """Delay of every request."""
    latency_jitter_ms: Milliseconds
    """Up to this much is added to the delay, evenly distributed."""
    failure_rate: Share
    """Share of the requests that answer 503, half of them although they took effect."""
    slow_seconds: Seconds
    """How long tok_slow takes before it charges."""
    timeout_seconds: Seconds
    """How long tok_timeout does not answer after it charged."""


class BehaviourChange(BaseModel):
    """A new behaviour; what is left out (or null) is back to what the provider started with."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    latency_ms: Milliseconds | None = None
    latency_jitter_ms: Milliseconds | None = None
    failure_rate: Share | None = None
    slow_seconds: Seconds | None = None
    timeout_seconds: Seconds | None = None


class Faults:
    """Commits the faults of the current behaviour, until `release`.

    Args:
        initial: The behaviour to start with and to return to.
        rng: Decides which requests fail; seed it to repeat a run.
    """

    def __init__(self, initial: Behaviour, rng: random.Random | None = None) -> None:
        self._initial = initial
        self._rng = rng or random.Random()  # noqa: S311 - no secret depends on it
        self._released = asyncio.Event()
        self.behaviour = initial
        for kind in get_args(Fault):
            INJECTED_FAULTS.labels(kind)  # a counter that starts at 0 shows its first increase

    def change(self, change: BehaviourChange) -> Behaviour:
        """Replace the behaviour and return the new one."""
        self.behaviour = self._initial.model_copy(update=change.model_dump(exclude_none=True))
        return self.behaviour

    def release(self) -> None:
        """End every delay, now and from now on: the provider is stopping."""
        self._released.set()

    async def delay(self) -> None:
        """Wait as long as any request takes."""
        jitter_ms = self._rng.uniform(0, self.behaviour.latency_jitter_ms)
        await self._wait((self.behaviour.latency_ms + jitter_ms) / 1000)

    async def be_slow(self) -> None:
        """Wait as long as a slow charge takes."""
        count_fault("slow")
        await self._wait(self.behaviour.slow_seconds)

    async def hang(self) -> bool:
        """Do not answer for a long time; return whether that time was over before `release`."""
        count_fault("no_answer")
        return await self._wait(self.behaviour.timeout_seconds)

    def draw(self) -> Literal["unavailable_before", "unavailable_after"] | None:
        """Decide whether the request at hand fails, and whether it takes effect nevertheless."""
        drawn, rate = self._rng.random(), self.behaviour.failure_rate
        if drawn >= rate:
            return None
        return "unavailable_before" if drawn < rate / 2 else "unavailable_after"

    async def _wait(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._released.wait()
        except TimeoutError:
            return True
        return False


def count_fault(kind: Fault) -> None:
    """Count a fault that is being committed."""
    INJECTED_FAULTS.labels(kind).inc()

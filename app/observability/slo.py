"""`GET /slo`: how each service level objective stands, and whether its error budget burns.

With PROMETHEUS_URL the numbers are those that the alerts see: one bounded question, whose answer serves
everybody for 15 seconds. Without it, or when Prometheus cannot be asked and its last answer is old, they
are this process's own since its start, and the answer says so. Owns two log lines of type `telemetry`:
one when Prometheus cannot be asked any more and one when it can again.

Must never keep a caller waiting longer than the time-outs, and never tell where Prometheus is.
"""

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from loguru import logger
from pydantic import Field

from app.observability.context import declare_operational
from app.observability.service_levels.assessment import ServiceLevels, assess
from app.observability.service_levels.objectives import Objectives, ObjectivesError, load_objectives
from app.observability.service_levels.own_levels import OwnLevels
from app.observability.service_levels.prometheus_api import (
    PrometheusAPI,
    PrometheusError,
    PrometheusSettings,
)
from app.observability.service_levels.recorded_levels import ALL_LEVELS, Recorded, read_levels

CACHE_SECONDS: Final = 15.0
"""As often as Prometheus is asked at most: its rules are evaluated no more often."""
OWN_CACHE_SECONDS: Final = 1.0
LAST_KNOWN_SECONDS: Final = 900.0
"""An answer of Prometheus, which knows a month of all processes, is better than the minutes that one
process has counted, but not for ever."""

_ROOT: Final = Path(__file__).parents[2]
_NOT_RECORDED: Final = "Prometheus has recorded no event of it in the period."


class SLOSettings(PrometheusSettings):
    """What is promised, and whom to ask whether it is kept."""

    slo_objectives_file: Path = Field(
        Path("monitoring/slo/objectives.yml"),
        description="Relative to the working directory, or else to the one that holds the package.",
    )


def read_objectives(settings: SLOSettings) -> Objectives:
    """Return the declared objectives.

    Raises:
        ObjectivesError: The file is not there or is wrong; the text names the variable.
    """
    path = settings.slo_objectives_file
    if not path.is_absolute() and not path.exists():
        path = _ROOT / path
    try:
        return load_objectives(path)
    except ObjectivesError as error:
        raise ObjectivesError(f"SLO_OBJECTIVES_FILE: {error}") from None


def recorded_levels(declared: Objectives, recorded: Recorded) -> ServiceLevels:
    """Return how the objectives stand according to Prometheus, now."""
    return ServiceLevels(
        source="prometheus",
        degraded=False,
        evaluated_at=datetime.now(UTC),
        age_seconds=0,
        objectives=[
            assess(
                objective,
                period=declared.period,
                windows=recorded.get((objective.service, objective.name), {}),
                no_data=_NOT_RECORDED,
            )
            for objective in declared.objectives
        ],
    )


class ServiceLevelMonitor:
    """Knows how the objectives stand; `running` counts meanwhile.

    Args:
        settings: Where the objectives are declared, and where Prometheus is.
        job: The scrape job that this process belongs to.
        clock: Seconds that never go back.

    Raises:
        ObjectivesError: The objectives cannot be read.
    """

    def __init__(
        self,
        settings: SLOSettings,
        *,
        job: str = "api",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._declared = read_objectives(settings)
        self._clock = clock
        self._own = OwnLevels(self._declared, job=job, clock=clock)
        self._prometheus: PrometheusAPI | None = None
        if settings.prometheus_url is not None:
            self._prometheus = PrometheusAPI(
                settings.prometheus_url, timeout_seconds=settings.prometheus_timeout_seconds
            )
        self._answer: _Answer | None = None
        self._last_recorded: _Answer | None = None
        self._fresh_until = 0.0
        self._refreshing: asyncio.Task[_Answer] | None = None
        self._is_troubled = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Count what happens during the block."""
        async with self._own.sampled():
            try:
                yield
            finally:
                if self._refreshing is not None:
                    self._refreshing.cancel()
                    await asyncio.wait({self._refreshing})
                if self._prometheus is not None:
                    await self._prometheus.aclose()

    async def levels(self) -> ServiceLevels:
        """Return how the objectives stand. All callers share one refresh."""
        if self._answer is None or self._clock() >= self._fresh_until:
            if self._refreshing is None or self._refreshing.done():
                # A context of its own: it belongs to no request, hence to no request's trace.
                self._refreshing = asyncio.create_task(
                    self._refresh(), name="slo-refresh", context=contextvars.Context()
                )
            # Shielded: a caller that hangs up must not end the refresh of the others.
            self._answer = await asyncio.shield(self._refreshing)
        return self._answer.aged(self._clock())

    async def _refresh(self) -> "_Answer":
        if self._prometheus is None:
            answer = await self._ask_myself()
            self._fresh_until = self._clock() + OWN_CACHE_SECONDS
            return answer
        try:
            answer = self._last_recorded = await self._ask(self._prometheus)
            self._tell(None)
        except PrometheusError as error:
            self._tell(str(error))
            answer = await self._make_do(f"Prometheus {error}")
        self._fresh_until = self._clock() + CACHE_SECONDS
        return answer

    async def _ask(self, prometheus: PrometheusAPI) -> "_Answer":
        recorded = read_levels(await prometheus.query(ALL_LEVELS))
        if not recorded:
            raise PrometheusError("has no service levels: are the rules loaded and new?")
        return _Answer(recorded_levels(self._declared, recorded), self._clock())

    async def _make_do(self, reason: str) -> "_Answer":
        """Return the next best thing to an answer of Prometheus."""
        last = self._last_recorded
        if last is not None and self._clock() - last.at <= LAST_KNOWN_SECONDS:
            reason = f"{reason}; these are its last known numbers."
            degraded = {"degraded": True, "reason": reason}
            return _Answer(last.levels.model_copy(update=degraded), last.at)
        return await self._ask_myself(f"{reason}; this process has counted these itself.")

    async def _ask_myself(self, trouble: str = "") -> "_Answer":
        await self._own.sample()
        levels = ServiceLevels(
            source="process",
            degraded=bool(trouble),
            reason=trouble,
            evaluated_at=datetime.now(UTC),
            age_seconds=0,
            since=self._own.since,
            objectives=[
                assess(
                    objective,
                    period=self._declared.period,
                    windows=self._own.measured(objective),
                    no_data=self._own.why_no_data(objective),
                )
                for objective in self._declared.objectives
            ],
        )
        return _Answer(levels, self._clock())

    def _tell(self, trouble: str | None) -> None:
        """Log a change, and no more than that."""
        line = logger.bind(type="telemetry")
        if trouble is not None and not self._is_troubled:
            line.bind(reason=trouble).warning("Prometheus cannot be asked for service levels")
        elif trouble is None and self._is_troubled:
            line.info("Prometheus can be asked for service levels again")
        self._is_troubled = trouble is not None


class _Answer:
    """Service levels, and when they were true by the monitor's clock."""

    __slots__ = ("at", "levels")

    def __init__(self, levels: ServiceLevels, at: float) -> None:
        self.levels = levels
        self.at = at

    def aged(self, now: float) -> ServiceLevels:
        return self.levels.model_copy(update={"age_seconds": round(max(now - self.at, 0.0), 3)})


def install_slo_route(app: FastAPI, monitor: ServiceLevelMonitor) -> None:
    """Serve `GET /slo`, which no signal observes, as it is with probes."""
    declare_operational("/slo")

    @app.get("/slo", response_model=ServiceLevels, tags=["operations"], summary="Service levels")
    async def get_service_levels() -> JSONResponse:
        levels = await monitor.levels()
        # The answer says its age: one that somebody else keeps would lie about it.
        return JSONResponse(levels.model_dump(mode="json"), headers={"Cache-Control": "no-store"})

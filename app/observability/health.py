"""Health: what load balancers, orchestrators and people ask, answered from one cached round of checks.

Owns `dependency_up{dependency}`, `dependency_check_duration_seconds{dependency}` and the log line of type
`health` (one for each change). `/health/live` says only that the event loop runs: a dead dependency must
never get a healthy process restarted. `/health/ready` and `/health` fail when a critical check fails or
the process is draining; an informational check only degrades. `/health/detailed` needs the operations
token.

Must never tell a stranger more than names, never run one check twice at a time, and never wait longer
for a check than its time-out.
"""

import asyncio
import contextvars
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from loguru import logger
from prometheus_client import Gauge, Histogram
from pydantic import BaseModel

from app.observability.context import ServiceSettings
from app.observability.operations import OPERATIONS_PROBLEMS, OperationsSettings, operators_only
from app.observability.redaction import redact_text

dependency_up = Gauge(
    "dependency_up",
    "1 when the last check of the dependency passed.",
    ["dependency"],
    multiprocess_mode="livemin",
)
dependency_check_duration = Histogram(
    "dependency_check_duration_seconds",
    "Duration of a check, time-outs included.",
    ["dependency"],
    # A local query takes 1 ms, a remote one 10; the time-out of a check is 2 s by default.
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)

Status = Literal["ok", "degraded", "unavailable", "draining", "starting"]


class HealthSettings(OperationsSettings, ServiceSettings):
    """Which service answers, and who may see details."""


@dataclass(frozen=True, slots=True)
class Check:
    """One dependency: `probe` returns when it works and raises when it does not."""

    name: str
    probe: Callable[[], Awaitable[object]]
    critical: bool = True
    timeout_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What the last run of a check found: `error` is the exception's type, `message` its redacted text."""

    name: str
    status: Literal["up", "down"]
    critical: bool
    duration_ms: float
    checked_at: datetime
    error: str = ""
    message: str = ""


Results = tuple[CheckResult, ...]


class HealthReport(BaseModel):
    """The verdict for strangers: `failed` names the checks that did not pass."""

    status: Status
    failed: list[str] = []


class DetailedHealthReport(BaseModel):
    """Everything this process knows about its health."""

    status: Status
    service: str
    version: str
    commit: str
    environment: str
    uptime_seconds: float
    draining: bool
    checks: list[CheckResult]


class Health:
    """The state of one process: its checks, and whether it has started and is draining."""

    def __init__(
        self, checks: Sequence[Check], *, cache_seconds: float = 1.0, refresh_seconds: float = 10.0
    ) -> None:
        """Take the checks; one round of results serves everybody for `cache_seconds`.

        `refresh_seconds` is how often `keep_fresh` runs them when nobody asks; keep it below the
        scrape interval.
        """
        names = [check.name for check in checks]
        if len(set(names)) != len(names):
            raise ValueError(f"Two health checks share a name: {names}")
        self.checks = tuple(checks)
        self.started_at = time.monotonic()
        self.started = False
        self.draining = False
        self._cache_seconds = cache_seconds
        self._refresh_seconds = refresh_seconds
        self._results: Results = ()
        self._fresh_until = 0.0
        self._round: asyncio.Task[Results] | None = None
        self._stuck: dict[str, asyncio.Future[object]] = {}
        self._down: set[str] = set()
        for name in names:
            # Not dependency_up: a 0 before the first check would raise an alert.
            dependency_check_duration.labels(name)

    def mark_started(self) -> None:
        """Start-up is complete: `/health/startup` passes from now on."""
        self.started = True

    def drain(self) -> None:
        """Answer 503 from now on, so that no new work is sent here; `/health/live` stays 200."""
        self.draining = True

    async def results(self) -> Results:
        """Return a result per check, at most `cache_seconds` old. All callers share one round."""
        if time.monotonic() < self._fresh_until:
            return self._results
        if self._round is None or self._round.done():
            # A context of its own: the round belongs to no request, hence to no request's trace.
            self._round = asyncio.create_task(
                self._run_round(), name="health-checks", context=contextvars.Context()
            )
        # Shielded: a prober that hangs up must not end the round of the others.
        return await asyncio.shield(self._round)

    async def status(self) -> tuple[Status, Results]:
        """Return the verdict and the results behind it."""
        if self.draining:
            return "draining", self._results
        if not self.started:
            return "starting", self._results
        results = await self.results()
        if any(result.critical and result.status == "down" for result in results):
            return "unavailable", results
        return ("ok" if all(result.status == "up" for result in results) else "degraded"), results

    @asynccontextmanager
    async def keep_fresh(self) -> AsyncIterator[None]:
        """Run the checks in the background during the block, so that the metrics live without probes."""
        refresher = asyncio.create_task(self._refresh(), name="health-refresh")
        try:
            yield
        finally:
            refresher.cancel()
            tasks = [task for task in (refresher, self._round) if task is not None]
            # First let the round end: a driver whose connecting is cancelled may answer to a loop that
            # is closed by then.
            await asyncio.wait(tasks, timeout=1.0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _refresh(self) -> None:
        while True:
            await self.results()
            await asyncio.sleep(self._refresh_seconds)

    async def _run_round(self) -> Results:
        results = tuple(await asyncio.gather(*(self._run(check) for check in self.checks)))
        self._results = results
        self._fresh_until = time.monotonic() + self._cache_seconds
        return results

    async def _run(self, check: Check) -> CheckResult:
        """Run one check, unless its previous run is stuck: then it is down and nothing is started."""
        started = time.perf_counter()
        error: BaseException | None
        if check.name in self._stuck:
            error = TimeoutError("the previous check has not ended yet")
        else:
            error = await self._probe(check)
            dependency_check_duration.labels(check.name).observe(time.perf_counter() - started)
        dependency_up.labels(check.name).set(error is None)
        result = CheckResult(
            name=check.name,
            status="up" if error is None else "down",
            critical=check.critical,
            duration_ms=round((time.perf_counter() - started) * 1000, 3),
            checked_at=datetime.now(UTC),
            error="" if error is None else type(error).__name__,
            message="" if error is None else redact_text(str(error))[:200],
        )
        self._log_change(result)
        return result

    async def _probe(self, check: Check) -> BaseException | None:
        async def run() -> object:
            return await check.probe()

        task = asyncio.create_task(run(), name=f"health-check-{check.name}")
        try:
            await asyncio.wait({task}, timeout=check.timeout_seconds)
        finally:
            if not task.done():
                # Cancelled but not awaited: a probe may take its time to obey.
                task.cancel()
                self._stuck[check.name] = task
                task.add_done_callback(lambda ended: self._unstick(check.name, ended))
        if not task.done():
            return TimeoutError(f"no answer within {check.timeout_seconds} s")
        return asyncio.CancelledError("cancelled") if task.cancelled() else task.exception()

    def _unstick(self, name: str, ended: "asyncio.Future[object]") -> None:
        del self._stuck[name]
        if not ended.cancelled():
            ended.exception()  # looked at, so that asyncio does not report it as lost

    def _log_change(self, result: CheckResult) -> None:
        line = logger.bind(type="health", dependency=result.name, critical=result.critical)
        if result.status == "up" and result.name in self._down:
            self._down.remove(result.name)
            line.info("Dependency is up again")
        elif result.status == "down" and result.name not in self._down:
            self._down.add(result.name)
            line.bind(error=result.error, detail=result.message).warning("Dependency is down")


def disk_space_check(
    path: Path, min_free_bytes: int, *, name: str = "disk", critical: bool = False
) -> Check:
    """Return a check that fails when less than `min_free_bytes` are free where `path` lies."""
    asked: asyncio.Future[Any] | None = None

    async def probe() -> None:
        nonlocal asked
        # A dead network mount blocks the thread for ever: never have more than one of them.
        if asked is None or asked.done():
            asked = asyncio.ensure_future(asyncio.to_thread(shutil.disk_usage, path))
        usage = await asyncio.shield(asked)
        if usage.free < min_free_bytes:
            raise OSError(f"{usage.free} bytes free, {min_free_bytes} wanted")

    return Check(name, probe, critical)


_UNHEALTHY: dict[int | str, dict[str, Any]] = {
    503: {"model": HealthReport, "description": "Send no traffic here."}
}
_UNHEALTHY_DETAILS = {"model": DetailedHealthReport, "description": "Send no traffic here."}


def install_health_routes(
    app: FastAPI,
    health: Health,
    settings: HealthSettings,
    *,
    on_denied: Callable[[], object] = lambda: None,
) -> None:
    """Serve `/health`, `/health/live`, `/health/ready`, `/health/startup` and `/health/detailed`.

    `on_denied` is called when somebody asks for details without the token: it is worth a count.
    """
    router = APIRouter(prefix="/health", tags=["operations"])

    @router.get("", response_model=HealthReport, responses=_UNHEALTHY, summary="For load balancers")
    @router.get("/ready", response_model=HealthReport, responses=_UNHEALTHY, summary="Readiness")
    async def get_verdict() -> JSONResponse:
        status, results = await health.status()
        failed = [result.name for result in results if result.status == "down"]
        return _answer(HealthReport(status=status, failed=failed))

    @router.get("/live", response_model=HealthReport, summary="Liveness")
    async def get_live() -> JSONResponse:
        return _answer(HealthReport(status="ok"))

    @router.get("/startup", response_model=HealthReport, responses=_UNHEALTHY, summary="Start-up")
    async def get_startup() -> JSONResponse:
        return _answer(HealthReport(status="ok" if health.started else "starting"))

    @router.get(
        "/detailed",
        response_model=DetailedHealthReport,
        responses={**OPERATIONS_PROBLEMS, 503: _UNHEALTHY_DETAILS},
        summary="For operators",
        dependencies=[operators_only(settings, on_denied=on_denied)],
    )
    async def get_detailed() -> JSONResponse:
        results = await health.results()
        status, _ = await health.status()
        return _answer(
            DetailedHealthReport(
                status=status,
                service=settings.otel_service_name,
                version=settings.service_version,
                commit=settings.git_commit,
                environment=settings.environment,
                uptime_seconds=round(time.monotonic() - health.started_at, 3),
                draining=health.draining,
                checks=list(results),
            )
        )

    app.include_router(router)


def _answer(report: HealthReport | DetailedHealthReport) -> JSONResponse:
    status = (
        HTTPStatus.OK if report.status in {"ok", "degraded"} else HTTPStatus.SERVICE_UNAVAILABLE
    )
    return JSONResponse(report.model_dump(mode="json"), status, {"Cache-Control": "no-store"})

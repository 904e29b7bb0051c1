"""Background jobs: every run has a context, a duration, an outcome and one log line.

Owns `jobs_processed_total{task,status}`, `job_duration_seconds{task}`, `job_retries_total{task}`,
`dead_letters_total{task}`, `job_last_success_timestamp_seconds{task}` and the log line of type `job`.
Knows no queue: the worker calls it.

Must never swallow the job's exception: whether to retry is the caller's decision.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from loguru import logger
from prometheus_client import Counter, Gauge, Histogram

from app.observability.context import DatabaseUse, RequestContext, bind_context, new_request_id

JobStatus = Literal["succeeded", "failed", "dead", "duplicate", "cancelled"]

jobs_processed = Counter("jobs_processed_total", "Runs of a job, by outcome.", ["task", "status"])
job_duration = Histogram(
    "job_duration_seconds",
    "Duration of a run, whatever its outcome.",
    ["task"],
    # From a single statement to a call to a slow provider with its time-out (30 s).
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
job_retries = Counter("job_retries_total", "Runs scheduled again after a failure.", ["task"])
dead_letters = Counter("dead_letters_total", "Messages given up on.", ["task"])

job_last_success = Gauge(
    "job_last_success_timestamp_seconds",
    "When a periodic job last ended well, as Unix time; silence is what its alert looks for.",
    ["task"],
    multiprocess_mode="livemax",
)


@dataclass(slots=True)
class JobRun:
    """The run at hand. The body may set `status` to tell an outcome that is no exception."""

    task: str
    message_id: str
    attempt: int
    status: JobStatus = "succeeded"


def declare_jobs(tasks: Iterable[str]) -> None:
    """Create the series of every task at 0, so that rates see the first failure of each."""
    for task in tasks:
        for status in get_args(JobStatus):
            jobs_processed.labels(task, status)
        job_duration.labels(task)
        job_retries.labels(task)
        dead_letters.labels(task)


@asynccontextmanager
async def run_job(
    task: str,
    *,
    message_id: str = "",
    request_id: str = "",
    synthetic: bool = False,
    attempt: int = 1,
    on_error: Callable[[Exception], object] | None = None,
) -> AsyncIterator[JobRun]:
    """Observe one run of `task` and bind its context; exceptions pass through.

    `request_id` is that of the request which caused the job, so that both share it in the logs, and
    `synthetic` its mark. These metrics count such a job as any other: they tell whether the worker works.

    `on_error` sees an exception while the context is bound, which is where the worker records it. A
    body that is on its last attempt sets the status to `dead` before it fails.
    """
    run = JobRun(task, message_id or new_request_id(), attempt)
    started = time.perf_counter()
    bound = RequestContext(request_id or run.message_id, route=task, synthetic=synthetic)
    with bind_context(bound) as context:
        try:
            yield run
        except asyncio.CancelledError:
            run.status = "cancelled"
            raise
        except Exception as error:
            if run.status != "dead":
                run.status = "failed"
            _tell(on_error, error)
            raise
        finally:
            _observe(run, time.perf_counter() - started, context.database)


def _tell(on_error: Callable[[Exception], object] | None, error: Exception) -> None:
    if on_error is None:
        return
    try:
        on_error(error)
    except Exception as failure:  # noqa: BLE001 - the caller must see the job's own exception
        logger.bind(type="error", where="job").opt(exception=failure).error("Job hook failed")


def _observe(run: JobRun, seconds: float, database: DatabaseUse) -> None:
    jobs_processed.labels(run.task, run.status).inc()
    job_duration.labels(run.task).observe(seconds)
    line = logger.bind(
        type="job",
        task=run.task,
        message_id=run.message_id,
        attempt=run.attempt,
        status=run.status,
        duration_ms=round(seconds * 1000, 3),
        db_statements=database.statements,
        db_duration_ms=round(database.seconds * 1000, 3),
    )
    line.log("WARNING" if run.status in {"failed", "dead"} else "INFO", "Job finished")


def count_retry(task: str) -> None:
    """Count that a failed run of `task` will be tried again."""
    job_retries.labels(task).inc()


def count_dead_letter(task: str) -> None:
    """Count that a message of `task` was given up on."""
    dead_letters.labels(task).inc()


def count_round(task: str, *, succeeded: bool) -> None:
    """Count one round of a periodic job, which is too frequent for a line each."""
    jobs_processed.labels(task, "succeeded" if succeeded else "failed").inc()
    if succeeded:
        job_last_success.labels(task).set_to_current_time()

"""What became of the journeys: metrics, and lines of type `synthetic`.

Owns synthetic_journeys_total{result}, synthetic_journey_duration_seconds,
synthetic_step_duration_seconds{step}, synthetic_step_failures_total{step} and
synthetic_journey_last_success_timestamp_seconds. All series are there from the start, at 0: an alert must
see the first failure grow from something, and the success that never came.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from loguru import logger
from prometheus_client import Counter, Gauge, Histogram

Step = Literal["register", "token", "order", "pay", "confirm", "refund", "erase"]
Result = Literal["success", "failure"]

_BUCKETS = (0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

JOURNEYS = Counter("synthetic_journeys_total", "Journeys that have ended, by result.", ["result"])
JOURNEY_SECONDS = Histogram(
    "synthetic_journey_duration_seconds",
    "Time of a whole journey, the clean-up included, whatever its result.",
    buckets=_BUCKETS,
)
STEP_SECONDS = Histogram(
    "synthetic_step_duration_seconds",
    "Time of a step that was tried, whatever its result.",
    ["step"],
    buckets=_BUCKETS,
)
STEP_FAILURES = Counter(
    "synthetic_step_failures_total", "Steps that did not go as a customer expects.", ["step"]
)
LAST_SUCCESS = Gauge(
    "synthetic_journey_last_success_timestamp_seconds",
    "When a journey last went well from end to end, as Unix time; 0 until one has.",
    multiprocess_mode="livemax",
)
for _result in get_args(Result):
    JOURNEYS.labels(_result)
for _step in get_args(Step):
    STEP_SECONDS.labels(_step)
    STEP_FAILURES.labels(_step)


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How one step went."""

    step: Step
    seconds: float
    failure: str = ""
    """What went wrong, as a sentence; empty for nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one journey went: the steps that were tried, in their order."""

    steps: tuple[StepOutcome, ...]
    seconds: float

    @property
    def failed(self) -> StepOutcome | None:
        """The first step that failed."""
        return next((one for one in self.steps if one.failure), None)


def record_step(outcome: StepOutcome) -> None:
    """Count a step; of one that failed, say why."""
    STEP_SECONDS.labels(outcome.step).observe(outcome.seconds)
    if outcome.failure:
        STEP_FAILURES.labels(outcome.step).inc()
        logger.bind(
            type="synthetic",
            step=outcome.step,
            reason=outcome.failure,
            duration_ms=round(outcome.seconds * 1000, 3),
        ).warning("Synthetic step failed")


def record_journey(outcome: Outcome) -> None:
    """Count a journey and say how it ended."""
    failed = outcome.failed
    result: Result = "failure" if failed else "success"
    JOURNEYS.labels(result).inc()
    JOURNEY_SECONDS.observe(outcome.seconds)
    if not failed:
        LAST_SUCCESS.set_to_current_time()
    logger.bind(
        type="synthetic",
        result=result,
        step=failed.step if failed else "",
        duration_ms=round(outcome.seconds * 1000, 3),
    ).log("ERROR" if failed else "INFO", "Synthetic journey ended")

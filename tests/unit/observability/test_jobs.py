import asyncio
import time
from typing import Any

import pytest
from prometheus_client import REGISTRY

from app.observability.context import current_context
from app.observability.jobs import (
    count_dead_letter,
    count_retry,
    count_round,
    declare_jobs,
    run_job,
)


def runs(task: str, status: str) -> float | None:
    return REGISTRY.get_sample_value("jobs_processed_total", {"task": task, "status": status})


async def test_a_run_has_the_context_of_its_message_and_of_nothing_afterwards() -> None:
    async with run_job("reconcile", message_id="message-1", attempt=2) as run:
        context = current_context()
        assert context is not None
        assert (context.request_id, context.route) == ("message-1", "reconcile")
        assert run.attempt == 2

    assert current_context() is None


async def test_a_run_may_carry_the_id_of_the_request_that_caused_it() -> None:
    async with run_job("caused", message_id="message-1", request_id="request-1") as run:
        context = current_context()
        assert context is not None
        assert (context.request_id, run.message_id) == ("request-1", "message-1")


async def test_runs_without_a_message_get_ids_of_their_own() -> None:
    ids = set()
    for _ in range(2):
        async with run_job("purge") as run:
            ids.add(run.message_id)

    assert len(ids) == 2
    assert "" not in ids


async def test_a_run_is_counted_timed_and_logged_once(log_records: list[Any]) -> None:
    declare_jobs(["timed"])
    async with run_job("timed", message_id="message-1"):
        await asyncio.sleep(0.02)

    assert runs("timed", "succeeded") == 1
    assert (REGISTRY.get_sample_value("job_duration_seconds_sum", {"task": "timed"}) or 0) >= 0.02
    (line,) = log_records
    assert line["extra"].pop("duration_ms") >= 20
    assert line["extra"] == {
        "type": "job",
        "task": "timed",
        "message_id": "message-1",
        "attempt": 1,
        "status": "succeeded",
        "db_statements": 0,
        "db_duration_ms": 0.0,
    }


async def test_a_body_may_tell_another_outcome() -> None:
    async with run_job("told", message_id="seen before") as run:
        run.status = "duplicate"

    assert (runs("told", "duplicate"), runs("told", "succeeded")) == (1, None)


async def test_a_failure_passes_through_and_is_told_while_the_context_is_there(
    log_records: list[Any],
) -> None:
    told: list[tuple[Exception, str]] = []

    def on_error(error: Exception) -> None:
        context = current_context()
        told.append((error, context.request_id if context else ""))

    failure = ValueError("boom")
    with pytest.raises(ValueError, match="boom") as caught:
        async with run_job("failing", message_id="message-1", on_error=on_error):
            raise failure

    assert caught.value is failure
    assert told == [(failure, "message-1")]
    assert runs("failing", "failed") == 1
    assert log_records[0]["level"].name == "WARNING"


async def test_a_failure_on_the_last_attempt_may_be_told_as_dead() -> None:
    async def job() -> None:
        async with run_job("dying", attempt=5) as run:
            run.status = "dead"
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        await job()

    assert (runs("dying", "dead"), runs("dying", "failed")) == (1, None)


async def test_a_run_cut_off_by_the_shutdown_is_cancelled_and_no_failure() -> None:
    errors: list[Exception] = []

    async def job() -> None:
        async with run_job("long", on_error=errors.append):
            await asyncio.sleep(60)

    task = asyncio.create_task(job())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (runs("long", "cancelled"), runs("long", "failed"), errors) == (1, None, [])


async def test_a_broken_hook_does_not_hide_the_failure() -> None:
    def on_error(_error: Exception) -> None:
        raise RuntimeError("hook")

    with pytest.raises(ValueError, match="boom"):
        async with run_job("hooked", on_error=on_error):
            raise ValueError("boom")

    assert runs("hooked", "failed") == 1


def test_a_declared_task_has_all_its_series_at_zero() -> None:
    declare_jobs(["declared"])

    statuses = ("succeeded", "failed", "dead", "duplicate", "cancelled")
    assert [runs("declared", status) for status in statuses] == [0] * 5
    for name in ("job_retries_total", "dead_letters_total", "job_duration_seconds_count"):
        assert REGISTRY.get_sample_value(name, {"task": "declared"}) == 0


def test_retries_and_dead_letters_are_counted() -> None:
    count_retry("sent")
    count_dead_letter("sent")

    assert REGISTRY.get_sample_value("job_retries_total", {"task": "sent"}) == 1
    assert REGISTRY.get_sample_value("dead_letters_total", {"task": "sent"}) == 1


def test_the_rounds_of_a_periodic_job_are_counted_and_the_last_good_one_is_dated() -> None:
    labels = {"task": "of-this-test"}
    started = time.time()
    count_round("of-this-test", succeeded=False)
    assert REGISTRY.get_sample_value("job_last_success_timestamp_seconds", labels) is None
    count_round("of-this-test", succeeded=True)

    assert (runs("of-this-test", "failed"), runs("of-this-test", "succeeded")) == (1, 1)
    dated = REGISTRY.get_sample_value("job_last_success_timestamp_seconds", labels)
    assert dated is not None
    assert started <= dated <= time.time()

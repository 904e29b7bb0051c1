"""Throughput of outbox and worker: the arithmetic, and a small burst through real workers."""

import json
from pathlib import Path

from bench.stage import open_stage
from bench.throughput import Result, Run, as_json, measure, show


def _run(handled: int = 20_000) -> Run:
    return Run(
        broker="redis",
        workers=2,
        events=10_000,
        handled=handled,
        seconds=40.0,
        worker_cpu_us=3_000.0,
        database_cpu_us=None,
        busy=0.8,
        idle_ms=12.0,
        relayed_seconds=5.0,
        lag_p50=20.0,
        lag_p99=39.0,
        lag_max=40.0,
        oldest_age_max=36.0,
        resident_max=150_000_000,
        outcomes={"succeeded": handled, "duplicate": 3},
    )


def test_an_event_counts_when_every_consumer_is_done() -> None:
    assert _run().events_a_second == 250.0
    assert _run(handled=10_000).events_a_second == 125.0


def test_the_report_says_what_was_not_measured_and_what_never_ended() -> None:
    shown = show(Result((_run(), _run(handled=10_000)), ("no Redis",)))
    assert "10000 events, 2 workers, redis" in shown
    assert "40.0" in shown
    assert "never" in shown
    assert "up to 150 MB, 3 duplicate" in shown
    assert shown.endswith("no Redis")
    said = json.loads(json.dumps(as_json(Result((_run(),), ()))))
    assert said["runs"][0]["events_a_second"] == 250.0


async def test_without_postgresql_nothing_is_claimed(tmp_path: Path) -> None:
    with open_stage(f"sqlite+aiosqlite:///{tmp_path}/bench.db") as stage:
        result = await measure(stage, lambda _: None, burst=1)
    assert result.runs == ()
    assert "PostgreSQL" in result.notes[0]


async def test_a_small_burst_is_handled_once_by_one_worker_and_by_two(
    postgres_database: str,
) -> None:
    with open_stage(postgres_database) as stage:
        result = await measure(stage, lambda _: None, burst=50, idle_seconds=0.1)
    assert [(run.broker, run.workers) for run in result.runs] == [
        ("memory", 1),
        ("redis", 1),
        ("redis", 2),
    ]
    for run in result.runs:
        assert run.handled == 100
        assert run.outcomes["succeeded"] == 100
        assert run.worker_cpu_us > 0
        assert 0 < run.lag_p50 <= run.lag_p99 <= run.lag_max
        assert run.relayed_seconds > 0
        assert run.resident_max > 10_000_000

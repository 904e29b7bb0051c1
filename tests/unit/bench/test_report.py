"""The report: for people and for machines."""

import io
import json

from rich.console import Console

from bench.footprint import Footprint
from bench.report import show
from bench.results import Results
from tests.unit.bench.measured import at_rate, measured, results


def shown(run: Results) -> str:
    out = io.StringIO()
    show(run, Console(file=out, width=140, force_terminal=False))
    return out.getvalue()


def test_a_table_for_each_operation_with_the_targets_below() -> None:
    told = shown(results())

    assert "ping: a handler that does nothing" in told
    assert "read: one row by its key" in told
    (line,) = [
        line for line in told.splitlines() if line.startswith("the service, 1 % of traces ")
    ][:1]
    assert line.split()[-7:] == ["132", "1.28", "0.00", "29", "7548", "1.00", "1.00"]
    assert "ping at 400 requests a second" in told
    assert "missed" in told
    assert "met" in told
    assert "Quiet enough" in told
    assert "PostgreSQL" in told
    assert "error" not in told


def test_what_is_not_known_is_said_so() -> None:
    assert "Container image: not known. make test: not known." in shown(results())
    assert "Container image: 250 MB. make test: 61 s." in shown(
        results(image_bytes=250 * 2**20, test_seconds=61.2)
    )


def test_without_postgresql_the_report_says_what_that_means() -> None:
    told = shown(results(on_postgres=False))

    assert "the targets about PostgreSQL cannot be checked" in told
    assert "SQLite" in told


def test_what_did_not_work_stands_at_the_end() -> None:
    told = shown(results(complaints=["typical has logged 1 of 2 access lines"]))

    assert told.splitlines()[-1] == "error: typical has logged 1 of 2 access lines"


def test_a_run_that_was_ended_tells_what_there_is_and_that_it_is_not_all() -> None:
    started = Footprint(1.5, 1.2, 2**27)
    told = shown(
        results(
            measured=measured(read={}), at_rates={}, complete=False, footprints={"bare": started}
        )
    )

    assert "ping: a handler" in told
    assert "ended before it was complete" in told
    assert "1.50" in told
    assert "128" in told


def test_the_numbers_for_machines() -> None:
    footprints = {"bare": Footprint(1.5, 1.2, 2**27, 2**28, 4)}
    told = json.loads(json.dumps(results(footprints=footprints).as_json()))

    assert told["ping"]["sampling_0.01"] == {
        "cpu_ratio": 1.28,
        "spread": 0.0,
        "error": 0.0,
        "cpu_us": 132.5,
        "added_us": 29.0,
        "added_us_error": 0.4,
        "requests_per_second": 7548.5,
        "p50_ms": 1.0,
        "p99_ms": 1.0,
        "requests": 800,
        "rounds": 8,
    }
    assert told["fixed_rate"]["read"]["requests_per_second"] == 400
    assert told["fixed_rate"]["read"]["variants"]["sampling_1.0"]["p99_ratio"] == 1.139
    assert told["footprint"]["variants"]["bare"]["threads"] == 4
    assert told["footprint"]["image_bytes"] is None
    assert told["machine"]["cores"] == 2
    assert told["machine"]["database"] == "PostgreSQL"
    assert told["noise"]["conclusive"] is True
    assert told["noise"]["cpu"]["ping"] == {"apart": 0.01, "too_noisy": ""}
    assert told["targets"][0] == {
        "target": "ping: CPU of signals_0.01 to bare",
        "limit": 1.35,
        "at_least": False,
        "stretch": False,
        "value": 1.27,
        "error": 0.013,
        "verdict": "met",
        "reason": "",
    }
    assert told["complete"] is True


def test_a_run_that_measured_nothing_is_empty() -> None:
    assert results(measured={}).empty
    assert results(measured=measured({}, {})).empty
    assert not results(at_rates={"ping": at_rate(1, 1, 1)}).empty

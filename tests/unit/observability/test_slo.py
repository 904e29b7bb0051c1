"""The state of an objective, what a process counts by itself, and `/slo` without a Prometheus."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from app.observability.context import is_operational
from app.observability.service_levels.assessment import WINDOWS, Measured, assess
from app.observability.service_levels.objectives import Objective, ObjectivesError
from app.observability.service_levels.own_events import OwnEvents
from app.observability.service_levels.own_levels import OwnLevels
from app.observability.slo import (
    ServiceLevelMonitor,
    SLOSettings,
    install_slo_route,
    read_objectives,
)
from tests.slo import ERRORS, declare, slo_settings

LONG = 30.0
QUIET = {window: Measured(0.0, 1000, 0) for window in (*WINDOWS, "30d")}


def objective(**changes: Any) -> Objective:
    return Objective.model_validate(ERRORS | changes)


def state(windows: dict[str, Measured], **changes: Any) -> tuple[str, str]:
    found = assess(objective(**changes), period="30d", windows=windows, no_data="Silence.")
    return found.state, found.reason


def burning(*windows: str, ratio: float, bad: float | None = 50) -> dict[str, Measured]:
    return QUIET | {window: Measured(ratio, 1000, bad) for window in windows}


# What follows from the numbers ------------------------------------------------------------------------


def test_without_an_event_there_is_no_data_and_not_success() -> None:
    assert state({}) == ("no_data", "Silence.")
    assert state({"30d": Measured(None, 0, 0)}) == ("no_data", "Silence.")
    found = assess(objective(), period="30d", windows={}, no_data="")
    assert (found.sli, found.error_budget_remaining) == (None, None)
    assert all(rate.burn_rate is None for rate in found.burn_rates)


def test_all_is_well_without_a_reason() -> None:
    assert state(QUIET) == ("ok", "")


def test_the_numbers_are_exact() -> None:
    found = assess(
        objective(), period="30d", windows=QUIET | {"30d": Measured(0.0004, 10_000, 4)}, no_data=""
    )
    assert found.target_percent == "99.9"
    assert found.sli == 0.9996
    assert found.error_budget_remaining == 0.6
    assert (found.events, found.bad_events) == (10_000, 4)


@pytest.mark.parametrize(
    ("long", "short", "ratio", "severity"),
    [
        ("1h", "5m", 0.0145, "page"),
        ("6h", "30m", 0.0061, "page"),
        ("1d", "2h", 0.0031, "ticket"),
        ("3d", "6h", 0.0011, "ticket"),
    ],
)
def test_it_burns_when_both_windows_are_above_the_factor(
    long: str, short: str, ratio: float, severity: str
) -> None:
    found = assess(objective(), period="30d", windows=burning(long, short, ratio=ratio), no_data="")
    assert found.state == "burning"
    assert [(one.long, one.short, one.severity) for one in found.burning] == [
        (long, short, severity)
    ]
    assert found.reason.startswith("The budget burns more than ")
    assert state(burning(long, ratio=ratio))[0] == "ok"
    assert state(burning(short, ratio=ratio))[0] == "ok"
    assert state(burning(long, short, ratio=ratio * 0.9))[0] == "ok"


def test_few_bad_events_do_not_burn_as_they_do_not_alert() -> None:
    assert state(burning("1h", "5m", ratio=0.5, bad=2.9))[0] == "ok"
    assert state(burning("1h", "5m", ratio=0.5, bad=3))[0] == "burning"
    assert state(burning("1h", "5m", ratio=0.5, bad=None))[0] == "burning"


def test_an_objective_that_wakes_nobody_has_no_windows_that_would() -> None:
    assert state(burning("1h", "5m", ratio=0.5), page=False)[0] == "ok"


def test_a_spent_budget_is_exhausted_and_says_whether_it_still_burns() -> None:
    spent = Measured(0.0012, 10_000, 12)
    assert state(QUIET | {"30d": spent}) == (
        "exhausted",
        "120 % of the error budget is spent.",
    )
    both = burning("1h", "5m", ratio=0.5) | {"30d": spent}
    still = ", and the budget burns more than 14.4 times too fast over 1h and 5m."
    assert state(both) == ("exhausted", f"120 % of the error budget is spent{still}")


def test_a_budget_that_few_events_have_spent_is_no_verdict_and_says_so() -> None:
    assert state(QUIET | {"30d": Measured(0.2, 10, 2)}) == (
        "ok",
        "Of 10 events 2 bad, too few to judge by: 3 count.",
    )


def test_what_is_no_number_is_told_as_not_known() -> None:
    odd = replace(QUIET["30d"], events=float("nan"), bad_events=float("inf"))
    found = assess(objective(), period="30d", windows={"30d": odd}, no_data="")
    assert (found.events, found.bad_events) == (None, None)


# What the process counts itself -----------------------------------------------------------------------


@pytest.fixture
def served() -> Iterator[Counter]:
    counter = Counter("tea_served_total", "Cups.", ["kind", "result"])
    yield counter
    REGISTRY.unregister(counter)


@pytest.fixture
def steeped() -> Iterator[Histogram]:
    histogram = Histogram("tea_steeping_seconds", "Time.", ["kind"], buckets=(1, 60, 300))
    yield histogram
    REGISTRY.unregister(histogram)


@pytest.fixture
def kettle() -> Iterator[Gauge]:
    gauge = Gauge("tea_kettle", "A moment, or whether it works.", ["place", "room"])
    yield gauge
    REGISTRY.unregister(gauge)


def events(**indicator: Any) -> OwnEvents:
    return OwnEvents([objective(indicator={"job": "api", **indicator})], job="api")


def test_a_ratio_counts_the_series_that_are_meant(served: Counter) -> None:
    for kind, result, cups in (
        ("black", "good", 90),
        ("green", "cold", 7),
        ("green", "spilt", 2),
        ("green", "cold-ish", 1),
        ("iced", "cold", 500),
    ):
        served.labels(kind, result).inc(cups)
    assert OwnEvents([objective()], job="api").read() == {"tea-errors": (100, 9)}


def test_what_took_longer_than_a_bucket_s_bound_is_bad(steeped: Histogram) -> None:
    for seconds in (0.5, 60, 61, 1000):
        steeped.labels("black").observe(seconds)
    steeped.labels("iced").observe(1000)
    slow = {"type": "latency", "metric": "tea_steeping_seconds", "where": 'kind!="iced"'}
    assert events(**slow, threshold_seconds=60).read() == {"tea-errors": (4, 2)}
    assert events(**slow, threshold_seconds=50).read() == {"tea-errors": (0, 0)}


def test_each_look_at_a_probe_is_an_event(kettle: Gauge) -> None:
    probe = events(type="probe", metric="tea_kettle")
    assert probe.read() == {"tea-errors": (0, 0)}, "it is not known yet"
    kettle.labels("shelf", "a").set(1)
    assert probe.read() == {"tea-errors": (1, 0)}
    kettle.labels("stove", "a").set(0)
    assert probe.read() == {"tea-errors": (2, 1)}


def test_the_newest_of_each_kind_must_be_fresh(
    kettle: Gauge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    fresh = events(type="freshness", metric="tea_kettle", by="place", max_age_seconds=60)
    kettle.labels("shelf", "a").set(100)
    kettle.labels("shelf", "b").set(990)
    assert fresh.read() == {"tea-errors": (1, 0)}
    kettle.labels("stove", "a").set(939)
    assert fresh.read() == {"tea-errors": (2, 1)}


def test_what_another_job_emits_is_not_counted_here(served: Counter) -> None:
    served.labels("black", "good").inc()
    assert OwnEvents([objective()], job="worker").read() == {}


# /slo -------------------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def only(levels: Any) -> Any:
    (one,) = levels.objectives
    return one


async def test_the_levels_follow_the_counters_from_the_start_of_the_process(
    served: Counter, tmp_path: Path
) -> None:
    served.labels("black", "cold").inc(1000)  # before: it belongs to no window
    served.labels("black", "good").inc(1000)
    clock = Clock()
    monitor = ServiceLevelMonitor(slo_settings(declare(tmp_path)), clock=clock)
    async with monitor.running():
        levels = await monitor.levels()
        assert (levels.source, levels.degraded, levels.reason) == ("process", False, "")
        assert only(levels).state == "no_data"
        assert only(levels).reason == (
            "tea_served_total has counted no event of it since this process began."
        )
        served.labels("black", "good").inc(9_996)
        served.labels("black", "cold").inc(4)
        assert only(await monitor.levels()).state == "no_data", "the answer of this second"
        clock.now += 120
        levels = await monitor.levels()
        assert (only(levels).sli, only(levels).error_budget_remaining) == (0.9996, 0.6)
        assert (only(levels).events, only(levels).bad_events) == (10_000, 4)
        assert only(levels).covered_seconds == 120
        assert only(levels).state == "ok"
        assert levels.since is not None
        assert levels.since <= levels.evaluated_at
        served.labels("black", "cold").inc(200)
        clock.now += 10
        assert only(await monitor.levels()).state == "exhausted"


async def test_the_counters_are_looked_at_when_nobody_asks(
    served: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.observability.service_levels.own_levels.SAMPLE_SECONDS", 0.001)
    looks = threading.Semaphore(0)
    read = OwnEvents.read

    def noted(self: OwnEvents) -> Any:
        looks.release()
        return read(self)

    monkeypatch.setattr(OwnEvents, "read", noted)
    async with ServiceLevelMonitor(slo_settings(declare(tmp_path))).running():
        for _ in range(5):
            assert await asyncio.to_thread(looks.acquire, timeout=LONG)


async def test_a_look_that_costs_much_is_followed_by_a_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def costly(self: OwnLevels) -> Any:
        looks.append(clock.now)
        return {}, 0.5

    monkeypatch.setattr(OwnLevels, "_read", costly)
    clock = Clock()
    levels = OwnLevels(read_objectives(slo_settings(declare(tmp_path))), job="api", clock=clock)
    for _ in range(25):
        await levels.sample()
        clock.now += 1
    assert looks == [1000, 1010, 1020]


async def test_counters_that_cannot_be_read_are_told_once_and_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_records: list[dict[str, Any]]
) -> None:
    def fail(self: OwnEvents) -> Any:
        raise ValueError("of somebody's collector")

    monkeypatch.setattr(OwnEvents, "read", fail)
    monitor = ServiceLevelMonitor(slo_settings(declare(tmp_path)), clock=(clock := Clock()))
    async with monitor.running():
        for _ in range(3):
            clock.now += 60
            assert only(await monitor.levels()).state == "no_data"
    (line,) = log_records
    assert line["message"] == "Own counters cannot be read for service levels"
    assert line["extra"] == {"type": "telemetry", "reason": "ValueError"}


async def test_what_only_others_count_says_who(tmp_path: Path) -> None:
    freshness = {
        "type": "freshness",
        "metric": "job_last_success_timestamp_seconds",
        "job": "worker",
        "by": "task",
        "max_age_seconds": 60,
    }
    monitor = ServiceLevelMonitor(
        slo_settings(declare(tmp_path, ERRORS | {"indicator": freshness}))
    )
    async with monitor.running():
        found = only(await monitor.levels())
    assert found.state == "no_data"
    assert found.reason == (
        "job_last_success_timestamp_seconds comes from the job worker, and this process is one of the"
        " job api: only Prometheus sees both."
    )


async def test_the_route_answers_without_having_been_started_and_is_not_kept(
    tmp_path: Path,
) -> None:
    app = FastAPI()
    install_slo_route(app, ServiceLevelMonitor(slo_settings(declare(tmp_path))))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://tea") as client:
        answer = await client.get("/slo")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["objectives"][0]["target_percent"] == "99.9"
    assert is_operational("/slo")


# Settings ---------------------------------------------------------------------------------------------


def test_a_missing_file_is_said_with_the_name_of_the_variable(tmp_path: Path) -> None:
    path = tmp_path / "gone.yml"
    with pytest.raises(ObjectivesError) as refusal:
        ServiceLevelMonitor(slo_settings(path))
    assert str(refusal.value) == f"SLO_OBJECTIVES_FILE: {path}: No such file or directory"


def test_a_wrong_file_is_said_with_the_name_of_the_objective(tmp_path: Path) -> None:
    with pytest.raises(ObjectivesError, match=r"^SLO_OBJECTIVES_FILE: .*objective tea-errors"):
        ServiceLevelMonitor(slo_settings(declare(tmp_path, ERRORS | {"target": 100})))


def test_a_relative_path_is_looked_for_where_one_stands_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(tmp_path, ERRORS | {"name": "here"})
    monkeypatch.chdir(tmp_path)
    found = read_objectives(SLOSettings(slo_objectives_file=Path("objectives.yml")))
    assert [one.name for one in found.objectives] == ["here"]


@pytest.mark.parametrize(
    "url", ["prometheus:9090", "ftp://prometheus", "http://", "http://prometheus/?x=1", "http://[x"]
)
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL such as http://prometheus:9090") as refusal:
        SLOSettings(prometheus_url=url)
    assert f"'{url}'" not in str(refusal.value)

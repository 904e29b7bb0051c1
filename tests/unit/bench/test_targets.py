"""The targets: met, missed, or neither."""

import pytest

from bench.estimates import Estimate
from bench.results import Results
from bench.targets import Target
from tests.unit.bench.measured import PING, READ, at_rate, measured, results


def verdicts(run: Results) -> dict[tuple[str, float], str]:
    return {(target.what, target.limit): target.verdict for target in run.targets}


def test_a_run_below_every_limit_meets_every_target() -> None:
    told = verdicts(results())

    assert told.pop(("ping: CPU of signals_0.01 to bare", 1.25)) == "missed"  # stretch
    assert told.pop(("ping: CPU of signals_1.0 to bare", 1.9)) == "missed"  # stretch
    assert told.pop(("ping: CPU of sampling_0.01 to bare", 1.25)) == "missed"  # stretch
    assert told.pop(("ping: CPU of sampling_1.0 to bare", 1.9)) == "missed"  # stretch
    assert set(told.values()) == {"met"}
    assert len(told) == 19


@pytest.mark.parametrize(
    ("what", "limit", "run"),
    [
        ("ping: CPU of sampling_0.01 to bare", 1.35, {"ping": PING | {"sampling_0.01": 140.0}}),
        ("ping: CPU of signals_0.01 to bare", 1.35, {"ping": PING | {"signals_0.01": 140.0}}),
        ("read: CPU of signals_1.0 to bare", 1.5, {"read": READ | {"signals_1.0": 1600.0}}),
        ("read: CPU of sampling_0.01 to bare", 1.15, {"read": READ | {"sampling_0.01": 1200.0}}),
        ("ping: CPU of sampling_1.0 to bare", 2.5, {"ping": PING | {"sampling_1.0": 300.0}}),
        ("read: CPU of sampling_1.0 to bare", 1.5, {"read": READ | {"sampling_1.0": 1600.0}}),
        ("ping: CPU that typical adds to what sampling_0.01 adds", 8.0, {"ping": PING | {"typical": 200.0}}),
        (
            "ping: CPU that sampling_0.01 adds at 50 routes to that at 2", 1.25,
            {"ping": PING | {"bare_50_routes": 100.0, "sampling_0.01_50_routes": 160.0}},
        ),
    ],
)  # fmt: skip
def test_a_value_beyond_its_limit_misses_it(
    what: str, limit: float, run: dict[str, dict[str, float]]
) -> None:
    assert verdicts(results(measured=measured(**run)))[what, limit] == "missed"


def test_a_p99_beyond_its_limit_misses_it() -> None:
    told = verdicts(results(at_rates={"ping": at_rate(3.0, 3.0, 6.0)}))

    assert told["ping: p99 of sampling_1.0 to bare at a fixed rate", 1.5] == "missed"
    assert told["read: p99 of sampling_1.0 to bare at a fixed rate", 1.5] == "cannot be said"


def test_a_value_as_near_to_its_limit_as_its_error_is_neither() -> None:
    for value in (1.33, 1.37):
        near = Target("ping", 1.35, Estimate(value, 0.0, 0.03))
        assert near.verdict == "cannot be said"
        assert near.reason == "its error, ±0.03, reaches over the limit"
    assert Target("ping", 1.35, Estimate(1.31, 0.0, 0.03)).verdict == "met"
    assert Target("ping", 1.35, Estimate(1.39, 0.0, 0.03)).verdict == "missed"
    assert Target("times", 8.0, Estimate(9.0, 0.0, 0.5), at_least=True).verdict == "met"


def test_what_two_equal_applications_were_apart_is_a_doubt_about_every_ratio() -> None:
    apart = PING | {"bare_again": 104.0, "sampling_0.01": 132.0}

    told = verdicts(results(measured=measured(ping=apart)))

    assert told["ping: CPU of sampling_0.01 to bare", 1.35] == "cannot be said"


def test_a_noisy_run_says_nothing() -> None:
    assert set(verdicts(results(others_after=0.5)).values()) == {"cannot be said"}


def test_what_is_about_postgresql_is_not_said_of_sqlite() -> None:
    run = results(on_postgres=False)

    for target in run.targets:
        about_rows = target.what.startswith("read")
        assert (target.verdict == "cannot be said") == about_rows
        assert (target.reason == "the database is not PostgreSQL") == about_rows


def test_what_was_not_measured_is_not_said() -> None:
    run = results(measured=measured(read={}), at_rates={})

    reasons = {target.what: target.reason for target in run.targets}
    assert reasons["read: CPU of sampling_0.01 to bare"] == "not measured"
    assert reasons["ping: p99 of sampling_1.0 to bare at a fixed rate"] == "not measured"


def test_a_service_that_adds_nothing_that_can_be_seen_is_not_compared_with_typical() -> None:
    nothing = PING | {"bare_again": 102.0, "sampling_0.01": 101.0}

    targets = results(measured=measured(ping=nothing)).targets

    one = next(target for target in targets if target.what.startswith("ping: CPU that typical"))
    assert one.verdict == "cannot be said"
    assert "so little that noise hides it" in one.reason

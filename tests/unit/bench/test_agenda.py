"""What is measured for which arguments, and how long that takes."""

import time

import pytest

from bench import cpu
from bench.agenda import WrongArgument, make_agenda
from bench.interruption import run
from bench.progress import Progress
from bench.stage import Customer
from bench.variants import VARIANTS


def test_by_default_everything_is_measured_in_under_five_minutes() -> None:
    agenda = make_agenda()

    assert agenda.variants == tuple(VARIANTS)
    assert agenda.operations == ("ping", "read", "create", "list")
    assert agenda.seconds < 5 * 60


def test_quick_measures_what_has_targets_in_under_a_minute() -> None:
    agenda = make_agenda(quick=True)

    assert agenda.variants == (
        "bare", "bare_again", "signals_0.01", "signals_1.0", "sampling_0.01", "sampling_1.0", "typical",
    )  # fmt: skip
    assert agenda.operations == ("ping", "read")
    assert agenda.seconds < 60


def test_many_routes_are_measured_where_finding_one_is_a_part_of_the_whole() -> None:
    asked = make_agenda().asked

    assert "bare_50_routes" in asked["ping"]
    assert "bare_50_routes" not in asked["create"]
    assert "bare_50_routes" not in asked["list"]


def test_what_is_compared_with_is_always_measured() -> None:
    assert make_agenda(variants="typical").variants == ("bare", "bare_again", "typical")
    assert "bare_50_routes" in make_agenda(variants="typical_50_routes").variants


def test_latency_is_measured_of_what_records_every_trace() -> None:
    both = ("signals_1.0", "sampling_1.0")
    assert make_agenda().latency_variants == ("bare", "bare_again", *both)
    one = ("bare", "bare_again", "signals_1.0")
    assert make_agenda(variants="signals_1.0").latency_variants == one
    assert make_agenda(variants="sampling_0.01").latency_variants == ()
    assert make_agenda(operations="list,ping").latency_operations == ("ping",)


def test_what_is_near_its_target_is_measured_more_often() -> None:
    closely = make_agenda().asked_closely

    assert set(closely) == {"ping", "read"}
    assert "sampling_1.0" in closely["read"]
    assert "typical" not in closely["ping"]  # nowhere near


@pytest.mark.parametrize("quick", [False, True])
def test_all_of_those_fit_where_nothing_starts_slowly(quick: bool) -> None:
    agenda = make_agenda(quick=quick)

    assert agenda.start_seconds + agenda.cpu_seconds < agenda.closer_until


def test_no_round_begins_that_would_be_over_too_late() -> None:
    nobody, progress = Customer("", ""), Progress(None)

    async def measured(until: float) -> cpu.Measured:
        into: cpu.Measured = {}
        await cpu.measure(
            {}, {"ping": []}, nobody, rounds=1, seconds=1, progress=progress, into=into, until=until
        )
        return into

    assert run(measured(time.monotonic() + 60)) == {"ping": {}}
    assert run(measured(time.monotonic() - 1)) == {}


def test_a_number_of_rounds_replaces_both() -> None:
    agenda = make_agenda(quick=True, rounds=2)

    assert agenda.rounds == agenda.latency_rounds == 2
    assert agenda.asked_closely == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"variants": "bare,nothing"}, "there is no variant 'nothing'; there are bare, bare_again"),
        ({"operations": "delete"}, "there is no operation 'delete'; there are ping, read, create, list"),
        ({"rounds": 0}, "at least one round"),
        ({"rate": 0.0}, "from 20 to 100000"),
        ({"rate": float("inf")}, "from 20 to 100000"),
        ({"rate": float("nan")}, "from 20 to 100000"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(WrongArgument, match=said):
        make_agenda(**given)  # type: ignore[arg-type]

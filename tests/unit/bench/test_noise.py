"""When the machine is too noisy to conclude."""

import dataclasses

from bench.noise import Noise
from tests.unit.bench.measured import PING, QUIET, at_rate, bursts, measured, results


def test_a_quiet_machine_is_said_to_be_quiet_and_by_how_much() -> None:
    noise = results().noise

    assert noise.conclusive
    assert noise.sentence == (
        "Quiet enough: two equal applications were at most 1.0% apart in CPU and 3% in p99."
    )
    assert noise.why_not("ping") == ""


def test_two_equal_applications_that_are_far_apart_end_all_conclusions_about_the_operation() -> (
    None
):
    noise = results(measured=measured(ping=PING | {"bare_again": 106.0})).noise

    assert not noise.conclusive
    assert noise.why_not("ping") == "too noisy"
    assert noise.why_not("read") == ""
    assert (
        "too noisy to conclude about ping (two equal applications were 6% apart)" in noise.sentence
    )


def test_so_do_rounds_that_differ_much_though_their_median_is_right() -> None:
    wild = [80.0, 85.0, 90.0, 100.0, 100.0, 110.0, 115.0, 120.0]
    of = {"bare": bursts([100.0] * 8), "bare_again": bursts(wild)}

    noise = results(measured={"ping": of}).noise

    assert not noise.conclusive
    assert "the ratio of two equal applications may be off by" in noise.sentence

    of = {name: bursts(us * 4) for name, us in (("bare", [100.0] * 8), ("bare_again", wild))}
    assert results(measured={"ping": of}).noise.conclusive  # more of them tell more


def test_too_few_rounds_are_no_measure_of_anything() -> None:
    of = {name: bursts([us] * 3) for name, us in PING.items()}

    noise = results(measured={"ping": of}).noise

    assert not noise.conclusive
    assert "fewer than 4 rounds" in noise.sentence


def test_others_on_the_machine_end_all_conclusions() -> None:
    busy = dataclasses.replace(QUIET, others_before=0.3)

    for run in (results(busy), results(others_after=0.3), results(stolen=0.2)):
        assert not run.noise.conclusive
        assert run.noise.why_not("ping") == run.noise.why_not("ping", latency=True) == "too noisy"
    assert "others used 30%" in results(others_after=0.3).noise.sentence
    assert "its host gave 20%" in results(stolen=0.2).noise.sentence


def test_a_noisy_latency_leaves_the_conclusions_about_cpu() -> None:
    noise = results(at_rates={"ping": at_rate(3.0, 6.0, 4.0)}).noise

    assert noise.conclusive
    assert noise.why_not("ping") == ""
    assert noise.why_not("ping", latency=True) == "too noisy"
    assert "too noisy to conclude about the p99 of ping" in noise.sentence


def test_without_a_control_nothing_is_concluded() -> None:
    noise = Noise({}, {}, {}, {}, others="")

    assert not noise.conclusive
    assert noise.why_not("ping") == "no control"
    assert "nothing can be said" in noise.sentence

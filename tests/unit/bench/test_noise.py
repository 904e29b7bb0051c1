"""When the machine is too noisy to conclude."""

import dataclasses

import pytest

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

    for run in (results(busy), results(others_after=0.3)):
        assert not run.noise.conclusive
        assert run.noise.why_not("ping") == run.noise.why_not("ping", latency=True) == "too noisy"
    assert "others used 30%" in results(others_after=0.3).noise.sentence


def test_what_the_host_has_disturbed_does_not_count() -> None:
    figures = {"bare": bursts([100.0] * 8), "sampling_0.01": bursts([128.0] * 5 + [900.0] * 3)}
    figures["sampling_0.01"].stolen = [0.0] * 5 + [0.06] * 3
    run = results(measured={"ping": figures | {"bare_again": bursts([100.0] * 8)}}, at_rates={})

    assert run.figures["ping"]["sampling_0.01"].ratio.value == pytest.approx(1.28)
    assert run.figures["ping"]["sampling_0.01"].rounds == 5
    assert run.disturbed == pytest.approx(3 / 24)
    assert run.noise.conclusive

    late = at_rate(3.0, 3.1, 3.6)
    late.variants["sampling_1.0"].durations.append([1.0] * 100)
    late.variants["sampling_1.0"].stolen.append(0.5)
    latency = results(at_rates={"ping": late}).latency["ping"]["sampling_1.0"]
    assert latency.p99_ms == pytest.approx(3.6)
    assert latency.p99_ratio.value == pytest.approx(1.2)
    assert latency.rounds == 4


def test_of_what_was_disturbed_nothing_is_concluded_though_the_control_was_not() -> None:
    of = measured(PING | {"bare_50_routes": 110.0, "sampling_0.01_50_routes": 138.0})["ping"]
    late = at_rate(3.0, 3.1, 3.6)
    for name in ("sampling_0.01", "sampling_1.0"):
        of[name].stolen = [0.0] * 3 + [0.5] * 5
    late.variants["sampling_1.0"].stolen = [0.0, 0.5, 0.5, 0.5]

    run = results(measured={"ping": of}, at_rates={"ping": late})

    assert run.noise.conclusive
    told = [target for target in run.targets if "ping" in target.what and target.value]
    assert len(told) == 12
    for target in told:
        assert (target.verdict == "cannot be said") == ("sampling" in target.what), target.what


def test_a_host_that_disturbs_everything_ends_all_conclusions() -> None:
    of = {name: bursts([us] * 8) for name, us in PING.items()}
    of["bare"].stolen = [0.5] * 8
    late = at_rate(3.0, 3.1, 3.6)
    late.variants["bare"].stolen = [0.5] * 4

    run = results(measured={"ping": of}, at_rates={"ping": late})

    assert run.figures["ping"]["sampling_0.01"].ratio.value == pytest.approx(1.28)
    assert run.latency["ping"]["sampling_1.0"].p99_ratio.value == pytest.approx(1.2)
    assert not run.noise.conclusive
    assert run.noise.why_not("ping") == run.noise.why_not("ping", latency=True) == "too noisy"
    assert "fewer than 4 rounds that its host did not disturb" in run.noise.sentence


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

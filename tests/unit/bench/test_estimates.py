"""The arithmetic of the report."""

import pytest

from bench.comparison import compare, latencies
from bench.estimates import Estimate, differences, estimate, p99_ratio, ratios, spread
from tests.unit.bench.measured import at_rate, bursts, measured


def test_a_ratio_is_taken_round_by_round_so_a_slower_machine_changes_nothing() -> None:
    figures = compare(measured()["ping"])

    assert figures["sampling_0.01"].ratio.value == pytest.approx(1.28)
    assert figures["sampling_0.01"].ratio.spread == pytest.approx(0)
    assert figures["bare"].ratio == Estimate(1, 0, 0)


def test_what_is_added_is_told_in_microseconds_a_request() -> None:
    figures = compare({"bare": bursts([100, 100, 100]), "typical": bursts([1100, 900, 1200])})

    assert figures["typical"].added_us.value == pytest.approx(1000)
    assert figures["typical"].cpu_us == pytest.approx(1100)
    assert figures["typical"].p50_ms == pytest.approx(1)
    assert figures["typical"].p99_ms == pytest.approx(1)
    assert figures["typical"].rounds == 3


def test_a_variant_with_many_routes_is_compared_with_the_bare_one_that_has_as_many() -> None:
    of = {"bare": 100.0, "bare_50_routes": 200.0, "sampling_0.01_50_routes": 250.0}

    figures = compare(measured(ping=of)["ping"])

    assert figures["sampling_0.01_50_routes"].ratio.value == pytest.approx(1.25)


def test_rounds_that_only_one_of_two_has_are_left_out() -> None:
    assert ratios([2, 4, 9], [1, 2]) == [2, 2]
    assert differences([2, 4], [1, 2, 3]) == [1, 2]


def test_what_has_no_round_or_no_base_is_not_told() -> None:
    assert compare({"bare": bursts([1]), "typical": bursts([])}).keys() == {"bare"}
    assert compare({"typical": bursts([1])}) == {}
    assert latencies({}) == {}


def test_the_spread_is_half_of_what_lies_between_the_quartiles() -> None:
    assert spread([1, 2, 3, 4, 5, 6, 7, 1000]) == pytest.approx(2.25)
    assert spread([1, 3]) == 2


def test_the_error_of_the_median_shrinks_with_the_rounds_and_not_with_an_outlier() -> None:
    few, many = estimate([1, 2, 3, 4]), estimate([1, 2, 3, 4] * 25)

    assert many.error == pytest.approx(1.2533 * many.spread / 0.6745 / 10)
    assert few.error > many.error
    assert estimate([1, 2, 3, 4, 5, 6, 7, 1e9]).error == estimate([1, 2, 3, 4, 5, 6, 7, 8]).error


def test_a_quotient_has_the_errors_of_both_and_none_of_what_may_be_nothing() -> None:
    quotient = Estimate(80, 1, 8).over(Estimate(10, 1, 2))

    assert quotient is not None
    assert quotient.value == 8
    assert quotient.error == pytest.approx(8 * (0.1 + 0.2))
    assert Estimate(80, 1, 8).over(Estimate(1, 1, 1)) is None
    assert Estimate(80, 1, 8).over(Estimate(-1, 1, 0.5)) is None


def test_the_p99_is_that_of_all_turns_together() -> None:
    latency = latencies(at_rate(2.0, 2.2, 3.0).variants)

    assert latency["sampling_1.0"].p99_ratio.value == pytest.approx(1.5)
    assert latency["sampling_1.0"].p99_ms == pytest.approx(3)
    assert latency["bare_again"].p99_ratio.value == pytest.approx(1.1)


def test_a_p99_is_compared_with_both_of_the_equal_applications() -> None:
    latency = latencies(at_rate(4.0, 2.0, 3.0).variants)
    assert latency["bare_again"].p99_ratio.value == pytest.approx(1 / 2)
    ratio = latency["sampling_1.0"].p99_ratio
    # Two of a hundred requests are slow: of both together, one takes 4 and one 2.
    assert ratio.value == pytest.approx(3 / 2)
    assert ratio.error > 0  # it depends on which of their turns one sees

    alone = latencies(
        {name: at_rate(4.0, 2.0, 3.0).variants[name] for name in ("bare", "signals_1.0")}
    )
    assert alone["signals_1.0"].p99_ratio.value == pytest.approx(3 / 4)
    assert alone["signals_1.0"].p99_ratio.error == 0


def test_one_turn_of_ten_that_was_held_up_makes_a_p99_uncertain() -> None:
    quick, held_up = [0.001] * 100, [0.1] * 100
    steady = p99_ratio([[0.002] * 100] * 10, [quick] * 10)
    one_in_ten = p99_ratio([quick] * 9 + [held_up], [quick] * 10)
    four_in_ten = p99_ratio([quick] * 6 + [held_up] * 4, [quick] * 10)

    assert (steady.value, steady.error) == pytest.approx((2, 0))
    assert one_in_ten.value == four_in_ten.value == pytest.approx(100)
    assert one_in_ten.value - one_in_ten.error == pytest.approx(1)  # perhaps there is no difference
    assert four_in_ten.error == 0

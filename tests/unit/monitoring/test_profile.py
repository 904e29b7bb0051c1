"""Tests of profiles: which durations change, which do not, and what they become."""

import pytest

from monitoring.build.profile import DEMO, PRODUCTION


@pytest.mark.parametrize(
    ("given", "demo"),
    [
        ("rate(x[5m])", "rate(x[5s])"),
        ("rate(x[1h])", "rate(x[1m])"),
        ("sum_over_time(x[1d:5m])", "sum_over_time(x[24m:5s])"),
        ("sum_over_time(x[30d:5m])", "sum_over_time(x[12h:5s])"),
        ("max_over_time(x[1h:])", "max_over_time(x[1m:])"),
        ("x offset 1d", "x offset 24m"),
        ("x offset -2h", "x offset -2m"),
        ("time() - x > $seconds(15m)", "time() - x > 15"),
        ("time() - x > $seconds(90s)", "time() - x > 1.5"),
        ("predict_linear(x[6h], $seconds(30d)) < 0", "predict_linear(x[6m], 43200) < 0"),
    ],
)
def test_a_minute_of_production_is_a_second_of_the_demonstration(given: str, demo: str) -> None:
    assert DEMO.promql(given) == demo


def test_a_range_is_never_too_short_for_a_rate() -> None:
    """One scrape a second: a rate over less than five seconds may see a single sample."""
    assert DEMO.promql("rate(x[1m])") == "rate(x[5s])"
    assert DEMO.promql("max_over_time(x[1h:30s])") == "max_over_time(x[1m:1s])"


def test_an_age_may_have_a_floor() -> None:
    """A job that runs every five seconds does so in a demonstration, too."""
    assert DEMO.promql("time() - x > $seconds(300s, 15s)") == "time() - x > 15"
    assert DEMO.promql("time() - x > $seconds(1h, 15s)") == "time() - x > 60"
    assert PRODUCTION.promql("time() - x > $seconds(300s, 15s)") == "time() - x > 300"


def test_a_floor_does_not_raise_what_was_below_it_before() -> None:
    assert DEMO.promql("time() - x > $seconds(5s, 15s)") == "time() - x > 5"
    assert PRODUCTION.duration("2s", floor=5) == "2s"


def test_names_labels_and_numbers_stay() -> None:
    same = 'slo:sli_error:ratio_rate5m{sloth_window="5m",handler="/v1/orders"} > 14.4 and y > 300'
    assert DEMO.promql(same) == same


@pytest.mark.parametrize(
    "expression",
    ["rate(x[5m])", "sum_over_time(x[30d:5m])", "x offset 1d", "max_over_time(x[90s:])"],
)
def test_production_is_what_was_declared(expression: str) -> None:
    assert PRODUCTION.promql(expression) == expression


def test_seconds_are_whole_numbers_without_an_exponent() -> None:
    assert PRODUCTION.promql("x > $seconds(30d)") == "x > 2592000"


@pytest.mark.parametrize(
    ("given", "floor", "production", "demo"),
    [
        ("15s", 0.0, "15s", "250ms"),
        ("15s", 1.0, "15s", "1s"),
        ("2m", 0.0, "2m", "2s"),
        ("90m", 0.0, "90m", "90s"),
        ("7d", 0.0, "7d", "168m"),
        ("1d", 0.0, "1d", "24m"),
    ],
)
def test_durations_are_exact_and_short(
    given: str, floor: float, production: str, demo: str
) -> None:
    assert PRODUCTION.duration(given, floor=floor) == production
    assert DEMO.duration(given, floor=floor) == demo


@pytest.mark.parametrize(
    ("text", "production", "demo"),
    [
        ("over <15m>", "over 15 minutes", "over 15 seconds"),
        ("over <1h>", "over 1 hour", "over 1 minute"),
        ("over <30d>", "over 30 days", "over 12 hours"),
        ("over <1d>", "over 1 day", "over 24 minutes"),
        ("over <90m>", "over 1.5 hours", "over 1.5 minutes"),
        ("above 5m and {{ $labels.handler }}", "above 5m and {{ $labels.handler }}", None),
    ],
)
def test_durations_in_texts_are_spelt_out(text: str, production: str, demo: str | None) -> None:
    assert PRODUCTION.text(text) == production
    assert DEMO.text(text) == (demo or production)

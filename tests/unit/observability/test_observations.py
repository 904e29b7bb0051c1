"""Observations made at once leave what the same ones leave that are made in a row."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.exposition import generate_latest

from app.observability.observations import observe_all

BOUNDS = (0.25, 0.5, 1.0, 4.0)
# Quarters have no rounding, so sums do not depend on the order; these meet bounds and miss them.
amounts = st.lists(st.integers(0, 40).map(lambda number: number / 4), max_size=30)


def page(plain: Sequence[float], traced: Sequence[float], *, at_once: bool) -> list[str]:
    registry = CollectorRegistry()
    histogram = Histogram("seconds", "Time.", ["route"], registry=registry, buckets=BOUNDS)
    series = histogram.labels("/v1/orders")
    exemplars = [(amount, {"trace_id": f"{n:032x}"}) for n, amount in enumerate(traced)]
    if at_once:
        observe_all(series, plain, exemplars)
    else:
        for amount in plain:
            series.observe(amount)
        for amount, exemplar in exemplars:
            series.observe(amount, exemplar)
    lines = generate_latest(registry).decode().splitlines()  # type: ignore[no-untyped-call]
    # An exemplar ends with the time at which it was seen.
    return [
        line.rpartition(" ")[0] if "# {" in line else line
        for line in lines
        if "_created" not in line
    ]


@settings(deadline=None)
@given(plain=amounts, traced=amounts)
def test_the_page_is_the_same(plain: list[float], traced: list[float]) -> None:
    assert page(plain, traced, at_once=True) == page(plain, traced, at_once=False)


def test_a_bucket_shows_its_latest_exemplar() -> None:
    shown = [line for line in page([0.1], [0.1, 0.2, 0.3], at_once=True) if "# {" in line]
    assert [line.partition("trace_id=")[2][:34] for line in shown] == [
        f'"{1:032x}"',
        f'"{2:032x}"',
    ]


@pytest.mark.parametrize("times", [1, 2])
def test_beyond_the_last_bound_is_counted(times: int) -> None:
    shown = page([1e9] * times, [], at_once=True)
    assert f'seconds_bucket{{le="+Inf",route="/v1/orders"}} {times}.0' in shown
    assert 'seconds_bucket{le="4.0",route="/v1/orders"} 0.0' in shown

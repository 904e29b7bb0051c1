import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY

from app.observability.cardinality import LIMIT, MAX_LENGTH, OTHER, fold


@pytest.fixture
def metric() -> str:
    """A metric that nobody has used before."""
    return f"test_{secrets.token_hex(8)}_total"


def folded(metric: str, label: str = "label") -> float:
    return (
        REGISTRY.get_sample_value(
            "metrics_label_values_folded_total", {"metric": metric, "label": label}
        )
        or 0
    )


def test_values_up_to_the_limit_stay_and_the_rest_is_other_and_counted(metric: str) -> None:
    values = [f"value {number}" for number in range(LIMIT + 50)]

    assert [fold(metric, "label", value) for value in values] == values[:LIMIT] + [OTHER] * 50
    assert folded(metric) == 50
    # Whoever has a place keeps it; whoever has none gets none.
    assert [fold(metric, "label", value) for value in values] == values[:LIMIT] + [OTHER] * 50
    assert folded(metric) == 100


def test_the_limit_is_the_callers(metric: str) -> None:
    assert [fold(metric, "label", value, limit=2) for value in "abcab"] == [
        "a",
        "b",
        OTHER,
        "a",
        "b",
    ]


def test_each_label_of_each_metric_has_a_limit_of_its_own(metric: str) -> None:
    assert fold(metric, "one", "a", limit=1) == "a"
    assert fold(metric, "two", "b", limit=1) == "b"
    assert fold(f"{metric}_more", "one", "c", limit=1) == "c"
    assert fold(metric, "one", "d", limit=1) == OTHER
    assert (folded(metric, "one"), folded(metric, "two")) == (1, 0)


@pytest.mark.parametrize(
    "value",
    [
        "ada@example.com",
        "4111 1111 1111 1111",
        "password=hunter2",
        "Bearer abc.def.ghi",
        "postgresql://ada:hunter2@db/shop",
        "x" * (MAX_LENGTH + 1),
    ],
)
def test_what_must_not_be_shown_or_is_no_name_is_no_label(metric: str, value: str) -> None:
    assert fold(metric, "label", value) == OTHER
    assert folded(metric) == 1
    assert fold(metric, "label", "fine", limit=1) == "fine", "it took no place"


def test_other_takes_no_place_and_is_not_counted(metric: str) -> None:
    assert fold(metric, "label", OTHER, limit=1) == OTHER
    assert fold(metric, "label", "a", limit=1) == "a"
    assert fold(metric, "label", OTHER, limit=1) == OTHER
    assert folded(metric) == 0


def test_threads_together_do_not_exceed_the_limit(metric: str) -> None:
    def invent(thread: int) -> set[str]:
        return {fold(metric, "label", f"{thread}-{n}", limit=10) for n in range(500)}

    with ThreadPoolExecutor(8) as threads:
        seen = set().union(*threads.map(invent, range(8)))

    assert len(seen - {OTHER}) == 10
    assert folded(metric) == 8 * 500 - 10

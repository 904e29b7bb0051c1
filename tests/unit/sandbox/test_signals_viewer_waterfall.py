"""Every span of a trace is shown once, below its parent where that is possible."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.signals_viewer.signals import Span
from sandbox.signals_viewer.waterfall import arrange, root_of
from tests.viewer import make_span


def drawn(spans: list[Span]) -> list[str]:
    """Return the rows as one sees them: a dot for each level, `?` where the parent is not there."""
    return [
        "." * row.depth + row.span.span_id.lstrip("0") + ("?" if row.detached else "")
        for row in arrange(spans)
    ]


def test_children_stand_below_their_parents_in_the_order_in_which_they_began() -> None:
    spans = [
        make_span("4", "1", start=30),
        make_span("3", "2", start=15),
        make_span("1", start=0),
        make_span("2", "1", start=10),
    ]
    assert drawn(spans) == ["1", ".2", "..3", ".4"]
    assert root_of(spans).span_id.endswith("1")


def test_of_two_that_began_together_the_longer_one_comes_first() -> None:
    spans = [make_span("1"), make_span("2", "1", end=1), make_span("3", "1")]
    assert drawn(spans) == ["1", ".3", ".2"]


def test_a_span_whose_parent_is_not_there_begins_a_branch_and_says_so() -> None:
    spans = [make_span("3", "2", start=5), make_span("1"), make_span("4", "3", start=6)]
    assert drawn(spans) == ["1", "3?", ".4"]


def test_the_branch_is_moved_when_its_parent_arrives_late() -> None:
    spans = [make_span("1"), make_span("3", "2", start=5)]
    assert drawn(spans) == ["1", "3?"]
    assert drawn([*spans, make_span("2", "1", start=2)]) == ["1", ".2", "..3"]


def test_a_trace_without_a_root_is_named_after_what_began_first() -> None:
    spans = [make_span("3", "9", start=5), make_span("2", "8", start=1)]
    assert drawn(spans) == ["2?", "3?"]
    assert root_of(spans).span_id.endswith("2")


def test_the_root_names_the_trace_even_if_a_clock_is_wrong() -> None:
    assert root_of([make_span("2", "1", start=-50), make_span("1")]).parent_id == ""


def test_spans_that_are_each_other_s_parents_are_shown() -> None:
    spans = [make_span("1"), make_span("2", "3", start=1), make_span("3", "2", start=2)]
    assert drawn(spans) == ["1", "2?", ".3"]


def test_a_span_that_is_its_own_parent_is_shown() -> None:
    assert drawn([make_span("1", "1")]) == ["1?"]


def test_a_chain_of_thousands_is_no_problem() -> None:
    chain = [make_span("1")]
    chain += [make_span(f"{n:x}", f"{n - 1:x}", start=n) for n in range(2, 3_000)]
    assert [row.depth for row in arrange(chain)] == list(range(2_999))


# The same cases in every run, however long one takes: a failure is a change, not luck.
@settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(st.integers(0, 12), max_size=12), st.randoms(use_true_random=False))
def test_whatever_the_parents_are_every_span_is_shown_once(parents, rng) -> None:  # type: ignore[no-untyped-def]  # by hypothesis
    spans = [make_span(f"{n + 1:x}", f"{p:x}" if p else "") for n, p in enumerate(parents)]
    rng.shuffle(spans)
    rows = arrange(spans)
    assert sorted(row.span.span_id for row in rows) == sorted(span.span_id for span in spans)
    above: list[str] = []
    for row in rows:
        del above[row.depth :]
        assert len(above) == row.depth
        if row.depth:
            assert above[-1] == row.span.parent_id
        above.append(row.span.span_id)

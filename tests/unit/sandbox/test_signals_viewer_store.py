"""The viewer keeps the newest of everything, and no more than its limits."""

import pytest

from sandbox.signals_viewer.store import Limits, SignalStore
from tests.viewer import make_error, make_span, trace_id


def kept(store: SignalStore) -> list[str]:
    return [trace.trace_id for trace in store.traces()]


def test_the_oldest_trace_goes_first() -> None:
    store = SignalStore(Limits(traces=2))
    for number in (1, 2, 3):
        store.add_spans([make_span(trace=number, start=number)])
    assert kept(store) == [trace_id(3), trace_id(2)]
    assert store.trace(trace_id(1)) is None


def test_a_late_span_joins_its_trace() -> None:
    store = SignalStore()
    store.add_spans([make_span("1", trace=1)])
    store.add_spans([make_span("1", trace=2, start=5)])
    store.add_spans([make_span("2", "1", trace=1, start=900, instance="the worker")])
    trace = store.trace(trace_id(1))
    assert trace is not None
    assert len(trace.spans) == 2
    assert trace.end - trace.start == 910 * 1_000_000
    assert kept(store) == [trace_id(2), trace_id(1)]


def test_a_late_span_of_a_trace_that_is_gone_begins_it_anew() -> None:
    store = SignalStore(Limits(traces=1))
    store.add_spans([make_span("1", trace=1), make_span("1", trace=2)])
    store.add_spans([make_span("2", "1", trace=1)])
    assert kept(store) == [trace_id(1)]


def test_all_spans_together_are_bounded_in_number() -> None:
    store = SignalStore(Limits(spans=5))
    for number in (1, 2, 3):
        store.add_spans(make_span(str(span), trace=number, start=number) for span in (1, 2))
    assert kept(store) == [trace_id(3), trace_id(2)]


def test_all_spans_together_are_bounded_in_size() -> None:
    store = SignalStore(Limits(span_bytes=2_500))
    for number in (1, 2, 3):
        store.add_spans([make_span(trace=number, start=number, size=1_000)])
    assert kept(store) == [trace_id(3), trace_id(2)]


@pytest.mark.parametrize(
    "limits", [Limits(spans_of_a_trace=2), Limits(span_bytes_of_a_trace=1_200)]
)
def test_one_trace_cannot_push_out_all_others(limits: Limits) -> None:
    store = SignalStore(limits)
    store.add_spans([make_span(trace=1)])
    store.add_spans(make_span(str(number), trace=2) for number in range(1, 6))
    trace = store.trace(trace_id(2))
    assert trace is not None
    assert (len(trace.spans), trace.left_out) == (2, 3)
    assert store.trace(trace_id(1)) is not None


def test_a_span_that_is_sent_again_is_kept_once() -> None:
    store = SignalStore(Limits(spans=2, span_bytes=1_000))
    store.add_spans([make_span("1"), make_span("2")])
    for _ in range(5):  # an exporter that got no answer
        store.add_spans([make_span("1", name="again")])
    trace = store.trace(trace_id(1))
    assert trace is not None
    assert sorted(span.name for span in trace.spans.values()) == ["again", "operation 2"]
    assert trace.size == 1_000


def test_a_span_larger_than_everything_is_not_kept_and_breaks_nothing() -> None:
    store = SignalStore(Limits(span_bytes=1_000))
    store.add_spans([make_span(size=2_000)])
    assert kept(store) == []
    store.add_spans([make_span(trace=2)])
    assert kept(store) == [trace_id(2)]


def test_the_oldest_error_goes_first() -> None:
    store = SignalStore(Limits(errors=2))
    for number in (1, 2, 3):
        store.add_error(make_error(number))
    assert [error.message for error in store.errors()] == ["error 3", "error 2"]


def test_errors_are_bounded_in_size() -> None:
    store = SignalStore(Limits(error_bytes=2_500))
    for number in (1, 2, 3):
        store.add_error(make_error(number, size=1_000))
    store.add_error(make_error(3, size=1_000))
    assert [error.message for error in store.errors()] == ["error 3", "error 2"]


def test_errors_are_found_by_their_trace() -> None:
    store = SignalStore()
    store.add_error(make_error(1))
    store.add_error(make_error(2, trace_id=trace_id(2)))
    store.add_error(make_error(3))
    found = store.errors_of(trace_id(1))
    assert [error.message for error in found] == ["error 1", "error 3"]


def test_processes_of_one_service_are_told_apart() -> None:
    store = SignalStore(Limits(processes=3))
    spans = [
        make_span("1", instance="api"),
        make_span("2", instance="provider", service="provider"),
        make_span("3", instance="worker"),
    ]
    store.add_spans(spans)
    names = [store.process_name(span) for span in spans]
    assert names == ["glasshouse", "provider", "glasshouse (process 2)"]
    assert [store.process_index(span) for span in spans] == [0, 1, 2]
    for number in range(10):  # restarts: what is remembered of them is bounded, too
        store.add_spans([make_span("4", instance=f"restart {number}")])
    assert store.process_index(make_span(instance="restart 9")) == 2
    assert store.process_name(spans[0]) == "glasshouse"


def test_the_version_changes_with_everything_that_arrives() -> None:
    store = SignalStore()
    versions = [store.version, store.version]
    store.add_spans([make_span()])
    versions.append(store.version)
    store.add_error(make_error())
    versions.append(store.version)
    assert len(set(versions)) == 3
    assert SignalStore().version not in versions

"""Jaeger: the payment is one trace of three services, each span under its right parent."""

import pytest

from deploy.stack.backends.jaeger import Jaeger, Span, Trace
from tests.e2e.conftest import Journey, Stack, eventually

SERVICES = {"glasshouse", "glasshouse-payment-provider", "glasshouse-worker"}
HANDLED = "process payment.captured"


@pytest.fixture(scope="module")
def trace(stack: Stack, journey: Journey) -> Trace:
    """The trace of the payment, once it is complete."""
    jaeger = stack.ask(Jaeger)

    def complete() -> Trace | None:
        trace = jaeger.trace(journey.trace_id)
        if trace is None or not trace.services >= SERVICES or len(trace.named(HANDLED)) < 2:
            return None
        return trace

    return eventually(complete, f"trace {journey.trace_id} has spans of {SERVICES}")


def _one(trace: Trace, name: str) -> Span:
    found = trace.named(name)
    assert len(found) == 1, f"{name}: {len(found)} of {sorted(span.name for span in trace.spans)}"
    return found[0]


def test_it_has_one_root_and_no_orphan(trace: Trace) -> None:
    known = {span.id for span in trace.spans}
    roots = [(span.service, span.name, span.kind) for span in trace.spans if not span.parent]
    assert roots == [("glasshouse", "POST /v1/payments", "server")]
    assert [span.name for span in trace.spans if span.parent and span.parent not in known] == []


def test_the_provider_s_span_hangs_below_the_call_that_reached_it(trace: Trace) -> None:
    served = _one(trace, "POST /v1/charges")
    assert (served.service, served.kind) == ("glasshouse-payment-provider", "server")
    call, *above = trace.ancestors(served)
    assert (call.service, call.kind) == ("glasshouse", "client")
    assert [span.name for span in above] == ["payment.charge", "POST /v1/payments"]


def test_the_worker_s_spans_hang_below_the_event_that_caused_them(trace: Trace) -> None:
    published = _one(trace, "publish payment.captured")
    assert published.kind == "producer"
    assert trace.ancestors(published)[-1].name == "POST /v1/payments"
    handled = trace.named(HANDLED)
    assert {(span.service, span.kind) for span in handled} == {("glasshouse-worker", "consumer")}
    assert {span.parent for span in handled} == {published.id}


def test_the_database_is_seen_from_all_who_ask_it(trace: Trace) -> None:
    asking = {span.service for span in trace.spans if span.tags.get("db.system.name")}
    assert asking >= {"glasshouse", "glasshouse-worker"}


def test_jaeger_knows_all_services(stack: Stack, trace: Trace) -> None:
    assert set(stack.ask(Jaeger).services()) >= SERVICES

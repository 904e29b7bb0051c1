"""The password, the card and the token that a customer showed the service are in none of the backends."""

from collections.abc import Callable

import pytest

from deploy.stack.backends.app import Ids
from deploy.stack.backends.bugsink import Bugsink
from deploy.stack.backends.jaeger import Jaeger
from deploy.stack.backends.loki import Loki
from deploy.stack.backends.prometheus import Prometheus
from tests.e2e.conftest import Journey, Stack, eventually


def _traces(journey: Journey) -> list[str]:
    return [journey.paid.trace_id, journey.mistaken.trace_id, journey.shown.trace_id]


def _in_loki(stack: Stack, journey: Journey, _: Ids) -> str:
    loki = stack.ask(Loki)
    for trace_id in _traces(journey):
        query = f'{{service_name="glasshouse"}} | trace_id="{trace_id}"'
        eventually(lambda query=query: loki.lines(query), f"lines of {trace_id}")  # type: ignore[misc]
    found = [
        line.text
        for secret in journey.secrets
        for line in loki.lines(f'{{service_name=~".+"}} |= `{secret}`')
    ]
    as_fields = [
        repr(line.labels)
        for trace_id in _traces(journey)
        for line in loki.lines(f'{{service_name=~".+"}} | trace_id="{trace_id}"')
    ]
    return "\n".join(found + as_fields)


def _in_jaeger(stack: Stack, journey: Journey, _: Ids) -> str:
    jaeger = stack.ask(Jaeger)
    paid = eventually(lambda: jaeger.trace(journey.trace_id), f"trace {journey.trace_id}")
    others = (jaeger.trace(one) for one in _traces(journey)[1:])  # may have been sampled away
    return paid.text + "".join(trace.text for trace in others if trace is not None)


def _in_prometheus(stack: Stack, _: Journey, __: Ids) -> str:
    return "\n".join(stack.ask(Prometheus).label_values())


def _in_bugsink(stack: Stack, _: Journey, breakdown: Ids) -> str:
    bugsink = stack.ask(Bugsink)
    eventually(lambda: bugsink.with_trace(breakdown.trace_id), "the error is in Bugsink")
    return repr(bugsink.events())


SEARCHES = {
    "Loki": _in_loki,
    "Jaeger": _in_jaeger,
    "Prometheus": _in_prometheus,
    "Bugsink": _in_bugsink,
}


@pytest.mark.parametrize("backend", SEARCHES)
def test_no_secret_of_the_journey_is_in(
    backend: str, stack: Stack, journey: Journey, breakdown: Ids
) -> None:
    search: Callable[[Stack, Journey, Ids], str] = SEARCHES[backend]
    text = search(stack, journey, breakdown)
    assert len(text) > 100, "there is nothing to search"
    found = [
        secret[:4] + "..."
        for secret in (*journey.secrets, journey.customer.email)
        if secret in text
    ]
    assert not found, f"{len(found)} secrets are in {backend}: {found}"

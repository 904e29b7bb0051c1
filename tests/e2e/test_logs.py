"""Loki: lines are found by the trace id, their fields are structured metadata, and the index stays small."""

import json

import pytest

from deploy.stack.backends.loki import Line, Loki
from tests.e2e.conftest import Journey, eventually

INDEX = {"service_name", "service_namespace", "deployment_environment_name", "log_stream"}


def _lines(loki: Loki, service: str, trace_id: str) -> list[Line]:
    query = f'{{service_name="{service}"}} | trace_id="{trace_id}"'
    return eventually(lambda: loki.lines(query), f"lines of {service} with trace id {trace_id}")


@pytest.mark.parametrize("service", ["glasshouse", "glasshouse-worker"])
def test_lines_are_found_by_the_trace_id(loki: Loki, journey: Journey, service: str) -> None:
    for line in _lines(loki, service, journey.trace_id):
        said = json.loads(line.text)  # the line as it was written
        assert said["trace_id"] == journey.trace_id
        assert said["service"] == service


def test_the_fields_of_the_access_line_are_structured_metadata(
    loki: Loki, journey: Journey
) -> None:
    query = f'{{service_name="glasshouse"}} | type="http_request" | trace_id="{journey.trace_id}"'
    (line,) = eventually(lambda: loki.lines(query), "the access line of the payment")
    expected = {
        "trace_id": journey.trace_id,
        "request_id": journey.paid.request_id,
        "type": "http_request",
        "level": "INFO",
        "route": "/v1/payments",
        "method": "POST",
        "status": "201",
    }
    assert {name: line.labels.get(name) for name in expected} == expected
    assert float(line.labels["duration_ms"]) > 0


def test_the_request_id_leads_to_the_worker_as_well(loki: Loki, journey: Journey) -> None:
    query = f'{{service_name=~"glasshouse.*"}} | request_id="{journey.paid.request_id}"'

    def services() -> set[str]:
        return {line.service for line in loki.lines(query)}

    eventually(
        lambda: services() >= {"glasshouse", "glasshouse-worker"}, "lines of both by request id"
    )


def test_what_is_indexed_has_few_values(loki: Loki, journey: Journey) -> None:
    streams = eventually(lambda: loki.index_labels('{service_name=~".+"}'), "Loki has streams")
    assert {label for stream in streams for label in stream} <= INDEX | {"__stream_shard__"}


def test_the_audit_log_is_a_stream_of_its_own(loki: Loki, journey: Journey) -> None:
    query = '{service_name="glasshouse", log_stream="audit"}'
    lines = eventually(lambda: loki.lines(query), "audit lines")
    assert {json.loads(line.text)["type"] for line in lines} == {"audit"}


def test_every_rule_of_loki_is_evaluated(loki: Loki) -> None:
    if loki.is_proxied:
        pytest.skip("not checked: Grafana does not pass on what Loki's rules are; LOKI_URL does")
    rules = eventually(loki.rules, "Loki has rules")
    assert [f"{one.name}: {one.error}" for one in rules if one.health == "err"] == []

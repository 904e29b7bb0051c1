"""Each signal leads to the next: every field, label and page that a link names is there.

Links are read as Grafana and Jaeger read them; a running Grafana is asked by `make e2e`.
"""

import io
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from loguru import logger

from app.observability.context import RequestContext, bind_context, use_trace_source
from app.observability.logs import LogSettings, flush_logs, setup_logs
from tests.catalogue import read_catalogue
from tests.monitoring.grafana_links import HERE, ROOT, compose, exploration, sources
from tests.monitoring.log_contract import complaints
from tests.monitoring.promql import selectors

DASHBOARDS = ROOT / "monitoring" / "grafana" / "dashboards"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def provisioned() -> dict[str, dict[str, Any]]:
    """The data sources, by uid."""
    return sources(HERE)


# From metric to trace and logs ------------------------------------------------------------------------


def test_an_exemplar_leads_to_its_trace_and_its_logs(
    provisioned: dict[str, dict[str, Any]],
) -> None:
    trace, logs = provisioned["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert (trace["name"], trace["datasourceUid"]) == ("trace_id", "jaeger")
    asked = exploration(logs["url"])
    assert (logs["name"], asked.base, asked.datasource) == ("trace_id", "", "loki")
    assert asked.expression == '{service_name=~"glasshouse.*"} | trace_id=`${__value.raw}`'
    assert complaints(asked.expression.replace("${__value.raw}", TRACE_ID)) == []


# From log line to trace, request and error ------------------------------------------------------------


@pytest.fixture
def failure() -> Iterator[str]:
    """The line of an unhandled exception, as the service writes it."""
    written = io.StringIO()
    setup_logs(LogSettings(environment="test", log_format="json"), destination=written)
    use_trace_source(lambda: (TRACE_ID, "00f067aa0ba902b7"))
    with bind_context(RequestContext("request-0001", "/v1/orders", str(uuid.uuid4()))):
        logger.bind(type="error", where="request").error("Unhandled exception")
        logger.bind(type="business").error("Payment outcome unknown")
    assert flush_logs(60)
    yield written.getvalue()
    use_trace_source(lambda: ("", ""))


def derived(provisioned: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Return a derived field of Loki."""
    fields = provisioned["loki"]["jsonData"]["derivedFields"]
    (found,) = (field for field in fields if field["name"] == name)
    return dict(found)


@pytest.mark.parametrize(("name", "field"), [("Trace", "trace_id"), ("Request", "request_id")])
def test_a_derived_field_finds_exactly_one_field_of_a_line(
    provisioned: dict[str, dict[str, Any]], failure: str, name: str, field: str
) -> None:
    found = derived(provisioned, name)
    assert found["matcherType"] == "label"
    line = json.loads(failure.splitlines()[0])
    assert [key for key in line if re.search(found["matcherRegex"], key)] == [field]
    assert field in read_catalogue().common_fields


def test_a_request_id_leads_to_all_lines_of_the_request(
    provisioned: dict[str, dict[str, Any]],
) -> None:
    asked = exploration(derived(provisioned, "Request")["url"])
    assert asked.expression == '{service_name=~"glasshouse.*"} | request_id=`${__value.raw}`'
    assert complaints(asked.expression.replace("${__value.raw}", "request-0001")) == []


def test_a_line_leads_to_an_error_report_only_if_there_is_one(
    provisioned: dict[str, dict[str, Any]], failure: str
) -> None:
    found = derived(provisioned, "Error report")
    unhandled, expected = failure.splitlines()
    match = re.search(found["matcherRegex"], unhandled)
    assert match is not None
    assert match[1] == TRACE_ID
    assert re.search(found["matcherRegex"], expected) is None
    assert found["url"] == "http://localhost:8010/issues/1/all/?q=trace:${__value.raw}"


# From trace to logs, metrics and errors ---------------------------------------------------------------


def test_a_span_leads_to_the_log_lines_of_its_trace(
    provisioned: dict[str, dict[str, Any]],
) -> None:
    logs = provisioned["jaeger"]["jsonData"]["tracesToLogsV2"]
    assert (logs["datasourceUid"], logs["customQuery"]) == ("loki", True)
    assert logs["spanStartTimeShift"].startswith("-")
    assert complaints(logs["query"].replace("${__span.traceId}", TRACE_ID)) == []


def series_of_spans() -> tuple[set[str], set[str]]:
    """Return the metrics that the collector makes of spans, and their labels."""
    collector = yaml.safe_load((ROOT / "monitoring/collector/collector.yml").read_text())
    made = collector["connectors"]["span_metrics"]
    prefix = made["namespace"]
    assert made["histogram"]["unit"] == "s"
    labels = {"service.name", "span.name", "span.kind", "status.code"}
    labels |= {dimension["name"] for dimension in made["dimensions"]}
    metrics = {f"{prefix}_calls_total", f"{prefix}_duration_seconds_bucket"}
    return metrics, {label.replace(".", "_") for label in labels}


def test_a_span_leads_to_metrics_that_the_collector_makes_of_all_spans(
    provisioned: dict[str, dict[str, Any]],
) -> None:
    linked = provisioned["jaeger"]["jsonData"]["tracesToMetrics"]
    assert linked["tags"] == [{"key": "name", "value": "span_name"}]
    metrics, labels = series_of_spans()
    assert linked["queries"]
    for query in linked["queries"]:
        assert "$__tags" in query["query"], "else it asks for all operations"
        text = query["query"].replace("$__tags", 'span_name="GET"')
        for selector in selectors(text.replace("$__rate_interval", "1m")):
            assert selector.metric in metrics
            assert {name for name, _, _ in selector.matchers} <= labels
            assert selector.values("span_name") == [("=", "GET")]


def test_a_span_leads_to_its_service_and_its_error_reports(
    provisioned: dict[str, dict[str, Any]],
) -> None:
    errors, requests, lines = provisioned["jaeger"]["correlations"]
    assert (errors["type"], errors["config"]["field"]) == ("external", "traceID")
    assert errors["config"]["target"]["url"].endswith(":8010/issues/1/all/?q=trace:${traceID}")

    assert (requests["targetUID"], requests["config"]["field"]) == ("prometheus", "serviceName")
    text = requests["config"]["target"]["expr"]
    filled = text.replace("${serviceName}", "glasshouse").replace("$__rate_interval", "1m")
    (selector,) = selectors(filled)
    told = read_catalogue().metrics[selector.metric].labels
    assert {name for name, _, _ in selector.matchers} <= {"service", *told}
    assert set(re.findall(r"by \(([^)]*)\)", text)[0].split(", ")) <= set(told)

    assert (lines["targetUID"], lines["config"]["field"]) == ("loki", "serviceName")
    text = lines["config"]["target"]["expr"]
    assert complaints(text.replace("${serviceName}", "glasshouse-worker")) == []


# From error report to trace and logs ------------------------------------------------------------------


@pytest.mark.parametrize("service", ["app", "worker"])
def test_error_reports_of_the_stack_lead_to_traces_and_logs(service: str) -> None:
    environment = compose()["services"][service]["environment"]
    assert environment["TRACE_URL_TEMPLATE"].endswith("${JAEGER_PORT:-16686}/trace/{trace_id}")
    scheme = "http${STACK_TLS:+s}"
    assert environment["TRACE_URL_TEMPLATE"].startswith(f"{scheme}://localhost:")
    logs = environment["LOGS_URL_TEMPLATE"]
    assert logs.startswith(f"{scheme}://localhost:${{GRAFANA_PORT:-3000}}/explore?")
    asked = exploration(f"/{logs.partition('}/')[2]}")
    assert asked.datasource == "loki"
    assert asked.expression == '{service_name=~"glasshouse.*"} | trace_id=`{trace_id}`'


# Jaeger's own page ------------------------------------------------------------------------------------


def patterns() -> list[dict[str, str]]:
    """Return the links of Jaeger's page."""
    page = json.loads((ROOT / "monitoring/jaeger/ui.json").read_text())
    listed: list[dict[str, str]] = page["linkPatterns"]
    return listed


def test_jaeger_links_traces_and_attributes_that_there_are() -> None:
    attributes = read_catalogue().attributes
    for pattern in patterns():
        asked = re.findall(r"#\{([^}]+)\}", pattern["url"])
        if pattern["type"] == "traces":
            assert asked == ["traceID"]
        else:
            assert pattern["type"] == "tags"
            assert pattern["key"] in attributes
            assert set(asked) <= {pattern["key"]}


def test_jaeger_leads_to_logs_errors_and_dashboards_that_there_are() -> None:
    seen = set()
    for pattern in patterns():
        url = urlsplit(pattern["url"].replace("#{", "{"))
        seen.add(url.path.split("/")[1])
        if url.path == "/explore":
            asked = exploration(pattern["url"].replace("#{", "{"))
            assert (asked.base, asked.datasource) == ("http://localhost:3000", "loki")
            assert complaints(re.sub(r"\{[a-zA-Z.]+\}", "x" * 32, asked.expression)) == []
        elif url.netloc == "localhost:8010":
            assert pattern["url"].endswith("/issues/1/all/?q=trace:#{traceID}")
        else:
            assert url.netloc == "localhost:3000"
            name = url.path.removeprefix("/d/glasshouse-")
            board = json.loads((DASHBOARDS / f"{name}.json").read_text())
            assert board["uid"] == f"glasshouse-{name}"
            variables = {f"var-{one['name']}" for one in board["templating"]["list"]}
            assert {part.partition("=")[0] for part in url.query.split("&") if part} <= variables
    assert seen == {"explore", "issues", "d"}

"""The mark of the monitoring's own requests: who gets it, and which signals leave them out."""

import json
from collections.abc import Callable, Iterator
from io import StringIO

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr

from app.observability import business
from app.observability.business import (
    KpiCounter,
    KpiHistogram,
    count_feature,
    count_funnel_step,
)
from app.observability.context import (
    RequestContext,
    SyntheticSettings,
    bind_context,
    current_context,
    identify_requests,
    is_synthetic,
    mark_synthetic,
)
from app.observability.jobs import run_job
from app.observability.logs import LogSettings, flush_logs, instrument_access_log, setup_logs
from app.observability.metrics import MetricsSettings, instrument_metrics
from app.observability.tracing import TracingSettings, instrument_tracing, setup_tracing
from app.orders import kpis as orders_kpis
from app.payments import kpis as payments_kpis
from app.users import kpis as users_kpis

TOKEN = "a-token-of-the-monitoring"
MARKED = {"X-Synthetic-Token": TOKEN}
SAMPLED = {business.active_users, orders_kpis.orders_current}
"""KPIs that are read from rows; the statements leave out the rows of flagged accounts."""


def application(token: str | None = TOKEN) -> FastAPI:
    app = FastAPI()

    @app.get("/who")
    async def who() -> bool:
        return is_synthetic()

    @app.get("/threaded")
    def threaded() -> bool:
        return is_synthetic()

    @app.get("/flagged")
    async def flagged() -> bool:
        mark_synthetic()
        return is_synthetic()

    settings = SyntheticSettings(synthetic_token=SecretStr(token) if token is not None else None)
    instrument_access_log(app)
    instrument_metrics(app, MetricsSettings(environment="test"))
    identify_requests(app, settings)
    return app


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(application()) as client:
        yield client


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# Who gets it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/who", "/threaded"])
def test_the_right_token_marks_a_request(client: TestClient, path: str) -> None:
    assert client.get(path, headers=MARKED).json() is True
    assert client.get(path).json() is False


@pytest.mark.parametrize(
    "wrong",
    [b"", b"a", TOKEN[:-1].encode(), TOKEN.encode() + b"x", TOKEN.upper().encode(), b"\xe9"],
)
def test_a_wrong_token_marks_nothing(client: TestClient, wrong: bytes) -> None:
    assert client.get("/who", headers={b"X-Synthetic-Token": wrong}).json() is False


@pytest.mark.parametrize("unset", [None, ""])
@pytest.mark.parametrize("sent", ["", "None", TOKEN])
def test_without_the_setting_nothing_is_marked(unset: str | None, sent: str) -> None:
    with TestClient(application(unset)) as client:
        assert client.get("/who", headers={"X-Synthetic-Token": sent}).json() is False


def test_outside_of_requests_nothing_is_marked() -> None:
    mark_synthetic()

    assert current_context() is None
    assert not is_synthetic()


async def test_a_job_has_the_mark_of_its_message() -> None:
    async with run_job("tidy", synthetic=True):
        assert is_synthetic()
    async with run_job("tidy"):
        assert not is_synthetic()


# What leaves it out -----------------------------------------------------------------------------------


def http_metrics() -> dict[str, float]:
    """Return all samples of the HTTP metrics that customers are in."""
    return {
        f"{sample.name}{sample.labels}": sample.value
        for family in REGISTRY.collect()
        if family.name.startswith("http_re")
        for sample in family.samples
    }


def test_a_marked_request_is_counted_apart_and_nowhere_else(client: TestClient) -> None:
    client.get("/who")
    before = http_metrics()
    apart = value("synthetic_http_requests_total", handler="/who", status="200")

    client.get("/who", headers=MARKED)

    assert http_metrics() == before
    assert value("synthetic_http_requests_total", handler="/who", status="200") == apart + 1


def test_a_request_that_turns_out_to_be_of_a_flagged_account_is_so_too(client: TestClient) -> None:
    before = http_metrics()

    client.get("/flagged")

    assert http_metrics() == before
    assert value("synthetic_http_requests_total", handler="/flagged", status="200") >= 1


def test_an_unmarked_request_is_counted_as_ever(client: TestClient) -> None:
    before = value("http_requests_total", method="GET", handler="/who", status="200")
    apart = value("synthetic_http_requests_total", handler="/who", status="200")

    client.get("/who", headers={"X-Synthetic-Token": "wrong"})

    assert value("http_requests_total", method="GET", handler="/who", status="200") == before + 1
    assert value("synthetic_http_requests_total", handler="/who", status="200") == apart


def test_kpis_count_customers_only() -> None:
    registry = CollectorRegistry()
    counter = KpiCounter("kpi_total", "-", ["kind"], registry=registry)
    histogram = KpiHistogram("kpi_size", "-", registry=registry)

    for synthetic in (False, True):
        with bind_context(RequestContext("request-1", synthetic=synthetic)):
            counter.labels("a").inc(2)
            histogram.observe(3)

    assert registry.get_sample_value("kpi_total", {"kind": "a"}) == 2
    assert registry.get_sample_value("kpi_size_sum") == 3


def test_every_kpi_is_of_a_kind_that_leaves_it_out() -> None:
    modules = (business, users_kpis, orders_kpis, payments_kpis)
    found = {
        one
        for module in modules
        for one in vars(module).values()
        if isinstance(one, MetricWrapperBase)
    }

    assert {type(one) for one in found - SAMPLED} == {KpiCounter, KpiHistogram}


@pytest.mark.parametrize(
    "count", [lambda: count_funnel_step("login"), lambda: count_feature("erasure")]
)
def test_neither_funnel_nor_features_have_it(count: Callable[[], None]) -> None:
    def steps() -> tuple[float, float]:
        return (
            value("funnel_steps_total", step="login"),
            value("feature_usage_total", feature="erasure"),
        )

    before = steps()
    with bind_context(RequestContext("request-1", synthetic=True)):
        count()
    assert steps() == before
    count()
    assert sum(steps()) == sum(before) + 1


# How it is told ---------------------------------------------------------------------------------------


def test_the_access_line_says_so_and_only_then(client: TestClient) -> None:
    output = StringIO()
    setup_logs(LogSettings(log_format="json"), destination=output)

    client.get("/who", headers=MARKED)
    client.get("/who")

    flush_logs()
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    marked, plain = (line for line in lines if line["type"] == "http_request")
    assert marked["synthetic"] is True
    assert "synthetic" not in plain
    assert TOKEN not in output.getvalue()


def test_the_server_span_says_so_and_only_then() -> None:
    exporter = InMemorySpanExporter()
    tracing = setup_tracing(TracingSettings(otel_traces_sampler_arg=1.0), exporter=exporter)
    app = FastAPI()

    @app.get("/who")
    async def who() -> bool:
        return is_synthetic()

    instrument_tracing(app, tracing)
    identify_requests(app, SyntheticSettings(synthetic_token=SecretStr(TOKEN)))
    with TestClient(app) as client:
        client.get("/who", headers=MARKED)
        client.get("/who")
    tracing.flush()

    marked, plain = (dict(span.attributes or {}) for span in exporter.get_finished_spans())
    assert marked["user_agent.synthetic.type"] == "test"
    assert "user_agent.synthetic.type" not in plain
    assert TOKEN not in str([span.to_json() for span in exporter.get_finished_spans()])
    tracing.shutdown()

"""Spans through the real collector into the real Jaeger, and the metrics that are made of them on the way.

The spans are those of the real service (API, worker, payment provider), and some that the test makes up:
slow ones, and ones that hold what the first line of defence would have taken out. Without the programs
these tests are skipped, and say so: test_collector_config.py then shows what can be shown of the file.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.contract.canary.canaries import KINDS
from tests.monitoring.collector import Collector, Jaeger, samples
from tests.monitoring.collector_spans import SentSpan, new_trace, send
from tests.monitoring.stack_programs import Place
from tests.monitoring.test_collector_redaction import BY_ITSELF
from tests.programs import needs
from tests.provider import start_provider
from tests.service import PASSWORD, migrate_database, start_process
from tests.tools import wait_until

pytestmark = needs("OTELCOL_BIN", "JAEGER_BIN")

SECONDS = 90.0
Opened = tuple[Collector, Jaeger]


@pytest.fixture
def open_collector(tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Start a Jaeger, and a collector before it that keeps `share` percent of the ordinary traces."""
    with ExitStack() as stack:

        def start(share: int) -> Opened:
            place = Place(os.getpid(), tmp_path)
            jaeger = Jaeger(place, storage=tmp_path / "badger")
            stack.callback(jaeger.stop)
            jaeger.start()
            environment = {"TRACES_KEPT_PERCENT": str(share)}
            collector = Collector(place, jaeger=jaeger.address, environment=environment)
            stack.callback(collector.stop)
            collector.start()
            return collector, jaeger

        yield start


@contextmanager
def service(directory: Path, database: str, redis: str, collector: Collector) -> Iterator[str]:
    """Run API, worker and provider, all of which export to the collector; yield the API's address."""
    migrate_database(database)
    signals = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_url,
        "OTEL_TRACES_SAMPLER_ARG": "1",
        "REDIS_URL": redis,
        "no_proxy": "127.0.0.1",
    }
    with start_provider(directory, environment={"ENVIRONMENT": "test", **signals}) as provider:
        where = {"database_url": database, "provider_url": provider.url}
        with (
            start_process("serve", directory, **where, **signals) as api,
            start_process("worker", directory, **where, **signals),
        ):
            yield api.url


def journey(url: str) -> dict[str, str]:
    """Let one customer register, order and pay, once well and once not; return the trace ids."""
    account = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}
    form = {"username": account["email"], "password": PASSWORD}
    lines = [{"sku": "TEA", "quantity": 1, "unit_amount": 2500}]
    traces = {}
    with httpx2.Client(base_url=url, timeout=60, trust_env=False) as http:

        def ask(name: str, method: str, path: str, **what: Any) -> Any:
            answer = http.request(method, path, **what)
            traces[name] = answer.headers["x-trace-id"]
            return answer.json()

        ask("register", "POST", "/v1/users", json=account)
        token = ask("log in", "POST", "/v1/auth/token", data=form)["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        for name, payment_token in (("pay", "tok_ok"), ("fail", "tok_error")):
            order = ask("order", "POST", "/v1/orders", json={"currency": "EUR", "lines": lines})
            body = {"order_id": order["id"], "payment_token": payment_token}
            ask(name, "POST", "/v1/payments", json=body)
    return traces


def test_a_journey_of_three_services_is_one_trace_a_rate_and_a_graph(
    open_collector: Callable[..., Opened],
    tmp_path: Path,
    postgres_database: str,
    redis_database: str,
) -> None:
    collector, jaeger = open_collector(100)

    with service(tmp_path, postgres_database, redis_database, collector) as url:
        traces = journey(url)
        wait_until(
            lambda: (
                {"glasshouse", "glasshouse-worker", "glasshouse-payment-provider"}
                <= {span["service"] for span in jaeger.spans(traces["pay"])}
            ),
            "the payment is a trace of three services in Jaeger",
            SECONDS,
        )
        edges = {
            ("glasshouse", "glasshouse-payment-provider"),
            ("glasshouse", "glasshouse-worker"),
            ("glasshouse", "postgresql"),
            ("glasshouse-worker", "postgresql"),
            ("user", "glasshouse"),
        }
        wait_until(
            lambda: (
                edges
                <= {
                    (labels["client"], labels["server"])
                    for labels, _ in samples(
                        collector.span_metrics(), "traces_service_graph_request_total"
                    )
                }
            ),
            f"the graph has {edges}",
            SECONDS,
        )
        page, own = collector.span_metrics(), collector.own_metrics()

    _keep(collector, jaeger)
    calls = samples(
        page,
        "traces_span_metrics_calls_total",
        service_name="glasshouse",
        http_route="/v1/payments",
    )
    assert {labels["http_response_status_code"] for labels, _ in calls} >= {"201"}
    assert {labels["span_kind"] for labels, _ in calls} == {"SPAN_KIND_SERVER"}
    assert sum(value for _, value in calls) == 2
    for labels, _ in calls:
        assert (
            labels.keys() & {"job", "instance", "collector_instance_id", "otel_scope_name"} == set()
        )
    assert samples(page, "traces_span_metrics_duration_seconds_bucket", le="0.2")
    assert samples(own, "otelcol_exporter_queue_capacity", exporter="otlp_grpc/jaeger")
    assert "target_info" not in page


def _keep(collector: Collector, jaeger: Jaeger) -> None:
    """Leave the pages of the programs where COLLECTOR_PAGES says, for whoever writes rules about them."""
    if directory := os.environ.get("COLLECTOR_PAGES"):
        for name, page in (
            ("otel-collector", collector.own_metrics()),
            ("span-metrics", collector.span_metrics()),
            ("jaeger", jaeger.own_metrics()),
        ):
            (Path(directory) / f"{name}.prom").write_text(page)


def test_a_bucket_of_a_histogram_leads_to_a_trace(open_collector: Callable[..., Opened]) -> None:
    collector, _ = open_collector(100)
    sent: set[str] = set()

    def shown() -> bool:
        trace = new_trace()
        sent.add(trace)
        send(collector.otlp_url, SentSpan(trace)).raise_for_status()
        lines = [
            line
            for line in collector.span_metrics().splitlines()
            if "duration_seconds_bucket" in line and "trace_id" in line
        ]
        return any(trace in line for line in lines for trace in sent)

    # An exemplar is there from one flush to the next.
    wait_until(shown, "a bucket has the trace id of a span as its exemplar", SECONDS)


def test_errors_and_slow_ones_are_kept_and_all_are_counted(
    open_collector: Callable[..., Opened],
) -> None:
    collector, jaeger = open_collector(0)
    ordinary, failed, slow, patient = new_trace(), new_trace(), new_trace(), new_trace()

    send(
        collector.otlp_url,
        *[SentSpan(new_trace()) for _ in range(200)],
        SentSpan(ordinary, seconds=0.9),
        SentSpan(failed),
        SentSpan(failed, "POST", kind="CLIENT", failed=True),
        SentSpan(slow),
        SentSpan(slow, "SELECT orders", kind="CLIENT", seconds=1.1),
        # Waits in the outbox for a minute: nobody has waited for it.
        SentSpan(patient, "publish order.placed", kind="PRODUCER"),
        SentSpan(patient, "process order.placed", kind="CONSUMER", begins=60),
    ).raise_for_status()

    wait_until(
        lambda: len(jaeger.spans(failed)) == 2 and len(jaeger.spans(slow)) == 2,
        f"what failed and what was slow is in Jaeger, whole\n{collector.log()}",
        SECONDS,
    )
    decided = "otelcol_processor_tail_sampling_global_count_traces_sampled_total"
    wait_until(lambda: collector.counted(decided) == 204, "every trace was decided upon", SECONDS)
    assert jaeger.spans(ordinary) == jaeger.spans(patient) == []
    assert collector.counted(decided, sampled="true") == 2
    wait_until(
        lambda: (
            sum(
                value
                for _, value in samples(
                    collector.span_metrics(),
                    "traces_span_metrics_calls_total",
                    service_name="glasshouse",
                )
            )
            == 207
        ),
        "the spans of all traces were counted",
        SECONDS,
    )


def test_a_span_that_comes_late_goes_where_its_trace_went(
    open_collector: Callable[..., Opened],
) -> None:
    collector, jaeger = open_collector(0)
    failed = new_trace()
    send(collector.otlp_url, SentSpan(failed, failed=True))
    wait_until(lambda: len(jaeger.spans(failed)) == 1, "the failed span is in Jaeger", SECONDS)

    send(collector.otlp_url, SentSpan(failed, "process order.placed", service="glasshouse-worker"))

    wait_until(lambda: len(jaeger.spans(failed)) == 2, "the late span is there, too", SECONDS)


def test_what_the_first_line_has_missed_does_not_reach_jaeger_or_a_metric(
    open_collector: Callable[..., Opened],
) -> None:
    collector, jaeger = open_collector(100)
    canaries = {kind: KINDS[kind]()[0] for kind in sorted(BY_ITSELF)}
    said = "; ".join(f"{kind} {value}" for kind, value in canaries.items())
    password = KINDS["word"]()[0]
    trace = new_trace()

    send(
        collector.otlp_url,
        SentSpan(
            trace,
            f"GET /users/{canaries['e-mail']}",
            attributes={
                "note": said,
                "customer": {"card": canaries["card"], "said": said},
                "amount": int(canaries["card"]),
                "user.password": password,
                "url.full": f"https://ada:{password}@shop.example/?token={password}",
                "http.route": "/v1/orders/{order_id}",
                "http.response.status_code": 500,
                "url.path": "/v1/orders/f47ac10b-58cc-4372-a567-0e02b2c3d479",
            },
            resource={"contact": canaries["e-mail"], "process.command_line": f"serve {password}"},
            event={"exception.message": said, "exception.stacktrace": f"File x\n{said}"},
            failed=True,
            status=f"IntegrityError: {said}",
        ),
    ).raise_for_status()

    wait_until(lambda: bool(jaeger.spans(trace)), "the span is in Jaeger", SECONDS)
    page = "traces_span_metrics_calls_total"
    wait_until(lambda: bool(samples(collector.span_metrics(), page)), "it is counted", SECONDS)
    everything = json.dumps(jaeger.ask(f"traces/{trace}")) + collector.span_metrics()
    for value in (*canaries.values(), password):
        assert value not in everything
    (span,) = jaeger.spans(trace)
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    assert span["operationName"] == "GET /users/****"
    assert tags["http.route"] == "/v1/orders/{order_id}"
    assert tags["http.response.status_code"] == 500
    assert tags["url.path"] == "/v1/orders/f47ac10b-58cc-4372-a567-0e02b2c3d479"
    assert tags["user.password"] == "****"
    assert tags["redaction.masked.count"] >= 5
    assert not {key for key in tags if key.startswith("lent.")}

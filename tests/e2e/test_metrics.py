"""Prometheus: everything is scraped, and the journey's request is an exemplar, a span metric and an edge."""

from deploy.stack.backends.jaeger import Jaeger
from deploy.stack.backends.prometheus import Prometheus
from tests.e2e.conftest import Journey, Stack, eventually

SERVICES = {"glasshouse", "glasshouse-payment-provider", "glasshouse-worker"}
OF_PAYMENTS = 'http_request_duration_seconds_bucket{handler="/v1/payments"}'


def test_every_target_is_up(prometheus: Prometheus) -> None:
    def down() -> list[str]:
        return [f"{one.job}: {one.error}" for one in prometheus.targets() if one.health != "up"]

    eventually(lambda: not down() and prometheus.targets(), f"every target is up; not: {down()}")


def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    def bad() -> list[str]:
        # `unknown` is one of a slow group that has not had its first turn: Prometheus spreads them out.
        return [f"{one.name}: {one.error}" for one in prometheus.rules() if one.health == "err"]

    def some() -> bool:
        return any(one.health == "ok" for one in prometheus.rules())

    eventually(lambda: not bad() and some(), f"every rule is evaluated; not: {bad()}")


def test_the_request_is_an_exemplar_that_leads_to_its_trace(
    stack: Stack, prometheus: Prometheus, journey: Journey
) -> None:
    # Slow as it was, it is alone in its bucket until another slow one comes: so look at every scrape.
    found = eventually(
        lambda: [one for one in prometheus.exemplars(OF_PAYMENTS) if one == journey.trace_id],
        f"{journey.trace_id} is an exemplar of {OF_PAYMENTS}",
    )
    jaeger = stack.ask(Jaeger)
    eventually(lambda: jaeger.trace(found[0]), f"trace {found[0]} is in Jaeger")


def test_spans_of_all_services_are_counted(prometheus: Prometheus, journey: Journey) -> None:
    query = "sum by (service_name) (traces_span_metrics_calls_total)"

    def counted() -> set[str]:
        return {one.labels["service_name"] for one in prometheus.query(query) if one.value > 0}

    eventually(lambda: counted() >= SERVICES, f"spans of {SERVICES} are counted")


def test_durations_of_spans_are_in_seconds(prometheus: Prometheus, journey: Journey) -> None:
    query = (
        "max(traces_span_metrics_duration_seconds_sum{service_name='glasshouse',"
        "span_name='POST /v1/payments'} / traces_span_metrics_duration_seconds_count)"
    )
    mean = eventually(lambda: prometheus.number(query), "payments' spans have durations")
    assert 0 < mean < 60


def test_the_call_to_the_provider_is_an_edge_of_the_service_graph(
    prometheus: Prometheus, journey: Journey
) -> None:
    query = "sum by (client, server) (traces_service_graph_request_total)"

    def edges() -> set[tuple[str, str]]:
        found = prometheus.query(query)
        return {(one.labels.get("client", ""), one.labels.get("server", "")) for one in found}

    wanted = ("glasshouse", "glasshouse-payment-provider")
    eventually(lambda: wanted in edges(), f"{wanted} is an edge; known: {edges()}")


def test_customers_keep_the_numbers_moving(prometheus: Prometheus) -> None:
    query = 'sum(rate(http_requests_total{job="api"}[2m]))'
    assert eventually(lambda: prometheus.number(query), "requests are counted") > 0


def test_no_telemetry_is_lost(prometheus: Prometheus, journey: Journey) -> None:
    lost = prometheus.query("sum by (job, signal) (increase(telemetry_dropped_total[5m])) > 0")
    assert not lost

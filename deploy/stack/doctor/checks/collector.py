"""The collector, as Prometheus knows it: does it run, lose nothing, and make metrics of spans?"""

from typing import Final

from deploy.stack.backends.prometheus import Prometheus, Sample
from deploy.stack.doctor.examination import Check
from deploy.stack.doctor.findings import Failed, listed
from deploy.stack.doctor.house import Deadline, House

COLLECTOR: Final = "collector runs"
SERVICES: Final = ("glasshouse", "glasshouse-payment-provider", "glasshouse-worker")
FULL: Final = 0.9
"""Share of a queue from which on it counts as full."""
_JOB: Final = 'job="otel-collector"'
"""Jaeger is built of the same parts, and has metrics of the same names."""
_LOSSES: Final = (
    '{__name__=~"otelcol_(receiver_(refused|failed)|processor_refused|exporter_(send|enqueue)_failed)'
    f'_(spans|log_records|metric_points)(_total)?",{_JOB}}}'
)


def _collector(house: House, deadline: Deadline) -> str:
    prometheus = house.ask(Prometheus)

    # Without `up`, the last sample of who has died counts for five more minutes.
    def uptime() -> float | None:
        if prometheus.number(f"up{{{_JOB}}}") != 1:
            return None
        return prometheus.number(
            f'{{__name__=~"otelcol_process_uptime(_seconds)?(_total)?",{_JOB}}}'
        )

    seconds = deadline.wait(uptime)
    if not seconds:
        raise Failed(
            "Prometheus has no metrics of it now",
            "docker compose ps otel-collector; docker compose logs --tail=50 otel-collector",
        )
    return f"for {seconds / 60:.0f} minutes"


def _flows(house: House, _: Deadline) -> str:
    prometheus = house.ask(Prometheus)
    before = {_key(one): one.value for one in prometheus.query(f"{_LOSSES} offset 5m")}
    grown = [
        f"{one.labels['__name__']} of {one.labels.get('exporter') or one.labels.get('receiver') or '?'}"
        f" grew by {one.value - before.get(_key(one), 0):.0f}"
        for one in prometheus.query(_LOSSES)
        if one.value > before.get(_key(one), 0)
    ]
    full = prometheus.query(
        f"otelcol_exporter_queue_size{{{_JOB}}} / otelcol_exporter_queue_capacity{{{_JOB}}} > {FULL}"
    )
    grown += [f"the queue of {one.labels.get('exporter')} is {one.value:.0%} full" for one in full]
    if grown:
        raise Failed(
            f"within 5 minutes {listed(grown)}",
            "A backend behind it does not take what it sends: docker compose logs otel-collector names it.",
        )
    return "nothing within 5 minutes"


def _span_metrics(house: House, deadline: Deadline) -> str:
    prometheus = house.ask(Prometheus)
    query = "count by (service_name) (traces_span_metrics_calls_total)"

    def look() -> bool:
        return set(SERVICES) <= _values(prometheus.query(query), "service_name")

    if not deadline.wait(look):
        found = _values(prometheus.query(query), "service_name")
        raise Failed(
            f"none of {listed(name for name in SERVICES if name not in found)}",
            "The collector makes them of spans (span_metrics): docker compose logs otel-collector; is "
            "the target span-metrics up?",
        )
    return f"of {listed(SERVICES)}"


def _service_graph(house: House, deadline: Deadline) -> str:
    prometheus = house.ask(Prometheus)
    query = "count by (client, server) (traces_service_graph_request_total)"
    wanted = (SERVICES[0], SERVICES[1])

    def edges() -> set[tuple[str, str]]:
        found = prometheus.query(query)
        return {(one.labels.get("client", ""), one.labels.get("server", "")) for one in found}

    if not deadline.wait(lambda: wanted in edges()):
        raise Failed(
            f"no edge from {wanted[0]} to {wanted[1]}; known: "
            f"{listed(' to '.join(edge) for edge in edges()) or 'none'}",
            "The collector makes it (service_graph): docker compose logs otel-collector.",
        )
    return listed(f"{client} to {server}" for client, server in sorted(edges()))


def _values(samples: list[Sample], label: str) -> set[str]:
    return {one.labels.get(label, "") for one in samples}


def _key(sample: Sample) -> frozenset[tuple[str, str]]:
    return frozenset(sample.labels.items())


_ASKS: Final = (Prometheus,)
CHECKS: Final = (
    Check(COLLECTOR, "otel-collector", _collector, _ASKS),
    Check(
        "collector refuses, loses and delays nothing",
        "otel-collector",
        _flows,
        _ASKS,
        after=(COLLECTOR,),
    ),
    Check(
        "metrics are made of spans",
        "otel-collector",
        _span_metrics,
        _ASKS,
        after=(COLLECTOR,),
        seconds=40,
    ),
    Check(
        "the service graph has its edges",
        "otel-collector",
        _service_graph,
        _ASKS,
        after=(COLLECTOR,),
        seconds=40,
    ),
)

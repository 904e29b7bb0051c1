"""Prometheus: is everything scraped, is every rule evaluated, and do the numbers move?"""

from typing import Final

from deploy.stack.backends.jaeger import Jaeger
from deploy.stack.backends.prometheus import Prometheus, Sample, Target
from deploy.stack.doctor.examination import Check
from deploy.stack.doctor.findings import Failed, listed
from deploy.stack.doctor.house import Deadline, House

TARGETS: Final = "every target is scraped"
EXEMPLARS: Final = "exemplars are stored"
COLLECTOR: Final = "collector runs"
SERVICES: Final = ("glasshouse", "glasshouse-payment-provider", "glasshouse-worker")
FULL: Final = 0.9
"""Share of a disk or of a queue from which on it counts as full."""
MOVING: Final = 0.1
"""Requests a second; what somebody who looks around makes is less."""
_LOSSES: Final = (
    '{__name__=~"otelcol_(receiver_(refused|failed)|processor_refused|exporter_(send|enqueue)_failed)'
    '_(spans|log_records|metric_points)(_total)?"}'
)
_REQUESTS: Final = "http_request_duration_seconds_bucket"


def _targets(house: House, deadline: Deadline) -> str:
    prometheus = house.ask(Prometheus)
    # "unknown" is what has not been scraped since the start: that is a matter of seconds.
    deadline.wait(lambda: {one.health for one in prometheus.targets()} == {"up"})
    targets = prometheus.targets()
    if not targets:
        raise Failed(
            "no target at all", "Is monitoring/prometheus mounted? docker compose logs prometheus"
        )
    down = [one for one in targets if one.health != "up"]
    if down:
        names = {_service(one) for one in down}
        raise Failed(
            "; ".join(f"{one.job} {one.instance} is {one.health}: {one.error}" for one in down),
            f"docker compose ps {' '.join(sorted(names))}",
        )
    return f"{len(targets)} targets of {len({one.job for one in targets})} jobs are up"


def _service(target: Target) -> str:
    """Return what the compose file calls a target: its host, or its job where the host says nothing."""
    host = target.instance.rpartition(":")[0].rpartition("/")[2]
    return target.job if not host or host[0].isdigit() or host == "localhost" else host


def _rules(house: House, deadline: Deadline) -> str:
    prometheus = house.ask(Prometheus)
    deadline.wait(lambda: {one.health for one in prometheus.rules()} == {"ok"})
    rules = prometheus.rules()
    if not rules:
        raise Failed(
            "no rule is loaded",
            "Is monitoring/prometheus/rules mounted? docker compose logs prometheus",
        )
    bad = [f"{one.name} is {one.health} {one.error}".strip() for one in rules if one.health != "ok"]
    if bad:
        raise Failed(listed(bad), "See /rules in Prometheus; `make rules` makes them anew.")
    alerts = [one for one in rules if one.kind == "alerting"]
    return f"{len(rules) - len(alerts)} records and {len(alerts)} alerts"


def _exemplars(house: House, _: Deadline) -> str:
    features = house.ask(Prometheus).flags().get("enable-feature", "")
    if "exemplar-storage" not in features:
        raise Failed(
            "Prometheus throws exemplars away",
            "Start it with --enable-feature=exemplar-storage (docker-compose.yml).",
        )
    return "on"


def _exemplar_leads_to_trace(house: House, deadline: Deadline) -> str:
    prometheus, jaeger = house.ask(Prometheus), house.ask(Jaeger)
    asked: dict[str, bool] = {}

    def look() -> str | None:
        for trace_id in prometheus.exemplars(_REQUESTS)[:30]:
            # What was not there may be on its way: the collector waits before it samples.
            if not asked.get(trace_id):
                asked[trace_id] = jaeger.trace(trace_id) is not None
            if asked[trace_id]:
                return trace_id
        return None

    trace_id = deadline.wait(look)
    if trace_id is None and not asked:
        raise Failed(
            f"no exemplar of {_REQUESTS} within 15 minutes",
            "Without requests there are none: docker compose ps customers. Are metrics asked for as "
            "OpenMetrics (scrape_protocols in monitoring/prometheus/prometheus.yml)?",
        )
    if trace_id is None:
        raise Failed(
            f"none of {len(asked)} exemplars leads to a trace",
            "docker compose logs --tail=50 otel-collector jaeger. Are all traces sampled away "
            "(tail_sampling in monitoring/collector/collector.yml)?",
        )
    return f"trace {trace_id}"


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
            "The collector makes it (servicegraph): docker compose logs otel-collector.",
        )
    return listed(f"{client} to {server}" for client, server in sorted(edges()))


def _collector(house: House, deadline: Deadline) -> str:
    query = "otelcol_process_uptime_seconds_total or otelcol_process_uptime"
    uptime = deadline.wait(lambda: house.ask(Prometheus).number(query))
    if not uptime:
        raise Failed(
            "Prometheus has no metrics of it",
            "docker compose ps otel-collector; docker compose logs --tail=50 otel-collector",
        )
    return f"for {uptime / 60:.0f} minutes"


def _collector_flows(house: House, _: Deadline) -> str:
    prometheus = house.ask(Prometheus)
    before = {_key(one): one.value for one in prometheus.query(f"{_LOSSES} offset 5m")}
    grown = [
        f"{one.labels['__name__']} of {one.labels.get('exporter') or one.labels.get('receiver') or '?'}"
        f" grew by {one.value - before.get(_key(one), 0):.0f}"
        for one in prometheus.query(_LOSSES)
        if one.value > before.get(_key(one), 0)
    ]
    full = prometheus.query(
        f"otelcol_exporter_queue_size / otelcol_exporter_queue_capacity > {FULL}"
    )
    grown += [f"the queue of {one.labels.get('exporter')} is {one.value:.0%} full" for one in full]
    if grown:
        raise Failed(
            f"within 5 minutes {listed(grown)}",
            "A backend behind it does not take what it sends: docker compose logs otel-collector names it.",
        )
    return "nothing within 5 minutes"


def _service_loses_nothing(house: House, _: Deadline) -> str:
    lost = house.ask(Prometheus).query(
        "sum by (job, signal) (increase(telemetry_dropped_total[5m])) > 0"
    )
    if lost:
        raise Failed(
            listed(
                f"{one.labels.get('job')} dropped {one.value:.0f} {one.labels.get('signal')}"
                for one in lost
            ),
            "What takes them is away or too slow: docker compose ps otel-collector bugsink.",
        )
    return "nothing within 5 minutes"


def _exporters(house: House, deadline: Deadline) -> str:
    prometheus = house.ask(Prometheus)
    parts = {
        "pg_up": "docker compose logs --tail=20 postgres postgres-exporter",
        "redis_up": "docker compose logs --tail=20 valkey redis-exporter",
    }

    def bad() -> list[str]:
        return [name for name in parts if prometheus.number(f"min({name})") != 1]

    deadline.wait(lambda: not bad())
    if found := bad():
        raise Failed(f"{listed(found)} not 1", "; ".join(parts[name] for name in found))
    return "pg_up and redis_up are 1"


def _customers(house: House, deadline: Deadline) -> str:
    query = 'sum(rate(http_requests_total{job="api"}[2m]))'

    def rate() -> float:
        return house.ask(Prometheus).number(query) or 0.0

    if not deadline.wait(lambda: rate() >= MOVING):
        raise Failed(
            f"{rate():.2f} requests of customers a second for 2 minutes",
            "docker compose up -d customers; without them most panels are empty.",
        )
    return f"{rate():.1f} requests a second"


def _disks(house: House, _: Deadline) -> str:
    used = (
        '1 - max by (device) (node_filesystem_avail_bytes{fstype!~"tmpfs|overlay|squashfs|ramfs|iso9660"})'
        " / max by (device) (node_filesystem_size_bytes)"
    )
    disks = sorted(house.ask(Prometheus).query(used), key=lambda one: one.value, reverse=True)
    if not disks:
        raise Failed(
            "node-exporter tells of no disk", "docker compose logs --tail=20 node-exporter"
        )
    if disks[0].value > FULL:
        raise Failed(
            f"{disks[0].labels.get('device')} is {disks[0].value:.0%} full",
            "docker system df shows what takes it; `make clean` removes the data of the stack.",
        )
    return f"the fullest is at {disks[0].value:.0%}"


def _values(samples: list[Sample], label: str) -> set[str]:
    return {one.labels.get(label, "") for one in samples}


def _key(sample: Sample) -> frozenset[tuple[str, str]]:
    return frozenset(sample.labels.items())


_ASKS: Final = (Prometheus,)
CHECKS: Final = (
    Check(TARGETS, "prometheus", _targets, _ASKS, seconds=25),
    Check("rules are loaded and evaluated", "prometheus", _rules, _ASKS, seconds=25),
    Check("exporters reach the database and the cache", "postgres-exporter", _exporters, _ASKS),
    Check("disks have space left", "node-exporter", _disks, _ASKS),
    Check("customers keep the numbers moving", "customers", _customers, _ASKS),
    Check(COLLECTOR, "otel-collector", _collector, _ASKS),
    Check(
        "collector refuses, loses and delays nothing",
        "otel-collector",
        _collector_flows,
        _ASKS,
        after=(COLLECTOR,),
    ),
    Check("the service drops no telemetry", "app", _service_loses_nothing, _ASKS),
    Check(EXEMPLARS, "prometheus", _exemplars, _ASKS),
    Check(
        "an exemplar leads to its trace",
        "prometheus",
        _exemplar_leads_to_trace,
        needs=(Prometheus, Jaeger),
        after=(EXEMPLARS,),
        seconds=30,
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

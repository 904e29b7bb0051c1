"""Prometheus: is everything scraped, is every rule evaluated, and do the numbers move?"""

import time
from typing import Final

from deploy.stack.backends.prometheus import Prometheus, Rule, Target
from deploy.stack.doctor.examination import Check
from deploy.stack.doctor.findings import Failed, NotChecked, listed
from deploy.stack.doctor.house import Deadline, House

TARGETS: Final = "every target is scraped"
EXEMPLARS: Final = "exemplars are stored"
FULL: Final = 0.9
"""Share of a disk from which on it counts as full."""
SCRAPE_SECONDS: Final = 15
"""How often Prometheus scrapes; what it does for the first time may be so late."""
MOVING: Final = 0.1
"""Requests a second; what somebody who looks around makes is less."""


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
    due = _not_due(prometheus, rules)
    if len(due) == len(rules):
        raise NotChecked("no rule was due since Prometheus read its configuration")
    bad = [
        f"{one.name} is {one.health} {one.error}".strip()
        for one in rules
        if one.health != "ok" and one not in due
    ]
    if bad:
        raise Failed(listed(bad), "See /rules in Prometheus; `make rules` makes them anew.")
    alerts = [one for one in rules if one.kind == "alerting"]
    waiting = f"; {len(due)} of them are due for the first time" if due else ""
    return f"{len(rules) - len(alerts)} records and {len(alerts)} alerts{waiting}"


def _not_due(prometheus: Prometheus, rules: list[Rule]) -> list[Rule]:
    """Return the rules that nobody can know of yet: a group is evaluated first within its interval."""
    unknown = [one for one in rules if one.health == "unknown"]
    if not unknown:
        return []
    age = time.time() - prometheus.configured_at()
    return [one for one in unknown if age < one.interval + SCRAPE_SECONDS]


def _exemplars(house: House, _: Deadline) -> str:
    features = house.ask(Prometheus).flags().get("enable-feature", "")
    if "exemplar-storage" not in features:
        raise Failed(
            "Prometheus throws exemplars away",
            "Start it with --enable-feature=exemplar-storage (docker-compose.yml).",
        )
    return "on"


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


_ASKS: Final = (Prometheus,)
CHECKS: Final = (
    Check(TARGETS, "prometheus", _targets, _ASKS, seconds=25),
    Check("rules are loaded and evaluated", "prometheus", _rules, _ASKS, seconds=25),
    Check("exporters reach the database and the cache", "postgres-exporter", _exporters, _ASKS),
    Check("disks have space left", "node-exporter", _disks, _ASKS),
    Check("customers keep the numbers moving", "customers", _customers, _ASKS),
    Check("the service drops no telemetry", "app", _service_loses_nothing, _ASKS),
    Check(EXEMPLARS, "prometheus", _exemplars, _ASKS),
)

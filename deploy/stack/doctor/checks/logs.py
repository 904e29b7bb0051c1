"""Loki: do log lines arrive, are they found by the trace id, and are its rules evaluated?"""

from typing import Final

from deploy.stack.backends.app import App
from deploy.stack.backends.loki import Loki
from deploy.stack.doctor.checks.service import JOURNEY, WORKER
from deploy.stack.doctor.examination import Check
from deploy.stack.doctor.findings import Failed, listed
from deploy.stack.doctor.house import Deadline, House

RULER: Final = "Loki's rules are loaded and evaluated"
DRIVER: Final = "containers' logs arrive"
OURS: Final = ("glasshouse", "glasshouse-worker", "glasshouse-payment-provider")
_WAY: Final = (
    "Docker sends them to the collector: does it run, with its fluent_forward receiver (docker compose ps "
    "otel-collector; docker compose logs otel-collector), and is the container's log driver fluentd "
    "(docker inspect)?"
)


def _driver(house: House, deadline: Deadline) -> str:
    loki = house.ask(Loki)

    def arrived(minutes: int) -> set[str]:
        query = f'sum by (service_name) (count_over_time({{service_name=~".+"}}[{minutes}m]))'
        return {one.labels.get("service_name", "") for one in loki.count(query)}

    # Not each of them writes a line every minute, but somebody does; what is older was before a failure.
    deadline.wait(lambda: arrived(10) >= set(OURS) and arrived(1))
    found = arrived(10)
    missing = [name for name in OURS if name not in found]
    if missing:
        raise Failed(
            f"no line of {listed(missing)} within 10 minutes; lines of {listed(sorted(found)) or 'nobody'}",
            _WAY,
        )
    if not arrived(1):
        raise Failed("no line of anybody within a minute, though there were some before", _WAY)
    return f"of {len(found)} services within 10 minutes"


def _lines_of(house: House, deadline: Deadline, service: str) -> str:
    loki, trace_id = house.ask(Loki), house.travelled().ids.trace_id
    query = f'{{service_name="{service}"}} | trace_id="{trace_id}"'
    lines = deadline.wait(lambda: loki.lines(query))
    if lines:
        return f"{len(lines)} lines"
    as_text = loki.lines(f'{{service_name="{service}"}} |= "{trace_id}"')
    if as_text:
        raise Failed(
            f"{len(as_text)} lines of {service} have the trace id in their text, but no field trace_id",
            "The collector makes fields of the JSON lines: see monitoring/collector/collector.yml.",
        )
    raise Failed(
        f"no line of {service} has trace id {trace_id}",
        "docker compose logs --tail=50 otel-collector loki",
    )


def _api_lines(house: House, deadline: Deadline) -> str:
    return _lines_of(house, deadline, "glasshouse")


def _worker_lines(house: House, deadline: Deadline) -> str:
    return _lines_of(house, deadline, "glasshouse-worker")


def _ruler(house: House, deadline: Deadline) -> str:
    loki = house.ask(Loki)
    deadline.wait(lambda: {one.health for one in loki.rules()} == {"ok"})
    rules = loki.rules()
    if not rules:
        raise Failed(
            "no rule is loaded",
            "Is monitoring/loki/rules mounted, with the directory fake? docker compose logs loki",
        )
    bad = [f"{one.name} is {one.health} {one.error}".strip() for one in rules if one.health != "ok"]
    if bad:
        raise Failed(listed(bad), "docker compose logs --tail=50 loki says why.")
    return f"{len(rules)} rules"


CHECKS: Final = (
    Check(DRIVER, "otel-collector", _driver, (Loki,), seconds=20),
    Check(
        "the API's lines have the trace id", "loki", _api_lines, (App, Loki), (JOURNEY, DRIVER), 30
    ),
    Check(
        "the worker's lines have the trace id",
        "loki",
        _worker_lines,
        (App, Loki),
        (WORKER, DRIVER),
        30,
    ),
    # Its rules are evaluated each minute, the first time within the first one.
    Check(RULER, "loki", _ruler, (Loki,), seconds=75),
)

"""Grafana: can one log in, does it reach what it shows, and is everything there that is provisioned?"""

from typing import Final

from deploy.stack.backends.grafana import Grafana
from deploy.stack.backends.loki import Loki
from deploy.stack.doctor.examination import Check
from deploy.stack.doctor.findings import Failed, NotChecked, listed
from deploy.stack.doctor.house import Deadline, House

LOGIN: Final = "Grafana lets us in"
DATA_SOURCES: Final = ("prometheus", "loki", "jaeger", "alertmanager")
DASHBOARDS: Final = tuple(
    f"glasshouse-{name}"
    for name in (
        "overview",
        "api",
        "database",
        "business",
        "infrastructure",
        "worker",
        "slo",
        "security",
        "telemetry-cost",
    )
)


def _login(house: House, _: Deadline) -> str:
    if not house.access.password:
        raise NotChecked("STACK_PASSWORD not given")
    return f"as {house.ask(Grafana).login()}"


def _data_sources(house: House, _: Deadline) -> str:
    grafana = house.ask(Grafana)
    known = grafana.data_sources()
    wrong = {uid: "is not there" for uid in DATA_SOURCES if uid not in known}
    for uid in known:
        is_well, said = grafana.data_source_health(uid)
        if not is_well:
            wrong[uid] = said
    if wrong:
        raise Failed(
            "; ".join(f"{uid}: {said}" for uid, said in wrong.items()),
            "monitoring/grafana/provisioning/datasources names them; docker compose ps shows whether they "
            "run, and docker compose logs --tail=50 grafana what Grafana says.",
        )
    return f"{listed(known)} are healthy"


def _dashboards(house: House, deadline: Deadline) -> str:
    grafana = house.ask(Grafana)
    deadline.wait(lambda: grafana.dashboard_uids() >= set(DASHBOARDS))
    found = grafana.dashboard_uids()
    missing = [uid for uid in DASHBOARDS if uid not in found]
    if missing:
        raise Failed(
            f"missing: {listed(missing, most=9)}",
            "Is monitoring/grafana mounted? docker compose logs grafana | grep provisioning",
        )
    return f"{len(found)} dashboards"


def _provisioning(house: House, _: Deadline) -> str:
    query = '{service_name="grafana"} |~ "(?i)provision" | level=~"ERROR|CRITICAL"'
    lines = house.ask(Loki).lines(query)
    if lines:
        raise Failed(
            f"{len(lines)} errors, the last: {lines[0].text[:160]}", "docker compose logs grafana"
        )
    if not house.ask(Loki).lines('{service_name="grafana"}', limit=1):
        raise NotChecked("no line of Grafana is in Loki")
    return "no error in its log within 15 minutes"


CHECKS: Final = (
    Check(LOGIN, "grafana", _login, (Grafana,)),
    Check("Grafana's data sources are healthy", "grafana", _data_sources, (Grafana,), (LOGIN,)),
    Check("every dashboard is loaded", "grafana", _dashboards, (Grafana,), (LOGIN,)),
    Check("Grafana's provisioning has no errors", "grafana", _provisioning, (Grafana, Loki)),
)

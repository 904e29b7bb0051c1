"""Alertmanager: is it told, and does it tell?

The test alert takes the way of the Watchdog, as that of a house that does not exist: it is told within
seconds, by day and by night, to the page of notifications and to nobody's telephone, Slack or mailbox. It is
over by itself. What e-mail takes is told apart: whether Alertmanager's own were handed over to Mailpit.
"""

import contextlib
from typing import Final

from deploy.stack.backends.alertmanager import Alertmanager
from deploy.stack.backends.errors import BackendError
from deploy.stack.backends.mailpit import Mailpit
from deploy.stack.backends.notifications import Notifications
from deploy.stack.backends.prometheus import Prometheus
from deploy.stack.doctor.checks.logs import RULER
from deploy.stack.doctor.examination import Check
from deploy.stack.doctor.findings import Failed, listed
from deploy.stack.doctor.house import Deadline, House

CONFIGURED: Final = "Alertmanager has its configuration"
_RECEIVERS: Final = ("watchdog", "critical", "warning", "info")


def _configured(house: House, _: Deadline) -> str:
    said = house.ask(Alertmanager).configuration()
    missing = [name for name in _RECEIVERS if f"name: {name}" not in said]
    if missing:
        raise Failed(
            f"its configuration has no receiver {listed(missing)}",
            "Is monitoring/alertmanager mounted? docker compose logs alertmanager",
        )
    return f"receivers {listed(_RECEIVERS)}"


def _told_by_prometheus(house: House, deadline: Deadline) -> str:
    prometheus, alertmanager = house.ask(Prometheus), house.ask(Alertmanager)
    if not deadline.wait(prometheus.alertmanagers):
        raise Failed(
            "Prometheus knows no Alertmanager",
            "See `alerting` in monitoring/prometheus/prometheus.yml; docker compose logs prometheus",
        )
    heard = deadline.wait(
        lambda: [
            one
            for one in alertmanager.alerts(alertname="Watchdog")
            if "stack-doctor" not in one["labels"].get("environment", "")
        ]
    )
    if not heard:
        raise Failed(
            "the Watchdog, which always fires, has not arrived",
            "Is its rule loaded? Does Prometheus reach Alertmanager (docker compose logs prometheus)?",
        )
    return f"{len(alertmanager.alerts())} alerts, the Watchdog among them"


def _told_by_loki(house: House, deadline: Deadline) -> str:
    query = 'max({__name__=~"(loki|cortex)_prometheus_notifications_alertmanagers_discovered", job="loki"})'
    known = deadline.wait(lambda: house.ask(Prometheus).number(query))
    if not known:
        raise Failed(
            "Loki's ruler knows no Alertmanager",
            "See `ruler` in monitoring/loki/loki.yml; docker compose logs loki",
        )
    return "Loki's ruler knows it"


def _delivered(house: House, deadline: Deadline) -> str:
    alertmanager, page = house.ask(Alertmanager), house.ask(Notifications)
    labels = {"alertname": "Watchdog", "severity": "none", "environment": house.mark}
    alertmanager.tell(
        {**labels, "service": "stack-doctor"},
        {"summary": "Test alert of the doctor: it is over by itself within a minute"},
        seconds=60,
    )
    if deadline.wait(lambda: page.about("watchdog", environment=house.mark)):
        return "a test alert arrived at the page of notifications"
    receivers = alertmanager.receivers_of(environment=house.mark)
    raise Failed(
        f"the test alert was taken (for {listed(receivers) or 'nobody'}) and did not arrive",
        "docker compose logs --tail=50 alertmanager notifications",
    )


def _mail(house: House, _: Deadline) -> str:
    held = house.ask(Mailpit).total()
    failed = 0.0
    if house.has(Prometheus):
        query = 'sum(increase(alertmanager_notifications_failed_total{integration="email"}[10m]))'
        with contextlib.suppress(BackendError):  # told by its own check
            failed = house.ask(Prometheus).number(query) or 0
    if failed > 0:
        raise Failed(
            f"Alertmanager could not hand over {failed:.0f} e-mails within 10 minutes",
            "docker compose logs --tail=50 alertmanager mailpit",
        )
    return f"holds {held} e-mails; none was sent for this check"


CHECKS: Final = (
    Check(CONFIGURED, "alertmanager", _configured, (Alertmanager,)),
    Check(
        "Prometheus tells Alertmanager",
        "alertmanager",
        _told_by_prometheus,
        (Prometheus, Alertmanager),
    ),
    Check("Loki's ruler tells Alertmanager", "loki", _told_by_loki, (Prometheus,), (RULER,)),
    Check(
        "an alert is delivered",
        "alertmanager",
        _delivered,
        (Alertmanager, Notifications),
        after=(CONFIGURED,),
        seconds=25,
    ),
    Check("Mailpit takes and shows e-mail", "mailpit", _mail, (Mailpit,)),
)

"""What is not told because something else says it, asked of a real Alertmanager.

Each case has an environment of its own, which is among the `equal` labels of every rule.
"""

from collections.abc import Iterator
from datetime import timedelta
from graphlib import TopologicalSorter
from typing import Any

import pytest

from monitoring.build.alerts import families
from monitoring.build.model import Alert as AlertRule
from tests.monitoring.alertmanager import House, make_alert, new_environment, open_house

CAUSES = {
    "database": "DatabaseDown",
    "payment_provider": "PaymentProviderDown",
    "cache": "CacheDown",
    "broker": "BrokerDown",
    "worker": "WorkerDown",
    "api": "ApiDown",
}
JUST_NOW = timedelta(0)
Alert = dict[str, str]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("inhibition")) as house:
        yield house


def silent(house: House, *alerts: Alert) -> set[str]:
    """Tell of alerts in a new environment; return the names of those that are inhibited."""
    environment = new_environment()
    house.alertmanager.post(
        *(
            make_alert(alert["name"], _labels(alert) | {"environment": environment})
            for alert in alerts
        )
    )
    told = [
        (alert["labels"]["alertname"], alert["status"])
        for alert in house.alertmanager.alerts()
        if alert["labels"]["environment"] == environment
    ]
    assert len(told) == len(alerts)
    return {name for name, status in told if status["inhibitedBy"]}


def _labels(alert: Alert) -> dict[str, str]:
    return {label: value for label, value in alert.items() if label != "name"}


def alert(name: str, severity: str = "warning", **labels: str) -> Alert:
    return {"name": name, "severity": severity} | labels


def test_the_severer_alert_of_a_part_says_what_the_milder_say(house: House) -> None:
    critical, warning, info = (
        alert(f"Is{level}", level) for level in ("critical", "warning", "info")
    )
    assert silent(house, critical, warning, info) == {"Iswarning", "Isinfo"}
    assert silent(house, warning, info) == {"Isinfo"}
    assert silent(house, critical, info) == {"Isinfo"}


@pytest.mark.parametrize("label", ["service", "component"])
def test_another_part_is_told_of(house: House, label: str) -> None:
    one, other = alert("One", "critical", **{label: "one"}), alert("Other", **{label: "other"})
    assert silent(house, one, other) == set()


def test_another_environment_is_told_of(house: House) -> None:
    name = new_environment()
    house.alertmanager.post(
        make_alert("Here", {"severity": "critical", "environment": name}),
        make_alert("There", {"environment": f"{name}-other"}),
    )
    (there,) = [
        one
        for one in house.alertmanager.alerts()
        if one["labels"]["environment"] == f"{name}-other"
    ]
    assert there["status"]["state"] == "active"


def test_two_alerts_without_a_component_have_nothing_in_common(house: House) -> None:
    # The trap: Alertmanager takes labels that are missing on both sides for equal.
    one, other = alert("One", "critical", component=""), alert("Other", component="")
    assert silent(house, one, other) == set()


def test_one_objective_says_nothing_of_another(house: House) -> None:
    page = alert("ErrorBudgetBurnPage", "critical", component="slo", sloth_slo="checkout-errors")
    ticket = alert("ErrorBudgetBurnTicket", component="slo", sloth_slo="checkout-errors")
    assert silent(house, page, ticket) == {"ErrorBudgetBurnTicket"}
    assert silent(house, page, ticket | {"sloth_slo": "login-errors"}) == set()


@pytest.mark.parametrize(
    ("name", "fast", "slow"),
    [("ErrorBudgetBurnPage", "1h", "6h"), ("ErrorBudgetBurnTicket", "1d", "3d")],
)
def test_an_objective_that_burns_is_told_once(
    house: House, name: str, fast: str, slow: str
) -> None:
    burns = alert(name, component="slo", sloth_slo="api-errors", sloth_id="glasshouse-api-errors")
    one, other = burns | {"sloth_window": fast}, burns | {"sloth_window": slow}
    assert silent(house, one, other) == {name}
    assert silent(house, one, other | {"sloth_id": "glasshouse-login-errors"}) == set()
    assert silent(house, other) == set()
    escalation = "UnresolvedCritical" if name == "ErrorBudgetBurnPage" else "UnresolvedWarning"
    unresolved = other | {"name": escalation, "component": "watchdog", "escalated": name}
    assert silent(house, one, other, unresolved) == {name, escalation}
    assert silent(house, one, unresolved | {"sloth_window": fast}) == set()


@pytest.mark.parametrize("component", ["infrastructure", "certificate"])
def test_one_machine_says_nothing_of_another(house: House, component: str) -> None:
    full = alert("DiskFull", "critical", component=component, instance="one:9100")
    filling = alert("DiskFilling", component=component, instance="one:9100")
    assert silent(house, full, filling) == {"DiskFilling"}
    assert silent(house, full, filling | {"instance": "other:9100"}) == set()


@pytest.mark.parametrize("component", ["telemetry", "backup"])
def test_one_failure_of_what_watches_excuses_no_other(house: House, component: str) -> None:
    one, other = alert("One", "critical", component=component), alert("Other", component=component)
    assert silent(house, one, other) == set()


def test_what_is_down_is_told_beside_anything_severer(house: House) -> None:
    pool = alert("DatabasePoolExhausted", "critical", component="database")
    server = alert("DatabaseServerDown", component="database", instance="one:9187")
    slow = alert("DatabaseSlowQueries", component="database")
    assert silent(house, pool, server, slow) == {"DatabaseSlowQueries"}


def test_machines_without_a_name_are_not_the_same(house: House) -> None:
    full = alert("DiskFull", "critical", component="infrastructure")
    filling = alert("DiskFilling", component="infrastructure")
    assert silent(house, full, filling) == set()


@pytest.mark.parametrize("name", ["ApiDown", "WorkerDown", "PostgresExporterDown"])
def test_an_instance_that_is_down_has_no_other_problems(house: House, name: str) -> None:
    down = alert(name, "critical", instance="one:8000", component="infrastructure")
    slow = alert("EventLoopSlow", "critical", instance="one:8000", component="api")
    assert silent(house, down, slow) == {"EventLoopSlow"}
    assert silent(house, down, slow | {"instance": "other:8000"}) == set()


def test_a_symptom_without_an_instance_belongs_to_none(house: House) -> None:
    # The trap again: neither of the two has the label.
    down = alert("ApiDown", "critical", component="infrastructure")
    assert silent(house, down, alert("ErrorsHigh", "critical")) == set()


@pytest.mark.parametrize(
    "cause", ["DatabaseDown", "PaymentProviderDown", "CacheDown", "BrokerDown"]
)
def test_who_noticed_that_a_dependency_is_down_is_not_down(house: House, cause: str) -> None:
    down = alert(cause, "critical", instance="one:8000", component="dependency")
    assert silent(house, down, alert("EventLoopSlow", instance="one:8000")) == set()


@pytest.mark.parametrize(("dependency", "cause"), CAUSES.items())
def test_what_depends_on_what_is_down_is_a_symptom(
    house: House, dependency: str, cause: str
) -> None:
    other = "cache" if dependency != "cache" else "api"
    down = alert(cause, "critical", component="dependency")
    symptoms = [
        alert("Alone", "critical", depends_on=dependency),
        alert("First", "critical", depends_on=f"{dependency},{other}"),
        alert("Last", "critical", depends_on=f"{other},{dependency}"),
        alert("Between", "critical", depends_on=f"{other},{dependency},x"),
        alert("Longer", "critical", depends_on=f"{dependency}s"),
        alert("Prefixed", "critical", depends_on=f"my_{dependency}"),
        alert("Unrelated", "critical"),
    ]
    assert silent(house, down, *symptoms) == {"Alone", "First", "Last", "Between"}


@pytest.mark.parametrize(("dependency", "cause"), CAUSES.items())
def test_a_cause_does_not_silence_itself(house: House, dependency: str, cause: str) -> None:
    down = alert(cause, "critical", component="dependency", depends_on=dependency, instance="one")
    assert silent(house, down) == set()
    assert silent(house, down, down | {"instance": "other"}) == set()


@pytest.mark.parametrize("dependency", CAUSES)
def test_budgets_still_burn_when_the_cause_is_over(house: House, dependency: str) -> None:
    recently = alert(
        "DependencyRecentlyDown", "none", dependency=dependency, component="dependency"
    )
    burn = alert(
        "ErrorBudgetBurnPage",
        "critical",
        component="slo",
        sloth_slo="a",
        depends_on=f"{dependency},x",
    )
    other = alert("ErrorBudgetBurnTicket", component="slo", sloth_slo="b", depends_on="x")
    assert silent(house, recently, burn, other) == {"ErrorBudgetBurnPage"}
    assert silent(house, recently, burn | {"sloth_slo": ""}) == set()
    assert silent(house, recently, burn | {"depends_on": f"{dependency}s"}) == set()
    # Nor is it told as unresolved: nobody could have resolved it.
    unresolved = burn | {
        "name": "UnresolvedCritical",
        "component": "watchdog",
        "escalated": "ErrorBudgetBurnPage",
    }
    assert silent(house, recently, burn, unresolved) == {
        "ErrorBudgetBurnPage",
        "UnresolvedCritical",
    }


def test_an_unresolved_alert_is_told_unless_its_cause_is_known(house: House) -> None:
    down = alert("WorkerDown", "critical", instance="one:8002", component="queue")
    unresolved = alert(
        "UnresolvedCritical", "critical", component="watchdog", escalated="WorkerDown"
    )
    other = alert("UnresolvedWarning", component="watchdog", escalated="DiskFilling")
    assert silent(house, down, unresolved, other) == set()
    symptom = unresolved | {"depends_on": "database"}
    assert silent(house, alert("DatabaseDown", "critical"), symptom) == {"UnresolvedCritical"}


def test_no_two_causes_silence_each_other() -> None:
    # Alertmanager lets an alert inhibit that is inhibited itself: in a circle nobody would be told.
    rules = [rule for groups in families().values() for group in groups for rule in group.rules]
    causes = {
        rule.name: {CAUSES[dependency] for dependency in rule.depends_on}
        for rule in rules
        if isinstance(rule, AlertRule) and rule.name in CAUSES.values()
    }
    assert set(causes) == set(CAUSES.values())
    assert list(TopologicalSorter(causes).static_order())  # raises CycleError


def test_nothing_silences_the_watchdog(house: House) -> None:
    causes = [alert(name, "critical", component="watchdog") for name in CAUSES.values()]
    assert silent(house, *causes, alert("Watchdog", "none", component="watchdog")) == set()


def test_a_database_that_is_down_pages_once(house: House) -> None:
    environment = new_environment()

    def tell(*, ended: bool = False) -> None:
        alerts = [
            make_alert(name, labels | {"environment": environment}, since=JUST_NOW, ended=ended)
            for name, labels in {
                # The symptoms first: group_wait leaves the cause the time to arrive.
                "ErrorsHigh": {"severity": "critical", "depends_on": "payment_provider,database"},
                "QueueOld": {"severity": "warning", "depends_on": "database,worker"},
                "DatabaseDown": {"severity": "critical", "component": "database"},
            }.items()
        ]
        for one in alerts:
            house.alertmanager.post(one)

    def arrived() -> list[dict[str, Any]]:
        return [
            one
            for one in house.notifications.list(limit=500)
            if environment in one["text"] and one["receiver"] != "watchdog"
        ]

    tell()
    for channel in ("pagerduty", "slack", "webhook"):
        house.notifications.wait_for(
            lambda one: environment in one["text"] and one["status"] == "firing",
            f"{channel} tells of it\n{house.alertmanager.log()}",
            channel=channel,
            receiver="critical",
        )
    house.mailbox.wait_for(lambda mail: environment in mail.part("plain"), "an e-mail")
    # What came later than the critical ones would be the warning: told of another, it has been its turn.
    marker = new_environment()
    house.alertmanager.post(make_alert("Marker", {"environment": marker}, since=JUST_NOW))
    house.notifications.wait_for(
        lambda one: marker in one["text"], "the marker", receiver="warning"
    )
    assert {one["receiver"] for one in arrived()} == {"critical"}
    assert {name for one in arrived() for name in one["alerts"]} == {"DatabaseDown"}

    tell(ended=True)
    house.notifications.wait_for(
        lambda one: environment in one["text"] and one["status"] == "resolved",
        "it is over",
        channel="webhook",
        receiver="critical",
    )
    assert {name for one in arrived() for name in one["alerts"]} == {"DatabaseDown"}

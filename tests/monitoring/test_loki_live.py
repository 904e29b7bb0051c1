"""A real Loki: each alert on log lines fires on the lines of its cases, and on no others.

Needs the program (LOKI_BIN, or loki on the path), which CI has not: what can be known without it is in
test_loki_config.py and test_logql.py.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring.build.conventions import annotations_of, labels_of, load_conventions
from monitoring.build.logs import log_alerts
from monitoring.build.logs.model import Alarming, Harmless, Line, LogAlert
from monitoring.build.model import Group, expected_text
from monitoring.build.profile import PRODUCTION
from monitoring.build.render import groups_of
from tests.monitoring.log_contract import INDEX_LABELS
from tests.monitoring.loki import CLUSTER, ENVIRONMENT, FILE, Hearer, Loki
from tests.monitoring.stack_programs import Place
from tests.programs import given_program, needs
from tests.tools import wait_until

pytestmark = needs("LOKI_BIN")

SECONDS = 90
CONVENTIONS = load_conventions()


@pytest.fixture(scope="module")
def alertmanager() -> Iterator[Hearer]:
    with Hearer().listening() as hearer:
        yield hearer


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory, alertmanager: Hearer) -> Iterator[Loki]:
    directory = tmp_path_factory.mktemp("loki")
    server = Loki(Place(os.getpid(), directory), alertmanager=alertmanager.url)
    server.start()
    yield server
    server.stop()


def _cases() -> dict[str, tuple[LogAlert, Alarming | Harmless]]:
    """Return all cases by the tenant that each has for itself."""
    found: dict[str, tuple[LogAlert, Alarming | Harmless]] = {}
    for alert in log_alerts():
        found |= {
            f"{alert.name}-a{number}": (alert, one) for number, one in enumerate(alert.alarming)
        }
        found |= {
            f"{alert.name}-h{number}": (alert, one) for number, one in enumerate(alert.harmless)
        }
    return found


def _rules(alert: LogAlert) -> dict[str, Any]:
    """Return the rule as it stands, evaluated often, and without its wait: the cases have their own times."""
    rules = groups_of([Group("case", (alert,), "5s")], CONVENTIONS, PRODUCTION)
    for rule in rules["groups"][0]["rules"]:
        rule.pop("for", None)
    return rules


def test_alerts_on_log_lines_fire_when_they_should_and_only_then(
    loki: Loki, alertmanager: Hearer, subtests: pytest.Subtests
) -> None:
    cases = _cases()
    # All lines before any rule: a rule on silence would fire in between.
    for tenant, (_, case) in cases.items():
        loki.say(tenant, case.lines)
    for tenant, (alert, _) in cases.items():
        loki.add_rules(tenant, _rules(alert))
    wait_until(
        lambda: all(loki.rule(tenant) is not None for tenant in cases),
        "rules are evaluated",
        SECONDS,
    )

    for tenant, (alert, case) in cases.items():
        rule = loki.rule(tenant)
        assert rule is not None
        why = "fires" if isinstance(case, Alarming) else f"is silent: {case.why}"
        with subtests.test(f"{alert.name} {why}"):
            assert (rule["health"], rule.get("lastError", "")) == ("ok", "")
            if isinstance(case, Harmless):
                assert (rule["state"], rule["alerts"]) == ("inactive", [])
            else:
                _check(rule, alert, case)

    with subtests.test("Alertmanager is told, with the labels that it groups and routes by"):
        names = {alert.name for alert in log_alerts()}
        wait_until(
            lambda: {one["labels"]["alertname"] for one in alertmanager.firing()} == names,
            "all alerts arrive",
            SECONDS,
        )
        for one in alertmanager.firing():
            labels = one["labels"]
            assert (labels["environment"], labels["cluster"]) == (ENVIRONMENT, CLUSTER)
            assert labels.keys() >= {"severity", "service", "team", "component"}
            assert f"var-environment={ENVIRONMENT}&" in one["annotations"]["dashboard_url"]


def _check(rule: dict[str, Any], alert: LogAlert, case: Alarming) -> None:
    labels = {**case.labels, **labels_of(alert, CONVENTIONS)}
    texts = annotations_of(alert, CONVENTIONS, PRODUCTION)
    external = {"environment": ENVIRONMENT, "cluster": CLUSTER}
    assert [one["labels"] for one in rule["alerts"]] == [labels | {"alertname": alert.name}]
    assert rule["alerts"][0]["annotations"] == {
        name: expected_text(text, labels=labels, external=external, value=case.value)
        for name, text in texts.items()
    }


def test_streams_have_the_labels_of_the_contract_and_lines_have_their_fields_beside_them(
    loki: Loki,
) -> None:
    fields: dict[str, str | int] = {"type": "http_request", "status": 503, "request_id": "r-1"}
    loki.say("contract", [Line("glasshouse", fields, age="5s")])

    query = '{service_name="glasshouse"} | status >= 500 | request_id="r-1" | container_name!=""'
    found = loki.ask("contract", "/loki/api/v1/query_range", query=query)["result"]
    assert [line for stream in found for _, line in stream["values"]] == [
        '{"service": "glasshouse", "type": "http_request", "status": 503, "request_id": "r-1"}'
    ]
    assert set(loki.ask("contract", "/loki/api/v1/labels")) - {"__stream_shard__"} == INDEX_LABELS


def test_a_line_that_is_too_long_loses_its_end_and_not_its_whole(loki: Loki) -> None:
    loki.say("long", [Line("glasshouse", {"type": "error"}, text="x" * 200_000, age="5s")])

    found = loki.ask(
        "long", "/loki/api/v1/query_range", query='{service_name="glasshouse"} | type="error"'
    )
    (line,) = [line for stream in found["result"] for _, line in stream["values"]]
    assert len(line) == 128 * 1024


def test_loki_accepts_the_configuration_as_it_stands(tmp_path: Path) -> None:
    checked = subprocess.run(
        [
            given_program("LOKI_BIN"),
            f"-config.file={FILE}",
            "-config.expand-env=true",
            "-verify-config",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "ENVIRONMENT": ENVIRONMENT, "CLUSTER": CLUSTER},
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("where", ["monitoring", "monitoring/demo"])
def test_the_rules_are_sound(where: str) -> None:
    files = sorted((FILE.parents[2] / where / "loki/rules/fake").glob("*.yml"))
    assert files
    checked = subprocess.run(
        [given_program("LOKI_BIN", beside="lokitool"), "rules", "lint", "--dry-run", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr

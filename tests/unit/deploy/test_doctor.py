"""The stack's doctor: what it says of a stack in good health, and of one with one thing wrong.

The backends are stand-ins that answer over real HTTP. What it says of the real programs is shown where
they run (tests/e2e, `make doctor`).
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.stack.backends.addresses import INSIDE, Addresses
from deploy.stack.doctor.__main__ import app
from deploy.stack.doctor.checks import CHECKS, dashboards
from deploy.stack.doctor.examination import Check, examine
from deploy.stack.doctor.findings import Finding
from deploy.stack.doctor.house import Deadline, House
from tests.listener import Asked
from tests.unit.deploy.stand_ins import (
    DASHBOARDS,
    OPERATIONS_TOKEN,
    PASSWORD,
    SYNTHETIC_TOKEN,
    TRACE,
    StackOfStandIns,
)

IMPATIENT = 0.01
"""Stand-ins change nothing while they are asked: whoever waits, waits in vain."""


@pytest.fixture
def stack() -> Iterator[StackOfStandIns]:
    """A stack in good health."""
    with StackOfStandIns().running() as stack:
        yield stack


def examined(stack: StackOfStandIns) -> dict[str, Finding]:
    """Return the findings by check."""
    return looked_at(stack.environment)


def looked_at(environment: Mapping[str, str]) -> dict[str, Finding]:
    """Return the findings of the stack to which the environment leads."""
    house = House(Addresses.read({"SECRETS_DIR": "/nonexistent", **environment}))
    try:
        return {one.check: one for one in examine(house, CHECKS, patience=IMPATIENT)}
    finally:
        house.tidy_up()


def statuses(findings: Mapping[str, Finding], status: str) -> list[str]:
    """Return the checks with this outcome."""
    return [name for name, one in findings.items() if one.status == status]


def test_a_stack_in_good_health_passes_every_check(stack: StackOfStandIns) -> None:
    findings = examined(stack)
    assert {name: one for name, one in findings.items() if one.status != "ok"} == {}
    assert len(findings) == len(INSIDE) + len(CHECKS)


def test_no_two_checks_have_the_same_name_and_grounds_exist() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert {name for check in CHECKS for name in check.after} <= set(names)


Illness = Callable[[StackOfStandIns], object]


def _just_started(stack: StackOfStandIns, *rules: dict[str, object]) -> None:
    """Have Prometheus read its configuration now, with a rule that is not due yet."""
    stack.configured = time.time()
    stack.rules += [stack.rule("slo:x30d", "recording", "unknown"), *rules]


ILL: dict[str, tuple[Illness, str, str, str]] = {
    # what is wrong: how, the only check that fails, what was seen, what the remedy names
    "a dependency is down": (
        lambda stack: stack.failed_checks.append("database"),
        "app is ready",
        "database",
        "postgres",
    ),
    "the provider does not answer": (
        lambda stack: setattr(stack, "payment_status", "pending"),
        "a customer can register, order and pay",
        "pending",
        "payment-provider",
    ),
    "the worker has stopped": (
        lambda stack: setattr(stack, "order_status", "paid"),
        "worker fulfils the order",
        "paid, not fulfilled",
        "worker",
    ),
    "a target is down": (
        lambda stack: stack.targets.append(
            stack.target("redis", "redis-exporter:9121", "down", "refused")
        ),
        "every target is scraped",
        "redis redis-exporter:9121 is down: refused",
        "docker compose ps redis-exporter",
    ),
    "nothing is scraped": (
        lambda stack: stack.targets.clear(),
        "every target is scraped",
        "no target at all",
        "mounted",
    ),
    "a rule does not evaluate": (
        lambda stack: stack.rules.append(stack.rule("Bad", health="err", error="many-to-many")),
        "rules are loaded and evaluated",
        "Bad is err many-to-many",
        "make rules",
    ),
    "there are no rules": (
        lambda stack: stack.rules.clear(),
        "rules are loaded and evaluated",
        "no rule",
        "rules mounted",
    ),
    "exemplars are thrown away": (
        lambda stack: setattr(stack, "features", ""),
        "exemplars are stored",
        "throws exemplars away",
        "--enable-feature=exemplar-storage",
    ),
    "the database's exporter does not reach it": (
        lambda stack: stack.series.update({"min(pg_up)": [({}, 0.0)]}),
        "exporters reach the database and the cache",
        "pg_up not 1",
        "postgres-exporter",
    ),
    "there are no customers": (
        lambda stack: stack.series.update({"http_requests_total": [({}, 0.04)]}),
        "customers keep the numbers moving",
        "0.04 requests of customers a second",
        "customers",
    ),
    "a disk is full": (
        lambda stack: stack.series.update({"node_filesystem": [({"device": "/dev/vdb"}, 0.97)]}),
        "disks have space left",
        "/dev/vdb is 97% full",
        "make clean",
    ),
    "the collector is away": (
        lambda stack: stack.series["otelcol_process_uptime"].pop(),
        "collector runs",
        "no metrics of it",
        "otel-collector",
    ),
    "the collector has died, and its last sample still counts": (
        lambda stack: stack.series.update(
            {'up{job="otel-collector"}': [({"job": "otel-collector"}, 0.0)]}
        ),
        "collector runs",
        "no metrics of it now",
        "docker compose ps otel-collector",
    ),
    "the collector's queue is full": (
        lambda stack: stack.series.update(
            {"otelcol_exporter_queue_size": [({"exporter": "otlp/jaeger"}, 0.95)]}
        ),
        "collector refuses, loses and delays nothing",
        "queue of otlp/jaeger is 95% full",
        "otel-collector",
    ),
    "the service drops telemetry": (
        lambda stack: stack.series.update(
            {"telemetry_dropped_total": [({"job": "api", "signal": "logs"}, 7.0)]}
        ),
        "the service drops no telemetry",
        "api dropped 7 logs",
        "otel-collector",
    ),
    "there are no span metrics of the worker": (
        lambda stack: stack.series["traces_span_metrics_calls_total"].pop(),
        "metrics are made of spans",
        "none of glasshouse-worker",
        "span_metrics",
    ),
    "the service graph is empty": (
        lambda stack: stack.series.pop("traces_service_graph_request_total"),
        "the service graph has its edges",
        "no edge from glasshouse to glasshouse-payment-provider",
        "service_graph",
    ),
    "the worker is not in the trace": (
        lambda stack: stack.spans.remove("glasshouse-worker"),
        "the same trace has the worker",
        "no span of glasshouse-worker",
        "otel-collector",
    ),
    "the worker's lines do not arrive": (
        lambda stack: stack.lines.__setitem__(2, ("glasshouse-worker", "other")),
        "the worker's lines have the trace id",
        f"no line of glasshouse-worker has trace id {TRACE}",
        "loki",
    ),
    "the provider's container has another log driver": (
        lambda stack: stack.lines.remove(stack.lines[1]),
        "containers' logs arrive",
        "no line of glasshouse-payment-provider",
        "fluentd",
    ),
    "no line has arrived for minutes": (
        lambda stack: setattr(stack, "silence", 180.0),
        "containers' logs arrive",
        "no line of anybody within a minute",
        "docker compose ps otel-collector",
    ),
    "a rule was due long ago": (
        lambda stack: stack.rules.append(stack.rule("slo:x30d", "recording", "unknown")),
        "rules are loaded and evaluated",
        "slo:x30d is unknown",
        "make rules",
    ),
    "a rule is broken, and another not due": (
        lambda stack: _just_started(stack, stack.rule("Bad", health="err", error="many-to-many")),
        "rules are loaded and evaluated",
        "Bad is err many-to-many",
        "make rules",
    ),
    "Alertmanager does not deliver": (
        lambda stack: setattr(stack, "delivers", False),
        "an alert is delivered",
        "did not arrive",
        "notifications",
    ),
    "e-mails are not handed over": (
        lambda stack: stack.series.update({"alertmanager_notifications_failed_total": [({}, 4.0)]}),
        "Mailpit takes and shows e-mail",
        "could not hand over 4",
        "mailpit",
    ),
    "Bugsink loses what it accepted": (
        lambda stack: stack.servers["BUGSINK_URL"].routes.pop("/issues/event/*"),
        "the error can be read there",
        "is not there",
        "bugsink",
    ),
    "Bugsink has another key": (
        lambda stack: stack.environment.update({"BUGSINK_KEY": "another"}),
        "Bugsink takes an error",
        "status 403",
        "login",
    ),
    "Grafana does not reach a data source": (
        lambda stack: stack.unhealthy_data_sources.append("loki"),
        "Grafana's data sources are healthy",
        "loki: loki cannot be reached",
        "docker compose ps",
    ),
    "a dashboard is missing": (
        lambda stack: stack.dashboards.remove("glasshouse-slo"),
        "every dashboard is loaded",
        "missing: glasshouse-slo",
        "monitoring/grafana",
    ),
    "Grafana has a provisioning error": (
        lambda stack: stack.lines.append(("grafana", "logger=provisioning level=error msg=broken")),
        "Grafana's provisioning has no errors",
        "level=error",
        "grafana",
    ),
}


@pytest.mark.parametrize("wrong", ILL)
def test_one_thing_wrong_is_one_finding_with_its_remedy(stack: StackOfStandIns, wrong: str) -> None:
    make_ill, check, seen, remedy = ILL[wrong]
    make_ill(stack)
    findings = examined(stack)
    also = {"what the app stands on is up"} if wrong == "a dependency is down" else set()
    assert set(statuses(findings, "failed")) - also == {check}
    assert seen in findings[check].seen
    assert remedy in findings[check].remedy


def test_what_grew_within_five_minutes_is_what_the_collector_lost(stack: StackOfStandIns) -> None:
    labels = {"__name__": "otelcol_exporter_send_failed_spans_total", "exporter": "otlp/jaeger"}
    stack.series["otelcol_"] = [(labels, 9.0)]
    stack.series["offset 5m"] = [(labels, 4.0)]
    query = stack.servers["PROMETHEUS_URL"].routes["/api/v1/query"]

    def only_before(asked: Asked, parameters: dict[str, list[str]]) -> object:
        if "offset 5m" in parameters["query"][0]:
            parameters = {"query": ["offset 5m"]}
        elif "otelcol_exporter_queue" in parameters["query"][0]:
            parameters = {"query": ["nothing"]}
        return query(asked, parameters)

    stack.servers["PROMETHEUS_URL"].routes["/api/v1/query"] = only_before
    found = examined(stack)["collector refuses, loses and delays nothing"]
    assert found.status == "failed"
    assert "send_failed_spans_total of otlp/jaeger grew by 5" in found.seen


def test_what_jaeger_loses_is_not_the_collectors(stack: StackOfStandIns) -> None:
    lost = {"__name__": "otelcol_receiver_refused_spans_total", "receiver": "otlp"}
    stack.series["otelcol_(receiver_(refused"] = [({**lost, "job": "jaeger"}, 9.0)]
    stack.series["otelcol_exporter_queue_size"] = [({"exporter": "jaeger", "job": "jaeger"}, 0.95)]
    # So that it is not what it was five minutes ago.
    stack.series["offset 5m"] = [({**lost, "job": "jaeger"}, 4.0)]
    assert examined(stack)["collector refuses, loses and delays nothing"].status == "ok"


def test_the_age_of_the_collector_is_not_jaegers(stack: StackOfStandIns) -> None:
    assert examined(stack)["collector runs"].seen == "for 2 minutes"


@pytest.mark.parametrize("age", [0, 100, 130])
def test_a_rule_that_is_not_due_yet_is_no_failure(stack: StackOfStandIns, age: float) -> None:
    # Its group is evaluated every 120 s, and a scrape may be as late as 15 s.
    stack.configured = time.time() - age
    stack.rules.append(stack.rule("slo:x30d", "recording", "unknown"))
    found = examined(stack)["rules are loaded and evaluated"]
    assert found.status == "ok"
    assert "2 records and 1 alerts; 1 of them are due for the first time" in found.seen


def test_rules_of_which_none_was_due_are_not_ok(stack: StackOfStandIns) -> None:
    stack.configured = time.time()
    stack.rules[:] = [stack.rule("ApiDown", health="unknown")]
    assert examined(stack)["rules are loaded and evaluated"].status == "not checked"


@pytest.mark.parametrize("variable", INSIDE)
def test_inside_of_the_stack_who_has_no_name_is_to_be_started(
    stack: StackOfStandIns, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    urls = {name: stack.environment.pop(name) for name in INSIDE}
    urls[variable] = "http://stopped.invalid"  # as of a container that does not run (RFC 6761)
    monkeypatch.setattr("deploy.stack.backends.addresses.INSIDE", urls)
    code, said = run(stack.environment)
    service = variable.removesuffix("_URL").lower()
    assert code == 1
    assert f"docker compose ps {service}; docker compose start {service}" in said
    assert "run `make doctor`" not in said


def test_outside_of_the_stack_its_names_are_not_known(stack: StackOfStandIns) -> None:
    stack.environment["LOKI_URL"] = "http://loki.invalid"
    assert "run `make doctor`" in examined(stack)["loki answers"].remedy


@pytest.mark.parametrize("variable", INSIDE)
def test_what_is_down_is_told_once_and_first(stack: StackOfStandIns, variable: str) -> None:
    stack.servers[variable].stop()
    findings = examined(stack)
    (failed,) = statuses(findings, "failed")
    assert failed.endswith(" answers")
    assert findings[failed].component in findings[failed].remedy
    assert len(statuses(findings, "not checked")) > 0


@pytest.mark.parametrize("variable", sorted(set(INSIDE) - {"LOKI_URL"}))
def test_what_was_not_given_is_not_checked_and_never_ok(
    stack: StackOfStandIns, variable: str
) -> None:
    del stack.environment[variable]
    findings = examined(stack)
    assert statuses(findings, "failed") == []
    unknown = statuses(findings, "not checked")
    needing = {
        check.name for check in CHECKS if variable in {kind.variable for kind in check.needs}
    }
    assert needing <= set(unknown)
    assert any(f"{variable}" in findings[name].seen for name in unknown)


def test_where_only_grafana_is_open_loki_is_asked_through_it(stack: StackOfStandIns) -> None:
    loki = stack.servers["LOKI_URL"].routes
    grafana = stack.servers["GRAFANA_URL"].routes
    grafana.update(
        {f"/api/datasources/proxy/uid/loki{path}": route for path, route in loki.items()}
    )
    grafana["/api/datasources/proxy/uid/loki/loki/api/v1/labels"] = {
        "status": "success",
        "data": [],
    }
    del stack.environment["LOKI_URL"]
    findings = examined(stack)
    assert {name: one for name, one in findings.items() if one.status != "ok"} == {}
    assert "proxy" in findings["loki answers"].seen


def test_without_the_optional_secrets_it_says_what_it_could_not_look_at(
    stack: StackOfStandIns,
) -> None:
    for name in ("STACK_PASSWORD", "OPERATIONS_TOKEN", "SYNTHETIC_TOKEN", "BUGSINK_KEY"):
        del stack.environment[name]
    findings = examined(stack)
    assert statuses(findings, "failed") == []
    assert findings["what the app stands on is up"].seen == "OPERATIONS_TOKEN not given"
    assert findings["Bugsink takes an error"].seen == "BUGSINK_KEY not given"
    assert findings["Grafana lets us in"].seen == "STACK_PASSWORD not given"
    assert "counted as a real one" in findings["a customer can register, order and pay"].seen


def test_the_key_of_errors_is_looked_up_where_it_was_not_given(stack: StackOfStandIns) -> None:
    del stack.environment["BUGSINK_KEY"]
    assert examined(stack)["the error can be read there"].status == "ok"


def test_the_login_may_be_in_files(stack: StackOfStandIns, tmp_path: Path) -> None:
    for name in ("STACK_USER", "STACK_PASSWORD", "OPERATIONS_TOKEN"):
        (tmp_path / name.lower()).write_text(f"{stack.environment.pop(name)}\n")
    stack.environment["SECRETS_DIR"] = str(tmp_path)
    findings = examined(stack)
    assert {name: one for name, one in findings.items() if one.status != "ok"} == {}


def test_the_journey_is_marked_synthetic_and_tidied_up(stack: StackOfStandIns) -> None:
    examined(stack)
    asked = stack.servers["APP_URL"].asked
    bought = [one for one in asked if one.path.startswith("/v1/")]
    assert {one.headers["X-Synthetic-Token"] for one in bought} == {SYNTHETIC_TOKEN}
    assert [(one.method, one.path) for one in bought[-2:]] == [
        ("POST", "/v1/payments/p/refund"),
        ("DELETE", "/v1/users/me"),
    ]


def test_the_test_alert_takes_the_way_of_the_watchdog_and_ends_by_itself(
    stack: StackOfStandIns,
) -> None:
    examined(stack)
    (alert,) = stack.told
    assert alert["labels"]["alertname"] == "Watchdog"
    assert alert["labels"]["severity"] == "none"
    assert alert["labels"]["environment"].startswith("stack-doctor-")
    assert alert["startsAt"] < alert["endsAt"]


def test_the_login_is_told_to_who_asks_for_it_and_to_nobody_else(stack: StackOfStandIns) -> None:
    stack.servers["PROMETHEUS_URL"].login = "basic"
    findings = examined(stack)
    assert statuses(findings, "failed") == []
    for variable in (
        "APP_URL",
        "ALERTMANAGER_URL",
        "LOKI_URL",
        "JAEGER_URL",
        "MAILPIT_URL",
        "BUGSINK_URL",
    ):
        for asked in stack.servers[variable].asked:
            assert not (asked.headers["Authorization"] or "").startswith("Basic "), variable


def test_a_wrong_password_is_what_is_told(stack: StackOfStandIns) -> None:
    stack.servers["PROMETHEUS_URL"].login = "basic"
    stack.environment["STACK_PASSWORD"] = "another password"
    findings = examined(stack)
    assert set(statuses(findings, "failed")) == {
        "prometheus answers",
        "the error can be read there",
        "Grafana lets us in",
    }
    assert "make urls" in findings["Grafana lets us in"].remedy
    assert "refuses the login" in findings["the error can be read there"].seen


def test_another_program_at_an_address_is_told_and_breaks_nothing(stack: StackOfStandIns) -> None:
    page = "<html>hello</html>"
    for variable in ("PROMETHEUS_URL", "LOKI_URL", "JAEGER_URL", "MAILPIT_URL", "GRAFANA_URL"):
        stack.servers[variable].routes = {"/*"[:-1] + "*": page}
    findings = examined(stack)
    for name in (
        "every target is scraped",
        "containers' logs arrive",
        "jaeger answers",
        "grafana answers",
    ):
        assert findings[name].status == "failed", findings[name]
        assert findings[name].remedy


def test_a_backend_that_hangs_does_not_hold_up_the_others(
    stack: StackOfStandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.stack.doctor.examination.GRACE_SECONDS", 0.5)
    stack.servers["MAILPIT_URL"].routes["/readyz"] = lambda *_: time.sleep(3)
    began = time.monotonic()
    findings = examined(stack)
    assert time.monotonic() - began < 3
    assert statuses(findings, "failed") == ["mailpit answers", "Mailpit takes and shows e-mail"]
    assert "no result within" in findings["mailpit answers"].seen


def test_a_bug_of_a_check_is_raised_and_not_swallowed(stack: StackOfStandIns) -> None:
    def broken(house: House, deadline: Deadline) -> str:
        raise RuntimeError("a bug")

    house = House(Addresses.read(stack.environment))
    with pytest.raises(RuntimeError, match="a bug"):
        examine(house, [Check("broken", "app", broken)])
    house.tidy_up()


# The command -----------------------------------------------------------------------------------------------


def run(environment: Mapping[str, str], *options: str) -> tuple[int, str]:
    """Run the command in this environment alone; return its exit code and all that it printed."""
    empty = dict.fromkeys([*os.environ])
    known = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "HOME", "COVERAGE_FILE"}
    }
    told = CliRunner().invoke(
        app,
        [*options, f"--patience={IMPATIENT}"],
        env={**empty, **known, "SECRETS_DIR": "/nonexistent", **environment},
    )
    return told.exit_code, told.output


def test_exit_code_0_where_all_is_well(stack: StackOfStandIns) -> None:
    code, said = run(stack.environment)
    assert code == 0, said
    assert f"All {len(INSIDE) + len(CHECKS)} checks that were made are ok." in said
    assert "FAILED" not in said


def test_exit_code_1_and_the_root_first_where_something_failed(stack: StackOfStandIns) -> None:
    stack.servers["APP_URL"].stop()
    stack.features = ""
    code, said = run(stack.environment)
    assert code == 1
    assert said.index("1. app answers") < said.index("2. exemplars are stored")
    assert "Begin with “app answers”" in said


def test_a_stack_that_is_not_up_is_said_in_one_sentence(stack: StackOfStandIns) -> None:
    for server in stack.servers.values():
        server.stop()
    code, said = run(stack.environment)
    assert code == 1
    assert "Nothing answers: is the stack running? `make up` starts it." in said


def test_exit_code_2_outside_of_the_stack_without_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Names of hosts that nobody knows anywhere (RFC 6761)
    unknown = {name: f"http://{name.lower().replace('_', '-')}.invalid" for name in INSIDE}
    monkeypatch.setattr("deploy.stack.backends.addresses.INSIDE", unknown)
    code, said = run({})
    assert code == 2
    assert "make doctor" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_URL", "app:8000"),
        ("LOKI_URL", "http://u:secret-word@loki:3100"),
        ("STACK_CA", "/nonexistent"),
    ],
)
def test_exit_code_2_and_the_variable_for_what_cannot_be_meant(name: str, value: str) -> None:
    code, said = run({"APP_URL": "http://127.0.0.1:9", name: value})
    assert code == 2
    assert name in said
    assert "secret-word" not in said


def test_json_has_every_finding(stack: StackOfStandIns) -> None:
    stack.features = ""
    code, said = run(stack.environment, "--json")
    document = json.loads(said)
    assert code == 1
    assert document["ok"] is False
    (failed,) = [one for one in document["findings"] if one["status"] == "failed"]
    assert failed["check"] == "exemplars are stored"
    assert failed["remedy"]


def test_no_secret_is_printed(stack: StackOfStandIns) -> None:
    stack.failed_checks.append("cache")
    stack.servers["PROMETHEUS_URL"].login = "basic"
    for environment in (
        stack.environment,
        stack.environment | {"STACK_PASSWORD": "another password"},
    ):
        for options in ((), ("--json",)):
            _, said = run(environment, *options)
            for secret in (
                PASSWORD,
                "another password",
                OPERATIONS_TOKEN,
                SYNTHETIC_TOKEN,
                "a-token",
            ):
                assert secret not in said


def test_the_dashboards_are_those_of_the_contract() -> None:
    assert set(dashboards.DASHBOARDS) == {f"glasshouse-{name}" for name in DASHBOARDS}

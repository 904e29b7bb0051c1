"""Who is told: label sets and the receivers that they are routed to, and the file that says so."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.build.alertmanager import FILE, FOLDER, for_hosts, load_alertmanager, scaled
from monitoring.build.profile import DEMO, PRODUCTION
from tests.monitoring.alertmanager import (
    amtool_programs,
    make_alert,
    new_environment,
    open_house,
    run_amtool,
)

COMMON = "service=glasshouse environment=production team=shop component=api"
ROUTES = [
    ("alertname=ErrorsHigh severity=critical", "critical"),
    ("alertname=ErrorsHigh severity=warning", "warning"),
    ("alertname=ErrorsHigh severity=info", "info"),
    ("alertname=DatabaseDown severity=critical component=database", "critical"),
    ("alertname=Watchdog severity=none component=watchdog", "watchdog"),
    ("alertname=DependencyRecentlyDown severity=none dependency=database", "null"),
    ("alertname=AnySilentOne severity=none", "null"),
    ("alertname=UnresolvedCritical severity=critical", "escalation-critical"),
    ("alertname=UnresolvedCritical severity=critical depends_on=api", "escalation-critical"),
    ("alertname=UnresolvedWarning severity=warning", "escalation-warning"),
    # A mistake in a label hides nothing.
    ("alertname=NoSeverity", "warning"),
    ("alertname=Misspelt severity=critcal", "warning"),
    ("alertname=Watchdog severity=critical", "critical"),
]
CHANNELS = {
    "null": set(),
    "watchdog": {"webhook"},
    "critical": {"pagerduty", "slack", "email", "webhook"},
    "warning": {"slack", "email", "webhook"},
    "info": {"slack", "webhook"},
    "escalation-critical": {"pagerduty", "slack", "email", "webhook"},
    "escalation-warning": {"slack", "email", "webhook"},
}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return load_alertmanager()


def routes(route: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The route and all below it."""
    yield route
    for child in route.get("routes", []):
        yield from routes(child)


def check(file: Path) -> None:
    for program in amtool_programs():
        said = run_amtool(program, "check-config", str(file))
        assert "SUCCESS" in said


def test_the_file_is_valid_as_it_stands() -> None:
    check(FILE)


@pytest.mark.parametrize("profile", [PRODUCTION, DEMO], ids=lambda profile: profile.name)
def test_what_is_rendered_is_valid(config: dict[str, Any], tmp_path: Path, profile: Any) -> None:
    hosts = {"notifications:8003": "127.0.0.1:1", "mailpit:1025": "127.0.0.1:2"}
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(for_hosts(scaled(config, profile), hosts)))
    check(file)
    text = file.read_text()
    assert not re.search(r"(notifications|mailpit):\d|/etc/alertmanager", text)
    assert "http://127.0.0.1:1/slack" in text
    assert "http://127.0.0.1:1/pagerduty/v2/enqueue" in text
    assert "127.0.0.1:2" in text


@pytest.mark.parametrize(("labels", "receiver"), ROUTES, ids=lambda value: value.split()[0])
def test_each_label_set_reaches_its_receiver(labels: str, receiver: str) -> None:
    # A label of the row takes the place of the common one.
    pairs = dict(pair.split("=") for pair in f"{COMMON} {labels}".split())
    arguments = [f"{name}={value}" for name, value in pairs.items()]
    for program in amtool_programs():
        said = run_amtool(program, "config", "routes", "test", f"--config.file={FILE}", *arguments)
        assert said.strip() == receiver


def test_each_receiver_has_its_channels(config: dict[str, Any]) -> None:
    found = {
        receiver["name"]: {name.removesuffix("_configs") for name in receiver if name != "name"}
        for receiver in config["receivers"]
    }
    assert found == CHANNELS


def test_everything_goes_to_the_local_receiver_as_well(config: dict[str, Any]) -> None:
    for receiver in config["receivers"]:
        if receiver["name"] != "null":
            urls = [webhook["url"] for webhook in receiver["webhook_configs"]]
            assert urls == ["http://notifications:8003/alertmanager"], receiver["name"]


def test_every_channel_tells_when_it_is_over(config: dict[str, Any]) -> None:
    for receiver in config["receivers"]:
        for channel in [entry for name, entry in receiver.items() if name.endswith("_configs")]:
            assert all(entry["send_resolved"] is True for entry in channel), receiver["name"]


def test_the_second_line_is_somebody_else(config: dict[str, Any]) -> None:
    by_name = {receiver["name"]: receiver for receiver in config["receivers"]}
    first, second = by_name["critical"], by_name["escalation-critical"]
    keys = [one["pagerduty_configs"][0]["routing_key_file"] for one in (first, second)]
    mails = [one["email_configs"][0]["to"] for one in (first, second)]
    assert len(set(keys)) == len(set(mails)) == 2


def test_information_is_for_business_hours_only(config: dict[str, Any]) -> None:
    timed = {
        route["receiver"]: route["active_time_intervals"]
        for route in routes(config["route"])
        if "active_time_intervals" in route
    }
    assert timed == {"info": ["business-hours"]}
    assert not any("mute_time_intervals" in route for route in routes(config["route"]))
    (hours,) = config["time_intervals"]
    assert hours == {
        "name": "business-hours",
        "time_intervals": [
            {
                "weekdays": ["monday:friday"],
                "times": [{"start_time": "08:00", "end_time": "18:00"}],
            }
        ],
    }


def test_no_message_mixes_environments(config: dict[str, Any]) -> None:
    for route in routes(config["route"]):
        groups = route.get("group_by", config["route"]["group_by"])
        assert "environment" in groups or groups == ["..."]


def test_only_matchers_are_used(config: dict[str, Any]) -> None:
    # `match`, `match_re`, `source_match` and the like are deprecated.
    assert all(
        set(rule) <= {"source_matchers", "target_matchers", "equal"}
        for rule in config["inhibit_rules"]
    )
    assert not any({"match", "match_re"} & set(route) for route in routes(config["route"]))


def test_templates_use_no_function_that_only_one_version_has() -> None:
    young = r"\b(date|tz|since|now|humanizeDuration|trimSpace|toJson|dict|list|append|safeUrl|urlUnescape)\b"
    for file in sorted((FOLDER / "templates").glob("*.tmpl")):
        code = re.sub(r"\{\{-? */\*.*?\*/ *-?\}\}", "", file.read_text("utf-8"), flags=re.DOTALL)
        actions = " ".join(re.findall(r"\{\{(.*?)\}\}", code, flags=re.DOTALL))
        assert not re.search(young, re.sub(r'"[^"]*"', "", actions)), file.name


def test_a_minute_is_a_second_in_the_demonstration(config: dict[str, Any]) -> None:
    fast = scaled(config, DEMO)
    critical = next(r for r in routes(fast["route"]) if r["receiver"] == "critical")
    assert critical["group_wait"] == "5s"  # half a second would leave the cause no time
    assert critical["group_interval"] == "2s"
    assert critical["repeat_interval"] == "1m"
    watchdog = next(r for r in routes(fast["route"]) if r["receiver"] == "watchdog")
    assert watchdog["group_wait"] == "1s"
    assert watchdog["repeat_interval"] == "5s"
    assert scaled(config, PRODUCTION) == config
    assert config == load_alertmanager()  # what was handed over is as it was


@pytest.mark.parametrize("open_now", [True, False], ids=["business hours", "night"])
def test_information_waits_for_business_hours(
    tmp_path: Path, config: dict[str, Any], *, open_now: bool
) -> None:
    environment = new_environment()

    def set_hours(rendered: dict[str, Any]) -> None:
        # No moment is in the 31st of February.
        never = {"months": ["february"], "days_of_month": ["31"]}
        always = {"months": ["january:december"]}
        rendered["time_intervals"][0]["time_intervals"] = [always if open_now else never]

    with open_house(tmp_path, set_hours) as house:
        info = make_alert(
            "Note", {"severity": "info", "component": "business", "environment": environment}
        )
        house.alertmanager.post(info)
        if open_now:
            house.notifications.wait_for(lambda one: one["alerts"] == ["Note"], "it is told")
        # This one has to wait for its group, the other one had not: its turn is over by then.
        later = make_alert("Later", {"environment": environment}, since=timedelta(0))
        house.alertmanager.post(later)
        house.notifications.wait_for(lambda one: one["alerts"] == ["Later"], "the warning is told")
        receivers = {one["receiver"] for one in house.notifications.list()}
        assert receivers == ({"info", "warning"} if open_now else {"warning"})

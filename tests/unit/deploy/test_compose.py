"""docker-compose.yml, the rules for each container: pinned, bounded, without rights, watched."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.compose_file import FILE, ONE_SHOTS, OURS, ROOT, compose, mebibytes, services

SERVICES = services()
LASTING = {name: service for name, service in SERVICES.items() if name not in ONE_SHOTS}
WITHOUT_HEALTH_CHECK = {
    "otel-collector": "its image holds nothing but the program; Prometheus scrapes it",
}
RIGHTS = {
    "bugsink-setup": {"CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"},
    "gateway": {"NET_BIND_SERVICE"},
}
SPEAKS_OF_ITSELF = {"setup", "doctor", "otel-collector", "loki"}
"""Their lines are not carried by what they would speak of, or hold the login."""


def every(**only: dict[str, Any]) -> list[Any]:
    return [pytest.param(service, id=name) for name, service in (only or SERVICES).items()]


@pytest.mark.parametrize("service", every())
def test_an_image_is_pinned_and_never_the_latest(service: dict[str, Any]) -> None:
    name, _, tag = service["image"].rpartition(":")
    assert name
    assert "latest" not in tag
    if service["image"] in OURS:
        assert service["pull_policy"] == "never"
    else:
        assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-alpine)?", tag)


def test_the_pins_stand_once_each() -> None:
    images = re.findall(r"^ +image: (\S+)$", FILE.read_text("utf-8"), re.MULTILINE)
    assert len(images) == len(set(images))


def test_what_is_built_is_built_once_with_the_version_of_the_project() -> None:
    built = {name: service["build"] for name, service in SERVICES.items() if "build" in service}
    assert set(built) == {"setup", "customers"}
    assert "LOCK" not in built["setup"]["args"]
    assert built["customers"]["args"]["LOCK"] == "requirements-load.lock"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for build in built.values():
        assert (ROOT / build["dockerfile"]).is_file()
        assert build["args"]["VERSION"] == project["version"]
    assert {SERVICES[name]["image"] for name in built} == set(OURS)


@pytest.mark.parametrize("service", every())
def test_a_container_has_no_right_that_it_does_not_need(
    service: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", ())) == RIGHTS.get(name, set())
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]
    for key in ("privileged", "pid", "ipc", "devices", "userns_mode", "group_add"):
        assert key not in service
    assert service.get("network_mode", "none") == "none"


@pytest.mark.parametrize("service", every())
def test_nothing_runs_as_root_but_what_gives_its_rights_away(
    service: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    if service["image"] in OURS:
        assert "user" not in service  # the image says 10001 (test_docker.py)
        return
    user, _, group = service["user"].partition(":")
    assert user.isdecimal()
    assert group.isdecimal()
    assert (user == "0") == (request.node.callspec.id == "bugsink-setup")


@pytest.mark.parametrize("service", every())
def test_memory_is_bounded_and_the_processor_is_not(service: dict[str, Any]) -> None:
    assert mebibytes(service["mem_limit"]) >= 64
    assert "cpus" not in service
    assert "deploy" not in service


def test_a_runtime_that_can_be_told_its_memory_is_told_less_than_the_limit() -> None:
    for name in ("loki", "jaeger", "grafana", "otel-collector"):
        told = int(SERVICES[name]["environment"]["GOMEMLIMIT"].removesuffix("MiB"))
        assert told <= 0.8 * mebibytes(SERVICES[name]["mem_limit"])


@pytest.mark.parametrize("name", ["loki", "jaeger", "prometheus", "grafana"])
def test_what_grows_with_what_is_asked_of_it_has_head_room(name: str) -> None:
    assert mebibytes(SERVICES[name]["mem_limit"]) >= 512


def test_the_check_of_the_machine_knows_what_all_limits_come_to() -> None:
    script = (ROOT / "deploy/stack/machine.sh").read_text("utf-8")
    told = re.search(r"^LIMITS_MIB=(\d+)$", script, re.MULTILINE)
    assert told is not None
    assert int(told[1]) == sum(mebibytes(service["mem_limit"]) for service in LASTING.values())


def test_what_lasts_is_started_again_and_what_ends_is_not() -> None:
    assert {service["restart"] for service in LASTING.values()} == {"unless-stopped"}
    assert {SERVICES[name]["restart"] for name in ONE_SHOTS} == {"no"}


def test_a_check_is_switched_off_only_where_nobody_waits() -> None:
    """To `docker compose up --wait`, a container whose check is switched off can never be well."""
    off = {
        name for name, service in SERVICES.items() if "disable" in service.get("healthcheck", {})
    }
    assert off == {"setup", "migrations", "doctor"}


def test_whatever_ends_is_waited_for() -> None:
    """`docker compose up --wait` takes the end of a container that nobody waits for as a failure."""
    waited_for = {
        other
        for service in LASTING.values()
        for other, how in service["depends_on"].items()
        if how["condition"] == "service_completed_successfully"
    }
    assert waited_for == {name for name in ONE_SHOTS if "profiles" not in SERVICES[name]}


@pytest.mark.parametrize("service", every(**LASTING))
def test_each_says_whether_it_is_well(
    service: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    check = service.get("healthcheck", {})
    if request.node.callspec.id in WITHOUT_HEALTH_CHECK:
        assert check.get("test") is None
        return
    if service["image"] not in OURS:  # the image's own check asks HEALTHCHECK_URL
        assert check["test"]
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)


def test_nobody_waits_for_the_health_of_what_has_none() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], (name, other)
                assert other not in WITHOUT_HEALTH_CHECK


@pytest.mark.parametrize("service", every())
def test_logs_are_bounded_and_go_to_the_collector(
    service: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    logging = service["logging"]
    if request.node.callspec.id in SPEAKS_OF_ITSELF:
        assert logging["driver"] == "local"
        assert {"max-size", "max-file"} <= set(logging["options"])
        return
    assert logging["driver"] == "fluentd"
    assert logging["options"]["fluentd-async"] == "true"
    assert {"cache-max-size", "cache-max-file"} <= set(logging["options"])
    address = SERVICES["otel-collector"]["networks"]["telemetry"]["ipv4_address"]
    assert logging["options"]["fluentd-address"] == f"{address}:24224"
    assert "com.docker.compose.service" in logging["options"]["tag"]
    assert service["depends_on"]["otel-collector"] == {"condition": "service_started"}


def test_the_driver_and_the_rights_are_said_once_each() -> None:
    text = FILE.read_text("utf-8")
    for once in ("driver: fluentd", "driver: local", "cap_drop:", "no-new-privileges"):
        assert text.count(once) == 1


def test_the_login_is_not_among_the_lines_that_are_kept() -> None:
    assert SERVICES["setup"]["logging"]["driver"] == "local"


def test_only_the_tools_have_to_be_called() -> None:
    by_profile = {
        name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service
    }
    assert by_profile == {"doctor": ["tools"]}


def test_no_password_stands_in_the_file() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET", name) and not name.endswith(
                ("_FILE", "__FILE", "_DIR")
            ):
                assert value in ("", None), name
    assert yaml.safe_load(FILE.read_text("utf-8"))["name"] == compose()["name"] == "glasshouse"

"""docker-compose.yml, what containers are given: files of the repository, their secrets, known settings."""

import re
import subprocess
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from app.settings import Settings
from deploy.stack.setup import MADE, audiences
from sandbox.customers.settings import CustomersSettings
from sandbox.notifications.settings import NotificationsSettings
from sandbox.payment_provider.settings import ProviderSettings
from sandbox.synthetic_journey.settings import JourneySettings
from tests.compose_file import OURS, ROOT, compose, mounts, services

SERVICES = services()
SETTINGS: dict[str, type[BaseSettings]] = {
    "app": Settings,
    "worker": Settings,
    "migrations": Settings,
    "payment-provider": ProviderSettings,
    "notifications": NotificationsSettings,
    "synthetic": JourneySettings,
    "customers": CustomersSettings,
}
OF_THE_IMAGE = {"HEALTHCHECK_URL", "SECRETS_DIR"}


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_in_the_repository_and_read_only(name: str) -> None:
    for source, target, mode in mounts(SERVICES[name]):
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert mode == "ro", source
        elif source.startswith("/"):
            assert (name, source, target, mode) == ("node-exporter", "/", "/host", "ro")
        else:
            assert source in compose()["volumes"]


def test_every_volume_is_used_and_has_a_name() -> None:
    used = {source for service in SERVICES.values() for source, _, _ in mounts(service)}
    assert {source for source in used if not source.startswith((".", "/"))} == set(
        compose()["volumes"]
    )


def test_nobody_is_given_docker() -> None:
    assert "docker.sock" not in (ROOT / "docker-compose.yml").read_text("utf-8")


def test_a_configuration_is_a_file_that_is_mounted() -> None:
    """Whatever a command or a variable names below a mount of this repository is there."""
    for demo in ("", "1"):
        for name, service in services(STACK_DEMO=demo).items():
            words = [*service.get("command", ()), *service.get("entrypoint", ())]
            words += [str(value) for value in service.get("environment", {}).values()]
            folders = {t: s for s, t, _ in mounts(service) if s.startswith(".")}
            for word in words:
                path = word.split("=", 1)[-1]
                for target, source in folders.items():
                    if path.startswith(f"{target}/"):
                        assert (ROOT / source / path.removeprefix(f"{target}/")).exists(), (
                            name,
                            path,
                        )


def test_the_demonstration_changes_the_clock_and_nothing_else() -> None:
    usual, demo = services(), services(STACK_DEMO="1")
    changed = {name for name in usual if usual[name] != demo[name]}
    assert changed == {"prometheus", "alertmanager", "loki"}
    assert "--config.file=/etc/prometheus-demo/prometheus.yml" in demo["prometheus"]["command"]
    configured = demo["alertmanager"]["environment"]["ALERTMANAGER_CONFIG"]
    assert configured == "/etc/alertmanager-demo/alertmanager.yml"


@pytest.mark.parametrize("demo", ["", "1"])
def test_the_scripted_customer_is_let_in(demo: str) -> None:
    """Each journey registers and logs in, from one address; test_stack_up.py has `make up DEMO=1`."""
    started = services(STACK_DEMO=demo)
    a_minute = 60 / int(started["synthetic"]["environment"]["SYNTHETIC_INTERVAL_SECONDS"])
    for limit in ("RATE_LIMIT_LOGIN", "RATE_LIMIT_REGISTRATION"):
        allowed, _, per = started["app"]["environment"][limit].partition("/")
        assert per == "minute"
        assert int(allowed) >= 2 * a_minute


def configuration(name: str) -> list[str]:
    """Return the texts of the tool's own files that are mounted into a service."""
    if SERVICES[name]["image"] in OURS:
        return []
    return [
        file.read_text("utf-8")
        for source, _, _ in mounts(SERVICES[name])
        if source.startswith("./")
        for file in ([ROOT / source] if (ROOT / source).is_file() else (ROOT / source).rglob("*"))
        if file.suffix in {".yml", ".ini", ".sh", ".py"}
    ]


def test_the_collector_is_told_what_it_reads_and_its_own_defaults() -> None:
    text = "\n".join(configuration("otel-collector"))
    read = dict(re.findall(r"\$\{env:([A-Z_]+):-([^}]*)\}", text))
    told = {k: str(v) for k, v in SERVICES["otel-collector"]["environment"].items()}
    del told["GOMEMLIMIT"]  # the language's
    assert {"ENVIRONMENT", "TRACES_KEPT_PERCENT"} <= set(told)
    assert told == {name: read[name] for name in told}


def example() -> dict[str, dict[str, str]]:
    return audiences(dict.fromkeys((*MADE, "stack_user"), "value"))


def test_each_audience_has_a_volume_of_its_own_that_setup_fills() -> None:
    filled = {
        source.removeprefix("secrets-"): target
        for source, target, _ in mounts(SERVICES["setup"])
        if source.startswith("secrets-")
    }
    assert filled == {name: f"/volumes/secrets/{name}" for name in example()}
    kept = [name for name, service in SERVICES.items() if "secrets-setup" in str(mounts(service))]
    assert kept == ["setup"]


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "setup"])
def test_secrets_are_read_by_their_audience_alone(name: str) -> None:
    given = [
        (source, target, mode)
        for source, target, mode in mounts(SERVICES[name])
        if "secrets" in source
    ]
    audience = {
        "app": "app",
        "worker": "app",
        "migrations": "app",
        "bugsink-setup": "bugsink",
    }.get(name, name)
    expected = [(f"secrets-{audience}", "/run/secrets", "ro")] if audience in example() else []
    assert given == expected


@pytest.mark.parametrize("name", SERVICES)
def test_a_secret_that_is_named_is_one_that_its_volume_has(name: str) -> None:
    service = SERVICES[name]
    words = [str(service.get(key, "")) for key in ("command", "environment", "healthcheck")]
    words += configuration(name)
    volumes = [source for source, target, _ in mounts(service) if target == "/run/secrets"]
    for secret in re.findall(r"/run/secrets/([a-z_.]+)", " ".join(words)):
        assert secret in example()[volumes[0].removeprefix("secrets-")]


def test_volumes_for_users_without_rights_take_their_owner_from_the_image() -> None:
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text("utf-8")
    listed = re.search(r"for volume in ([^;]+);", dockerfile)
    assert listed is not None
    made = {f"/volumes/{path}" for path in listed[1].replace("\\\n", " ").split()}
    given = {target for _, target, _ in mounts(SERVICES["setup"]) if target.startswith("/volumes/")}
    assert made == given
    for source, target, _ in mounts(SERVICES["setup"]):
        if target.startswith("/volumes/data/"):
            user = target.removeprefix("/volumes/data/")
            assert SERVICES[user]["user"] == "10001:10001"
            mount = [m for m in SERVICES[user]["volumes"] if isinstance(m, dict)]
            assert [(m["source"], m["volume"]) for m in mount] == [(source, {"nocopy": True})]


@pytest.mark.parametrize("name", SETTINGS)
def test_what_ours_are_told_is_a_setting_that_they_have(name: str) -> None:
    known = {
        str(field.validation_alias or key).upper()
        for key, field in SETTINGS[name].model_fields.items()
    }
    assert set(SERVICES[name].get("environment", {})) <= known | OF_THE_IMAGE


def test_all_of_ours_are_looked_at() -> None:
    ours = {name for name, service in SERVICES.items() if service["image"] in OURS}
    assert ours - set(SETTINGS) == {"setup", "doctor"}


def test_what_setup_makes_can_be_given() -> None:
    """Those with a variable in the file; the others are made, and nobody needs to know them."""
    told = set(SERVICES["setup"]["environment"])
    assert told <= {name.upper() for name in (*MADE, "stack_user")}
    assert {"STACK_PASSWORD", "SECRET_KEY", "OPERATIONS_TOKEN", "POSTGRES_PASSWORD"} <= told


def test_the_database_is_prepared_by_a_script_that_can_be_run() -> None:
    folder = ROOT / "deploy/stack/postgres"
    scripts = list(folder.iterdir())
    assert [script.name for script in scripts] == ["roles.sh"]
    assert scripts[0].stat().st_mode & 0o111
    checked = subprocess.run(["sh", "-n", scripts[0]], check=False, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")
    read = set(re.findall(r"/run/secrets/(\w+)", scripts[0].read_text("utf-8")))
    assert read == set(example()["postgres"]) - {"postgres_password"}


def test_the_runbooks_are_where_the_page_of_notifications_looks() -> None:
    default = NotificationsSettings.model_fields["notifications_runbooks"].default
    assert isinstance(default, Path)
    assert ("./docs/runbooks", f"/app/{default}", "ro") in mounts(SERVICES["notifications"])

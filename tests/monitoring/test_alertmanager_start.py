"""start.sh: which channel leads where, by the secrets that there are; and that it tells nobody of them."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.build.alertmanager import FOLDER, load_alertmanager
from tests.monitoring.alertmanager import ROOT, answers, run_amtool
from tests.tools import free_port, require_tool, wait_until

SECRETS = {
    "slack_api_url": "https://hooks.slack.com/services/T00/B00/verysecretslack",
    "pagerduty_routing_key": "verysecretfirstlinekey0123456789",
    "pagerduty_escalation_key": "verysecretsecondlinekey012345678",
    "smtp_smarthost": "smtp.example.org:587",
    "email_domain": "alerts.example.org",
    "smtp_username": "alertmanager@example.org",
    "smtp_password": "verysecretpassword",
    "watchdog_url": "https://watch.example.org/ping/verysecretping",
}
DEMO_FILE = FOLDER.parent / "demo/alertmanager/alertmanager.yml"
SHELLS = ["dash", "busybox"]


class Start:
    """One run of start.sh, with a stand-in for Alertmanager that says how it was called."""

    def __init__(self, directory: Path, shell: str = "dash") -> None:
        self.secrets = directory / "secrets"
        self.secrets.mkdir()
        self.storage = directory / "storage"
        program = require_tool(shell)
        self.shell = [str(program), "sh"] if shell == "busybox" else [str(program)]
        self.binary = directory / "alertmanager"
        self.binary.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        self.binary.chmod(0o755)
        self.variables: dict[str, str] = {}

    def give(self, *names: str, **values: str) -> "Start":
        for name, value in ({name: SECRETS[name] for name in names} | values).items():
            (self.secrets / name).write_text(value + "\n" if value else "")
        return self

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it; nothing that it prints, or its command line, may hold a secret."""
        environment = {
            "PATH": os.environ["PATH"],
            "ALERTMANAGER_SECRETS": str(self.secrets),
            "ALERTMANAGER_STORAGE": str(self.storage),
            "ALERTMANAGER_BINARY": str(self.binary),
        }
        command = [*self.shell, str(FOLDER / "start.sh"), *arguments]
        done = subprocess.run(
            command, env=environment | self.variables, capture_output=True, text=True, check=False
        )
        assert "verysecret" not in done.stdout + done.stderr
        return done

    def config(self) -> dict[str, Any]:
        """Run it in order; return the configuration that Alertmanager is started with."""
        done = self.run()
        assert done.returncode == 0, done.stderr
        file = self.storage / "alertmanager.yml"
        assert f"--config.file={file}\n" in done.stdout
        assert "verysecret" not in file.read_text()
        assert file.stat().st_mode & 0o077 == 0
        loaded: dict[str, Any] = yaml.safe_load(file.read_text())
        return loaded

    def check(self) -> None:
        """Let amtool read the configuration."""
        run_amtool(require_tool("amtool"), "check-config", str(self.storage / "alertmanager.yml"))


def receiver(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in config["receivers"] if one["name"] == name)


@pytest.mark.parametrize("shell", SHELLS)
def test_without_secrets_nothing_leaves_the_machine(tmp_path: Path, shell: str) -> None:
    start = Start(tmp_path, shell)
    config = start.config()
    start.check()
    committed = load_alertmanager()
    assert config["templates"] == [str(FOLDER / "templates/*.tmpl")]
    slack = config["global"].pop("slack_api_url_file")
    assert Path(slack).read_text() == "http://notifications:8003/slack\n"
    del committed["global"]["slack_api_url_file"]
    assert config["global"] == committed["global"]
    for name in ("critical", "escalation-critical"):
        key = receiver(config, name)["pagerduty_configs"][0]["routing_key_file"]
        assert len(Path(key).read_text().strip()) == 32
    said = start.run().stderr
    assert said == (
        "Alertmanager starts: Slack local, PagerDuty local, e-mail local, watchdog local.\n"
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_with_all_secrets_each_channel_is_the_real_one(tmp_path: Path, shell: str) -> None:
    start = Start(tmp_path, shell).give(*SECRETS)
    config = start.config()
    settings = config["global"]
    assert settings["slack_api_url_file"] == str(start.secrets / "slack_api_url")
    assert "pagerduty_url" not in settings
    for name, key in (
        ("critical", "pagerduty_routing_key"),
        ("escalation-critical", "pagerduty_escalation_key"),
    ):
        (pagerduty,) = receiver(config, name)["pagerduty_configs"]
        assert pagerduty["routing_key_file"] == str(start.secrets / key)
    assert settings["smtp_smarthost"] == "smtp.example.org:587"
    assert settings["smtp_require_tls"] is True
    assert settings["smtp_auth_username"] == "alertmanager@example.org"
    assert settings["smtp_auth_password_file"] == str(start.secrets / "smtp_password")
    assert settings["smtp_from"] == "alertmanager@alerts.example.org"
    assert "glasshouse.example" not in yaml.safe_dump(config)
    outside, page = receiver(config, "watchdog")["webhook_configs"]
    assert outside["url_file"] == str(start.secrets / "watchdog_url")
    for one in config["receivers"]:
        if one["name"] != "null":
            assert one["webhook_configs"][-1] == page
            assert page["url"] == "http://notifications:8003/alertmanager"
    assert "real, PagerDuty real, e-mail real, watchdog real" in start.run().stderr


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["slack_api_url"], "Slack real, PagerDuty local, e-mail local, watchdog local"),
        (
            ["pagerduty_routing_key", "pagerduty_escalation_key"],
            "Slack local, PagerDuty real, e-mail local, watchdog local",
        ),
        (
            ["smtp_smarthost", "email_domain"],
            "Slack local, PagerDuty local, e-mail real, watchdog local",
        ),
        (["watchdog_url"], "Slack local, PagerDuty local, e-mail local, watchdog real"),
    ],
    ids=["slack", "pagerduty", "e-mail", "watchdog"],
)
def test_one_channel_alone_can_be_real(tmp_path: Path, names: list[str], told: str) -> None:
    start = Start(tmp_path).give(*names)
    config = start.config()
    assert told in start.run().stderr
    settings, local = config["global"], load_alertmanager()["global"]
    assert settings["smtp_from"].endswith("@alerts.example.org") == ("email_domain" in names)
    assert (settings["smtp_smarthost"] == local["smtp_smarthost"]) == ("email_domain" not in names)
    assert ("pagerduty_url" in settings) == ("pagerduty_routing_key" not in names)
    assert ("/secrets/" in settings["slack_api_url_file"]) == ("slack_api_url" in names)
    assert "smtp_auth_username" not in settings
    if "watchdog_url" not in names:  # 0.25 does not know url_file
        start.check()


def test_an_empty_file_is_no_secret(tmp_path: Path) -> None:
    # As compose mounts it where /dev/null stands for a secret that is not set.
    start = Start(tmp_path).give(**dict.fromkeys(SECRETS, ""))
    assert start.config()["global"]["pagerduty_url"].startswith("http://notifications:8003/")
    assert "Slack local, PagerDuty local, e-mail local, watchdog local" in start.run().stderr


def test_the_demonstration_starts_in_the_same_way(tmp_path: Path) -> None:
    # Written by a program, without comments, anchors and line breaks of ours.
    start = Start(tmp_path).give(*SECRETS)
    start.variables["ALERTMANAGER_CONFIG"] = str(DEMO_FILE)
    config = start.config()
    outside, _ = receiver(config, "watchdog")["webhook_configs"]
    assert outside["url_file"] == str(start.secrets / "watchdog_url")
    assert config["global"]["smtp_smarthost"] == "smtp.example.org:587"
    assert config["route"]["group_wait"] == "5s"
    assert "glasshouse.example" not in yaml.safe_dump(config)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"pagerduty_routing_key": "x"}, "pagerduty_escalation_key is missing"),
        ({"pagerduty_escalation_key": "x"}, "pagerduty_routing_key is missing"),
        ({"smtp_smarthost": "a:25"}, "email_domain is missing"),
        (
            {"smtp_smarthost": "a:25", "email_domain": "b.c", "smtp_username": "u"},
            "smtp_password is missing",
        ),
        ({"smtp_smarthost": "a:25'\nx: y", "email_domain": "b.c"}, "smtp_smarthost has characters"),
        (
            {"smtp_smarthost": "a:25", "email_domain": "verysecret|e id"},
            "email_domain has characters",
        ),
    ],
)
def test_half_a_channel_is_refused(tmp_path: Path, given: dict[str, str], complaint: str) -> None:
    done = Start(tmp_path).give(**given).run()
    assert done.returncode == 1
    assert done.stdout == ""
    assert complaint in done.stderr
    assert done.stderr.startswith("Alertmanager does not start. ")


def test_a_configuration_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.yml"
    other.write_text("route: {receiver: x}\nreceivers: [{name: x}]\n")
    start = Start(tmp_path).give("slack_api_url")
    start.variables["ALERTMANAGER_CONFIG"] = str(other)
    done = start.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing to change for Slack" in done.stderr


def test_arguments_are_handed_on(tmp_path: Path) -> None:
    done = Start(tmp_path).run("--log.level=debug")
    assert done.stdout.endswith("--log.level=debug\n")


def test_the_real_program_starts_with_it(tmp_path: Path) -> None:
    start = Start(tmp_path)
    start.binary = require_tool("prometheus-alertmanager")
    port = free_port()
    environment = os.environ | {
        "ALERTMANAGER_SECRETS": str(start.secrets),
        "ALERTMANAGER_STORAGE": str(start.storage),
        "ALERTMANAGER_BINARY": str(start.binary),
    }
    command = [str(FOLDER / "start.sh"), f"--web.listen-address=127.0.0.1:{port}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
    try:
        wait_until(
            lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}/-/ready"),
            "it is ready",
        )
        assert process.poll() is None, (tmp_path / "log").read_text()
    finally:
        process.terminate()
        process.wait(10)

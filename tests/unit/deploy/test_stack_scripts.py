"""The other scripts of deploy/stack: nothing is lost without a yes, and what runs is what is asked."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.compose_file import ROOT
from tests.tools import require_tool
from tests.unit.deploy.stack_machine import Machine, refusal, shells


@pytest.fixture(params=shells())
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, request.param)


def removed(machine: Machine) -> list[str]:
    return [call for call in machine.calls if "down --volumes" in call]


def test_where_the_stack_never_ran_cleaning_asks_nothing(machine: Machine) -> None:
    done = machine.run("clean")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (machine.programs / "docker").unlink()
    assert machine.run("clean").returncode == 0


@pytest.mark.parametrize("answer", ["\x04", "\n", "n\n", "maybe\n"])
def test_nothing_is_removed_without_a_yes(machine: Machine, answer: str) -> None:
    machine.answer("volume-ls", "glasshouse_postgres-data\n")
    done = machine.run("clean", answer=answer)
    assert "nothing was removed" in refusal(done)
    assert "orders, payments and customers" in done.stderr
    assert not removed(machine)


def test_a_yes_removes_containers_and_volumes(machine: Machine) -> None:
    machine.answer("volume-ls", "glasshouse_postgres-data\n")
    assert machine.run("clean", answer="y\n").returncode == 0
    assert len(removed(machine)) == 1


def test_where_nobody_can_be_asked_nothing_is_removed(machine: Machine) -> None:
    machine.answer("ps", "0123456789ab\n")
    assert "FORCE=1" in refusal(machine.run("clean"))
    assert not removed(machine)
    assert machine.run("clean", FORCE="1").returncode == 0
    assert len(removed(machine)) == 1


def test_down_keeps_what_was_kept(machine: Machine) -> None:
    done = machine.run("run", "down")
    assert done.returncode == 0
    assert machine.called("compose --profile * down --remove-orphans")
    assert not removed(machine)


def test_logs_are_of_all_or_of_one(machine: Machine) -> None:
    machine.run("run", "logs")
    machine.run("run", "logs", SERVICE="app", TAIL="5")
    asked = [call.partition(" |")[0] for call in machine.called("compose logs")]
    assert asked == ["compose logs --follow --tail 100", "compose logs --follow --tail 5 app"]


@pytest.mark.parametrize("command", ["doctor", "e2e"])
def test_what_asks_the_stack_says_when_it_does_not_run(machine: Machine, command: str) -> None:
    assert refusal(machine.run("run", command)) == "glasshouse: the stack does not run: make up"


def test_the_doctor_is_called_as_the_stack_runs(machine: Machine) -> None:
    machine.answer("compose-ps", "0123456789ab\n")
    machine.answer("inspect-env", "PATH=/bin\nSTACK_TLS=1\n\n")
    assert machine.run("run", "doctor").returncode == 0
    (called,) = machine.called("compose run --rm --no-deps doctor")
    assert "tls=1" in called


@pytest.mark.parametrize(("tls", "scheme"), [("", "http"), ("1", "https")])
def test_e2e_is_told_where_everything_is(machine: Machine, tls: str, scheme: str) -> None:
    machine.answer("compose-ps", "0123456789ab\n")
    machine.answer("inspect-env", f"PATH=/bin\nSTACK_TLS={tls}\n\n")
    machine.env.write_text("STACK_PASSWORD=word\n")
    python = machine.checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$*"\nexport -p\n')
    python.chmod(0o755)
    told = machine.run("run", "e2e").stdout
    assert told.startswith("-m pytest tests/e2e ")
    variables = dict(re.findall(r"^export (\w+)='?([^'\n]*)'?$", told, re.MULTILINE))
    assert (variables["STACK_USER"], variables["STACK_PASSWORD"]) == ("admin", "word")
    for tool in ("GRAFANA", "PROMETHEUS", "ALERTMANAGER", "JAEGER", "MAILPIT", "BUGSINK"):
        port = machine.ports[f"{tool}_PORT"]
        assert variables[f"{tool}_URL"] == f"{scheme}://localhost:{port}"
    assert variables["APP_URL"] == f"http://localhost:{machine.ports['APP_PORT']}"
    assert "LOKI_URL" not in variables
    trusted = str(machine.checkout / "var/tls/root.crt") if tls else None
    assert variables.get("SSL_CERT_FILE") == trusted


def test_urls_without_a_stack_say_how_to_get_one(machine: Machine) -> None:
    machine.answer("compose-ps", code=1)
    machine.answer("compose-run", code=1)
    done = machine.run("urls")
    assert done.returncode == 0
    assert "There is no password yet: make up" in done.stdout


@pytest.mark.parametrize(
    ("told", "scheme"),
    [
        ("PATH=/bin\nSTACK_TLS=1\n\n", "https"),
        ("PATH=/bin\nSTACK_TLS=\n\n", "http"),
        ("Error response from daemon: container 0123456789ab is not running\n", "http"),
    ],
)
def test_tls_is_what_the_gateway_was_started_with_and_no_complaint(
    machine: Machine, told: str, scheme: str
) -> None:
    machine.answer("compose-ps", "0123456789ab\n")
    machine.answer("compose-exec", told)  # what Docker complains of came on its standard output
    machine.answer("inspect-env", told)
    assert f" {scheme}://localhost:{machine.ports['GRAFANA_PORT']}/" in machine.run("urls").stdout


def test_urls_of_what_runs_are_where_it_runs(machine: Machine) -> None:
    machine.env.write_text("STACK_PASSWORD=mine\n")
    machine.answer("compose-ps", "0123456789ab\n")
    machine.answer("inspect-ports", "3000/tcp 3001\n443/udp 443\n8000/tcp 8888\n\n")
    told = machine.run("urls").stdout
    assert "http://localhost:3001/ " in told
    assert "http://localhost:8888/docs " in told
    assert f"http://localhost:{machine.ports['JAEGER_PORT']}/ " in told


def test_e2e_goes_where_it_runs(machine: Machine) -> None:
    machine.env.write_text("STACK_PASSWORD=mine\n")
    machine.answer("compose-ps", "0123456789ab\n")
    machine.answer("inspect-env", "STACK_TLS=\n")
    machine.answer("inspect-ports", "3000/tcp 3001\n8000/tcp 8888\n")
    python = machine.checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$GRAFANA_URL $APP_URL"\n')
    python.chmod(0o755)
    assert machine.run("run", "e2e").stdout == "http://localhost:3001 http://localhost:8888\n"


def test_a_word_that_is_no_command_is_refused(machine: Machine) -> None:
    assert "usage" in refusal(machine.run("run", "explode"))


@pytest.mark.parametrize(
    "script",
    [*(ROOT / "deploy/stack").rglob("*.sh"), ROOT / "monitoring/gateway/start.sh"],
    ids=lambda path: path.name,
)
def test_the_shells_of_small_machines_can_read_it(script: Path) -> None:
    for shell in ([require_tool("dash")], [require_tool("busybox"), "sh"]):
        read = subprocess.run([*shell, "-n", script], check=False, capture_output=True, text=True)
        assert (read.returncode, read.stderr) == (0, "")

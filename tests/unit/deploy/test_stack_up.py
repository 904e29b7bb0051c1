"""deploy/stack/up.sh: it looks before it starts, makes .env once, and says what to do about everything."""

import re
import stat
from pathlib import Path

import pytest

from tests.unit.deploy.stack_machine import Machine, refusal, shells


@pytest.fixture(params=shells())
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, request.param)


def test_everything_is_built_started_and_waited_for(machine: Machine) -> None:
    done = machine.run("up")
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.called("compose build")
    (started,) = machine.called("compose up")
    for option in ("--detach", "--wait", "--wait-timeout 420", "--remove-orphans"):
        assert option in started
    assert re.search(r"version=\d+\.\d+\.\d+ commit=\w+", started)
    for name in ("Grafana", "Prometheus", "Jaeger", "Mailpit", "Bugsink", "API"):
        assert re.search(rf"^  {name} +http://localhost:\d+/", done.stdout, re.MULTILINE)


def test_the_first_run_makes_a_login_that_others_cannot_read(machine: Machine) -> None:
    done = machine.run("up")
    assert stat.S_IMODE(machine.env.stat().st_mode) == 0o600
    password = re.search(
        r"^STACK_PASSWORD=([A-Za-z0-9]{24})$", machine.env.read_text(), re.MULTILINE
    )
    assert password is not None
    assert f"Password of all of them: {password[1]}" in done.stdout
    assert re.search(r"^OPERATIONS_TOKEN=[A-Za-z0-9]{40}$", machine.env.read_text(), re.MULTILINE)


def test_no_line_that_is_there_is_changed(machine: Machine) -> None:
    earlier = ["STACK_PASSWORD=mine", *(f"{name}={port}" for name, port in machine.ports.items())]
    machine.env.write_text("\n".join(earlier))  # no last line break
    machine.env.chmod(0o600)
    done = machine.run("up")
    lines = machine.env.read_text().splitlines()
    assert lines[: len(earlier)] == earlier
    assert [line.partition("=")[0] for line in lines[len(earlier) :]] == ["OPERATIONS_TOKEN"]
    assert "Password of all of them: mine" in done.stdout
    before = machine.env.read_bytes()
    machine.run("up")
    assert machine.env.read_bytes() == before


def test_the_login_of_a_stack_that_compose_started_alone_stays(machine: Machine) -> None:
    machine.answer("volume-inspect", "[]")
    machine.answer("compose-run", "admin\nmade-by-setup\n")
    done = machine.run("up")
    assert "STACK_PASSWORD=made-by-setup\n" in machine.env.read_text()
    assert "made-by-setup" in done.stdout


def test_an_env_that_others_can_read_is_said(machine: Machine) -> None:
    machine.env.write_text("STACK_PASSWORD=mine\n")
    machine.env.chmod(0o644)
    assert "chmod 600 .env" in machine.run("up").stderr


def test_an_env_that_could_be_committed_is_refused(machine: Machine) -> None:
    (machine.checkout / ".git").mkdir()
    (machine.programs / "git").write_text('#!/bin/sh\n[ "$1" != check-ignore ]\n')
    (machine.programs / "git").chmod(0o755)
    assert ".gitignore" in refusal(machine.run("up"))
    assert not machine.env.exists()


@pytest.mark.parametrize("value", ["1", "yes", "true"])
def test_tls_is_switched_on_and_its_certificate_told(machine: Machine, value: str) -> None:
    certificate = machine.checkout / "var/tls/root.crt"  # what `docker compose cp` would leave
    certificate.parent.mkdir(parents=True)
    certificate.touch(0o600)
    done = machine.run("up", TLS=value)
    assert stat.S_IMODE(certificate.stat().st_mode) == 0o644  # it is no secret: browsers read it
    assert "tls=1 demo= " in machine.called("compose up")[0]
    assert machine.called("compose cp gateway:/data/caddy/pki/authorities/local/root.crt")
    assert "var/tls/root.crt" in done.stdout
    assert "https://localhost:" in done.stdout


@pytest.mark.parametrize("value", ["", "0", "no"])
def test_what_is_off_is_off_even_if_env_has_it_on(machine: Machine, value: str) -> None:
    machine.env.write_text("STACK_PASSWORD=mine\n" + ("STACK_TLS=1\n" if value else ""))
    machine.run("up", TLS=value)
    assert "tls= demo= " in machine.called("compose up")[0]


def test_a_switch_that_is_neither_is_refused(machine: Machine) -> None:
    assert "TLS=maybe" in refusal(machine.run("up", TLS="maybe"))
    assert not machine.called("compose up")


def test_the_demonstration_is_quicker_in_all_that_counts(machine: Machine) -> None:
    done = machine.run("up", DEMO="1")
    assert "tls= demo=1 interval=2 " in machine.called("compose up")[0]
    assert "demonstration" in done.stdout


def test_the_demonstration_lets_its_scripted_customer_in(machine: Machine) -> None:
    """Each journey registers and logs in, from one address."""
    machine.run("up", DEMO="1")
    called = machine.called("compose up")[0]
    seconds = re.search(r" interval=(\d+) ", called)
    limits = re.findall(r"(?:login|registration)=(\d+)/minute", called)
    assert seconds is not None
    assert len(limits) == 2
    # Twice as many: who tries it by hand comes from there, too.
    assert all(int(limit) >= 2 * 60 / int(seconds[1]) for limit in limits)


def test_a_limit_that_is_set_stays_also_in_the_demonstration(machine: Machine) -> None:
    machine.env.write_text("STACK_PASSWORD=mine\nRATE_LIMIT_REGISTRATION=7/minute\n")
    machine.run("up", DEMO="1", RATE_LIMIT_LOGIN="8/minute", SYNTHETIC_INTERVAL_SECONDS="30")
    called = machine.called("compose up")[0]
    assert called.endswith(" login=8/minute registration=7/minute")
    assert " interval=30 " in called


def test_without_the_demonstration_limits_are_those_of_the_file(machine: Machine) -> None:
    machine.run("up")
    assert machine.called("compose up")[0].endswith(" login= registration=")


def test_the_demonstration_on_earlier_data_says_what_that_does(machine: Machine) -> None:
    assert "make clean" not in machine.run("up", DEMO="1").stdout
    machine.answer("volume-inspect", "[]")
    assert "make clean starts afresh" in machine.run("up", DEMO="1").stdout
    assert "make clean" not in machine.run("up").stdout


def test_a_machine_without_docker_is_told_so(machine: Machine) -> None:
    (machine.programs / "docker").unlink()
    assert "Docker is not installed" in refusal(machine.run("up"))


def test_a_docker_that_does_not_run_is_told_from_one_that_may_not_be_used(machine: Machine) -> None:
    machine.answer("info", err="Cannot connect to the Docker daemon at unix:///x\n", code=1)
    assert "start it" in refusal(machine.run("up"))
    machine.answer("info", err="permission denied while trying to connect\n", code=1)
    assert "group docker" in refusal(machine.run("up"))
    assert not machine.env.exists()


def test_a_missing_compose_is_told_so(machine: Machine) -> None:
    machine.answer("compose-version", err="docker: 'compose' is not a docker command.\n", code=1)
    assert "docker-compose-plugin" in refusal(machine.run("up"))


@pytest.mark.parametrize("version", ["1.29.2", "2.23.3", "v2.5.0"])
def test_a_compose_that_is_too_old_is_refused(machine: Machine, version: str) -> None:
    machine.answer("compose-version", f"{version}\n")
    assert "too old, 2.24" in refusal(machine.run("up"))


@pytest.mark.parametrize("version", ["2.24.0", "v2.40.3-3", "5.7.0", "10.0.0"])
def test_a_compose_that_will_do_is_taken(machine: Machine, version: str) -> None:
    machine.answer("compose-version", f"{version}\n")
    assert machine.run("up").returncode == 0


@pytest.mark.parametrize("version", ["20.10.24+dfsg1", "26.1.5", "28.1.1"])
def test_a_docker_that_is_too_old_for_its_log_driver_is_refused(
    machine: Machine, version: str
) -> None:
    machine.answer("info", f"{16 * 1024**3} {version}\n")
    assert "too old, 28.2" in refusal(machine.run("up"))
    assert not machine.env.exists()


@pytest.mark.parametrize("version", ["28.2.0", "28.5.2", "29.0.1-rd", "30.0.0"])
def test_a_docker_that_will_do_is_taken(machine: Machine, version: str) -> None:
    machine.answer("info", f"{16 * 1024**3} {version}\n")
    assert machine.run("up").returncode == 0


def test_too_little_memory_is_refused_and_can_be_insisted_on(machine: Machine) -> None:
    machine.answer("info", f"{2 * 1024**3} 28.2.0\n")
    said = refusal(machine.run("up"))
    assert "2048 MB" in said
    assert "FORCE=1" in said
    assert machine.run("up", FORCE="1").returncode == 0


def test_memory_that_is_enough_but_not_for_all_limits_is_a_warning(machine: Machine) -> None:
    machine.answer("info", f"{6 * 1024**3} 28.2.0\n")
    done = machine.run("up")
    assert done.returncode == 0
    assert "6144 MB of memory" in done.stderr

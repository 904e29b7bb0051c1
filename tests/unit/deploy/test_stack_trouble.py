"""deploy/stack/up.sh, when something is not well: it is named, shown and told from what only waits."""

import re
from pathlib import Path

import pytest

from tests.unit.deploy.stack_machine import Machine, refusal, shells


@pytest.fixture(params=shells())
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, request.param)


def test_a_build_that_fails_shows_what_docker_said(machine: Machine) -> None:
    machine.answer("compose-build", err="no space left on device\n", code=1)
    done = machine.run("up")
    assert "no space left on device" in done.stderr
    assert "cannot be built" in refusal(done)


def test_whatever_is_not_well_is_named_with_its_last_lines_and_a_remedy(machine: Machine) -> None:
    machine.answer("compose-up", err="container glasshouse-loki-1 is unhealthy\n", code=1)
    machine.answer(
        "compose-ps",
        "app running 0 healthy\nloki running 0 unhealthy\nmigrations exited 1 \nsetup exited 0 \n"
        "otel-collector running 0 \ncustomers created 0 \n",
    )
    machine.answer("compose-logs", "the last line of it\n")
    done = machine.run("up")
    assert "the services above are not well" in refusal(done)
    assert re.findall(
        r"^([a-z-]+): (.+)$", done.stderr.replace("glasshouse: ", ""), re.MULTILINE
    ) == [
        ("loki", "running, unhealthy"),
        ("migrations", "exited, exit code 1"),
    ]
    assert done.stderr.count("    the last line of it") == 2
    assert "mem_limit" in done.stderr
    assert "make logs SERVICE=postgres" in done.stderr


def test_what_was_ended_for_want_of_memory_is_said(machine: Machine) -> None:
    machine.answer("compose-up", err="dependency failed\n", code=1)
    machine.answer("compose-ps", "jaeger exited 137 \n")
    machine.answer("inspect", "true\n")
    assert "raise its mem_limit" in machine.run("up").stderr


def test_a_failure_of_compose_itself_is_said_as_it_says_it(machine: Machine) -> None:
    machine.answer("compose-up", err="network glasshouse_edge: no free range\n", code=1)
    machine.answer("compose-ps", "app running 0 healthy\n")
    assert refusal(machine.run("up")).endswith("says: network glasshouse_edge: no free range")


def test_an_image_that_cannot_be_fetched_is_told_from_that(machine: Machine) -> None:
    machine.answer("compose-up", err="lookup registry-1.docker.io: no such host\n", code=1)
    assert "cannot be fetched, so look at the network" in refusal(machine.run("up"))


def test_what_compose_said_is_shown_also_when_a_service_is_ill(machine: Machine) -> None:
    machine.answer("compose-up", err="first line\n\ndependency failed to start: app\n", code=1)
    machine.answer("compose-ps", "app exited 1 \n")
    said = machine.run("up").stderr
    assert "Docker Compose says:\n    first line\n    dependency failed to start: app\n" in said
    assert said.index("dependency failed") < said.index("\napp: exited")


def test_what_still_starts_is_not_accused_while_there_is_time(machine: Machine) -> None:
    machine.answer("compose-up", err="port is already allocated\n", code=1)
    machine.answer("compose-ps", "grafana running 0 starting\n")
    done = machine.run("up")
    assert "grafana" not in done.stderr
    assert refusal(done).endswith("says: port is already allocated")
    done = machine.run("up", STACK_WAIT_SECONDS="0")
    assert "\ngrafana: running, starting\n" in done.stderr
    assert "are not well" in refusal(done)


def test_lines_of_earlier_runs_are_not_shown(machine: Machine) -> None:
    machine.answer("compose-up", err="dependency failed\n", code=1)
    machine.answer("compose-ps", "app exited 1 \n")
    machine.run("up")
    (asked,) = machine.called("compose logs")
    assert re.search(r" --since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ --tail 12 app ", asked)


@pytest.mark.parametrize(
    "line",
    [
        'could not translate host name "postgres" to address: Name or service not known',
        "dial tcp: lookup loki on 127.0.0.11:53: no such host",
        "Temporary failure in name resolution",
    ],
)
def test_names_that_are_not_found_lead_to_the_networks(machine: Machine, line: str) -> None:
    machine.answer("compose-up", err="dependency failed\n", code=1)
    machine.answer("compose-ps", "migrations exited 1 \n")
    assert "make down && make up" not in machine.run("up").stderr
    machine.answer("compose-logs", f"{line}\n")
    assert "make down && make up" in machine.run("up").stderr


def test_networks_that_compose_cannot_make_have_their_remedy(machine: Machine) -> None:
    machine.answer("compose-up", err="network glasshouse_backend not found\n", code=1)
    assert "make down && make up" in machine.run("up").stderr


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("restarting 4\n", "restarting 4\n"),
        ("running 4\n", "restarting 4\n"),
        ("restarting 4\n", "running 5\n"),
        ("running 4\n", "running 5\n"),
        ("exited 0\n", "exited 0\n"),
    ],
)
def test_a_collector_that_does_not_stay_up_is_no_success(
    machine: Machine, first: str, then: str
) -> None:
    machine.answer("inspect-restarts", first)
    (machine.answers / "inspect-restarts.next").write_text(then)
    machine.answer("compose-logs", "invalid configuration: no receiver\n")
    done = machine.run("up")
    assert "the collector does not stay up" in refusal(done)
    state, times = then.split()
    assert f"otel-collector: {state}, restarted {times} times" in done.stderr
    assert "    invalid configuration: no receiver\n" in done.stderr
    assert "configuration is refused" in done.stderr
    assert "Password" not in done.stdout


def test_a_collector_that_is_not_there_is_no_success(machine: Machine) -> None:
    machine.answer("inspect-restarts", code=1)
    assert "the collector does not stay up" in refusal(machine.run("up"))


def test_a_collector_that_once_was_started_again_is_well(machine: Machine) -> None:
    machine.answer("inspect-restarts", "running 3\n")
    assert machine.run("up").returncode == 0

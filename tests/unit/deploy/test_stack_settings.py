"""deploy/stack/up.sh, what it is told: ports, network and user are looked at before anything starts."""

import re
import socket
import stat
from pathlib import Path

import pytest

from tests.tools import free_port
from tests.unit.deploy.stack_machine import Machine, refusal, shells


@pytest.fixture(params=shells())
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, request.param)


def listen(port: str) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", int(port)))
    listener.listen()
    return listener


def test_a_port_that_is_taken_is_named_with_the_variable_that_moves_it(machine: Machine) -> None:
    with listen(machine.ports["PROMETHEUS_PORT"]):
        said = refusal(machine.run("up"))
    assert f"port {machine.ports['PROMETHEUS_PORT']}, which Prometheus wants" in said
    assert re.search(r"make up PROMETHEUS_PORT=\d+$", said)
    assert not machine.called("compose up")
    assert not machine.env.exists()


def test_who_has_the_port_is_said_where_it_can_be_seen(machine: Machine) -> None:
    port = machine.ports["GRAFANA_PORT"]
    (machine.programs / "lsof").write_text(
        f'#!/bin/sh\n[ "$2" = -iTCP:{port} ] || exit 1\necho COMMAND PID USER\necho node 4711 eve\n'
    )
    (machine.programs / "lsof").chmod(0o755)
    with listen(port):
        assert "is taken by node (process 4711)" in refusal(machine.run("up"))


def test_the_ports_of_the_running_stack_are_its_own(machine: Machine) -> None:
    machine.answer("compose-ps", f"{machine.ports['PROMETHEUS_PORT']} 0 \n")
    with listen(machine.ports["PROMETHEUS_PORT"]):
        assert machine.run("up").returncode == 0


def test_a_port_that_is_none_is_refused(machine: Machine) -> None:
    assert "JAEGER_PORT=http is not a port" in refusal(machine.run("up", JAEGER_PORT="http"))


@pytest.mark.parametrize("port", ["0", "65536", "99999", "18446744073709551617", "03000", "-1"])
def test_a_port_out_of_range_is_not_called_taken(machine: Machine, port: str) -> None:
    said = refusal(machine.run("up", GRAFANA_PORT=port))
    assert said == f"glasshouse: GRAFANA_PORT={port} is not a port: a number from 1 to 65535 is."
    assert not machine.called("compose up")


def test_two_of_ours_cannot_have_the_same_port(machine: Machine) -> None:
    port = machine.ports["PROMETHEUS_PORT"]
    said = refusal(machine.run("up", GRAFANA_PORT=port))
    assert f"GRAFANA_PORT and PROMETHEUS_PORT are both {port}" in said
    assert not machine.called("compose up")


def test_the_port_that_is_suggested_is_nobodys(machine: Machine) -> None:
    """Not one that is taken as well, nor one of ours."""
    port = int(machine.ports["GRAFANA_PORT"])
    step = -10000 if port > 50000 else 10000
    with listen(str(port)):
        said = refusal(machine.run("up", JAEGER_PORT=str(port + step)))
    found = re.search(r"make up GRAFANA_PORT=(\d+)$", said)
    assert found is not None
    assert port + step < int(found[1]) <= 65535


@pytest.mark.parametrize(
    "subnet", ["300.1.1", "1.1", "1.1.1.1", "a.b.c", "1.1.256", "01.1.1", "1..1", "172.29.88.0/24"]
)
def test_a_subnet_that_is_none_is_refused_before_anything_is_touched(
    machine: Machine, subnet: str
) -> None:
    said = refusal(machine.run("up", STACK_SUBNET=subnet))
    assert f"STACK_SUBNET={subnet} is not" in said
    assert machine.calls == []


def test_a_subnet_that_is_one_is_taken(machine: Machine) -> None:
    assert machine.run("up", STACK_SUBNET="10.255.0").returncode == 0


@pytest.mark.parametrize("user", ["a b", "a:b", "{admin}", "a+b"])
def test_a_user_that_the_gateway_could_not_take_is_refused(machine: Machine, user: str) -> None:
    machine.env.write_text(f'STACK_USER="{user}"\n')
    assert f"STACK_USER={user} cannot be a user" in refusal(machine.run("up"))
    assert machine.calls == []


def test_a_port_that_is_given_is_there_the_next_time(machine: Machine) -> None:
    kept = "\n".join(f"{name}={port}" for name, port in machine.ports.items())
    machine.env.write_text(
        f"STACK_PASSWORD=a&b/c\\d\n# GRAFANA_PORT=3000\n{kept}\nOPERATIONS_TOKEN=t\n"
    )
    machine.env.chmod(0o600)
    before = machine.env.read_text()
    port = str(free_port())
    done = machine.run("up", GRAFANA_PORT=port)
    assert f"Wrote GRAFANA_PORT={port} into .env" in done.stdout
    assert done.stdout.count("Wrote ") == 1
    earlier = f"\nGRAFANA_PORT={machine.ports['GRAFANA_PORT']}\n"
    assert machine.env.read_text() == before.replace(earlier, f"\nGRAFANA_PORT={port}\n")
    assert stat.S_IMODE(machine.env.stat().st_mode) == 0o600


def test_a_port_that_env_has_not_is_added_unless_it_is_the_default(machine: Machine) -> None:
    machine.env.write_text("STACK_PASSWORD=mine\nOPERATIONS_TOKEN=t\n")
    machine.answer("compose-ps", "3000\n")  # nobody else's, whoever has it on this machine
    machine.run("up", GRAFANA_PORT="3000")
    expected = [f"{name}={port}" for name, port in machine.ports.items() if name != "GRAFANA_PORT"]
    assert sorted(machine.env.read_text().splitlines()[2:]) == sorted(expected)

"""deploy/local/environment.py and checks.py: what can be known before anything is started."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import Field
from pydantic_settings import BaseSettings

from deploy.local.checks import check_ports, check_settings, check_writable
from deploy.local.environment import (
    Ports,
    complete,
    read_ports,
    read_settings,
    viewed_signals,
)
from deploy.local.errors import CannotRun
from deploy.local.run import stages
from deploy.local.welcome import welcome
from tests.tools import free_port


class Example(BaseSettings):
    example_workers: int = 4
    example_secret: str = Field("long enough", min_length=8)


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def free_ports() -> Ports:
    return Ports(free_port(), free_port(), free_port())


def test_the_environment_overrules_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("PORT=9000\nLOG_LEVEL='DEBUG'  # a comment\nSENTRY_DSN=\n")
    monkeypatch.setenv("PORT", "9001")
    settings = read_settings(tmp_path)
    assert settings["PORT"] == "9001"
    assert settings["LOG_LEVEL"] == "DEBUG"
    assert "SENTRY_DSN" not in settings, "an empty line in the file stands for `not set`"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"NAME=\xff\xfe\n")
    with pytest.raises(CannotRun, match=r"\.env cannot be read"):
        read_settings(tmp_path)


def test_the_ports_have_defaults_and_can_be_set() -> None:
    assert read_ports({}) == Ports(8000, 8001, 8002, 4318)
    assert read_ports({"PROVIDER_PORT": "9000"}) == Ports(8000, 9000, 8002, 4318)
    assert read_ports({"VIEWER_PORT": "9000"}) == Ports(8000, 8001, 8002, 9000)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "80 80", "٣"])
def test_what_is_not_a_port_is_refused_with_its_variable(text: str) -> None:
    with pytest.raises(CannotRun, match="WORKER_METRICS_PORT must be a port"):
        read_ports({"WORKER_METRICS_PORT": text})


def test_two_processes_cannot_share_a_port() -> None:
    with pytest.raises(CannotRun, match="PORT and WORKER_METRICS_PORT are both 8002"):
        read_ports({"PORT": "8002"})


def test_the_service_is_pointed_at_the_provider_beside_it_unless_told_otherwise() -> None:
    ports = Ports(1, 2, 3)
    assert complete({}, ports)["PAYMENT_PROVIDER_URL"] == "http://127.0.0.1:2"
    elsewhere = {"PAYMENT_PROVIDER_URL": "https://payments.example"}
    assert complete(elsewhere, ports)["PAYMENT_PROVIDER_URL"] == "https://payments.example"


TRACES = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example"}
ERRORS = {"SENTRY_DSN": "https://key@errors.example/7"}


def test_traces_and_errors_are_sent_to_the_viewer() -> None:
    ports = Ports(1, 2, 3, 4)
    completed = complete({}, ports)
    assert completed["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4"
    assert completed["SENTRY_DSN"] == "http://local@127.0.0.1:4/1"
    assert completed["VIEWER_PORT"] == "4"
    assert viewed_signals(completed, ports) == ["traces", "errors"]


@pytest.mark.parametrize(("given", "viewed"), [(TRACES, "errors"), (ERRORS, "traces")])
def test_what_a_person_sends_elsewhere_is_not_sent_to_the_viewer(
    given: dict[str, str], viewed: str
) -> None:
    ports = read_ports(given)
    assert ports.viewer == 4318
    completed = complete(given, ports)
    assert given.items() <= completed.items()
    assert viewed_signals(completed, ports) == [viewed]


def test_an_empty_variable_does_not_keep_a_signal_from_the_viewer() -> None:
    given = {"SENTRY_DSN": "", **TRACES}
    assert complete(given, read_ports(given))["SENTRY_DSN"] == "http://local@127.0.0.1:4318/1"


def test_without_anything_to_show_there_is_no_viewer() -> None:
    given = TRACES | ERRORS
    ports = read_ports({**given, "VIEWER_PORT": "unused"})
    assert ports == Ports(8000, 8001, 8002)
    assert "VIEWER_PORT" not in ports.by_variable()
    completed = complete(given, ports)
    assert given.items() <= completed.items()
    assert viewed_signals(completed, ports) == []
    assert "NO_PROXY" not in completed


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "127.0.0.1"),
        ({"NO_PROXY": "intranet.example"}, "intranet.example,127.0.0.1"),
        ({"no_proxy": "first.example", "NO_PROXY": "second.example"}, "first.example,127.0.0.1"),
    ],
)
def test_the_way_to_the_viewer_leads_past_a_proxy(given: dict[str, str], expected: str) -> None:
    completed = complete({"HTTP_PROXY": "http://proxy.example", **given}, Ports(1, 2, 3, 4))
    assert completed["no_proxy"] == completed["NO_PROXY"] == expected


def test_a_proxy_that_is_never_asked_stays_so() -> None:
    assert complete({"no_proxy": "*"}, Ports(1, 2, 3, 4))["no_proxy"] == "*"


def test_the_viewer_is_started_first_and_so_stopped_last() -> None:
    def names(ports: Ports) -> list[str]:
        return [program.name for stage in stages(ports, colours=False) for program in stage]

    assert names(Ports(1, 2, 3, 4)) == ["viewer", "provider", "api", "worker"]
    assert names(Ports(1, 2, 3)) == ["provider", "api", "worker"]


@pytest.mark.parametrize(
    ("viewed", "line"),
    [
        (["traces", "errors"], "  Traces and errors   http://127.0.0.1:4\n"),
        (["errors"], "  Errors              http://127.0.0.1:4\n"),
    ],
)
def test_a_person_is_told_where_to_look(viewed: list[str], line: str) -> None:
    assert line in welcome(Ports(1, 2, 3, 4), viewed)
    assert line not in welcome(Ports(1, 2, 3), [])


def test_colours_are_asked_for_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = Ports(1, 2, 3)
    assert "FORCE_COLOR" not in complete({}, ports)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert complete({}, ports)["FORCE_COLOR"] == "1"
    assert "FORCE_COLOR" not in complete({"NO_COLOR": "1"}, ports)


def test_free_ports_are_accepted() -> None:
    check_ports(free_ports())


def test_a_busy_port_is_named_with_the_variable_that_moves_it(busy_port: int) -> None:
    with pytest.raises(
        CannotRun, match=rf"port {busy_port} \(PROVIDER_PORT\) is busy.*PROVIDER_PORT=\d+"
    ):
        check_ports(Ports(free_port(), busy_port, free_port()))


def test_the_viewer_s_port_is_checked_like_the_others(busy_port: int) -> None:
    with pytest.raises(CannotRun, match=rf"port {busy_port} \(VIEWER_PORT\) is busy"):
        check_ports(Ports(free_port(), free_port(), free_port(), busy_port))
    with pytest.raises(CannotRun, match="PORT and VIEWER_PORT are both 4318"):
        read_ports({"PORT": "4318"})


def test_a_port_taken_on_all_addresses_is_busy_too() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(CannotRun, match=rf"port {port} \(PORT\) is busy"):
            check_ports(Ports(port, free_port(), free_port()))


def test_a_port_that_is_bound_but_not_served_is_busy() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        with pytest.raises(CannotRun, match=rf"port {port} \(PORT\) is busy"):
            check_ports(Ports(port, free_port(), free_port()))


def test_a_directory_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "var")
    assert list((tmp_path / "var").iterdir()) == []


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(CannotRun, match=r"cannot write to .*var \(File exists\)"):
        check_writable(tmp_path / "var")


def test_every_bad_setting_is_named_and_no_value_is_repeated() -> None:
    before = dict(os.environ)
    with pytest.raises(CannotRun) as refused:
        check_settings({"EXAMPLE_WORKERS": "many", "EXAMPLE_SECRET": "hunter2"}, Example)
    said = str(refused.value)
    assert "EXAMPLE_WORKERS: Input should be a valid integer" in said
    assert "EXAMPLE_SECRET: String should have at least 8 characters" in said
    assert "hunter2" not in said
    assert "many" not in said
    assert dict(os.environ) == before


def test_good_settings_are_accepted() -> None:
    check_settings({"EXAMPLE_WORKERS": "2"}, Example)

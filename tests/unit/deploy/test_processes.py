"""deploy/local/processes.py and guard.py, with small programs instead of the service."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deploy.local.errors import CannotRun
from deploy.local.guard import Guard
from deploy.local.processes import House, Program, Stopped, Terminal
from tests.tools import free_port, wait_until

ROOT = Path(__file__).parents[3]
PROGRAMS = {
    "speaks": """
        import sys
        print("first line")
        sys.stdout.write("half a line")
        """,
    "fails": """
        import sys
        print("so far, so good")
        sys.exit("the disk is full")
        """,
    "dies": "raise SystemExit(7)",
    "serves": """
        import http.server, os, signal, sys

        def stop(*_):
            print("stops", flush=True)
            os._exit(0)

        signal.alarm(20)  # whatever fails, it fails soon and leaves nothing behind
        stubborn = sys.argv[2:] == ["stubborn"]
        signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else stop)

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
        """,
    "supervises": """
        import os, sys, time
        from deploy.local.guard import Guard
        from deploy.local.processes import House, Program, Terminal

        with Guard() as guard:
            house = House(os.environ, Terminal(6), guard)
            house.start([Program("serves", ("serves", sys.argv[1]), f"http://127.0.0.1:{sys.argv[1]}/")])
            print("ready", flush=True)
            time.sleep(60)
        """,
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `python -m NAME` runs one of the programs above."""
    for name, text in PROGRAMS.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    return {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "PYTHONUNBUFFERED": "1"}


def server(name: str, *options: str, stop_seconds: float = 10) -> Program:
    port = free_port()
    return Program(name, ("serves", str(port), *options), f"http://127.0.0.1:{port}/", stop_seconds)


def answers(program: Program) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", int(program.arguments[1])), 1):
        return True
    return False


@contextmanager
def open_house(environment: dict[str, str]) -> Iterator[House]:
    with Guard() as guard:
        house = House(environment, Terminal(width=6), guard)
        try:
            yield house
        finally:
            house.kill()
            house.stop([])


def test_output_comes_in_whole_lines_with_the_name_of_the_process(
    environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    with open_house(environment) as house:
        house.run_to_end(Program("talk", ("speaks",)), "unexpected")
    assert capfd.readouterr().out == "talk   | first line\ntalk   | half a line\n"


def test_a_failed_step_is_reported_with_its_last_word(environment: dict[str, str]) -> None:
    with (
        open_house(environment) as house,
        pytest.raises(CannotRun, match=r"^no migration: the disk is full$"),
    ):
        house.run_to_end(Program("fails", ("fails",)), "no migration")


def test_a_process_that_ends_before_it_is_ready_is_named_with_its_exit_code(
    environment: dict[str, str],
) -> None:
    dies = Program("dies", ("dies",), "http://127.0.0.1:9/")
    with (
        open_house(environment) as house,
        pytest.raises(CannotRun, match="dies ended with exit code 7"),
    ):
        house.start([dies])


def test_a_process_that_is_killed_later_is_named_with_the_signal(
    environment: dict[str, str],
) -> None:
    with open_house(environment) as house:
        house.start([server("api"), server("worker")])
        os.kill(house.process_ids()["worker"], signal.SIGKILL)
        with pytest.raises(CannotRun, match="worker ended by SIGKILL"):
            house.watch()


def test_a_process_that_is_never_ready_is_named(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.processes.READY_SECONDS", 0.3)
    busy = server("api")
    elsewhere = Program("api", busy.arguments, f"http://127.0.0.1:{free_port()}/")
    with (
        open_house(environment) as house,
        pytest.raises(CannotRun, match="api was not ready after"),
    ):
        house.start([elsewhere])


def test_a_request_to_stop_ends_the_watch(environment: dict[str, str]) -> None:
    with open_house(environment) as house:
        house.start([server("api")])
        house.stopping = True
        with pytest.raises(Stopped):
            house.watch()


def test_what_stands_on_others_stops_before_them(
    environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    provider, api = server("below"), server("above")
    with open_house(environment) as house:
        house.start([provider])
        house.start([api])
        house.stop([[provider], [api]])
        assert capfd.readouterr().out == "above  | stops\nbelow  | stops\n"
    assert not answers(provider)
    assert not answers(api)


def test_what_does_not_stop_in_its_time_is_killed(
    environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    stubborn = server("api", "stubborn", stop_seconds=0.3)
    with open_house(environment) as house:
        house.start([stubborn])
        house.stop([[stubborn]])
        assert capfd.readouterr().out == "api did not stop and is killed.\n"
    assert not answers(stubborn)


def test_all_of_it_stops_within_the_time_that_people_wait(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.processes.ALL_STOPPED_SECONDS", 0.3)
    provider, api = server("below", "stubborn"), server("above", "stubborn")
    with open_house(environment) as house:
        house.start([provider, api])
        begin = time.monotonic()
        house.stop([[provider], [api]])
        assert time.monotonic() - begin < 5, "each may take ten seconds, both together 0.3"


def test_nothing_is_left_behind_when_the_supervisor_itself_is_killed(
    environment: dict[str, str],
) -> None:
    program = server("orphan")
    with subprocess.Popen(
        [sys.executable, "-m", "supervises", program.arguments[1]],
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"ready\n"
        assert answers(program)
        supervisor.kill()
    wait_until(lambda: not answers(program), "the guard ends what the supervisor left", seconds=10)


def test_a_lost_terminal_counts_as_a_request_to_stop(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stdout, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", stdout)
        with open_house(environment) as house:
            house.start([server("api")])
            os.close(controller)
            with pytest.raises(Stopped):
                house.watch()

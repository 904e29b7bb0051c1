"""Servers under measurement, the receiver, and the end of all of them."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench import process
from bench.footprint import after_the_run, at_rest, image_bytes, last_test_seconds
from bench.lines import LogLines, LogReader
from bench.machine import Steal
from bench.process import NotMeasurable, ServerProcess
from bench.stalls import Stalls
from tests.service import ROOT
from tests.tools import free_port, wait_until


def children() -> set[int]:
    """Return our processes, but for the leash: the first who needs it starts it, and it stays."""
    ours = psutil.Process().children()
    return {child.pid for child in ours if "bench.leash" not in child.cmdline()}


def environment(directory: Path) -> dict[str, str]:
    return {"DATABASE_URL": f"sqlite+aiosqlite:///{directory}/bench.db", "ENVIRONMENT": "test"}


def ask(port: int, path: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=10) as answer:
        told: bytes = answer.read()
    return told


def has_ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


KILLED = """
import os, pathlib, signal, subprocess, sys, tempfile
from bench import leash
kept, gone = (pathlib.Path(tempfile.mkdtemp(dir=sys.argv[1])) for _ in range(2))
for each in (kept, gone):
    leash.hold(each)
leash.release(kept)
held, ended = (subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(2))
for each in (held, ended):
    leash.hold(each.pid)
    each.send_signal(signal.SIGSTOP)
ended.kill()
ended.wait()
leash.release(ended.pid)
print(held.pid, kept, gone, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_benchmark_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)

    assert done.returncode == -signal.SIGKILL
    held, kept, gone = done.stdout.split()
    wait_until(lambda: has_ended(int(held)), "what it has started has ended")
    wait_until(lambda: not Path(gone).exists(), "its directory is removed")
    assert Path(kept).exists()


def test_a_server_is_read_and_ended_even_while_it_is_frozen(tmp_path: Path) -> None:
    server = ServerProcess("only_logs", free_port(), environment(tmp_path))
    try:
        footprint = at_rest(server)
        for _ in range(3):
            assert ask(server.port, "/bench/ping") == b'{"status":"ok"}'
        after_the_run(footprint, server)
        used = server.cpu_seconds()
        server.freeze()
    finally:
        server.stop()
    server.stop()

    assert server.access_lines == 3 <= server.lines
    assert footprint.start_seconds > 0
    assert used > footprint.start_cpu_seconds > 0
    assert footprint.after_bytes is not None
    assert min(footprint.rest_bytes, footprint.after_bytes) > 10_000_000
    assert footprint.threads is not None
    assert footprint.threads >= 1
    with pytest.raises(OSError, match="refused"):
        ask(server.port, "/bench/ping")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_lines_are_counted_in_whatever_pieces_they_come(size: int) -> None:
    log = (
        b'{"type":"lifecycle"}\n{"status":200,"user_agent":"a"}\n{"user_agent":"b"}\n{"user_agent":'
    )
    counted = LogLines()

    for start in range(0, len(log), size):
        counted.add(log[start : start + size])

    assert (counted.lines, counted.access_lines) == (3, 2)


def test_a_log_that_somebody_holds_open_is_not_waited_for() -> None:
    reader = LogReader()
    held = os.dup(reader.take_log())
    os.write(held, b'{"user_agent":"a"}\n')
    wait_until(lambda: reader.access_lines == 1, "the line is read")

    reader.finish(0.01)

    with pytest.raises(BrokenPipeError):
        os.write(held, b"nobody reads this\n")
    os.close(held)
    assert reader.lines == 1


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    before = children()

    with pytest.raises(
        NotMeasurable, match=r"(?s)nobody did not start: exit 1.*KeyError: 'nobody'"
    ):
        ServerProcess("nobody", free_port(), environment(tmp_path))

    assert children() == before


def test_a_server_whose_start_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = children()
    monkeypatch.setattr(ServerProcess, "_wait_until_it_listens", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ServerProcess("bare", free_port(), environment(tmp_path))

    assert children() == before


def test_settings_of_whoever_measures_are_not_those_of_the_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"LOG_LEVEL", "WEB_CONCURRENCY", "OTEL_TRACES_SAMPLER_ARG", "SENTRY_RELEASE"}
    for name in settings:
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("LANG_OF_MINE", "C")

    inherited = process._inherited()

    assert "PATH" in inherited
    assert "LANG_OF_MINE" in inherited
    assert not settings & inherited.keys()


SLEEPS = """
import asyncio, time
from bench.interruption import interruptible, run

async def sleep():
    try:
        print("ready", flush=True)
        await asyncio.sleep(30)
    finally:
        await asyncio.sleep(0.2)  # a second signal comes meanwhile
        print("cleaned up", flush=True)

try:
    with interruptible():
        run(sleep()) if LOOP else (print("ready", flush=True), time.sleep(30))
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_processor_that_stands_still_is_seen() -> None:
    def is_seen() -> bool:
        # It comes back late, as on a processor that stands still.
        watcher.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        watcher.send_signal(signal.SIGCONT)
        time.sleep(0.05)
        return stalls.seconds > 0.05

    with closing(Stalls()) as stalls:
        watcher = stalls._process
        steal = Steal(stalls)
        wait_until(is_seen, "a stall is seen")
        assert steal.share() > 0
    assert watcher.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_what_runs_and_a_second_does_not_disturb_the_end(number: int) -> None:
    program = [sys.executable, "-c", SLEEPS.replace("LOOP", "True")]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        running.send_signal(number)
        assert running.stdout.read() == "cleaned up\ninterrupted\n"


def test_a_signal_ends_what_runs_without_a_loop() -> None:
    program = [sys.executable, "-c", SLEEPS.replace("LOOP", "False")]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        assert running.stdout.read() == "interrupted\n"


def test_the_receiver_counts_spans_and_served_requests_and_survives_a_reset() -> None:
    exported = ExportTraceServiceRequest()
    spans = exported.resource_spans.add()
    spans.resource.attributes.add(key="service.name").value.string_value = "bare"
    scope = spans.scope_spans.add()
    for kind in (1, 2, 2, 3):
        scope.spans.add(kind=kind)
    port = free_port()
    command = [sys.executable, "-m", "bench.sink", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as sink:
        try:
            wait_until(lambda: answers(port), "the receiver answers")
            reset(port)
            ask(port, "/v1/traces", exported.SerializeToString())
            ask(port, "/api/1/envelope/", b"{}")
            counts = json.loads(ask(port, "/counts"))
        finally:
            sink.terminate()
        assert sink.stderr is not None
        assert sink.stderr.read() == b""

    assert counts == {"bare": 4, "bare/requests": 2, "envelopes": 1}


def answers(port: int) -> bool:
    try:
        ask(port, "/counts")
    except OSError:
        return False
    return True


def reset(port: int) -> None:
    """Hang up in the middle of a request, so hard that reading fails."""

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 99\r\n\r\nhalf")


def test_how_long_all_tests_took_is_known_once_they_have_run(tmp_path: Path) -> None:
    told = tmp_path / "test-duration.json"

    assert last_test_seconds(told) is None
    told.write_text('{"seconds": 61.5, "exit": 0}')
    assert last_test_seconds(told) == 61.5
    told.write_text("[]")
    assert last_test_seconds(told) is None


def test_the_size_of_an_image_is_not_known_without_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "docker"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert image_bytes() is None
    for says, size in (("echo 12345", 12345), ("echo no such image; exit 1", None), ("echo", None)):
        docker.write_text(f"#!/bin/sh\n{says}\n")
        docker.chmod(0o755)
        assert image_bytes() == size

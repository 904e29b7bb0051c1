"""The log line: its fields, what may not be in it, and how it leaves the process."""

import asyncio
import errno
import gc
import io
import json
import logging
import os
import random
import re
import select
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from loguru import logger
from pydantic import ValidationError

from app.observability import access_line, context, logs
from app.observability.context import (
    RequestContext,
    RequestContextMiddleware,
    bind_context,
    current_context,
    use_trace_source,
)
from app.observability.logs import LogSettings, flush_logs, instrument_access_log, setup_logs
from tests.tools import wait_until

Lines = Callable[[], list[dict[str, Any]]]

SETTINGS = LogSettings(environment="test", log_level="DEBUG", service_version="1.2.3")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Give the standard library's logging back as it was."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.captureWarnings(capture=False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def lines() -> Lines:
    """What was logged as JSON so far."""
    written = io.StringIO()
    setup_logs(SETTINGS, destination=written)

    def read() -> list[dict[str, Any]]:
        assert flush_logs(60)
        return [json.loads(line) for line in written.getvalue().split("\n") if line]

    return read


# The line ---------------------------------------------------------------------------------------------


def test_a_line_has_every_field_of_the_contract(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_trace_source", context._no_trace)
    use_trace_source(lambda: ("0af7", "b7ad"))
    with bind_context(RequestContext("request-1", user_id="user-1")):
        logger.bind(type="order", order_id="o-1", amount=1250).info("order created")

    (line,) = lines()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "INFO",
        "message": "order created",
        "logger": __name__,
        "service": "glasshouse",
        "version": "1.2.3",
        "environment": "test",
        "trace_id": "0af7",
        "span_id": "b7ad",
        "request_id": "request-1",
        "user_id": "user-1",
        "type": "order",
        "order_id": "o-1",
        "amount": 1250,
    }


def test_the_timestamp_is_now_in_utc(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    access_line.second_of.cache_clear()
    try:
        logger.info("now")
    finally:
        monkeypatch.undo()
        time.tzset()

    stamp = lines()[0]["timestamp"]
    assert abs(time.mktime(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")) - time.time()) < 60


def test_a_bound_value_cannot_replace_a_field(lines: Lines) -> None:
    logger.bind(level="fake", service="fake", user_id="job-user").info("bound")

    (line,) = lines()
    assert (line["level"], line["service"]) == ("INFO", "glasshouse")
    assert (line["extra_level"], line["extra_service"]) == ("fake", "fake")
    assert line["user_id"] == "job-user"


def test_one_event_is_one_line(lines: Lines) -> None:
    logger.bind(value="a\r\nb\u2028c").info('first\n{"level":"FORGED"}')

    (line,) = lines()
    assert line["message"] == 'first\n{"level":"FORGED"}'
    assert line["value"] == "a\r\nb\u2028c"


def test_braces_do_no_harm(lines: Lines) -> None:
    logger.bind(body='{"a": {0}}').info("got {this}")
    logging.getLogger("library").info("got {that} %s", "{0}")

    assert [line["message"] for line in lines()] == ["got {this}", "got {that} {0}"]


def test_everything_can_be_said(lines: Lines) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    values = {
        "surrogate": "\ud800", "huge": 2**80, "nan": float("nan"), "set": {1}, "bytes": b"\xff",
        "broken": Broken(), "nested": {1: {None: [object]}},
    }  # fmt: skip
    logger.bind(**values).info("values")

    (line,) = lines()
    assert line["message"] == "values"
    assert line["surrogate"] == "?"
    assert line["huge"] == str(2**80)
    assert line["broken"] == "[unprintable Broken]"


def test_a_line_that_cannot_be_rendered_is_reported_and_not_raised(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "redact", lambda _: 1 / 0)
    with bind_context(RequestContext("request-1")):
        logger.bind(password="x").info("never seen")
        monkeypatch.undo()
        logger.bind(type="telemetry", error="any").error("seen")

    lost, line = lines()
    assert lost["message"] == "a log line could not be written"
    assert lost["error"] == "ZeroDivisionError"
    assert lost["request_id"] == "request-1"
    assert lost.keys() == line.keys()


# Redaction --------------------------------------------------------------------------------------------


def test_messages_and_values_are_redacted(lines: Lines) -> None:
    logger.bind(password="hunter2", note="a@b.com", nested={"token": "t"}).info("for a@b.com")

    (line,) = lines()
    assert line["message"] == "for [redacted]"
    assert line["password"] == line["note"] == line["nested"]["token"] == "[redacted]"


def test_an_exception_has_its_stack_and_no_values(lines: Lines) -> None:
    def fails(password: str) -> None:
        twice = password * 2
        raise ValueError(f"no such user: a@b.com {len(twice)}")

    try:
        fails("hunter2")
    except ValueError:
        logger.exception("login failed")

    (line,) = lines()
    assert line["exception"]["type"] == "ValueError"
    assert line["exception"]["message"] == "no such user: [redacted] 14"
    assert line["exception"]["stacktrace"].startswith("Traceback (most recent call last):")
    assert "in fails" in line["exception"]["stacktrace"]
    assert "hunter2hunter2" not in json.dumps(line)
    assert "a@b.com" not in json.dumps(line)


def test_causes_and_groups_are_shown_and_bounded(lines: Lines) -> None:
    def deep(n: int) -> None:
        if not n:
            raise ExceptionGroup("several", [OSError("x" * 50_000), KeyError("second")])
        deep(n - 1)

    try:
        try:
            deep(5)
        except ExceptionGroup as error:
            raise RuntimeError("outer") from error
    except RuntimeError:
        logger.exception("failed")

    (line,) = lines()
    stack = line["exception"]["stacktrace"]
    assert "several" in stack
    assert stack.rstrip().endswith("RuntimeError: outer")
    assert len(stack) < 20_000


# Sources ----------------------------------------------------------------------------------------------


def test_the_standard_librarys_loggers_come_here(lines: Lines) -> None:
    library = logging.getLogger("some.library")
    library.addHandler(logging.NullHandler())
    library.propagate = False
    setup_again = io.StringIO()
    setup_logs(SETTINGS, destination=setup_again)

    library.warning("bad %s", "thing", extra={"shard": 3, "token": "t"})
    try:
        os.stat("/nowhere")  # noqa: PTH116 - any OSError
    except OSError:
        library.exception("broken")
    library.debug("headers nobody has checked for secrets")
    library.log(25, "between the levels")

    flush_logs()
    written = [json.loads(line) for line in setup_again.getvalue().splitlines()]
    assert [(line["level"], line["message"]) for line in written] == [
        ("WARNING", "bad thing"),
        ("ERROR", "broken"),
        ("Level 25", "between the levels"),
    ]
    assert {line["logger"] for line in written} == {"some.library"}
    assert (written[0]["shard"], written[0]["token"]) == (3, "[redacted]")
    assert written[0]["type"] == "library"
    assert written[1]["exception"]["type"] == "FileNotFoundError"


def test_a_record_with_wrong_arguments_is_logged_all_the_same(lines: Lines) -> None:
    record = logging.makeLogRecord({"levelname": "WARNING", "msg": "%d", "args": ("no number",)})
    (handler,) = (h for h in logging.root.handlers if type(h).__module__ == logs.__name__)
    handler.handle(record)

    assert lines()[0]["message"] == "%d"


def test_a_record_keeps_the_place_it_came_from(lines: Lines) -> None:
    seen: list[tuple[object, ...]] = []
    sink = logger.add(
        lambda m: seen.append((m.record["name"], m.record["function"], m.record["module"])),
        format="",
    )
    logging.getLogger("some.library").warning("here")
    logger.remove(sink)

    assert seen == [("some.library", "test_a_record_keeps_the_place_it_came_from", "test_logs")]


def test_warnings_come_here(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        setup = io.StringIO()
        setup_logs(SETTINGS, destination=setup)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)

    flush_logs()
    line = json.loads(setup.getvalue())
    assert line["logger"] == "py.warnings"
    assert "DeprecationWarning: old thing" in line["message"]


def test_uvicorns_access_log_is_off() -> None:
    uvicorn_access = logging.getLogger("uvicorn.access")
    uvicorn_access.addHandler(logging.StreamHandler())
    setup_logs(SETTINGS, destination=io.StringIO())

    assert not uvicorn_access.hasHandlers()  # what uvicorn asks before it logs a request


@pytest.mark.parametrize("level", ["info", "WARNING"])
def test_the_level_is_a_threshold(level: str) -> None:
    written = io.StringIO()
    settings = LogSettings.model_validate({"log_level": level, "log_format": "json"})
    setup_logs(settings, destination=written)
    for each in ("DEBUG", "INFO", "WARNING"):
        logger.log(each, each)
        logging.getLogger("x").log(logging.getLevelName(each), "library %s", each)
    flush_logs()

    shown = ["INFO", "WARNING"] if level == "info" else ["WARNING"]
    assert [json.loads(line)["message"] for line in written.getvalue().splitlines()] == [
        message for each in shown for message in (each, f"library {each}")
    ]


def test_set_up_twice_writes_once_to_the_last_destination() -> None:
    first, second = io.StringIO(), io.StringIO()
    refused: list[int] = []
    setup_logs(SETTINGS, destination=first, on_drop=refused.append)
    logger.info("one")
    setup_logs(SETTINGS, destination=second)
    logger.info("two")
    flush_logs()

    assert [json.loads(line)["message"] for line in first.getvalue().splitlines()] == ["one"]
    assert [json.loads(line)["message"] for line in second.getvalue().splitlines()] == ["two"]
    assert refused == []
    deadline = time.monotonic() + 60
    while sum(thread.name == "log-writer" for thread in threading.enumerate()) > 1:
        assert time.monotonic() < deadline, "the first writer lives on"
        time.sleep(0.01)


# For people -------------------------------------------------------------------------------------------


def test_people_read_time_level_event_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(context, "_trace_source", lambda: ("0af7651916cd43dd", ""))
    written = io.StringIO()
    setup_logs(LogSettings(log_format="console"), destination=written)
    logger.bind(type="order", order_id="o-1", lines=[1, 2]).info("order created")
    logger.bind(
        type="http_request", method="GET", path="/v1/orders", route="/v1/orders", status=200,
        duration_ms=1.25, client_ip="10.0.0.0", user_agent="curl",
    ).info("request served")  # fmt: skip
    error = ValueError("for a@b.com\n\x1b[2Jforged")
    logger.bind(value="x\ny").opt(exception=error).error("failed\x1b[2J")
    flush_logs()

    text = written.getvalue()
    first, second, third, *stack = text.splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} INFO     order created order_id=o-1 lines=\[1, 2\] "
        rf"{re.escape(__name__)} trace 0af76519",
        first,
    )
    assert "INFO     GET /v1/orders 200 1.25 ms" in second
    assert "curl" not in second
    assert "failed\\x1b[2J value=x\\ny" in third
    assert all(line.startswith("    ") for line in stack)
    assert "\x1b" not in text
    assert "a@b.com" not in text


@pytest.mark.parametrize(
    ("variables", "terminal", "coloured"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"NO_COLOR": "1"}, True, False),
    ],
)
def test_colour_is_for_terminals(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], terminal: bool, coloured: bool
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    written = Stream()
    setup_logs(LogSettings(log_format="console"), destination=written)
    logger.info("hello")
    flush_logs()

    assert ("\x1b[" in written.getvalue()) is coloured


def test_development_is_for_people_and_production_for_machines() -> None:
    assert LogSettings(environment="development").for_people
    assert not LogSettings(environment="production").for_people
    assert LogSettings(environment="production", log_format="console").for_people


# The way out ------------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    """A pipe whose reader does nothing, as (reading end, writing stream)."""
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    yield reading, stream
    with open(reading, "rb", closefd=False) as rest:
        os.set_blocking(reading, False)
        rest.read()
    os.close(reading)
    with suppress(OSError):
        stream.close()


def test_a_stalled_reader_costs_lines_and_not_time(
    pipe: tuple[int, io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_BUFFERED_LINES", 500)
    dropped: list[int] = []
    setup_logs(SETTINGS, destination=pipe[1], on_drop=dropped.append)

    def log() -> None:
        for number in range(3000):
            logger.bind(padding="x" * 200).info(str(number))

    caller = threading.Thread(target=log, daemon=True)
    caller.start()
    caller.join(60)

    assert not caller.is_alive(), "the caller waits for the reader, and nobody reads"
    assert not flush_logs(0.05)
    assert 1000 < sum(dropped) <= 2500  # the buffer and the pipe held the rest

    received = b""
    while received.count(b"\n") < 3000 - sum(dropped):
        received += os.read(pipe[0], 65_536)
    logger.info("after")
    while b'"after"' not in received:
        received += os.read(pipe[0], 65_536)
    messages = [json.loads(line)["message"] for line in received.splitlines()]
    assert messages[:500] == [str(number) for number in range(500)]
    assert len(messages) + sum(dropped) == 3001


def test_the_buffer_is_bounded_in_bytes_too(
    pipe: tuple[int, io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_BUFFERED_BYTES", 300_000)
    dropped: list[int] = []
    setup_logs(SETTINGS, destination=pipe[1], on_drop=dropped.append)
    for _ in range(100):
        logger.info("x" * 10_000)

    assert 50 < sum(dropped) < 90


def test_a_reader_that_has_gone_is_counted_and_survived() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    dropped: list[int] = []
    with os.fdopen(writing, "w") as stream:
        setup_logs(SETTINGS, destination=stream, on_drop=dropped.append)
        logger.info("one")
        assert flush_logs(60)
        logger.info("two")
        assert flush_logs(60)

    assert sum(dropped) == 2


def test_a_non_blocking_destination_gets_every_line() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    received = bytearray()

    def read_slowly() -> None:
        while chunk := os.read(reading, 4096):
            received.extend(chunk)

    reader = threading.Thread(target=read_slowly, daemon=True)
    with os.fdopen(writing, "w") as stream:
        setup_logs(SETTINGS, destination=stream)
        for number in range(1000):
            logger.bind(padding="x" * 200).info(str(number))
        full = "the writer fills the pipe"
        wait_until(lambda: not select.select([], [writing], [], 0)[1], full, 60)
        reader.start()
        assert flush_logs(60)
        setup_logs(SETTINGS, destination=io.StringIO())  # gives up its copy of the descriptor
    reader.join(60)
    assert not reader.is_alive(), "nobody closed the copy of the descriptor"
    os.close(reading)

    messages = [json.loads(line)["message"] for line in received.splitlines()]
    assert messages == [str(number) for number in range(1000)]


def read_all(reading: int, until: bytes) -> bytes:
    received = b""
    while not received.endswith(until):
        received += os.read(reading, 65_536)
    return received


only_where_a_pipe_may_refuse = pytest.mark.skipif(
    not logs._NOWAIT, reason="this system has no pwritev that does not wait"
)


MakeWriter = Callable[[logs._Destination], logs._Writer]


@pytest.fixture
def dropped() -> list[int]:
    return []


@pytest.fixture
def make_writer(dropped: list[int]) -> Iterator[MakeWriter]:
    """Make writers whose threads end with the test."""
    made: list[logs._Writer] = []

    def make(destination: logs._Destination) -> logs._Writer:
        made.append(logs._Writer(destination, dropped.append))
        return made[-1]

    yield make
    for writer in made:
        writer.close(60)
        writer._thread.join(60)


@only_where_a_pipe_may_refuse
def test_several_lines_are_written_without_a_thread_where_there_is_room(
    pipe: tuple[int, io.TextIOWrapper], make_writer: MakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = logs._Destination(pipe[1])
    writer = make_writer(destination)
    monkeypatch.setattr(destination, "write", lambda _: pytest.fail("the thread was asked"))
    writer.put_all([b"one\n", b"two\n"])
    assert os.read(pipe[0], 100) == b"one\ntwo\n"
    assert writer.flush(0)


def test_a_flush_that_finds_nothing_hurries_no_line_after_it(
    pipe: tuple[int, io.TextIOWrapper], make_writer: MakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_GATHER_SECONDS", 600)
    writer = make_writer(logs._Destination(pipe[1]))
    assert writer.flush(0)
    writer.put(b"one\n")
    assert not select.select([pipe[0]], [], [], 0.2)[0], "it waits for others"
    writer.put(b"two\n")
    assert writer.flush(60)
    assert os.read(pipe[0], 100) == b"one\ntwo\n"


@only_where_a_pipe_may_refuse
def test_lines_that_find_no_room_are_whole_in_order_and_all_there(
    pipe: tuple[int, io.TextIOWrapper], make_writer: MakeWriter, dropped: list[int]
) -> None:
    writer = make_writer(logs._Destination(pipe[1]))
    sizes = random.Random(1)
    lines = [b"%d %s\n" % (number, b"x" * sizes.randrange(3000)) for number in range(400)]
    lines.append(b"end\n")
    for begin in range(0, len(lines), 8):
        if begin % 5 == 0:
            writer.put(lines[begin])
            writer.put_all(lines[begin + 1 : begin + 8])
        else:
            writer.put_all(lines[begin : begin + 8])
    assert not writer.flush(0.05), "the reader has not read, so there is no room for all"

    assert read_all(pipe[0], b"\nend\n") == b"".join(lines)
    assert writer.flush(60)
    writer.put_all([b"after\n"])
    assert read_all(pipe[0], b"after\n") == b"after\n"
    assert not dropped


@only_where_a_pipe_may_refuse
def test_a_part_of_a_line_is_not_written_again_by_a_child(
    pipe: tuple[int, io.TextIOWrapper], make_writer: MakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = logs._Destination(pipe[1])
    line = b"x" * 200_000 + b"\n"
    assert destination.write_at_once([line]) == 1
    assert destination.has_rest
    writer = make_writer(destination)
    monkeypatch.setattr(writer, "_start", lambda: None)  # the thread is here still
    writer.restart_in_child()
    assert not destination.has_rest


def test_a_kernel_that_cannot_refuse_is_asked_once(
    pipe: tuple[int, io.TextIOWrapper], make_writer: MakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refuse(*given: object) -> int:
        asked.append(given)
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(logs, "_NOWAIT", 8)
    monkeypatch.setattr(os, "pwritev", refuse, raising=False)
    writer = make_writer(logs._Destination(pipe[1]))
    for line in (b"one\n", b"two\n"):
        writer.put_all([line])
        assert read_all(pipe[0], line) == line
    assert len(asked) == 1


@only_where_a_pipe_may_refuse
def test_nobody_waits_for_another_process_that_writes(
    pipe: tuple[int, io.TextIOWrapper], make_writer: MakeWriter
) -> None:
    program = (
        f"import fcntl; fcntl.lockf({pipe[1].fileno()}, fcntl.LOCK_EX);"
        "print('locked', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program],
        pass_fds=[pipe[1].fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    with other:
        assert other.stdout.readline() == "locked\n"
        writer = make_writer(logs._Destination(pipe[1]))
        writer.put_all([b"one\n"])
        assert not writer.flush(0.1)
        other.stdin.write("\n")
        other.stdin.flush()
        assert read_all(pipe[0], b"one\n") == b"one\n"


def test_lines_from_many_threads_arrive_whole(lines: Lines) -> None:
    def work(name: str) -> None:
        for number in range(200):
            logger.bind(number=number).info(name)

    threads = [threading.Thread(target=work, args=(f"thread {n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    written = lines()
    for n in range(5):
        numbers = [line["number"] for line in written if line["message"] == f"thread {n}"]
        assert numbers == list(range(200))


def test_a_finaliser_may_log_while_a_line_is_written(lines: Lines) -> None:
    class Finalised:
        def __init__(self) -> None:
            self.self = self

        def __del__(self) -> None:
            logger.info("finalised")

    class Collects:
        def __str__(self) -> str:
            gc.collect()
            return "collected"

    Finalised()
    logger.bind(value=Collects()).info("outer")

    assert {line["message"] for line in lines()} == {"finalised", "outer"}


def test_a_finaliser_may_log_while_the_buffer_is_locked() -> None:
    written = io.StringIO()
    writer = logs._Writer(logs._Destination(written), lambda _: None)

    class Interrupted(deque[bytes]):
        """Lets a line come in while another one is put, as the garbage collector may."""

        def append(self, line: bytes) -> None:
            if line == b"outer\n":
                writer.put(b"inner\n")
            super().append(line)

    writer._lines = Interrupted()
    caller = threading.Thread(target=writer.put, args=(b"outer\n",), daemon=True)
    caller.start()
    caller.join(60)

    assert not caller.is_alive(), "deadlock"
    assert writer.flush(60)
    assert written.getvalue() == "inner\nouter\n"
    writer.close(60)


PATIENT = """
from app.observability import logs
flush = logs.flush_logs
logs.flush_logs = lambda timeout=2.0: flush(120 * timeout)
"""
"""The end of the process waits a moment for the last lines; a slow machine may take longer."""

SCRIPT = """
import os, sys
from loguru import logger
from app.observability.logs import LogSettings, setup_logs
setup_logs(LogSettings(log_format="json"))
logger.info("before")
{}
"""


def run(body: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", PATIENT + SCRIPT.format(body)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.stderr == b""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_end_of_the_process_flushes() -> None:
    assert [line["message"] for line in run("")] == ["before"]
    assert [line["message"] for line in run("sys.exit(3)")] == ["before"]


def test_a_forked_child_logs_its_own_lines_once() -> None:
    written = run(
        "pid = os.fork()\n"
        "logger.info('child' if pid == 0 else 'parent')\n"
        "if pid: os.waitpid(pid, 0)\n"
    )

    assert sorted(line["message"] for line in written) == ["before", "child", "parent"]


def test_a_process_that_cannot_write_still_ends() -> None:
    reading, writing = os.pipe()
    body = "for i in range(5000): logger.info('x' * 100)"
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body)],
        cwd=Path(__file__).parents[3],
        stdout=writing,
    ) as process:
        os.close(writing)
        try:
            assert process.wait(100) == 0
        finally:
            process.kill()
            os.close(reading)


# The access line --------------------------------------------------------------------------------------


@pytest.fixture
def app() -> FastAPI:
    router = APIRouter(prefix="/orders")

    @router.get("/{order_id}")
    def read(order_id: str) -> str:
        now = current_context()
        assert now is not None
        now.user_id = "user-1"
        return order_id

    @router.post("/{token}/boom")
    async def boom(token: str) -> None:
        raise RuntimeError(token)

    @router.get("/{order_id}/stream")
    async def stream(order_id: str) -> StreamingResponse:
        async def body() -> Any:
            yield "first"
            await asyncio.sleep(0.05)
            if order_id == "endless":
                await asyncio.Event().wait()
            if order_id == "broken":
                raise RuntimeError
            yield "last"

        return StreamingResponse(body())

    app = FastAPI()

    @app.get("/health/live")
    def live() -> bool:
        return True

    app.include_router(router, prefix="/v1")
    instrument_access_log(app)
    app.add_middleware(RequestContextMiddleware)
    return app


def access(lines: Lines) -> dict[str, Any]:
    (line,) = [line for line in lines() if line["type"] == "http_request"]
    return line


def test_each_request_has_one_access_line(lines: Lines, app: FastAPI) -> None:
    with TestClient(app, client=("203.0.113.77", 5000)) as client:
        answer = client.get("/v1/orders/7?email=a@b.com", headers={"User-Agent": "shop/1 a@b.com"})

    line = access(lines)
    assert line["request_id"] == answer.headers["X-Request-ID"]
    assert line["user_id"] == "user-1"
    assert line["duration_ms"] > 0
    assert {key: line[key] for key in list(line)[list(line).index("type") :]} == {
        "type": "http_request",
        "method": "GET",
        "path": "/v1/orders/7",
        "route": "/v1/orders/{order_id}",
        "status": 200,
        "duration_ms": line["duration_ms"],
        "client_ip": "203.0.113.0",
        "user_agent": "shop/1 [redacted]",
        "db_statements": 0,
        "db_duration_ms": 0.0,
        "db_wait_ms": 0.0,
        "sample_rate": 1.0,
    }
    assert line["level"] == "INFO"


@pytest.mark.parametrize(
    ("method", "path", "status", "route", "level"),
    [
        ("GET", "/nowhere", 404, "unmatched", "INFO"),
        ("DELETE", "/v1/orders/7", 405, "/v1/orders/{order_id}", "INFO"),
        ("GET", "/v1/orders/7/", 307, "unmatched", "INFO"),
        ("POST", "/v1/orders/s3cr3t/boom", 500, "/v1/orders/{token}/boom", "ERROR"),
        ("GET", "/v1/orders/broken/stream", 500, "/v1/orders/{order_id}/stream", "ERROR"),
    ],
)
def test_the_line_says_how_it_ended(
    lines: Lines, app: FastAPI, method: str, path: str, status: int, route: str, level: str
) -> None:
    with TestClient(app, raise_server_exceptions=False) as client:
        client.request(method, path, follow_redirects=False)

    line = access(lines)
    assert (line["status"], line["route"], line["level"]) == (status, route, level)
    assert "s3cr3t" not in line["path"]


def test_a_streamed_answer_is_timed_to_its_end(lines: Lines, app: FastAPI) -> None:
    with TestClient(app) as client:
        client.get("/v1/orders/7/stream")

    assert access(lines)["duration_ms"] >= 50


def test_probes_leave_no_line(lines: Lines, app: FastAPI) -> None:
    with TestClient(app) as client:
        assert client.get("/health/live").status_code == 200

    assert [line for line in lines() if line["type"] == "http_request"] == []


async def test_a_client_that_leaves_early_is_499(lines: Lines, app: FastAPI) -> None:
    incoming = [{"type": "http.request", "body": b"", "more_body": False}]
    has_begun = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await has_begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            has_begun.set()

    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": "/v1/orders/endless/stream", "raw_path": b"", "headers": [],
        "query_string": b"", "client": None, "server": None, "scheme": "http", "root_path": "",
        "http_version": "1.1", "asgi": {"version": "3.0", "spec_version": "2.3"},
    }  # fmt: skip
    await app(scope, receive, send)

    assert access(lines)["status"] == 499


async def test_a_disconnect_after_the_answer_is_no_499(lines: Lines) -> None:
    app = FastAPI()

    @app.get("/")
    async def wait_for_the_end(request: Request) -> StreamingResponse:
        async def body() -> Any:
            yield "all"

        return StreamingResponse(body())

    instrument_access_log(app)
    with TestClient(app) as client:
        client.get("/")

    assert access(lines)["status"] == 200


def test_a_bare_application_needs_one_call(lines: Lines) -> None:
    app = FastAPI()

    @app.get("/")
    def root() -> str:
        return "hello"

    instrument_access_log(app)
    with TestClient(app) as client:
        client.get("/")

    assert access(lines)["route"] == "/"


# Sampling of access lines ---------------------------------------------------------------------------------


def sampled_app(**given: Any) -> FastAPI:
    app = FastAPI()

    @app.get("/busy/{number}")
    def busy(number: int) -> int:
        if number == 400:
            raise HTTPException(400)
        if number == 500:
            raise HTTPException(500)
        if context := current_context():
            context.audited = number == 7
        return number

    @app.post("/busy/{number}")
    @app.get("/other")
    def other() -> bool:
        return True

    settings = LogSettings(environment="test", **given)
    instrument_access_log(app, settings)
    app.add_middleware(RequestContextMiddleware)
    return app


def test_a_share_of_a_busy_route_is_logged_and_the_line_says_which(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = sampled_app(log_sample="GET /busy/{number}=0.25")
    drawn = {"low": 1, "high": 2**64 - 1}
    for name, number in drawn.items():
        monkeypatch.setattr(context, "_trace_source", lambda n=number: (f"{n:032x}", ""))
        TestClient(app).get("/busy/1", headers={"User-Agent": name})
    assert [(line["user_agent"], line["sample_rate"]) for line in lines()] == [("low", 0.25)]


def test_counts_can_be_scaled_by_the_rate(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(sampled_app(log_sample="GET /busy/{number}=0.25"))
    for number in range(200):  # trace ids, evenly over all that there are
        drawn = f"{number * 2**64 // 200:032x}"
        monkeypatch.setattr(context, "_trace_source", lambda drawn=drawn: (drawn, ""))
        client.get("/busy/1")
    assert sum(1 / line["sample_rate"] for line in lines()) == 200


def test_without_a_trace_each_request_draws(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(sampled_app(log_sample="GET /busy/{number}=0.25"))
    monkeypatch.setattr(context, "_trace_source", context._no_trace)
    for drawn in (0, 2**64 - 1):
        monkeypatch.setattr("secrets.randbits", lambda _, drawn=drawn: drawn)
        client.get(f"/busy/{min(drawn, 9)}")
        assert flush_logs()  # it is drawn when the line is made
    assert [line["path"] for line in lines()] == ["/busy/0"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/busy/400"),
        ("GET", "/busy/500"),
        ("GET", "/busy/7"),
        ("POST", "/busy/1"),
        ("GET", "/other"),
        ("GET", "/no/such/route"),
    ],
    ids=["client error", "server error", "audited", "another method", "another route", "unmatched"],
)
def test_what_is_never_sampled(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    monkeypatch.setattr(context, "_trace_source", lambda: (f"{2**64 - 1:032x}", ""))
    client = TestClient(sampled_app(log_sample="GET /busy/{number}=0.01"))
    client.request(method, path)
    client.get("/busy/1")
    (line,) = lines()
    assert (line["method"], line["path"], line["sample_rate"]) == (method, path, 1.0)


def test_a_slow_request_is_never_sampled(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_trace_source", lambda: (f"{2**64 - 1:032x}", ""))
    app = sampled_app(log_sample="GET /busy/{number}=0.01", log_sample_slow_ms=0.000001)
    TestClient(app).get("/busy/1")
    (line,) = lines()
    assert line["sample_rate"] == 1.0


@pytest.mark.parametrize(
    "text",
    ["/busy=0.1", "GET /busy", "GET /busy=2", "GET /busy=0", "GET /busy=nan", "get /x=0.5", "=1"],
)
def test_a_malformed_sampling_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="must look like GET /v1/orders"):
        LogSettings(log_sample=text)


def test_sampling_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_SAMPLE", "GET /a=0.1, POST /b/{id}=1,")
    assert LogSettings().log_sample == {"GET /a": 0.1, "POST /b/{id}": 1.0}

import asyncio
import gc
import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import uvicorn
import uvloop
from fastapi import APIRouter, FastAPI, HTTPException
from loguru import logger
from prometheus_client import REGISTRY
from uvicorn.lifespan.on import LifespanOn

from app.observability.exceptions import (
    install_exception_hooks,
    install_loop_hook,
    instrument_exceptions,
    is_recorded,
    record_exception,
    use_reporter,
)


@pytest.fixture
def reports() -> Iterator[list[tuple[BaseException, dict[str, str]]]]:
    """What was reported to the error tracker during the test."""
    sent: list[tuple[BaseException, dict[str, str]]] = []
    use_reporter(lambda error, /, **tags: sent.append((error, tags)))
    yield sent
    use_reporter(None)


@pytest.fixture
def hooks() -> Iterator[None]:
    uninstall = install_exception_hooks()
    yield
    uninstall()


def count(where: str) -> float:
    return REGISTRY.get_sample_value("unhandled_exceptions_total", {"where": where}) or 0.0


def test_every_place_has_a_series_before_its_first_exception() -> None:
    places = {"request", "task", "thread", "job", "startup", "process"}
    values = [REGISTRY.get_sample_value("unhandled_exceptions_total", {"where": w}) for w in places]
    assert None not in values


def test_an_exception_is_logged_counted_and_reported(
    log_records: list[Any], reports: list[tuple[BaseException, dict[str, str]]]
) -> None:
    before, error = count("job"), ValueError("boom {with braces}")

    record_exception(error, where="job", task="reconcile")

    assert [line["extra"]["type"] for line in log_records] == ["error"]
    assert log_records[0]["extra"]["task"] == "reconcile"
    assert log_records[0]["exception"].value is error
    assert count("job") == before + 1
    assert reports == [(error, {"where": "job", "task": "reconcile"})]


def test_an_exception_that_passes_several_layers_is_recorded_once(
    log_records: list[Any], reports: list[tuple[BaseException, dict[str, str]]]
) -> None:
    before, error = count("request") + count("process"), ValueError("boom")

    record_exception(error, where="request")
    record_exception(error, where="process")
    record_exception(ExceptionGroup("a task group's wrapping", [error]), where="process")

    assert (len(log_records), len(reports)) == (1, 1)
    assert count("request") + count("process") == before + 1


def test_an_exception_that_refuses_attributes_is_recorded_once(log_records: list[Any]) -> None:
    @dataclass(frozen=True)
    class RefusedError(Exception):
        code: int

    error = RefusedError(7)
    record_exception(error, where="job")
    record_exception(error, where="job")

    assert len(log_records) == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(0), asyncio.CancelledError()])
def test_a_request_to_stop_is_not_recorded(
    stop: BaseException, log_records: list[Any], reports: list[tuple[BaseException, dict[str, str]]]
) -> None:
    before = count("process")

    record_exception(stop, where="process")

    assert (log_records, reports, count("process")) == ([], [], before)
    assert not is_recorded(stop)


def test_a_broken_reporter_is_logged_and_does_not_raise(log_records: list[Any]) -> None:
    def refuse(_error: BaseException, /, **_tags: str) -> None:
        raise ConnectionError("tracker is down")

    use_reporter(refuse)
    try:
        record_exception(ValueError("boom"), where="job")
    finally:
        use_reporter(None)

    assert [line["exception"].type for line in log_records] == [ValueError, ConnectionError]


def test_a_broken_log_sink_does_not_raise_and_the_error_is_still_told(
    reports: list[tuple[BaseException, dict[str, str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_message: object) -> None:
        raise OSError("disk is full")

    sink = logger.add(refuse, catch=False)
    try:
        record_exception(ValueError("boom"), where="job")
    finally:
        logger.remove(sink)

    assert len(reports) == 1
    assert "ValueError: boom" in capsys.readouterr().err


@pytest.mark.usefixtures("hooks")
def test_what_escapes_a_thread_is_recorded(log_records: list[Any]) -> None:
    before = count("thread")

    thread = threading.Thread(target=lambda: 1 / 0, name="importer")
    thread.start()
    thread.join()

    assert log_records[0]["exception"].type is ZeroDivisionError
    assert (log_records[0]["extra"]["where"], log_records[0]["extra"]["thread"]) == (
        "thread",
        "importer",
    )
    assert count("thread") == before + 1


@pytest.mark.usefixtures("hooks")
def test_what_escapes_a_finalizer_is_recorded(log_records: list[Any]) -> None:
    class Leaky:
        def __del__(self) -> None:
            raise ValueError("while finalizing")

    Leaky()
    gc.collect()

    assert [line["exception"].type for line in log_records] == [ValueError]
    assert log_records[0]["extra"]["where"] == "process"


def test_what_escapes_the_process_is_recorded_and_fails_it() -> None:
    program = """
        from app.observability.exceptions import install_exception_hooks
        install_exception_hooks()
        raise ValueError("boom")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 1
    assert result.stderr.count("ValueError: boom") == 1
    assert "Unhandled exception" in result.stderr


@pytest.mark.usefixtures("hooks")
def test_an_interrupt_from_the_keyboard_goes_to_the_interpreter(
    log_records: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)

    assert log_records == []
    assert "KeyboardInterrupt" in capsys.readouterr().err


def test_hooks_can_be_taken_out() -> None:
    before = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    filters = list(logging.getLogger("uvicorn.error").filters)

    uninstall = install_exception_hooks()
    assert sys.excepthook is not before[0]
    uninstall()

    assert (sys.excepthook, threading.excepthook, sys.unraisablehook) == before
    assert logging.getLogger("uvicorn.error").filters == filters


async def _fail() -> None:
    raise ValueError("in a task")


async def _lose_a_failing_task() -> None:
    asyncio.create_task(_fail())  # noqa: RUF006 - losing it is the point
    await asyncio.sleep(0)  # it runs, and fails, before we do
    gc.collect()


async def _fail_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    ("failure", "kind"),
    [(_lose_a_failing_task, ValueError), (_fail_in_a_callback, ZeroDivisionError)],
)
def test_what_escapes_a_task_nobody_awaited_or_a_callback_is_recorded(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    failure: Callable[[], Any],
    kind: type[Exception],
    log_records: list[Any],
) -> None:
    before = count("task")

    async def main() -> None:
        uninstall = install_loop_hook(asyncio.get_running_loop())
        await failure()
        uninstall()
        assert asyncio.get_running_loop().get_exception_handler() is None

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())

    assert [line["exception"].type for line in log_records] == [kind]
    assert count("task") == before + 1


async def test_a_problem_of_the_loop_without_an_exception_is_logged(log_records: list[Any]) -> None:
    loop = asyncio.get_running_loop()
    uninstall = install_loop_hook(loop)
    loop.call_exception_handler({"message": "Task was destroyed but it is pending!"})
    uninstall()

    assert log_records[0]["extra"]["detail"] == "Task was destroyed but it is pending!"


def failing_app(lifespan: Any = None) -> FastAPI:
    app = FastAPI(lifespan=lifespan)
    instrument_exceptions(app)
    router = APIRouter(prefix="/v1/orders")

    @router.get("/{order_id}")
    async def get_order(order_id: str) -> None:
        if order_id == "missing":
            raise HTTPException(404)
        raise ValueError(order_id)

    app.include_router(router)
    return app


@asynccontextmanager
async def serve(app: FastAPI) -> AsyncIterator[str]:
    """Run `app` on a real server and a free port."""
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest.mark.usefixtures("hooks")
async def test_what_escapes_a_request_is_recorded_once_with_its_route_and_the_server_stays_silent(
    log_records: list[Any],
    reports: list[tuple[BaseException, dict[str, str]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = count("request")

    async with serve(failing_app()) as url, httpx2.AsyncClient() as client:
        answer = await client.get(f"{url}/v1/orders/secret-id")

    assert answer.status_code == 500
    assert [line["extra"]["route"] for line in log_records] == ["/v1/orders/{order_id}"]
    assert count("request") == before + 1
    assert reports[0][1] == {"where": "request", "route": "/v1/orders/{order_id}", "method": "GET"}
    assert [entry for entry in caplog.records if entry.exc_info] == []


async def test_an_error_that_is_answered_is_not_recorded(log_records: list[Any]) -> None:
    transport = httpx2.ASGITransport(failing_app())
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/v1/orders/missing")

    assert (answer.status_code, log_records) == (404, [])


@pytest.mark.usefixtures("hooks")
@pytest.mark.parametrize(("fails_at", "where"), [("startup", "startup"), ("shutdown", "process")])
async def test_what_escapes_start_up_or_shut_down_is_recorded_once(
    fails_at: str, where: str, log_records: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if fails_at == "startup":
            raise ConnectionError("no database")
        yield
        raise ConnectionError("no database")

    protocol = LifespanOn(uvicorn.Config(failing_app(lifespan), log_config=None, lifespan="on"))
    before = count(where)
    await protocol.startup()
    if fails_at == "shutdown":
        await protocol.shutdown()

    assert [line["exception"].type for line in log_records] == [ConnectionError]
    assert count(where) == before + 1
    assert "Traceback" not in caplog.text
    assert f"Application {fails_at} failed" in caplog.text

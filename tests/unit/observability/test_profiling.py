import asyncio
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from loguru import logger
from pydantic import SecretStr

from app.errors import install_error_handlers
from app.observability import allocations, profiling
from app.observability.operations import OperationsSettings
from app.observability.profiling import install_profiling_routes
from tests.service import ROOT

TOKEN = "operations-token-of-the-test"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
LONG = 30.0
"""Seconds within which anything succeeds, however slow the machine is."""
PATHS = ("/debug/profile", "/debug/memory", "/debug/tasks")
SECRET = "4111-1111-1111-1111"


class Use:
    """What the audit log would be told."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None
        self.may_pass = asyncio.Event()
        self.may_pass.set()

    async def __call__(self, *, action: str, details: dict[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.noted.append((action, details))
        await self.may_pass.wait()


@asynccontextmanager
async def serving(app: FastAPI, token: str | None = TOKEN) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://test", headers=headers, timeout=LONG
    ) as client:
        yield client


@pytest.fixture
def use() -> Use:
    return Use()


@pytest.fixture
def app(use: Use) -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)
    install_profiling_routes(app, OperationsSettings(operations_token=SecretStr(TOKEN)), on_use=use)
    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(app) as client:
        yield client


@pytest.fixture(autouse=True)
def no_tracing_left() -> Iterator[None]:
    """Tracing belongs to the whole process, and slows every other test down."""
    yield
    tracemalloc.stop()


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """The log records of type operations."""
    found: list[dict[str, Any]] = []

    def keep(message: Any) -> None:
        if message.record["extra"].get("type") == "operations":
            found.append(message.record["extra"])

    sink = logger.add(keep)
    yield found
    logger.remove(sink)


def keep_the_processor_busy(card: str) -> int:
    """Work for a moment, with something secret at hand."""
    until = time.perf_counter() + 0.02
    rounds = 0
    while time.perf_counter() < until:
        rounds += sum(range(100)) > len(card)
    return rounds


async def until_profiled() -> None:
    async with asyncio.timeout(LONG):
        while sys.getprofile() is None:
            await asyncio.sleep(0.001)


# Strangers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("query", ["", "?seconds=abc", "?top=-1"])
async def test_strangers_are_refused_counted_and_told_nothing_about_the_parameters(
    path: str, query: str, use: Use
) -> None:
    denied: list[str] = []
    app = FastAPI()
    install_error_handlers(app)
    install_profiling_routes(
        app,
        OperationsSettings(operations_token=SecretStr(TOKEN)),
        on_denied=lambda: denied.append(path),
        on_use=use,
    )
    async with serving(app, token="wrong") as client:
        answer = await client.get(path + query)

    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert denied == [path]
    assert use.noted == []


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_token_the_routes_do_not_exist(path: str, use: Use) -> None:
    app = FastAPI()
    install_profiling_routes(app, OperationsSettings(operations_token=None), on_use=use)
    async with serving(app) as client:
        assert (await client.get(path)).status_code == 404
    assert use.noted == []


# What may be asked


@pytest.mark.parametrize(
    "query",
    [
        "profile?seconds=abc",
        "profile?seconds=0",
        "profile?seconds=61",
        "profile?seconds=1e9",
        "profile?seconds=-1",
        "profile?seconds=NaN",
        "profile?seconds=inf",
        "profile?seconds=",
        "profile?format=exe",
        "memory?top=-1",
        "memory?top=0",
        "memory?top=101",
        "memory?depth=0",
        "memory?depth=11",
        "memory?stop=perhaps",
        "tasks?limit=0",
        "tasks?limit=1001",
        "tasks?depth=51",
    ],
)
async def test_what_is_out_of_bounds_is_refused_before_anything_is_done(
    query: str, client: httpx2.AsyncClient, use: Use
) -> None:
    answer = await client.get(f"/debug/{query}")

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert use.noted == []
    assert not tracemalloc.is_tracing()


@pytest.mark.parametrize(
    "query", ["profile?seconds=1&format=text", "memory?top=3", "tasks?limit=5"]
)
async def test_each_use_is_noted_and_logged_before_the_work(
    query: str, client: httpx2.AsyncClient, use: Use, lines: list[dict[str, Any]]
) -> None:
    use.may_pass.clear()
    asking = asyncio.create_task(client.get(f"/debug/{query}"))
    async with asyncio.timeout(LONG):
        while not use.noted:
            await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert (lines, sys.getprofile(), tracemalloc.is_tracing()) == ([], None, False)
    use.may_pass.set()
    assert (await asking).status_code == 200

    path, _, parameters = query.partition("?")
    wanted = dict(pair.split("=") for pair in parameters.split("&"))
    ((action, details),) = use.noted
    assert action == f"debug.{path}"
    assert {name: str(details[name]) for name in wanted} == wanted
    assert lines == [{"type": "operations", "action": action} | details]


@pytest.mark.parametrize("path", PATHS)
async def test_what_cannot_be_noted_is_not_done(
    path: str, client: httpx2.AsyncClient, use: Use, lines: list[dict[str, Any]]
) -> None:
    use.error = ConnectionError("the audit log is away")

    assert (await client.get(path)).status_code == 500
    assert lines == []
    assert not tracemalloc.is_tracing()

    use.error = None  # and the turn was given back
    assert (await client.get(path, params={"seconds": 1})).status_code == 200


# The profile


async def test_the_profile_shows_what_other_requests_do_meanwhile(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    @app.get("/busy")
    async def get_busy() -> int:
        return keep_the_processor_busy(SECRET)

    profiling = asyncio.create_task(
        client.get("/debug/profile", params={"seconds": 2, "format": "text"})
    )
    await until_profiled()
    while not profiling.done():
        assert (await client.get("/busy")).status_code == 200
        await asyncio.sleep(0)  # this transport does everything without once giving way
    answer = await profiling

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert "keep_the_processor_busy" in answer.text
    assert SECRET not in answer.text
    assert sys.getprofile() is None, "nothing stays installed"


async def test_speedscope_can_read_the_profile(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """Fields and types as in speedscope's src/lib/file-format-spec.ts."""

    @app.get("/busy")
    async def get_busy() -> int:
        return keep_the_processor_busy(SECRET)

    parameters: dict[str, str | int] = {"seconds": 2, "format": "speedscope"}
    profiling = asyncio.create_task(client.get("/debug/profile", params=parameters))
    await until_profiled()
    while not profiling.done():
        await client.get("/busy")
        await asyncio.sleep(0)
    answer = await profiling
    document = json.loads(answer.text)

    assert answer.headers["content-type"] == "application/json"
    assert 'filename="profile.speedscope.json"' in answer.headers["content-disposition"]
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = document["shared"]["frames"]
    for frame in frames:
        assert {name: type(value) for name, value in frame.items()} == {
            "name": str,
            "file": str,
            "line": int,
        }
    (profile,) = document["profiles"]
    assert (profile["type"], profile["unit"], profile["startValue"]) == ("sampled", "seconds", 0)
    assert isinstance(profile["name"], str)
    assert len(profile["samples"]) == len(profile["weights"]) > 0
    assert {index for stack in profile["samples"] for index in stack} == set(range(len(frames)))
    assert profile["endValue"] == pytest.approx(sum(profile["weights"]))
    # The busy function is called by its handler, which is called by the event loop.
    names = [[frames[index]["name"] for index in stack] for stack in profile["samples"]]
    busy = [stack for stack in names if "keep_the_processor_busy" in stack]
    assert len(busy) > len(names) / 10
    assert all(stack.index("get_busy") < stack.index("keep_the_processor_busy") for stack in busy)
    assert SECRET not in answer.text


async def test_the_page_is_complete_in_itself(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/debug/profile", params={"seconds": 1})

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "const sessionData = {" in answer.text
    assert "<script src" not in answer.text


async def test_a_thread_is_not_seen_by_the_profile_but_by_the_stacks(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """What the documentation of the routes says about `def` handlers."""
    may_end = threading.Event()
    has_begun = threading.Event()

    @app.get("/blocking")
    def get_blocking(card: str) -> int:
        has_begun.set()
        rounds = 0
        while not may_end.is_set():
            rounds += keep_the_processor_busy(card)
        return rounds

    blocking = asyncio.create_task(client.get("/blocking", params={"card": SECRET}))
    try:
        await asyncio.to_thread(has_begun.wait, LONG)
        parameters: dict[str, str | int] = {"seconds": 1, "format": "speedscope"}
        profile = await client.get("/debug/profile", params=parameters)
        stacks = await client.get("/debug/tasks")
    finally:
        may_end.set()
        await blocking

    assert "keep_the_processor_busy" not in profile.text
    found = [
        thread for thread in stacks.json()["threads"] if "get_blocking" in str(thread["stack"])
    ]
    assert len(found) == 1
    assert SECRET not in stacks.text


async def test_a_second_profile_is_told_when_to_come_back(
    client: httpx2.AsyncClient, use: Use
) -> None:
    first = asyncio.create_task(client.get("/debug/profile", params={"seconds": 60}))
    await until_profiled()
    second = await client.get("/debug/profile", params={"seconds": 1})
    other = await client.get("/debug/memory")

    for refused in (second, other):
        assert refused.status_code == 409
        assert refused.headers["content-type"] == "application/problem+json"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert [action for action, _ in use.noted] == ["debug.profile"]
    first.cancel()
    await asyncio.wait([first])
    assert (await client.get("/debug/profile", params={"seconds": 1})).status_code == 200


async def test_a_profile_ends_with_its_request(client: httpx2.AsyncClient) -> None:
    asking = asyncio.create_task(client.get("/debug/profile", params={"seconds": 60}))
    await until_profiled()
    asking.cancel()
    await asyncio.wait([asking])

    assert sys.getprofile() is None
    assert (await client.get("/debug/profile", params={"seconds": 1})).status_code == 200


async def test_the_turn_is_held_until_the_writing_thread_has_ended(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def write(session: object) -> str:
        has_begun.set()
        may_end.wait(LONG)
        return ""

    monkeypatch.setitem(profiling._FORMATS, "text", (write, "text/plain", "txt"))
    parameters: dict[str, str | int] = {"seconds": 1, "format": "text"}
    asking = asyncio.create_task(client.get("/debug/profile", params=parameters))
    await asyncio.to_thread(has_begun.wait, LONG)
    asking.cancel()
    await asyncio.wait([asking])

    try:
        assert (await client.get("/debug/memory")).status_code == 409
    finally:
        may_end.set()
    async with asyncio.timeout(LONG):
        while (await client.get("/debug/memory")).status_code == 409:
            await asyncio.sleep(0.01)


async def test_a_profile_ends_when_the_process_is_about_to_end() -> None:
    ending = False
    app = FastAPI()
    install_profiling_routes(
        app,
        OperationsSettings(operations_token=SecretStr(TOKEN)),
        is_ending=lambda: ending,
    )
    async with serving(app) as client:
        parameters: dict[str, str | int] = {"seconds": 60, "format": "speedscope"}
        asking = asyncio.create_task(client.get("/debug/profile", params=parameters))
        await until_profiled()
        ending = True
        async with asyncio.timeout(LONG):
            answer = await asking
    assert answer.status_code == 200
    assert answer.json()["profiles"][0]["endValue"] < LONG


# Memory


async def test_memory_is_traced_from_the_first_call_until_it_is_stopped(
    client: httpx2.AsyncClient,
) -> None:
    begun = (await client.get("/debug/memory")).json()
    assert tracemalloc.is_tracing()
    assert begun["tracing"]
    assert begun["top"] == begun["grown"] == []
    assert "expensive" in begun["note"]

    kept = [SECRET + str(number) for number in range(20_000)]
    first = (await client.get("/debug/memory", params={"top": 3})).json()
    here = [found for found in first["top"] if "test_profiling.py:" in found["where"][-1]]
    assert len(here) == 1
    assert here[0]["bytes"] > 1_000_000
    assert here[0]["blocks"] >= 20_000
    assert here[0]["grown_bytes"] is None, "there was nothing to compare with"
    assert len(first["top"]) == 3
    assert first["traced_peak_bytes"] >= first["traced_bytes"] > 1_000_000
    assert first["rss_bytes"] is None or first["rss_bytes"] > 1_000_000

    kept += [SECRET + str(number) for number in range(10_000)]
    answer = await client.get("/debug/memory", params={"top": 1})
    (most,) = answer.json()["grown"]
    assert "test_profiling.py:" in most["where"][-1]
    assert most["where"] != here[0]["where"], "another line"
    assert 500_000 < most["grown_bytes"] <= most["bytes"]
    assert answer.json()["seconds_since_last"] > 0
    assert SECRET not in answer.text
    del kept

    ended = (await client.get("/debug/memory", params={"stop": True})).json()
    assert not tracemalloc.is_tracing()
    assert not ended["tracing"]


async def test_with_depth_the_callers_are_told(client: httpx2.AsyncClient) -> None:
    def allocate() -> list[bytes]:
        return [bytes(1000 + number) for number in range(3000)]

    await client.get("/debug/memory", params={"depth": 2})
    kept = allocate()
    (most,) = (await client.get("/debug/memory", params={"top": 1})).json()["top"]
    assert len(most["where"]) == 2
    del kept


async def test_growth_is_not_compared_across_a_stop(client: httpx2.AsyncClient) -> None:
    for parameters in ({}, {}, {"stop": True}, {}):
        await client.get("/debug/memory", params=parameters)
    assert (await client.get("/debug/memory")).json()["seconds_since_last"] is None
    assert (await client.get("/debug/memory")).json()["seconds_since_last"] is not None


async def test_forgotten_tracing_ends_by_itself(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocations, "TRACING_SECONDS", 0.05)
    await client.get("/debug/memory")
    async with asyncio.timeout(LONG):
        while tracemalloc.is_tracing():
            await asyncio.sleep(0.01)


async def test_one_report_at_a_time_and_the_loop_stays_free(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()
    take = tracemalloc.take_snapshot

    def take_slowly() -> tracemalloc.Snapshot:
        has_begun.set()
        may_end.wait(LONG)
        return take()

    await client.get("/debug/memory")
    monkeypatch.setattr(tracemalloc, "take_snapshot", take_slowly)
    first = asyncio.create_task(client.get("/debug/memory"))
    await asyncio.to_thread(has_begun.wait, LONG)
    refused = await client.get("/debug/memory")
    stopped = await client.get("/debug/memory", params={"stop": True})
    may_end.set()

    assert (refused.status_code, stopped.status_code) == (409, 409)
    assert (await first).status_code == 200


# Tasks


async def inner(event: asyncio.Event, card: str) -> None:
    await event.wait()


async def outer(event: asyncio.Event, card: str) -> None:
    await inner(event, card)


async def test_tasks_are_told_with_where_they_stand_and_nothing_they_hold(
    client: httpx2.AsyncClient,
) -> None:
    event = asyncio.Event()
    task = asyncio.create_task(outer(event, SECRET), name="export for ada@example.com")
    try:
        first = (await client.get("/debug/tasks")).json()
        await asyncio.sleep(0.01)
        answer = await client.get("/debug/tasks", params={"depth": 2})
    finally:
        event.set()
        await task

    (found,) = [entry for entry in answer.json()["tasks"] if entry["coroutine"] == "outer"]
    assert answer.headers["cache-control"] == "no-store"
    assert found["name"] == "export for [redacted]"
    assert [place.rpartition("/")[2].split(":")[0] for place in found["stack"]] == [
        "test_profiling.py",
        "locks.py",
    ]
    assert found["stack"][0].endswith(" inner")
    assert found["known_for_seconds"] >= 0.01
    assert SECRET not in answer.text
    (before,) = [entry for entry in first["tasks"] if entry["coroutine"] == "outer"]
    assert [place.split()[1] for place in before["stack"]] == ["outer", "inner", "Event.wait"]
    assert before["known_for_seconds"] == 0
    assert first["tasks_total"] == len(first["tasks"])


async def test_the_longest_known_tasks_come_first_and_the_rest_is_counted(
    client: httpx2.AsyncClient,
) -> None:
    event = asyncio.Event()
    old = asyncio.create_task(inner(event, ""), name="old")
    await client.get("/debug/tasks")
    new = [asyncio.create_task(inner(event, ""), name=f"new {number}") for number in range(20)]
    report = (await client.get("/debug/tasks", params={"limit": 5})).json()
    event.set()
    await asyncio.gather(old, *new)

    names = [task["name"] for task in report["tasks"]]
    assert len(names) == 5
    assert "old" in names
    assert report["tasks_total"] >= 21


async def test_the_lag_is_that_of_right_now(client: httpx2.AsyncClient) -> None:
    async def block() -> None:
        while True:
            await asyncio.sleep(0)
            time.sleep(0.05)  # noqa: ASYNC251 - the mistake that is to be seen

    task = asyncio.create_task(block())
    report = (await client.get("/debug/tasks")).json()
    task.cancel()
    assert report["loop_lag_seconds_max"] >= report["loop_lag_seconds_mean"] > 0.02


# The file


def test_the_file_works_in_a_bare_application_and_costs_nothing_before_it_is_asked() -> None:
    program = """
import sys, tracemalloc, threading
from fastapi import FastAPI
from fastapi.testclient import TestClient
from app.observability.operations import OperationsSettings
from app.observability.profiling import install_profiling_routes
app = FastAPI()
install_profiling_routes(app, OperationsSettings(operations_token="secret"))
with TestClient(app, headers={"Authorization": "Bearer secret"}) as client:
    before = sys.getprofile(), tracemalloc.is_tracing(), threading.active_count()
    assert before[:2] == (None, False), before
    for path in ("profile?seconds=1&format=text", "memory", "memory", "tasks"):
        client.get(f"/debug/{path}").raise_for_status()
    assert client.get("/debug/tasks?limit=0").status_code == 422
mine = sorted(name for name in sys.modules if name.startswith("app."))
print(" ".join(name.removeprefix("app.observability") for name in mine))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    modules = ran.stdout.splitlines()[-1].split()
    assert set(modules) <= {
        ".allocations",
        ".context",
        ".operations",
        ".profiling",
        ".redaction",
        ".stacks",
        "",
    }

"""The routes under /debug on real processes: what they see there, and that nothing waits for them."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.infrastructure.audit import list_latest
from tests.integration.conftest import OpenService
from tests.provider import RunningProvider
from tests.service import OPERATIONS_TOKEN, RunningProcess, ServiceClient, start_process
from tests.tools import wait_until

OPERATOR = {"Authorization": f"Bearer {OPERATIONS_TOKEN}"}
LONG = 40.0
"""Seconds within which anything succeeds, however slow the machine is; less than a long profile."""
END_WITHIN_SECONDS = 10.0


def uses(process: RunningProcess) -> list[dict[str, Any]]:
    """Return the log lines of type operations."""
    lines = [json.loads(line) for line in process.log().splitlines()]
    return [line for line in lines if line["type"] == "operations"]


def ask(url: str, **parameters: Any) -> httpx2.Response:
    return httpx2.get(url, params=parameters, headers=OPERATOR, timeout=LONG)


async def is_busy(http: httpx2.AsyncClient) -> bool:
    answer = await http.get("/debug/profile", params={"seconds": 1}, headers=OPERATOR)
    return answer.status_code == 409


@pytest.fixture
def api(
    sqlite_service_database: str, provider: RunningProvider, tmp_path: Path
) -> Iterator[RunningProcess]:
    with start_process(
        "serve", tmp_path, database_url=sqlite_service_database, provider_url=provider.url
    ) as running:
        yield running


async def test_the_profile_of_the_api_shows_the_routes_that_others_ask(api: RunningProcess) -> None:
    async with httpx2.AsyncClient(base_url=api.url, timeout=LONG) as http:
        person = ServiceClient(http)
        await person.register()
        await person.log_in()
        parameters: dict[str, str | int] = {"seconds": 3, "format": "speedscope"}
        profiling = asyncio.create_task(
            http.get("/debug/profile", params=parameters, headers=OPERATOR)
        )
        while not profiling.done():
            assert (await person.get("/v1/orders")).status_code == 200
        answer = await profiling

        assert answer.status_code == 200
        names = {frame["name"] for frame in answer.json()["shared"]["frames"]}
        assert "list_orders" in names
        first = await http.get("/debug/memory", headers=OPERATOR)
        await person.order()
        second = await http.get("/debug/memory", headers=OPERATOR)
        assert first.json()["tracing"]
        assert second.json()["top"]
        await http.get("/debug/memory", params={"stop": True}, headers=OPERATOR)
    wait_until(lambda: len(uses(api)) >= 4, "the uses are logged")
    assert [line["action"] for line in uses(api)] == ["debug.profile", *["debug.memory"] * 3]
    assert uses(api)[0]["seconds"] == 3


async def test_a_client_that_goes_away_ends_its_profile(api: RunningProcess) -> None:
    async with httpx2.AsyncClient(base_url=api.url, timeout=LONG) as http:
        with pytest.raises(httpx2.ReadTimeout):
            await http.get("/debug/profile", params={"seconds": 60}, headers=OPERATOR, timeout=1.0)
        async with asyncio.timeout(LONG):
            while await is_busy(http):
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_end_of_the_process_does_not_wait_for_a_profile(
    command: str,
    number: signal.Signals,
    sqlite_service_database: str,
    provider: RunningProvider,
    tmp_path: Path,
) -> None:
    process = start_process(
        command, tmp_path, database_url=sqlite_service_database, provider_url=provider.url
    )
    with process:
        asking = asyncio.create_task(
            asyncio.to_thread(ask, f"{process.url}/debug/profile", seconds=60, format="text")
        )
        await asyncio.to_thread(wait_until, lambda: bool(uses(process)), "the profile has begun")
        asked = time.monotonic()
        process.send_signal(number)
        await asyncio.to_thread(process.wait, END_WITHIN_SECONDS)
        assert time.monotonic() - asked < END_WITHIN_SECONDS
        log = process.log()
        answer = await asyncio.gather(asking, return_exceptions=True)
    if number == signal.SIGTERM:
        # What was seen until then is told.
        assert isinstance(answer[0], httpx2.Response)
        assert answer[0].status_code == 200
        assert "event loop, 60 s" in answer[0].text
    assert all(line.startswith("{") for line in log.splitlines()), log


async def test_the_loops_of_the_worker_are_among_its_tasks(
    sqlite_service_database: str, provider: RunningProvider, tmp_path: Path
) -> None:
    with start_process(
        "worker", tmp_path, database_url=sqlite_service_database, provider_url=provider.url
    ) as worker:
        assert httpx2.get(f"{worker.url}/debug/tasks").status_code == 401
        report = (await asyncio.to_thread(ask, f"{worker.url}/debug/tasks")).json()
        profile = await asyncio.to_thread(
            ask, f"{worker.url}/debug/profile", seconds=2, format="speedscope"
        )
    tasks = {task["name"]: task for task in report["tasks"]}
    assert tasks.keys() >= {"consume", "relay", "redeliver", "reconcile", "sample", "purge"}
    assert tasks["reconcile"]["coroutine"] == "Worker._repeat"
    assert "/app/worker.py:" in tasks["reconcile"]["stack"][0]
    names = {frame["name"] for frame in profile.json()["shared"]["frames"]}
    assert "relay" in names


async def test_each_use_is_in_the_audit_log_with_who_asked_from_where(
    open_here: OpenService,
) -> None:
    async with open_here() as service:
        answer = await service.http.get("/debug/tasks", headers=OPERATOR)
        denied = await service.http.get("/debug/tasks", headers={"Authorization": "Bearer no"})
        assert (answer.status_code, denied.status_code) == (200, 401)
        async with service.app.state.database.transaction() as session:
            latest = await list_latest(session, limit=9)
    (entry,) = [entry for entry in latest if entry.action == "profiling"]
    assert (entry.action, entry.actor) == ("profiling", "operator")
    assert (entry.record_type, entry.record_id) == ("process", "debug.tasks")
    assert entry.request_id == answer.headers["X-Request-ID"]
    assert entry.client_network == "127.0.0.0"

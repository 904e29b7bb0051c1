import asyncio
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from pydantic import SecretStr

from app.errors import install_error_handlers
from app.observability.context import RequestContext, bind_context, current_context
from app.observability.health import (
    Check,
    Health,
    HealthSettings,
    disk_space_check,
    install_health_routes,
)

TOKEN = "operations-token-of-the-test"
SHORT = 0.02
"""Seconds after which to give up what cannot succeed, however slow the machine is."""
LONG = 30.0
"""Seconds within which anything succeeds, however slow the machine is."""


class Dependency:
    """Something to check: how it answers can be changed, and how often it was asked is counted."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.was_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self) -> None:
        self.asked += 1
        self.was_asked.set()
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def database() -> Dependency:
    return Dependency()


@pytest.fixture
def cache() -> Dependency:
    return Dependency()


@pytest.fixture
def health(database: Dependency, cache: Dependency) -> Health:
    checks = [
        Check("database", database, critical=True, timeout_seconds=LONG),
        Check("cache", cache, critical=False, timeout_seconds=LONG),
    ]
    health = Health(checks, cache_seconds=0.0)
    health.mark_started()
    return health


def application(health: Health, token: str | None = TOKEN) -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)
    secret = SecretStr(token) if token is not None else None
    install_health_routes(app, health, HealthSettings(operations_token=secret))
    return app


@pytest.fixture
async def client(health: Health) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(application(health))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def up(dependency: str) -> float | None:
    return REGISTRY.get_sample_value("dependency_up", {"dependency": dependency})


async def verdicts(client: httpx2.AsyncClient) -> dict[str, int]:
    paths = ("/health", "/health/ready", "/health/live", "/health/startup")
    return {path: (await client.get(path)).status_code for path in paths}


ALL_WELL = {"/health": 200, "/health/ready": 200, "/health/live": 200, "/health/startup": 200}


async def test_all_well(client: httpx2.AsyncClient) -> None:
    assert await verdicts(client) == ALL_WELL
    assert (await client.get("/health")).json() == {"status": "ok", "failed": []}


async def test_a_critical_failure_takes_the_process_out_of_rotation_but_not_down(
    client: httpx2.AsyncClient, database: Dependency
) -> None:
    database.error = ConnectionError("postgresql://app:s3cret@db/app refused")

    assert await verdicts(client) == ALL_WELL | {"/health": 503, "/health/ready": 503}


async def test_an_informational_failure_only_degrades(
    client: httpx2.AsyncClient, cache: Dependency
) -> None:
    cache.error = ConnectionError("refused")

    answer = await client.get("/health/ready")

    assert (answer.status_code, answer.json()) == (200, {"status": "degraded", "failed": ["cache"]})


async def test_strangers_learn_names_only_and_nothing_is_cached_on_the_way(
    client: httpx2.AsyncClient, database: Dependency
) -> None:
    database.error = ConnectionError("postgresql://app:s3cret@db/app refused")

    answer = await client.get("/health/ready")

    assert answer.json() == {"status": "unavailable", "failed": ["database"]}
    assert answer.headers["cache-control"] == "no-store"


async def test_draining_refuses_at_once_without_asking_anybody_and_stays_alive(
    client: httpx2.AsyncClient, health: Health, database: Dependency
) -> None:
    health.drain()

    assert await verdicts(client) == ALL_WELL | {"/health": 503, "/health/ready": 503}
    assert (await client.get("/health")).json()["status"] == "draining"
    assert database.asked == 0


async def test_until_start_up_is_complete_the_process_is_alive_and_not_ready() -> None:
    health = Health([])
    transport = httpx2.ASGITransport(application(health))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        assert await verdicts(client) == dict.fromkeys(ALL_WELL, 503) | {"/health/live": 200}
        health.mark_started()
        assert await verdicts(client) == ALL_WELL


async def test_a_check_that_hangs_counts_as_down_after_its_time_out(
    database: Dependency, cache: Dependency
) -> None:
    database.may_answer.clear()
    checks = [
        Check("database", database, timeout_seconds=SHORT),
        Check("cache", cache, timeout_seconds=LONG),
    ]
    health = Health(checks)
    health.mark_started()
    transport = httpx2.ASGITransport(application(health))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        async with asyncio.timeout(LONG):
            answer = await client.get("/health")

    assert answer.json() == {"status": "unavailable", "failed": ["database"]}


async def test_checks_run_at_the_same_time() -> None:
    all_are_asked = asyncio.Barrier(5)  # one after the other, the first would wait for ever
    checks = [Check(f"slow-{n}", all_are_asked.wait, timeout_seconds=LONG) for n in range(5)]

    async with asyncio.timeout(LONG):
        results = await Health(checks).results()

    assert [result.status for result in results] == ["up"] * 5


async def test_a_hundred_simultaneous_probes_are_one_round_and_its_result_is_reused() -> None:
    database = Dependency()
    database.may_answer.clear()
    health = Health([Check("database", database, timeout_seconds=LONG)], cache_seconds=3600)

    callers = asyncio.gather(*(health.results() for _ in range(100)))
    await database.was_asked.wait()
    database.may_answer.set()
    await callers
    await health.results()

    assert database.asked == 1


async def test_a_result_is_not_reused_for_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now, perf_counter=time.perf_counter)
    monkeypatch.setattr("app.observability.health.time", clock)
    database = Dependency()
    health = Health([Check("database", database)], cache_seconds=5)

    await health.results()
    now += 4.9
    await health.results()
    assert database.asked == 1
    now += 0.2
    await health.results()
    assert database.asked == 2


async def test_a_prober_that_hangs_up_does_not_end_the_round_of_the_others() -> None:
    database = Dependency()
    database.may_answer.clear()
    health = Health([Check("database", database, timeout_seconds=LONG)])
    first = asyncio.create_task(health.results())
    second = asyncio.create_task(health.results())
    await database.was_asked.wait()

    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    database.may_answer.set()
    results = await second

    assert [result.status for result in results] == ["up"]
    assert database.asked == 1


async def test_a_check_that_ignores_its_cancellation_is_not_started_again_until_it_ends() -> None:
    release = asyncio.Event()
    running = 0

    async def stubborn() -> None:
        nonlocal running
        running += 1
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    health = Health([Check("stubborn", stubborn, timeout_seconds=SHORT)], cache_seconds=0.0)
    try:
        results = [*await health.results(), *await health.results(), *await health.results()]
    finally:
        release.set()

    assert [(result.status, result.error) for result in results] == [("down", "TimeoutError")] * 3
    assert running == 1
    async with asyncio.timeout(LONG):
        while (await health.results())[0].status == "down":
            await asyncio.sleep(0)
    assert running == 2


async def test_a_probe_that_fails_before_it_awaits_spoils_no_other_check() -> None:
    def broken() -> Awaitable[None]:
        raise AttributeError("client is None")

    health = Health([Check("broken", broken), Check("database", Dependency())])
    results = await health.results()

    assert [(result.status, result.error) for result in results] == [
        ("down", "AttributeError"),
        ("up", ""),
    ]


async def test_a_check_belongs_to_no_request() -> None:
    seen: list[RequestContext | None] = []

    async def probe() -> None:
        seen.append(current_context())

    with bind_context(RequestContext("request-1")):
        await Health([Check("database", probe)]).results()

    assert seen == [None]


async def test_the_state_of_each_dependency_is_a_metric(
    health: Health, database: Dependency, cache: Dependency
) -> None:
    labels = {"dependency": "database"}
    before = REGISTRY.get_sample_value("dependency_check_duration_seconds_count", labels)
    assert before is not None
    cache.error = ConnectionError("refused")

    await health.results()

    assert (up("database"), up("cache")) == (1, 0)
    after = REGISTRY.get_sample_value("dependency_check_duration_seconds_count", labels)
    assert after == before + 1


async def test_a_dependency_is_not_called_down_before_it_was_asked() -> None:
    Health([Check("never asked", Dependency())])

    assert up("never asked") is None


async def test_the_metrics_stay_fresh_without_probes() -> None:
    database = Dependency()
    health = Health([Check("database", database)], cache_seconds=0.0, refresh_seconds=0.01)

    async with asyncio.timeout(LONG), health.keep_fresh():
        while database.asked < 3 or up("database") != 1:
            await asyncio.sleep(0.001)
        database.error = ConnectionError("refused")
        while up("database") != 0:
            await asyncio.sleep(0.001)

    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("health")] == []


async def test_each_change_is_logged_once(
    health: Health, database: Dependency, log_records: list[Any]
) -> None:
    for error in (None, ConnectionError("password=hunter2"), None):
        database.error = error
        await health.results()
        await health.results()

    lines = [(line["level"].name, line["message"], line["extra"]) for line in log_records]
    told = {"type": "health", "dependency": "database", "critical": True}
    reason = {"error": "ConnectionError", "detail": "password=[redacted]"}
    assert lines == [
        ("WARNING", "Dependency is down", told | reason),
        ("INFO", "Dependency is up again", told),
    ]


async def test_operators_see_every_check_without_secrets(
    client: httpx2.AsyncClient, database: Dependency
) -> None:
    database.error = ConnectionError("postgresql://app:s3cret@db/app refused")

    answer = await client.get("/health/detailed", headers={"Authorization": f"Bearer {TOKEN}"})

    body = answer.json()
    assert answer.status_code == 503
    assert answer.headers["cache-control"] == "no-store"
    assert {"service", "version", "commit", "environment", "uptime_seconds"} <= body.keys()
    assert (body["status"], body["draining"]) == ("unavailable", False)
    failed, passed = body["checks"]
    assert failed.keys() == {
        *("name", "status", "critical", "duration_ms", "checked_at", "error", "message")
    }
    assert (failed["name"], failed["status"], failed["error"]) == (
        "database",
        "down",
        "ConnectionError",
    )
    assert passed["status"] == "up"
    assert "s3cret" not in answer.text


async def test_operators_see_the_checks_while_the_process_starts_or_drains(
    client: httpx2.AsyncClient, health: Health
) -> None:
    health.drain()

    answer = await client.get("/health/detailed", headers={"Authorization": f"Bearer {TOKEN}"})

    assert answer.status_code == 503
    assert [check["status"] for check in answer.json()["checks"]] == ["up", "up"]


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer wrong", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"],
)
async def test_strangers_are_refused_details(
    authorization: str | None, client: httpx2.AsyncClient, database: Dependency
) -> None:
    headers = {b"Authorization": authorization.encode()} if authorization else {}

    answer = await client.get("/health/detailed", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert database.asked == 0


@pytest.mark.parametrize("token", [None, ""])
async def test_without_a_token_there_are_no_details_for_anybody(
    token: str | None, health: Health
) -> None:
    transport = httpx2.ASGITransport(application(health, token))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/health/detailed", headers={"Authorization": "Bearer "})

    assert answer.status_code == 404


def test_the_documentation_tells_every_answer(health: Health) -> None:
    paths = application(health).openapi()["paths"]
    answers = {path: set(item["get"]["responses"]) for path, item in paths.items()}

    assert answers == {
        "/health": {"200", "503"},
        "/health/ready": {"200", "503"},
        "/health/startup": {"200", "503"},
        "/health/live": {"200"},
        "/health/detailed": {"200", "401", "404", "503"},
    }
    assert {tag for item in paths.values() for tag in item["get"]["tags"]} == {"operations"}
    names = [item["get"]["operationId"] for item in paths.values()]
    assert len(set(names)) == len(names)


def test_two_checks_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="share a name"):
        Health([Check("database", Dependency()), Check("database", Dependency())])


@pytest.mark.parametrize(("wanted", "status"), [(1, "up"), (2**62, "down")])
async def test_disk_space(wanted: int, status: str, tmp_path: Path) -> None:
    (result,) = await Health([disk_space_check(tmp_path, wanted)]).results()

    assert (result.name, result.status, result.critical) == ("disk", status, False)


async def test_a_dead_disk_blocks_one_thread_and_not_one_for_each_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, released = threading.Event(), threading.Event()
    asked = 0

    def hang(path: Path) -> os.terminal_size:
        nonlocal asked
        asked += 1
        entered.set()
        released.wait(10 * LONG)
        raise OSError("stale mount")

    monkeypatch.setattr(shutil, "disk_usage", hang)
    check = disk_space_check(tmp_path, 1)
    health = Health([replace(check, timeout_seconds=SHORT)], cache_seconds=0.0)
    try:
        for _ in range(3):
            (result,) = await health.results()
            assert result.message == f"no answer within {SHORT} s"  # hence it was asked each time
        assert entered.wait(LONG)
    finally:
        released.set()

    assert asked == 1

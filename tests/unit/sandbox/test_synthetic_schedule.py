"""Journeys again and again: how they follow each other, what cannot stop them, how they end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from sandbox.synthetic_journey import schedule as module
from sandbox.synthetic_journey.app import create_prober
from sandbox.synthetic_journey.schedule import Schedule
from sandbox.synthetic_journey.settings import JourneySettings


def scheduled(journey: Callable[[], Awaitable[object]], interval_seconds: float) -> Schedule:
    return Schedule(journey, interval_seconds=interval_seconds, jitter_seconds=0)


async def test_journeys_that_overrun_follow_each_other_and_never_overlap() -> None:
    running = most = made = 0
    enough = asyncio.Event()

    async def journey() -> None:
        nonlocal running, most, made
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)  # ten times the interval
        running -= 1
        made += 1
        if made == 5:
            enough.set()

    async with scheduled(journey, 0.002).running():
        await enough.wait()

    assert most == 1


async def test_the_next_one_waits_for_the_interval() -> None:
    made = 0
    first = asyncio.Event()

    async def journey() -> None:
        nonlocal made
        made += 1
        first.set()

    async with scheduled(journey, 3600).running():
        await first.wait()
        await asyncio.sleep(0.05)

    assert made == 1


async def test_a_journey_that_breaks_is_told_and_is_not_the_last_one(
    log_records: list[dict[str, Any]],
) -> None:
    made = 0
    again = asyncio.Event()

    async def journey() -> None:
        nonlocal made
        made += 1
        if made == 2:
            again.set()
        raise RuntimeError("a bug")

    async with scheduled(journey, 0.001).running():
        await again.wait()

    assert "Synthetic journey is broken" in {record["message"] for record in log_records}


async def test_the_end_waits_for_the_journey_under_way() -> None:
    begun, ended = asyncio.Event(), False

    async def journey() -> None:
        nonlocal ended
        begun.set()
        await asyncio.sleep(0.05)
        ended = True

    schedule = scheduled(journey, 3600)
    async with schedule.running():
        await begun.wait()
        assert schedule.is_running

    assert ended
    assert not schedule.is_running


async def test_the_end_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.05)
    begun = asyncio.Event()

    async def journey() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with scheduled(journey, 3600).running():
        await begun.wait()


async def test_the_probes_tell_whether_there_will_be_another_journey() -> None:
    async def refused(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    settings = JourneySettings(environment="test", synthetic_jitter_seconds=0)
    app = create_prober(settings, transport=httpx2.MockTransport(refused))
    transport = httpx2.ASGITransport(app=app)

    async with httpx2.AsyncClient(transport=transport, base_url="http://prober") as client:
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 503
        async with app.router.lifespan_context(app):
            # A service that cannot be reached is no reason to restart who found it out.
            for path in ("/health", "/health/live", "/health/ready"):
                assert (await client.get(path)).json() == {"status": "ok"}
        page = (await client.get("/metrics")).text
    assert 'synthetic_step_failures_total{step="erase"}' in page

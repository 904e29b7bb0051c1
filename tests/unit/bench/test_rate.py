"""The fixed rate: as much as keeps a server as busy as it should be."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import rate
from bench.requests import OPERATIONS


async def test_the_slowest_is_as_busy_as_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    server = SimpleNamespace(asked=100, used=5.0)
    server.cpu_seconds = lambda: server.used

    async def turn(
        one: Any, operation: Any, customer: Any, seconds: float, at: float, _: int
    ) -> None:
        assert one is server
        assert operation is OPERATIONS["ping"]
        assert customer is who
        assert at == pytest.approx(400)  # a fifth of what it does in a burst
        server.asked += 400
        server.used += 400 * 0.0005

    monkeypatch.setattr(rate, "_turn", turn)
    who = cast("Any", object())
    found = await rate.for_busy(cast("Any", server), "ping", who, highest=2000)
    assert found * 0.0005 == pytest.approx(rate.BUSY)

"""Rate limits as a specification, in memory; tests/integration has what depends on Redis."""

import datetime as dt
from collections.abc import Iterator

import httpx2
import pytest
import time_machine
from fastapi import FastAPI
from prometheus_client import REGISTRY
from pydantic import ValidationError

from app.errors import install_error_handlers
from app.infrastructure.rate_limit import (
    RateLimited,
    RateLimiter,
    RateLimitSettings,
    client_network,
    rate_limit,
)


@pytest.fixture(autouse=True)
def _time_stands_still() -> Iterator[None]:
    """No test runs across the end of a minute, when a new window begins."""
    with time_machine.travel(dt.datetime(2026, 1, 1, 12, 0, 10, tzinfo=dt.UTC), tick=False):
        yield


def limiter(login: str = "3/minute") -> RateLimiter:
    return RateLimiter(RateLimitSettings(rate_limit_login=login), None)


def refusals(scope: str) -> float:
    return REGISTRY.get_sample_value("rate_limit_hits_total", {"scope": scope}) or 0.0


async def hits_until_refused(limiter: RateLimiter, *who: str) -> int:
    for allowed in range(1000):
        try:
            await limiter.hit("login", *who)
        except RateLimited:
            return allowed
    raise AssertionError("never refused")


async def test_what_exceeds_the_limit_is_refused_and_counted() -> None:
    before = refusals("login")
    assert await hits_until_refused(limiter("3/minute"), "192.0.2.1") == 3
    assert refusals("login") == before + 1


async def test_a_refusal_says_when_to_come_back_and_then_lets_in() -> None:
    start = dt.datetime(2026, 1, 1, 12, 0, 10, tzinfo=dt.UTC)
    with time_machine.travel(start, tick=False) as time:
        limits = limiter("3/minute")
        for _ in range(3):
            await limits.hit("login", "192.0.2.1")
        with pytest.raises(RateLimited) as refused:
            await limits.hit("login", "192.0.2.1")
        retry_after = int(refused.value.headers["Retry-After"])
        assert 1 <= retry_after <= 60
        time.shift(retry_after - 2)
        with pytest.raises(RateLimited):
            await limits.hit("login", "192.0.2.1")
        time.shift(2 + 1)  # the sliding window lets in just after its edge
        await limits.hit("login", "192.0.2.1")


async def test_others_are_not_counted_together() -> None:
    limits = limiter("1/minute")
    await limits.hit("login", "192.0.2.1")
    await limits.hit("login", "192.0.2.2")
    await limits.hit("login", "192.0.2.1", "ada@example.com")
    await limits.hit("registration", "192.0.2.1")
    with pytest.raises(RateLimited):
        await limits.hit("login", "192.0.2.1")


async def test_parts_of_a_key_cannot_be_shifted_into_each_other() -> None:
    limits = limiter("1/minute")
    await limits.hit("login", "ab", "c")
    await limits.hit("login", "a", "bc")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        (("192.0.2.1", 1234), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 1234), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.1", 1234), "192.0.2.1"),
        (("testclient", 50000), "unknown"),
        (None, "unknown"),
    ],
)
def test_a_client_is_its_address_or_its_ipv6_network(
    address: tuple[str, int] | None, network: str
) -> None:
    assert client_network({"client": address}) == network


@pytest.mark.parametrize("field", ["RATE_LIMIT_LOGIN", "RATE_LIMIT_REGISTRATION"])
@pytest.mark.parametrize(
    "value", ["ten a minute", "", "0/minute", "10/fortnight", "1/second;9/day"]
)
def test_a_limit_that_cannot_be_read_stops_the_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str
) -> None:
    monkeypatch.setenv(field, value)
    with pytest.raises(ValidationError, match=f"(?i){field}") as error:
        RateLimitSettings()
    assert '"10/minute"' in str(error.value)


async def test_a_limited_route_answers_429_with_retry_after_and_trusts_no_proxy_header() -> None:
    app = FastAPI()
    install_error_handlers(app)
    app.state.rate_limiter = limiter("1/minute")

    @app.post("/token", dependencies=[rate_limit("login")])
    async def token() -> str:
        return "ok"

    def client(address: str) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app, client=(address, 1234))
        return httpx2.AsyncClient(transport=transport, base_url="http://service")

    async with client("192.0.2.1") as one, client("192.0.2.2") as other:
        first = await one.post("/token", headers={"X-Forwarded-For": "198.51.100.1"})
        second = await one.post("/token", headers={"X-Forwarded-For": "198.51.100.2"})
        third = await other.post("/token", headers={"X-Forwarded-For": "198.51.100.1"})
    assert [first.status_code, second.status_code, third.status_code] == [200, 429, 200]
    assert second.json()["code"] == "rate_limited"
    assert 1 <= int(second.headers["Retry-After"]) <= 60

"""How the provider's answers are understood: what is not clear is unknown, never "not charged"."""

import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from app.payments.provider import (
    PaymentProvider,
    ProviderNotReached,
    ProviderOutcomeUnknown,
    ProviderRefused,
    ProviderSettings,
)

KEY = uuid.UUID("0b0f9c3e-7a59-4a54-9d3a-6f7f0e1f2a3b")
ORDER = uuid.UUID("1c1f9c3e-7a59-4a54-9d3a-6f7f0e1f2a3b")
Answer = Callable[[httpx2.Request], httpx2.Response]


@asynccontextmanager
async def provider_that(answer: Answer) -> AsyncIterator[PaymentProvider]:
    settings = ProviderSettings(external_attempts=1)
    provider = PaymentProvider(settings, transport=httpx2.MockTransport(answer))
    try:
        yield provider
    finally:
        await provider.aclose()


def always(status: int, body: Any = None, **headers: str) -> Answer:
    return lambda _request: httpx2.Response(status, json=body, headers=headers)


async def charge(provider: PaymentProvider) -> Any:
    return await provider.charge(
        key=KEY, amount=1250, currency="EUR", token="tok_ok", reference=ORDER
    )


async def test_a_charge_carries_our_id_as_key_and_the_order_as_reference() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(201, json={"status": "succeeded", "decline_reason": None})

    async with provider_that(answer) as provider:
        assert (await charge(provider)).status == "succeeded"
    (request,) = seen
    assert (request.method, request.url.path) == ("POST", "/v1/charges")
    assert request.headers["Idempotency-Key"] == str(KEY)
    assert json.loads(request.content) == {
        "amount": 1250,
        "currency": "EUR",
        "token": "tok_ok",
        "reference": str(ORDER),
    }


@pytest.mark.parametrize(
    ("told", "understood"),
    [
        ("do_not_honor", "do_not_honor"),
        ("insufficient_funds", "insufficient_funds"),
        ("expired_card", "expired_card"),
        ("moon_in_the_wrong_house", "other"),
        (None, None),
    ],
)
async def test_a_reason_that_is_not_known_becomes_other(
    told: str | None, understood: str | None
) -> None:
    body = {"status": "declined", "decline_reason": told}
    async with provider_that(always(201, body)) as provider:
        assert (await charge(provider)).decline_reason == understood


@pytest.mark.parametrize(
    "answer",
    [
        always(500, {"status": "canceled"}),
        always(503, {"status": "canceled"}),
        always(429, {"status": "canceled"}),
        always(400, {"status": "canceled"}),
        always(404, {"status": "canceled"}),
        always(302, {"status": "canceled"}),
        always(200, {"status": "maybe"}),
        always(200, {"status": None}),
        always(200, ["succeeded"]),
        always(200),
        lambda _request: httpx2.Response(200, content=b"<html>succeeded</html>"),
        lambda _request: httpx2.Response(204),
    ],
    ids=range(12),
)
async def test_an_answer_that_does_not_make_sense_leaves_the_outcome_open(answer: Answer) -> None:
    async with provider_that(answer) as provider:
        with pytest.raises(ProviderOutcomeUnknown):
            await charge(provider)
        with pytest.raises(ProviderOutcomeUnknown):
            await provider.refund(key=KEY, charge=ORDER, amount=1)
        with pytest.raises(ProviderOutcomeUnknown):
            await provider.cancel_charge(KEY)


async def test_a_connection_that_breaks_leaves_the_outcome_open() -> None:
    def break_off(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("gone", request=request)

    async with provider_that(break_off) as provider:
        with pytest.raises(ProviderOutcomeUnknown):
            await charge(provider)


async def test_a_connection_that_was_never_made_means_that_nothing_was_asked() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    async with provider_that(refuse) as provider:
        with pytest.raises(ProviderNotReached) as refusal:
            await charge(provider)
        assert refusal.value.retry_after_seconds >= 1


async def test_an_open_circuit_says_when_to_come_back() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    settings = ProviderSettings(
        external_attempts=1, circuit_failure_threshold=1, circuit_recovery_seconds=30
    )
    provider = PaymentProvider(settings, transport=httpx2.MockTransport(refuse))
    with pytest.raises(ProviderNotReached):
        await charge(provider)
    with pytest.raises(ProviderNotReached) as refusal:
        await charge(provider)
    assert 25 < refusal.value.retry_after_seconds <= 30
    await provider.aclose()


async def test_a_422_is_a_refusal_that_had_no_effect() -> None:
    async with provider_that(always(422, {"detail": "no such token"})) as provider:
        with pytest.raises(ProviderRefused):
            await charge(provider)
        with pytest.raises(ProviderRefused):
            await provider.refund(key=KEY, charge=ORDER, amount=1)


async def test_what_the_provider_does_not_know_is_none() -> None:
    async with provider_that(always(404, {"detail": "no such charge"})) as provider:
        assert await provider.find_charge(KEY) is None
        assert await provider.find_refund(KEY) is None


@pytest.mark.parametrize("url", ["https://payments.example/", "https://payments.example"])
def test_a_slash_at_the_end_of_the_address_does_not_matter(url: str) -> None:
    settings = ProviderSettings(payment_provider_url=url)
    assert settings.payment_provider_url == "https://payments.example"

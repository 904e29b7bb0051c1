"""Charging: every token, replays, and one effect per idempotency key."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox.payment_provider.ledger import Ledger
from sandbox.payment_provider.schemas import ChargeRequest
from tests.provider import open_provider

Client = httpx2.AsyncClient


async def charge(client: Client, key: str = "key-1", **changes: Any) -> httpx2.Response:
    body = {"amount": 1250, "currency": "EUR", "token": "tok_ok", "reference": "order-1"} | changes
    return await client.post("/v1/charges", json=body, headers={"Idempotency-Key": key})


async def ledger(client: Client) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = (await client.get("/v1/ledger")).json()["entries"]
    return entries


async def test_a_good_token_is_charged_and_stands_in_the_ledger(provider: Client) -> None:
    answer = await charge(provider)

    assert answer.status_code == 201
    body = answer.json()
    assert body.pop("id").startswith("charge_")
    assert body == {
        "idempotency_key": "key-1",
        "status": "succeeded",
        "amount": 1250,
        "currency": "EUR",
        "decline_reason": None,
        "refunded_amount": 0,
    }
    (entry,) = await ledger(provider)
    assert entry.pop("created_at").endswith("+00:00")
    assert entry == {
        "kind": "charge",
        "key": "key-1",
        "reference": "order-1",
        "amount": 1250,
        "currency": "EUR",
        "status": "succeeded",
    }


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("tok_declined", "do_not_honor"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("tok_expired", "expired_card"),
    ],
)
async def test_a_decline_is_an_outcome_with_a_reason(
    provider: Client, token: str, reason: str
) -> None:
    answer = await charge(provider, token=token)

    assert answer.status_code == 201
    assert (answer.json()["status"], answer.json()["decline_reason"]) == ("declined", reason)
    assert [entry["status"] for entry in await ledger(provider)] == ["declined"]


async def test_the_slow_token_is_charged_after_its_time(provider: Client) -> None:
    started = time.monotonic()
    answer = await charge(provider, token="tok_slow")

    assert (answer.status_code, answer.json()["status"]) == (201, "succeeded")
    assert time.monotonic() - started >= 0.4


async def test_the_error_token_fails_every_time_and_charges_nothing(provider: Client) -> None:
    for _ in range(2):
        answer = await charge(provider, token="tok_error")
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "processing_failed"
    assert await ledger(provider) == []


async def test_the_timeout_token_charges_before_it_keeps_silent(provider: Client) -> None:
    await provider.put("/v1/behaviour", json={"timeout_seconds": 600})
    silent = asyncio.create_task(charge(provider, token="tok_timeout"))
    async with asyncio.timeout(60):
        while (known := await provider.get("/v1/charges/key-1")).status_code == 404:
            await asyncio.sleep(0.01)

    assert known.json()["status"] == "succeeded"
    await asyncio.wait({silent}, timeout=0.2)
    assert not silent.done()
    silent.cancel()
    await asyncio.gather(silent, return_exceptions=True)


async def test_the_same_request_again_gets_the_same_answer_and_charges_nothing(
    provider: Client,
) -> None:
    for token, key in [("tok_ok", "a"), ("tok_declined", "b"), ("tok_timeout", "c")]:
        first = await charge(provider, key, token=token)
        again = await charge(provider, key, token=token)
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json() == first.json()
    assert len(await ledger(provider)) == 3


async def test_a_decided_request_is_answered_again_without_the_delay_of_its_token(
    provider: Client,
) -> None:
    first = await charge(provider, token="tok_slow")
    await provider.put("/v1/behaviour", json={"slow_seconds": 600})
    async with asyncio.timeout(60):
        again = await charge(provider, token="tok_slow")
    assert again.json() == first.json()


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 1251},
        {"currency": "USD"},
        {"token": "tok_declined"},
        {"token": "tok_error"},
        {"reference": "order-2"},
    ],
)
async def test_a_key_used_with_another_body_is_refused(
    provider: Client, change: dict[str, Any]
) -> None:
    first = await charge(provider)
    other = await charge(provider, **change)

    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (await charge(provider)).json() == first.json()


async def test_fifty_requests_with_one_key_at_once_charge_once(provider: Client) -> None:
    answers = await asyncio.gather(*(charge(provider) for _ in range(50)))

    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.text for answer in answers}) == 1
    assert len(await ledger(provider)) == 1


async def test_several_ledgers_on_one_file_charge_once(tmp_path: Path) -> None:
    request = ChargeRequest(amount=1, currency="EUR", token="tok_ok", reference="r")
    books = [Ledger(tmp_path / "ledger.db") for _ in range(4)]
    for book in books:
        book.open()

    for number in range(25):
        made = await asyncio.gather(
            *(asyncio.to_thread(book.record_charge, f"key-{number}", request) for book in books)
        )
        assert sum(created for _, created in made) == 1
        assert len({charge.id for charge, _ in made}) == 1

    assert len(books[0].entries()) == 25
    for book in books:
        book.close()


async def test_an_unknown_charge_is_not_found(provider: Client) -> None:
    answer = await provider.get("/v1/charges/never")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_key_may_hold_any_visible_character(provider: Client) -> None:
    key = "".join(chr(code) for code in range(0x21, 0x7F))
    assert (await charge(provider, key)).status_code == 201
    path = "".join(f"%{ord(character):02X}" for character in key)

    for address in (f"/v1/charges/{path}", "/v1/charges/a/cancel/cancel"):
        method = "POST" if address.endswith("/cancel") else "GET"
        answer = await provider.request(method, address)
        expected = key if method == "GET" else "a/cancel"
        assert (answer.status_code, answer.json()["idempotency_key"]) == (200, expected)


async def test_the_ledger_outlives_the_process(tmp_path: Path) -> None:
    database = tmp_path / "directory" / "provider.db"
    async with open_provider(database) as client:
        first = await charge(client)
    async with open_provider(database) as client:
        again = await charge(client)

    assert (again.status_code, again.json()) == (200, first.json())

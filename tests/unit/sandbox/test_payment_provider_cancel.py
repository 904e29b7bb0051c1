"""Canceling: before the charge it prevents it, after the charge it changes nothing, together one wins."""

import asyncio
from typing import Any

import httpx2
import pytest

from sandbox.payment_provider.behaviour import Faults

Client = httpx2.AsyncClient


async def charge(client: Client, key: str = "key-1", token: str = "tok_ok") -> httpx2.Response:
    body = {"amount": 900, "currency": "EUR", "token": token, "reference": "order-1"}
    return await client.post("/v1/charges", json=body, headers={"Idempotency-Key": key})


async def refund(client: Client, key: str = "refund-1") -> httpx2.Response:
    body = {"charge": "key-1", "amount": 900}
    return await client.post("/v1/refunds", json=body, headers={"Idempotency-Key": key})


async def ledger(client: Client) -> dict[str, str]:
    entries: list[dict[str, Any]] = (await client.get("/v1/ledger")).json()["entries"]
    statuses = {entry["key"]: entry["status"] for entry in entries}
    assert len(statuses) == len(entries)
    return statuses


@pytest.mark.parametrize(
    "token", ["tok_ok", "tok_declined", "tok_slow", "tok_timeout", "tok_error"]
)
async def test_a_canceled_key_never_charges(provider: Client, token: str) -> None:
    canceled = await provider.post("/v1/charges/key-1/cancel")
    late = await charge(provider, token=token)

    assert (canceled.status_code, late.status_code) == (200, 200)
    assert late.json() == canceled.json()
    body = late.json()
    assert (body["status"], body["amount"], body["currency"]) == ("canceled", 0, "XXX")
    assert (await provider.get("/v1/charges/key-1")).json() == canceled.json()
    assert await ledger(provider) == {"key-1": "canceled"}


@pytest.mark.parametrize(
    ("token", "status"), [("tok_ok", "succeeded"), ("tok_declined", "declined")]
)
async def test_canceling_after_the_charge_changes_nothing(
    provider: Client, token: str, status: str
) -> None:
    made = await charge(provider, token=token)
    canceled = await provider.post("/v1/charges/key-1/cancel")

    assert canceled.status_code == 200
    assert canceled.json() == made.json()
    assert await ledger(provider) == {"key-1": status}


async def test_canceling_twice_is_canceling_once(provider: Client) -> None:
    first = await provider.post("/v1/charges/key-1/cancel")
    second = await provider.post("/v1/charges/key-1/cancel")
    assert second.json() == first.json()
    assert await ledger(provider) == {"key-1": "canceled"}


async def test_a_slow_charge_is_prevented_while_it_is_being_processed(
    provider: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_slow, may_go_on = asyncio.Event(), asyncio.Event()

    async def be_slow(_: Faults) -> None:
        is_slow.set()
        await may_go_on.wait()

    monkeypatch.setattr(Faults, "be_slow", be_slow)
    slow = asyncio.create_task(charge(provider, token="tok_slow"))
    await is_slow.wait()
    canceled = await provider.post("/v1/charges/key-1/cancel")
    may_go_on.set()

    assert canceled.json()["status"] == "canceled"
    assert ((await slow).status_code, (await slow).json()) == (200, canceled.json())
    assert await ledger(provider) == {"key-1": "canceled"}


async def test_of_a_charge_and_its_cancellation_at_once_one_wins_and_both_say_which(
    provider: Client,
) -> None:
    keys = [f"key-{number}" for number in range(40)]
    pairs = await asyncio.gather(
        *(
            asyncio.gather(charge(provider, key), provider.post(f"/v1/charges/{key}/cancel"))
            for key in keys
        )
    )

    told = {}
    for key, (made, canceled) in zip(keys, pairs, strict=True):
        assert made.json() == canceled.json()
        told[key] = made.json()["status"]
        assert made.status_code == (201 if told[key] == "succeeded" else 200)
    assert await ledger(provider) == told


async def test_a_canceled_refund_never_takes_place(provider: Client) -> None:
    await charge(provider)
    canceled = await provider.post("/v1/refunds/refund-1/cancel")
    late = await refund(provider)

    assert (canceled.status_code, late.status_code) == (200, 200)
    body = late.json()
    assert body == canceled.json()
    assert (body["status"], body["amount"], body["charge"]) == ("canceled", 0, "")
    assert (await provider.get("/v1/refunds/refund-1")).json() == body
    assert (await provider.get("/v1/charges/key-1")).json()["refunded_amount"] == 0


async def test_canceling_after_the_refund_changes_nothing(provider: Client) -> None:
    await charge(provider)
    made = await refund(provider)
    canceled = await provider.post("/v1/refunds/refund-1/cancel")

    assert (canceled.status_code, canceled.json()) == (200, made.json())
    assert (await provider.get("/v1/charges/key-1")).json()["refunded_amount"] == 900


async def test_charges_and_refunds_have_keys_of_their_own(provider: Client) -> None:
    await charge(provider, "same")
    canceled = await provider.post("/v1/refunds/same/cancel")
    assert canceled.json()["status"] == "canceled"
    assert (await provider.get("/v1/charges/same")).json()["status"] == "succeeded"

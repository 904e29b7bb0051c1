"""Refunding: in parts, never more than was charged, once per idempotency key."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox.payment_provider.ledger import Ledger
from sandbox.payment_provider.problems import RefundTooLarge
from sandbox.payment_provider.schemas import ChargeRequest, RefundRequest

Client = httpx2.AsyncClient


@pytest.fixture
async def charged(provider: Client) -> Client:
    """A provider with a charge of 1000 under the key "paid"."""
    body = {"amount": 1000, "currency": "JPY", "token": "tok_ok", "reference": "order-1"}
    await provider.post("/v1/charges", json=body, headers={"Idempotency-Key": "paid"})
    return provider


async def refund(client: Client, key: str, amount: int, charge: str = "paid") -> httpx2.Response:
    body = {"charge": charge, "amount": amount}
    return await client.post("/v1/refunds", json=body, headers={"Idempotency-Key": key})


async def refunded(client: Client) -> Any:
    return (await client.get("/v1/charges/paid")).json()["refunded_amount"]


async def test_a_full_refund_stands_in_the_charge_and_in_the_ledger(charged: Client) -> None:
    answer = await refund(charged, "r", 1000)

    assert answer.status_code == 201
    body = answer.json()
    assert body.pop("id").startswith("refund_")
    assert body == {
        "idempotency_key": "r",
        "status": "succeeded",
        "amount": 1000,
        "charge": "paid",
    }
    assert (await charged.get("/v1/refunds/r")).json() == answer.json()
    assert await refunded(charged) == 1000
    entry = (await charged.get("/v1/ledger")).json()["entries"][1]
    assert (entry["kind"], entry["reference"], entry["currency"]) == ("refund", "paid", "JPY")


async def test_partial_refunds_add_up_and_never_exceed_the_charge(charged: Client) -> None:
    assert (await refund(charged, "r1", 400)).status_code == 201
    assert (await refund(charged, "r2", 599)).status_code == 201
    over = await refund(charged, "r3", 2)
    assert (over.status_code, over.json()["code"]) == (422, "refund_exceeds_charge")
    assert (await charged.get("/v1/refunds/r3")).status_code == 404
    assert await refunded(charged) == 999
    assert (await refund(charged, "r3", 1)).status_code == 201
    assert await refunded(charged) == 1000


async def test_concurrent_refunds_never_exceed_the_charge(charged: Client) -> None:
    answers = await asyncio.gather(*(refund(charged, f"r{n}", 300) for n in range(20)))

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [422] * 17
    assert await refunded(charged) == 900


async def test_refunds_through_several_ledgers_on_one_file_never_exceed_the_charge(
    tmp_path: Path,
) -> None:
    books = [Ledger(tmp_path / "ledger.db") for _ in range(4)]
    for book in books:
        book.open()
    request = ChargeRequest(amount=10, currency="EUR", token="tok_ok", reference="r")

    def try_refund(book: Ledger, key: str, charge: str) -> bool:
        try:
            book.record_refund(key, RefundRequest(charge=charge, amount=4))
        except RefundTooLarge:
            return False
        return True

    for number in range(25):
        books[0].record_charge(f"c{number}", request)
        made = await asyncio.gather(
            *(
                asyncio.to_thread(try_refund, book, f"r{number}-{place}", f"c{number}")
                for place, book in enumerate(books)
            )
        )
        assert sum(made) == 2
    for book in books:
        book.close()


async def test_the_same_refund_again_gives_back_nothing_more(charged: Client) -> None:
    first = await refund(charged, "r", 700)
    again = await asyncio.gather(*(refund(charged, "r", 700) for _ in range(10)))

    assert {(answer.status_code, answer.text) for answer in again} == {(200, first.text)}
    assert await refunded(charged) == 700


async def test_a_refund_key_used_with_another_body_is_refused(charged: Client) -> None:
    await refund(charged, "r", 100)
    other = await refund(charged, "r", 101)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await refunded(charged) == 100


@pytest.mark.parametrize("preparation", ["nothing", "declined", "canceled"])
async def test_only_a_successful_charge_can_be_refunded(provider: Client, preparation: str) -> None:
    body = {"amount": 1000, "currency": "EUR", "token": "tok_declined", "reference": "order-1"}
    if preparation == "declined":
        await provider.post("/v1/charges", json=body, headers={"Idempotency-Key": "paid"})
    if preparation == "canceled":
        await provider.post("/v1/charges/paid/cancel")

    answer = await refund(provider, "r", 1)
    assert (answer.status_code, answer.json()["code"]) == (422, "charge_not_refundable")


async def test_a_replayed_charge_tells_what_was_refunded_since(charged: Client) -> None:
    await refund(charged, "r", 250)
    body = {"amount": 1000, "currency": "JPY", "token": "tok_ok", "reference": "order-1"}
    again = await charged.post("/v1/charges", json=body, headers={"Idempotency-Key": "paid"})
    assert (again.status_code, again.json()["refunded_amount"]) == (200, 250)

"""Refunds: whole, in parts, at once, and never more than was paid."""

import asyncio
from typing import Any

import httpx2

from tests.books import (
    Gate,
    charges_of,
    handle_events,
    lose_answer,
    reconcile_now,
    refunded,
)
from tests.provider import RunningProvider
from tests.service import Service, ServiceClient, open_service


class Paid:
    """A captured payment of 1000 and what may be done with it."""

    def __init__(self, person: ServiceClient, order_id: str, payment_id: str) -> None:
        self.person = person
        self.order_id = order_id
        self.id = payment_id

    async def refund(self, amount: int | None = None, *, key: str | None = None) -> Any:
        return await self.person.post(
            f"/v1/payments/{self.id}/refund", {"amount": amount} if amount else None, key=key
        )

    async def read(self) -> tuple[str, int, str]:
        payment = (await self.person.get(f"/v1/payments/{self.id}")).json()
        order = (await self.person.get(f"/v1/orders/{self.order_id}")).json()
        return payment["status"], payment["refunded_amount"], order["status"]


async def pay(service: Service, amount: int = 1000) -> Paid:
    person = await service.person()
    order = await person.order(amount=amount)
    payment = (await person.pay(order["id"])).json()
    assert payment["status"] == "captured"
    return Paid(person, order["id"], payment["id"])


async def test_a_refund_without_an_amount_gives_all_back(
    service: Service, provider: RunningProvider
) -> None:
    payment = await pay(service)
    answer = await payment.refund()
    assert answer.status_code == 201
    assert answer.json()["status"] == "succeeded"
    assert answer.json()["amount"] == 1000
    assert answer.json()["payment_id"] == payment.id
    assert await payment.read() == ("refunded", 1000, "refunded")
    assert refunded(provider, payment.id) == 1000
    again = await payment.refund()
    assert (again.status_code, again.json()["code"]) == (409, "not_refundable")


async def test_parts_add_up_to_the_whole_and_the_last_one_ends_the_order(
    service: Service, provider: RunningProvider
) -> None:
    payment = await pay(service)
    assert (await payment.refund(300)).json()["status"] == "succeeded"
    assert await payment.read() == ("captured", 300, "paid")
    assert (await payment.refund(200)).json()["status"] == "succeeded"
    too_much = await payment.refund(501)
    assert (too_much.status_code, too_much.json()["code"]) == (422, "refund_too_large")
    assert too_much.json()["left"] == 500
    assert await payment.read() == ("captured", 500, "paid")
    assert (await payment.refund()).json()["amount"] == 500
    assert await payment.read() == ("refunded", 1000, "refunded")
    assert refunded(provider, payment.id) == 1000


async def test_a_fulfilled_order_can_be_refunded(
    service: Service, provider: RunningProvider
) -> None:
    payment = await pay(service)
    await handle_events(service)
    assert await payment.read() == ("captured", 0, "fulfilled")
    await payment.refund(1)
    assert await payment.read() == ("captured", 1, "fulfilled")
    await payment.refund()
    assert await payment.read() == ("refunded", 1000, "refunded")
    assert refunded(provider, payment.id) == 1000


async def test_refunds_at_once_never_give_back_more_than_was_paid(
    service: Service, provider: RunningProvider
) -> None:
    payment = await pay(service)
    answers = await asyncio.gather(*(payment.refund(300) for _ in range(8)))
    succeeded = [answer for answer in answers if answer.status_code == 201]
    assert len(succeeded) == 3
    assert {answer.json()["code"] for answer in answers if answer not in succeeded} == {
        "refund_too_large"
    }
    assert await payment.read() == ("captured", 900, "paid")
    assert refunded(provider, payment.id) == 900


async def test_full_refunds_at_once_give_back_once(
    service: Service, provider: RunningProvider
) -> None:
    payment = await pay(service)
    answers = await asyncio.gather(*(payment.refund() for _ in range(5)))
    assert {answer.status_code for answer in answers} <= {201, 409, 422}
    assert sum(answer.status_code == 201 for answer in answers) == 1
    assert await payment.read() == ("refunded", 1000, "refunded")
    assert refunded(provider, payment.id) == 1000


async def test_a_refund_that_is_on_its_way_counts_as_given(
    service: Service, provider: RunningProvider
) -> None:
    payment = await pay(service)
    gate = Gate(service, "refund")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(payment.refund(600))
        await gate.reached.wait()
        too_much = await payment.refund(600)
        gate.open()
    assert (too_much.status_code, too_much.json()["left"]) == (422, 400)
    assert first.result().json()["status"] == "succeeded"
    assert refunded(provider, payment.id) == 600


async def test_a_refund_whose_answer_was_lost_is_found_by_reconciliation(
    service: Service, provider: RunningProvider
) -> None:
    payment = await pay(service)
    lose_answer(service, "refund")
    pending = await payment.refund()
    assert (pending.status_code, pending.json()["status"]) == (201, "pending")
    assert await payment.read() == ("captured", 0, "paid")
    assert (await payment.refund(1)).status_code == 422, "all of it is on its way"

    assert await reconcile_now(service) == 1

    assert await payment.read() == ("refunded", 1000, "refunded")
    assert refunded(provider, payment.id) == 1000
    assert await reconcile_now(service) == 0


async def test_a_refund_that_the_provider_never_saw_is_free_again_after_reconciliation(
    service: Service, provider: RunningProvider
) -> None:
    payment = await pay(service)
    gate = Gate(service, "refund")
    async with asyncio.TaskGroup() as group:
        late = group.create_task(payment.refund())
        await gate.reached.wait()
        assert await reconcile_now(service) == 1
        assert await payment.read() == ("captured", 0, "paid")
        gate.open()  # the request arrives after all: the provider has promised to refuse it
    assert late.result().json()["status"] == "failed"
    assert refunded(provider, payment.id) == 0
    assert (await payment.refund()).json()["status"] == "succeeded"
    assert refunded(provider, payment.id) == 1000


async def test_a_provider_that_is_away_gives_nothing_back_and_the_refund_can_be_made_later(
    service: Service, service_database: str, provider: RunningProvider
) -> None:
    payment = await pay(service)
    async with open_service(service_database) as cut_off:
        there = Paid(ServiceClient(cut_off.http), payment.order_id, payment.id)
        there.person.headers = payment.person.headers
        refused = await there.refund()
    assert (refused.status_code, refused.json()["code"]) == (503, "payment_provider_unavailable")
    assert int(refused.headers["Retry-After"]) >= 1
    assert (await payment.refund()).json()["status"] == "succeeded"
    assert refunded(provider, payment.id) == 1000


async def test_a_refund_that_the_provider_refuses_fails_and_changes_nothing(
    service: Service, provider: RunningProvider
) -> None:
    payment = await pay(service)
    behind_our_back = httpx2.post(
        f"{provider.url}/v1/refunds",
        json={"charge": payment.id, "amount": 1000},
        headers={"Idempotency-Key": f"support-{payment.id}"},
    )
    assert behind_our_back.status_code == 201
    answer = await payment.refund()
    assert (answer.status_code, answer.json()["status"]) == (201, "failed")
    assert await payment.read() == ("captured", 0, "paid")


async def test_only_a_captured_payment_can_be_refunded(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    for token in ("tok_declined", "tok_error"):
        order = await person.order()
        payment = (await person.pay(order["id"], token)).json()
        answer = await person.post(f"/v1/payments/{payment['id']}/refund")
        assert (answer.status_code, answer.json()["code"]) == (409, "not_refundable")
        assert charges_of(provider, order["id"]) == []


async def test_an_amount_that_makes_no_sense_is_refused(
    service: Service, provider: RunningProvider
) -> None:
    payment = await pay(service)
    for amount in (0, -1, 10**10, 0.5, "all"):
        answer = await payment.person.post(f"/v1/payments/{payment.id}/refund", {"amount": amount})
        assert answer.status_code == 422, amount
    assert refunded(provider, payment.id) == 0

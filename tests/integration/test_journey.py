"""The main job: a person registers, logs in, orders, pays, and gets what was paid for."""

import asyncio

from tests.service import Service, ServiceClient


async def _until_fulfilled(person: ServiceClient, order_id: str) -> None:
    async with asyncio.timeout(20):
        while (await person.get(f"/v1/orders/{order_id}")).json()["status"] != "fulfilled":
            await asyncio.sleep(0.05)


async def test_a_paid_order_is_charged_once_fulfilled_and_can_be_refunded(
    service_with_worker: Service,
) -> None:
    person = await service_with_worker.person()
    order = await person.order(amount=1999)
    assert order["status"] == "pending"
    assert order["total_amount"] == 1999

    paid = await person.pay(order["id"])
    assert paid.status_code == 201
    payment = paid.json()
    assert (payment["status"], payment["amount"], payment["currency"]) == ("captured", 1999, "EUR")
    await _until_fulfilled(person, order["id"])

    refund = await person.post(f"/v1/payments/{payment['id']}/refund")
    assert refund.status_code == 201
    assert (refund.json()["status"], refund.json()["amount"]) == ("succeeded", 1999)
    assert (await person.get(f"/v1/orders/{order['id']}")).json()["status"] == "refunded"
    assert (await person.get(f"/v1/payments/{payment['id']}")).json()["status"] == "refunded"

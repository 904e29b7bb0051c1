"""Paying: each outcome that a provider may have, and never a second charge."""

import asyncio
from collections import Counter

from tests.books import Gate, charges_of
from tests.integration.conftest import OpenService
from tests.provider import RunningProvider
from tests.service import Service, ServiceClient, open_service


async def _status(person: ServiceClient, order_id: str) -> str:
    return str((await person.get(f"/v1/orders/{order_id}")).json()["status"])


async def test_each_token_of_the_sandbox_has_its_outcome(
    service: Service, provider: RunningProvider
) -> None:
    provider.behave(slow_seconds=0.1)
    person = await service.person()
    for token, status, reason, order_status in (
        ("tok_ok", "captured", None, "paid"),
        ("tok_slow", "captured", None, "paid"),
        ("tok_declined", "declined", "do_not_honor", "pending"),
        ("tok_insufficient_funds", "declined", "insufficient_funds", "pending"),
        ("tok_expired", "declined", "expired_card", "pending"),
        ("tok_error", "pending", None, "pending"),
    ):
        order = await person.order(amount=4200, currency="CHF")
        answer = await person.pay(order["id"], token)
        assert answer.status_code == 201, token
        payment = answer.json()
        assert (payment["status"], payment["decline_reason"]) == (status, reason), token
        assert (payment["amount"], payment["currency"]) == (4200, "CHF")
        assert payment["refunded_amount"] == 0
        assert (await person.get(f"/v1/payments/{payment['id']}")).json() == payment
        assert await _status(person, order["id"]) == order_status
        charges = charges_of(provider, order["id"])
        assert len(charges) == (status == "captured"), token


async def test_what_was_charged_is_the_orders_total_in_its_currency(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order(amount=7, currency="JPY")
    payment = (await person.pay(order["id"])).json()
    (charge,) = charges_of(provider, order["id"])
    assert (charge["amount"], charge["currency"], charge["key"]) == (7, "JPY", payment["id"])


async def test_a_token_that_the_provider_does_not_know_leaves_the_order_payable(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    refused = await person.pay(order["id"], "tok_of_somebody")
    assert (refused.status_code, refused.json()["code"]) == (422, "payment_token_refused")
    assert "tok_of_somebody" not in refused.text
    assert (await person.pay(order["id"])).json()["status"] == "captured"
    assert len(charges_of(provider, order["id"])) == 1


async def test_a_declined_order_can_be_paid_with_another_card(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    for token in ("tok_declined", "tok_expired"):
        assert (await person.pay(order["id"], token)).json()["status"] == "declined"
    assert (await person.pay(order["id"])).json()["status"] == "captured"
    assert len(charges_of(provider, order["id"])) == 1


async def test_a_paid_order_cannot_be_paid_again(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    await person.pay(order["id"])
    again = await person.pay(order["id"])
    assert (again.status_code, again.json()["code"]) == (409, "illegal_transition")
    assert len(charges_of(provider, order["id"])) == 1


async def test_while_a_payment_is_under_way_the_order_is_held(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    gate = Gate(service, "charge")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(person.pay(order["id"]))
        await gate.reached.wait()
        second = await person.pay(order["id"])
        cancelled = await person.post(f"/v1/orders/{order['id']}/cancel")
        gate.open()
    for refused in (second, cancelled):
        assert (refused.status_code, refused.json()["code"]) == (409, "payment_in_progress")
    assert first.result().json()["status"] == "captured"
    assert await _status(person, order["id"]) == "paid"
    assert len(charges_of(provider, order["id"])) == 1


async def test_no_transaction_is_open_while_the_provider_is_asked(open_here: OpenService) -> None:
    async with open_here(database_pool_size=1, database_max_overflow=0) as service:
        person = await service.person()
        order = await person.order()
        gate = Gate(service, "charge")
        async with asyncio.TaskGroup() as group:
            paying = group.create_task(person.pay(order["id"]))
            await gate.reached.wait()
            # The only connection is free for others.
            assert (await person.get("/v1/users/me")).status_code == 200
            gate.open()
        assert paying.result().json()["status"] == "captured"


async def test_of_ten_payments_at_once_exactly_one_charges(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    answers = await asyncio.gather(*(person.pay(order["id"]) for _ in range(10)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 9}
    assert len(charges_of(provider, order["id"])) == 1


async def test_a_provider_that_is_away_is_said_and_the_order_can_be_paid_later(
    service: Service, service_database: str, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    async with open_service(service_database) as cut_off:  # nobody listens at its provider's port
        there = ServiceClient(cut_off.http)
        there.headers = person.headers
        for _ in range(6):  # the last ones meet an open circuit
            refused = await there.pay(order["id"])
            assert refused.status_code == 503
            assert refused.json()["code"] == "payment_provider_unavailable"
            assert int(refused.headers["Retry-After"]) >= 1
    assert await _status(person, order["id"]) == "pending"
    assert charges_of(provider, order["id"]) == []
    assert (await person.pay(order["id"])).json()["status"] == "captured"
    assert len(charges_of(provider, order["id"])) == 1


async def test_a_card_number_is_not_a_token_and_is_not_repeated(
    sqlite_service_database: str,
) -> None:
    async with open_service(sqlite_service_database) as service:
        person = await service.person()
        order = await person.order()
        for token in ("4242 4242 4242 4242", "", "tok_", "visa", "tok_" + "x" * 61):
            refused = await person.pay(order["id"], token)
            assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
            assert "4242" not in refused.text

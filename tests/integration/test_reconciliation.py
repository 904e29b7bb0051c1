"""Reconciliation: what nobody heard of is asked for, and settled once, by the provider's word."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import func, select

from app.infrastructure import outbox
from app.infrastructure.database import Database
from app.payments import service as payments
from app.payments.models import Payment
from app.payments.provider import PaymentProvider, ProviderOutcomeUnknown
from app.payments.reconciliation import reconcile
from tests.books import (
    Gate,
    charges_of,
    handle_events,
    lose_answer,
    make_due,
    reconcile_now,
    refunded,
    second_connection,
)
from tests.integration.conftest import OpenService
from tests.provider import RunningProvider
from tests.service import Service, ServiceClient, open_service


async def _read(person: ServiceClient, payment: dict[str, Any]) -> tuple[str, str]:
    """Return the statuses of a payment and of its order."""
    read = (await person.get(f"/v1/payments/{payment['id']}")).json()
    order = (await person.get(f"/v1/orders/{payment['order_id']}")).json()
    return read["status"], order["status"]


async def _events(service: Service, topic: str) -> int:
    database: Database = service.app.state.database
    async with database.transaction() as session:
        query = select(func.count()).where(outbox.OutboxMessage.topic == topic)
        return await session.scalar(query) or 0


async def _die(*_positional: object, **_named: object) -> None:
    raise RuntimeError("the process ends here")


async def test_a_charge_that_failed_at_the_provider_becomes_failed_and_the_order_payable(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    payment = (await person.pay(order["id"], "tok_error")).json()
    assert payment["status"] == "pending"
    assert (await person.pay(order["id"])).json()["code"] == "payment_in_progress"

    assert await reconcile_now(service) == 1

    assert await _read(person, payment) == ("failed", "pending")
    assert (await person.pay(order["id"])).json()["status"] == "captured"
    assert len(charges_of(provider, order["id"])) == 1
    assert await _events(service, "payment.captured") == 1


async def test_a_charge_whose_answer_did_not_come_becomes_captured_and_is_charged_once(
    open_here: OpenService, provider: RunningProvider
) -> None:
    # One attempt: a second one would be told of the stored charge at once.
    async with open_here(external_attempts=1, external_read_timeout_seconds=0.3) as service:
        person = await service.person()
        order = await person.order()
        payment = (await person.pay(order["id"], "tok_timeout")).json()
        assert payment["status"] == "pending"
    async with asyncio.timeout(30):  # the provider got the request, whenever it may come to it
        while not charges_of(provider, order["id"]):
            await asyncio.sleep(0.05)
    async with open_here() as service:  # patient again: the machine may be slow
        assert await reconcile_now(service) == 1
        person.http = service.http
        assert await _read(person, payment) == ("captured", "paid")
        await handle_events(service)
        assert await _read(person, payment) == ("captured", "fulfilled")
        assert len(charges_of(provider, order["id"])) == 1
        assert await reconcile_now(service) == 0


async def test_a_retry_finds_the_charge_whose_answer_did_not_come(
    open_here: OpenService, provider: RunningProvider
) -> None:
    async with open_here(external_attempts=3, external_read_timeout_seconds=0.5) as service:
        person = await service.person()
        order = await person.order()
        payment = (await person.pay(order["id"], "tok_timeout")).json()
        assert payment["status"] in {"captured", "pending"}  # pending where the machine is slow
        await reconcile_now(service)
    assert len(charges_of(provider, order["id"])) == 1


async def test_a_process_that_died_between_charge_and_commit_has_lost_nothing(
    service: Service, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await service.person()
    order = await person.order()
    with monkeypatch.context() as patch:
        patch.setattr(payments, "settle_payment", _die)
        assert (await person.pay(order["id"])).status_code == 500
    (charge,) = charges_of(provider, order["id"])
    payment = {"id": charge["key"], "order_id": order["id"]}
    assert await _read(person, payment) == ("pending", "pending")
    assert (await person.pay(order["id"])).json()["code"] == "payment_in_progress"

    assert await reconcile_now(service) == 1

    assert await _read(person, payment) == ("captured", "paid")
    assert len(charges_of(provider, order["id"])) == 1


async def test_a_process_that_died_before_the_charge_leaves_the_order_payable(
    service: Service, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await service.person()
    order = await person.order()
    with monkeypatch.context() as patch:
        patch.setattr(service.app.state.payment_provider, "charge", _die)
        assert (await person.pay(order["id"])).status_code == 500
    assert await reconcile_now(service) == 1
    assert charges_of(provider, order["id"]) == []
    assert (await person.pay(order["id"])).json()["status"] == "captured"
    assert len(charges_of(provider, order["id"])) == 1


async def test_a_refund_whose_process_died_is_settled_too(
    service: Service, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await service.person()
    order = await person.order()
    payment = (await person.pay(order["id"])).json()
    with monkeypatch.context() as patch:
        patch.setattr(payments, "settle_refund", _die)
        answer = await person.post(f"/v1/payments/{payment['id']}/refund")
        assert answer.status_code == 500
    assert await reconcile_now(service) == 1
    assert await _read(person, payment) == ("refunded", "refunded")
    assert refunded(provider, payment["id"]) == 2500


async def test_a_payment_that_may_still_be_under_way_is_left_alone(service: Service) -> None:
    person = await service.person()
    order = await person.order()
    payment = (await person.pay(order["id"], "tok_error")).json()
    async with second_connection(service) as provider:
        assert await reconcile(service.app.state.database, provider) == 0
    assert await _read(person, payment) == ("pending", "pending")


async def test_a_charge_that_comes_after_reconciliation_gave_it_up_never_charges(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    gate = Gate(service, "charge")
    async with asyncio.TaskGroup() as group:
        late = group.create_task(person.pay(order["id"]))
        await gate.reached.wait()
        assert await reconcile_now(service) == 1
        gate.open()
    assert late.result().json()["status"] == "failed"
    assert charges_of(provider, order["id"]) == []
    assert (await person.pay(order["id"])).json()["status"] == "captured"
    assert len(charges_of(provider, order["id"])) == 1


async def test_two_that_reconcile_at_once_settle_once(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    lose_answer(service, "charge")
    payment = (await person.pay(order["id"])).json()
    database: Database = service.app.state.database
    await make_due(database)
    async with second_connection(service) as one, second_connection(service) as another:
        asked = await asyncio.gather(reconcile(database, one), reconcile(database, another))
    assert sum(asked) == 1, "the other one has skipped it"
    assert await _read(person, payment) == ("captured", "paid")
    assert await _events(service, "payment.captured") == 1


async def test_the_same_word_given_by_many_at_once_settles_once(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    lose_answer(service, "charge")
    payment = (await person.pay(order["id"])).json()
    database: Database = service.app.state.database
    async with second_connection(service) as connection:
        (charge,) = charges_of(provider, order["id"])
        word = await connection.find_charge(charge["key"])
    assert word is not None

    async def settle() -> str:
        async with database.transaction() as session:
            (stored,) = await session.scalars(select(Payment))
            settled = await payments.settle_payment(session, payment_id=stored.id, charge=word)
            return settled.status

    outcomes = Counter(await asyncio.gather(*(settle() for _ in range(8))))
    assert outcomes == {"captured": 8}
    assert await _events(service, "payment.captured") == 1
    assert await _read(person, payment) == ("captured", "paid")


async def test_a_provider_that_is_away_changes_nothing_and_is_asked_again(
    service: Service, service_database: str, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    lose_answer(service, "charge")
    payment = (await person.pay(order["id"])).json()
    async with open_service(service_database) as cut_off:
        assert await reconcile_now(cut_off) == 1
    assert await _read(person, payment) == ("pending", "pending")
    assert await reconcile_now(service) == 1
    assert await _read(person, payment) == ("captured", "paid")
    assert len(charges_of(provider, order["id"])) == 1


async def test_one_payment_that_the_provider_cannot_tell_of_does_not_keep_the_others_waiting(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await service.person()
    pending = [
        (await person.pay((await person.order())["id"], "tok_error")).json() for _ in range(3)
    ]
    find = PaymentProvider.find_charge

    async def find_all_but_the_first(self: PaymentProvider, key: Any) -> Any:
        if str(key) == pending[0]["id"]:
            raise ProviderOutcomeUnknown
        return await find(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(PaymentProvider, "find_charge", find_all_but_the_first)
        assert await reconcile_now(service) == 3
    statuses = [(await _read(person, payment))[0] for payment in pending]
    assert statuses == ["pending", "failed", "failed"]
    assert await reconcile_now(service) == 1
    assert await _read(person, pending[0]) == ("failed", "pending")

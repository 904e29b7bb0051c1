"""Idempotency keys: a call that is repeated acts once, and every caller gets the same answer."""

import asyncio
import datetime as dt
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from httpx2 import Response
from pydantic import BaseModel
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response as HttpResponse

from app.infrastructure import outbox
from app.infrastructure.database import Database, now
from app.infrastructure.idempotency import (
    IdempotencyRecord,
    purge_expired,
    run_resumable,
    stored_key,
)
from app.orders.models import Order
from app.payments import service as payments
from app.payments.errors import PaymentTokenRefused
from app.payments.models import Payment
from app.payments.provider import ProviderRefused
from tests.books import Gate, charges_of, reconcile_now, refunded
from tests.integration.conftest import OpenService
from tests.provider import RunningProvider
from tests.service import Service, ServiceClient, open_service

KEY = "9b2f4c1e-one-job"
REPLAYED = "Idempotency-Replayed"


async def count(service: Service, table: type[Order | Payment | outbox.OutboxMessage]) -> int:
    database: Database = service.app.state.database
    async with database.transaction() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


def basket(amount: int = 2500) -> dict[str, Any]:
    lines = [{"sku": "TEA", "quantity": 1, "unit_amount": amount}]
    return {"currency": "EUR", "lines": lines}


async def test_a_repeated_order_is_the_first_one_and_says_that_it_is_a_replay(
    service: Service,
) -> None:
    person = await service.person()
    first = await person.post("/v1/orders", basket(), key=KEY)
    again = await person.post("/v1/orders", basket(), key=KEY)
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert first.headers["Content-Type"] == again.headers["Content-Type"]
    assert (REPLAYED in first.headers, again.headers.get(REPLAYED)) == (False, "true")
    assert await count(service, Order) == 1
    assert await count(service, outbox.OutboxMessage) == 2, "registration and order, no third"


async def test_a_repeated_payment_is_the_first_one_even_after_things_went_on(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    first = await person.pay(order["id"], key=KEY)
    refund = f"/v1/payments/{first.json()['id']}/refund"
    given = await person.post(refund, {"amount": 100}, key=KEY)
    assert given.json()["status"] == "succeeded"
    again = await person.pay(order["id"], key=KEY)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers[REPLAYED] == "true"
    assert (await person.post(refund, {"amount": 100}, key=KEY)).content == given.content
    assert len(charges_of(provider, order["id"])) == 1
    assert refunded(provider, first.json()["id"]) == 100


async def test_a_declined_payment_is_an_answer_like_any_other(service: Service) -> None:
    person = await service.person()
    order = await person.order()
    first = await person.pay(order["id"], "tok_declined", key=KEY)
    again = await person.pay(order["id"], "tok_declined", key=KEY)
    assert again.content == first.content
    assert again.headers[REPLAYED] == "true"
    assert await count(service, Payment) == 1


async def test_fifty_calls_at_once_with_one_key_act_once_and_get_one_answer(
    open_here: OpenService, provider: RunningProvider
) -> None:
    # On a busy machine fifty take longer than one would: waiting in line is not what is tested.
    async with open_here(
        database_pool_timeout_seconds=60,
        database_lock_timeout_ms=60_000,
        database_statement_timeout_ms=60_000,
        external_pool_timeout_seconds=60,
        external_read_timeout_seconds=60,
        external_deadline_seconds=60,
    ) as service:
        person = await service.person()

        async def fifty(call: Any) -> Response:
            answers: list[Response] = await asyncio.gather(*(call() for _ in range(50)))
            assert {answer.status_code for answer in answers} == {201}
            assert len({answer.content for answer in answers}) == 1
            return answers[0]

        order = (await fifty(lambda: person.post("/v1/orders", basket(), key=KEY))).json()
        assert await count(service, Order) == 1
        payment = (await fifty(lambda: person.pay(order["id"], key=KEY))).json()
        assert payment["status"] == "captured"
        assert await count(service, Payment) == 1
        charges = [entry for entry in provider.ledger() if entry["reference"] == order["id"]]
        assert [entry["key"] for entry in charges] == [payment["id"]]
        path = f"/v1/payments/{payment['id']}/refund"
        refund = (await fifty(lambda: person.post(path, {"amount": 100}, key=KEY))).json()
        assert refund["status"] == "succeeded"
        assert refunded(provider, payment["id"]) == 100


async def test_a_key_with_another_body_is_refused_and_the_first_answer_stays(
    service: Service,
) -> None:
    person = await service.person()
    order = await person.post("/v1/orders", basket(1), key=KEY)
    other = await person.post("/v1/orders", basket(2), key=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")

    paid = await person.pay(order.json()["id"], key=KEY)
    another_order = await person.order()
    for refused in (
        await person.pay(another_order["id"], key=KEY),
        await person.pay(order.json()["id"], "tok_slow", key=KEY),
    ):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert (await person.post("/v1/orders", basket(1), key=KEY)).content == order.content
    assert (await person.pay(order.json()["id"], key=KEY)).content == paid.content


async def test_spacing_and_order_of_the_members_do_not_make_another_body(
    service: Service,
) -> None:
    person = await service.person()
    headers = person.headers | {"Idempotency-Key": KEY, "Content-Type": "application/json"}
    answers = [
        await service.http.post("/v1/orders", content=body, headers=headers)
        for body in (
            '{"currency":"EUR","lines":[{"sku":"TEA","quantity":1,"unit_amount":5}]}',
            '{ "lines": [{"unit_amount": 5, "sku": "TEA", "quantity": 1}], "currency": "EUR" }',
        )
    ]
    assert answers[0].status_code == 201
    assert answers[0].content == answers[1].content


async def test_a_key_stands_for_one_person_and_one_operation(
    service: Service, provider: RunningProvider
) -> None:
    ada, bob = await service.person(), await service.person()
    orders = [(await person.post("/v1/orders", basket(), key=KEY)).json() for person in (ada, bob)]
    assert orders[0]["id"] != orders[1]["id"]
    payments = [
        (await person.pay(order["id"], key=KEY)).json()
        for person, order in zip((ada, bob), orders, strict=True)
    ]
    assert {payment["status"] for payment in payments} == {"captured"}
    second_order = await ada.order()
    second = (await ada.pay(second_order["id"], key="another")).json()
    for payment in (payments[0], second):  # the payment is in the path, so it is part of the key
        answer = await ada.post(f"/v1/payments/{payment['id']}/refund", key=KEY)
        assert answer.json()["payment_id"] == payment["id"]
        assert refunded(provider, payment["id"]) == 2500


async def test_a_key_is_forgotten_after_a_day(service: Service) -> None:
    person = await service.person()
    first = (await person.post("/v1/orders", basket(), key=KEY)).json()
    await person.post("/v1/orders", basket(), key="a fresh one".replace(" ", "-"))
    database: Database = service.app.state.database
    async with database.transaction() as session:
        (expiry,) = await session.scalars(
            select(IdempotencyRecord.expires_at).where(IdempotencyRecord.key == stored_key(KEY))
        )
        assert dt.timedelta(hours=23) < expiry - now() <= dt.timedelta(hours=24)
        await session.execute(
            update(IdempotencyRecord)
            .where(IdempotencyRecord.key == stored_key(KEY))
            .values(expires_at=now() - dt.timedelta(seconds=1))
        )
    second = await person.post("/v1/orders", basket(999), key=KEY)
    assert second.status_code == 201
    assert second.json()["id"] != first["id"]
    async with database.transaction() as session:
        await session.execute(
            update(IdempotencyRecord)
            .where(IdempotencyRecord.key == stored_key(KEY))
            .values(expires_at=now() - dt.timedelta(seconds=1))
        )
    async with database.transaction() as session:
        assert await purge_expired(session) == 1, "the fresh one stays"


async def test_a_refusal_does_not_use_the_key_up(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    assert (await person.post("/v1/orders", basket(0), key=KEY)).status_code == 422
    order = (await person.post("/v1/orders", basket(), key=KEY)).json()

    cancelled = await person.order()
    await person.post(f"/v1/orders/{cancelled['id']}/cancel")
    assert (await person.pay(cancelled["id"], key=KEY)).status_code == 409
    assert (await person.pay(order["id"], "tok_unheard_of", key=KEY)).status_code == 422
    paid = await person.pay(order["id"], key=KEY)
    assert (paid.status_code, paid.json()["status"]) == (201, "captured")
    assert REPLAYED not in paid.headers

    path = f"/v1/payments/{paid.json()['id']}/refund"
    assert (await person.post(path, {"amount": 2501}, key=KEY)).status_code == 422
    assert (await person.post(path, {"amount": 2500}, key=KEY)).json()["status"] == "succeeded"
    assert len(charges_of(provider, order["id"])) == 1


@pytest.mark.parametrize("key", ["x" * 256, "two words", "\u00fc", "\x7f"])
async def test_a_key_that_is_none_is_refused(sqlite_service_database: str, key: str) -> None:
    async with open_service(sqlite_service_database) as service:
        person = await service.person()
        headers = {"Idempotency-Key": key.encode("latin-1")}
        answer = await service.http.post(
            "/v1/orders",
            json=basket(),
            headers=[
                *((name.encode(), value.encode()) for name, value in person.headers.items()),
                *((name.encode(), value) for name, value in headers.items()),
            ],
        )
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == [
            "/header/Idempotency-Key"
        ]


# A call that did not end well is resumed by its key


async def test_a_payment_that_did_not_reach_the_provider_is_resumed_by_its_key(
    service: Service, service_database: str, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    async with open_service(service_database) as cut_off:
        there = ServiceClient(cut_off.http)
        there.headers = person.headers
        refused = await there.pay(order["id"], key=KEY)
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    resumed = await person.pay(order["id"], key=KEY)
    assert (resumed.status_code, resumed.json()["status"]) == (201, "captured")
    assert (await person.pay(order["id"], key=KEY)).content == resumed.content
    assert len(charges_of(provider, order["id"])) == 1
    assert await count(service, Payment) == 1


async def test_a_payment_that_died_after_the_charge_is_resumed_by_its_key(
    service: Service, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await service.person()
    order = await person.order()
    with monkeypatch.context() as patch:
        patch.setattr(payments, "settle_payment", _die)
        died = await person.pay(order["id"], key=KEY)
        assert died.status_code == 500
    assert len(charges_of(provider, order["id"])) == 1
    resumed = await person.pay(order["id"], key=KEY)
    assert (resumed.status_code, resumed.json()["status"]) == (201, "captured")
    assert len(charges_of(provider, order["id"])) == 1


async def test_a_call_that_learned_nothing_gives_the_answer_that_another_one_with_its_key_got(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    gate = Gate(service, "charge", lost=True)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(person.pay(order["id"], key=KEY))
        await gate.reached.wait()
        second = await person.pay(order["id"], key=KEY)
        gate.open()
    assert second.json()["status"] == "captured"
    assert first.result().content == second.content
    assert len(charges_of(provider, order["id"])) == 1


async def test_a_key_whose_payment_was_given_up_by_reconciliation_tells_of_that(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    order = await person.order()
    gate = Gate(service, "charge")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(person.pay(order["id"], key=KEY))
        await gate.reached.wait()
        assert await reconcile_now(service) == 1
        gate.open()
    assert first.result().json()["status"] == "failed"
    again = await person.pay(order["id"], key=KEY)
    assert (again.json()["status"], again.headers[REPLAYED]) == ("failed", "true")
    assert (await person.pay(order["id"], key="another")).json()["status"] == "captured"
    assert len(charges_of(provider, order["id"])) == 1


async def _die(*_positional: object, **_named: object) -> None:
    raise RuntimeError("the process ends here")


async def test_a_payment_that_was_captured_is_the_answer_to_all_calls_with_its_key(
    service: Service, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await service.person()
    order = await person.order()
    gate = Gate(service, "charge")
    charge = service.app.state.payment_provider.charge
    calls = 0

    async def refuse_the_second(**arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            gate.open()
            await charged.wait()
            raise ProviderRefused
        return await charge(**arguments)

    charged = asyncio.Event()
    monkeypatch.setattr(service.app.state.payment_provider, "charge", refuse_the_second)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(person.pay(order["id"], key=KEY))
        await gate.reached.wait()
        second = tasks.create_task(person.pay(order["id"], key=KEY))
        assert (await first).json()["status"] == "captured"
        charged.set()
    assert second.result().content == first.result().content
    assert (await person.pay(order["id"], key=KEY)).content == first.result().content
    assert len(charges_of(provider, order["id"])) == 1


class _Job(BaseModel):
    """What is asked for, and its answer."""

    resource: uuid.UUID | None = None


class _Calls:
    """Calls with one key whose beginnings are noted."""

    def __init__(self, service: Service) -> None:
        self._database: Database = service.app.state.database
        self._owner = uuid.uuid4()
        self.begun: list[uuid.UUID] = []

    async def call(self, act: Callable[[uuid.UUID], Awaitable[_Job]]) -> _Job | HttpResponse:
        async def begin(_: AsyncSession) -> uuid.UUID:
            self.begun.append(uuid.uuid4())
            return self.begun[-1]

        return await run_resumable(
            self._database,
            owner_id=self._owner,
            operation="jobs.create",
            key=KEY,
            request=_Job(),
            begin=begin,
            act=act,
            is_final=lambda _: True,
            status_code=201,
        )


class _Held:
    """An `act` that waits in the middle, and then succeeds or is refused."""

    def __init__(self, *, refused: bool) -> None:
        self._refused = refused
        self.arrived, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, resource: uuid.UUID) -> _Job:
        self.arrived.set()
        await self.go_on.wait()
        if self._refused:
            raise PaymentTokenRefused
        return _Job(resource=resource)


async def refuse(_: uuid.UUID) -> _Job:
    raise PaymentTokenRefused


async def succeed(resource: uuid.UUID) -> _Job:
    return _Job(resource=resource)


@pytest.mark.parametrize("late_is_refused", [True, False])
async def test_a_call_that_ends_late_decides_nothing_for_one_that_began_anew(
    service: Service, late_is_refused: bool
) -> None:
    calls = _Calls(service)
    late, anew = _Held(refused=late_is_refused), _Held(refused=False)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(_outcome(calls.call(late)))
        await late.arrived.wait()
        assert await _outcome(calls.call(refuse)) == "refused"  # and gives the key back
        second = tasks.create_task(_outcome(calls.call(anew)))
        await anew.arrived.wait()
        late.go_on.set()
        told = await first
        beside = await _outcome(calls.call(succeed))
        anew.go_on.set()
    assert len(calls.begun) == 2, "the key was still the second one's"
    assert told == ("refused" if late_is_refused else str(calls.begun[0]))
    assert beside == second.result() == str(calls.begun[1])


async def _outcome(call: Awaitable[_Job | HttpResponse]) -> str:
    try:
        answer = await call
    except PaymentTokenRefused:
        return "refused"
    if isinstance(answer, HttpResponse):
        answer = _Job.model_validate_json(bytes(answer.body))
    return str(answer.resource)

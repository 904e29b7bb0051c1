"""Registration, profile, data export and erasure."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from tests.provider import RunningProvider
from tests.service import PASSWORD, Service, ServiceClient, open_service


@pytest_asyncio.fixture
async def sqlite_service(sqlite_service_database: str) -> AsyncIterator[Service]:
    """The API for what does not depend on the database."""
    async with open_service(sqlite_service_database) as running:
        yield running


def registration(**fields: Any) -> dict[str, Any]:
    return {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"} | fields


async def test_a_person_registers_and_finds_the_profile_as_it_was_given(service: Service) -> None:
    person = ServiceClient(service.http)
    created = await person.register(name="Ada Lovelace", source="partner")
    assert (await person.log_in()).status_code == 200
    profile = await person.get("/v1/users/me")
    assert profile.status_code == 200
    assert profile.json() == created
    assert created["email"] == person.email
    assert created["name"] == "Ada Lovelace"
    assert created["source"] == "partner"
    assert set(created) == {"id", "email", "name", "source", "created_at"}


async def test_a_source_is_web_unless_it_is_said(service: Service) -> None:
    assert (await ServiceClient(service.http).register())["source"] == "web"


@pytest.mark.parametrize(
    ("registered", "shown", "typed"),
    [
        ("Ada@Example.COM", "ada@example.com", "aDA@EXAMPLE.com"),
        # The same address in ASCII and in Unicode, composed and decomposed.
        ("ada@xn--bcher-kva.example", "ada@b\u00fccher.example", "ada@xn--bcher-kva.example"),
        ("j\u00fcrg@example.com", "j\u00fcrg@example.com", "ju\u0308rg@example.com"),
    ],
    ids=["case", "internationalised domain", "decomposed letters"],
)
async def test_one_address_is_one_account_however_it_is_typed(
    sqlite_service: Service, registered: str, shown: str, typed: str
) -> None:
    person = ServiceClient(sqlite_service.http)
    person.email = registered
    assert (await person.register())["email"] == shown
    again = await sqlite_service.http.post("/v1/users", json=registration(email=typed))
    assert (again.status_code, again.json()["code"]) == (409, "email_taken")
    person.email = typed
    assert (await person.log_in()).status_code == 200


async def test_of_twenty_registrations_of_one_address_at_once_exactly_one_succeeds(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def quick_hash(_password: str) -> str:
        return "$argon2id$none"

    # The race is in the database; twenty hashes would only make it a matter of the CPU.
    monkeypatch.setattr("app.users.service.hash_password", quick_hash)
    answers = await asyncio.gather(
        *(service.http.post("/v1/users", json=registration()) for _ in range(20))
    )
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 19}
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["code"] == "email_taken"


SECRET = "hunter2"

NOT_VALID: dict[str, tuple[dict[str, Any], str]] = {
    "weak password": ({"password": SECRET}, "/body/password"),
    "over-long password": ({"password": SECRET * 20}, "/body/password"),
    "password that is no text": ({"password": {"is": SECRET}}, "/body/password"),
    "no address": ({"email": SECRET}, "/body/email"),
    "address with NUL": ({"email": f"{SECRET}\x00@example.com"}, "/body/email"),
    "address of a forbidden domain": ({"email": f"ada@{SECRET}_x\u2028.com"}, "/body/email"),
    "over-long address": ({"email": SECRET * 50 + "@example.com"}, "/body/email"),
    "empty name": ({"name": ""}, "/body/name"),
    "name with NUL": ({"name": f"{SECRET}\x00"}, "/body/name"),
    "name with a line break": ({"name": f"{SECRET}\n"}, "/body/name"),
    "name with half a character": ({"name": SECRET + "\ud800"}, "/body/name"),
    "over-long name": ({"name": SECRET * 50}, "/body/name"),
    "unknown source": ({"source": SECRET}, "/body/source"),
    "member that does not exist": ({"is_admin": SECRET}, "/body/is_admin"),
}


async def test_what_is_not_valid_is_named_by_its_pointer_and_never_repeated(
    sqlite_service: Service,
) -> None:
    for case, (fields, pointer) in NOT_VALID.items():
        answer = await sqlite_service.http.post(
            "/v1/users",
            content=json.dumps(registration(**fields)),
            headers={"Content-Type": "application/json"},
        )
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "validation_failed"), case
        assert [error["pointer"] for error in problem["errors"]] == [pointer], case
        assert all(error["message"] and error["code"] for error in problem["errors"]), case
        assert SECRET not in answer.text, case


async def test_a_pointer_tells_a_slash_in_a_name_from_a_step_into_an_object(
    sqlite_service: Service,
) -> None:
    answer = await sqlite_service.http.post("/v1/users", json=registration(**{"a/b~c": 1}))
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/body/a~1b~0c"]


async def test_every_mistake_of_a_request_is_named_at_once(sqlite_service: Service) -> None:
    answer = await sqlite_service.http.post("/v1/users", json={"email": "ada@example.com"})
    pointers = {error["pointer"] for error in answer.json()["errors"]}
    assert pointers == {"/body/password", "/body/name"}


async def test_the_export_holds_all_of_a_person_and_nothing_of_anybody_else(
    service: Service,
) -> None:
    ada, bob = await service.person(), await service.person()
    paid, declined, open_order = [await ada.order(amount=amount) for amount in (1000, 2000, 3000)]
    payment = (await ada.pay(paid["id"])).json()
    refused = (await ada.pay(declined["id"], "tok_declined")).json()
    refund = (await ada.post(f"/v1/payments/{payment['id']}/refund", {"amount": 400})).json()
    strangers_order = await bob.order()
    strangers_payment = (await bob.pay(strangers_order["id"])).json()
    await ada.log_in()

    answer = await ada.get("/v1/users/me/export")

    assert answer.status_code == 200
    export = answer.json()
    assert export["user"]["email"] == ada.email
    assert len(export["sessions"]) == 2
    statuses = {order["id"]: order["status"] for order in export["orders"]}
    assert statuses == {paid["id"]: "paid", declined["id"]: "pending", open_order["id"]: "pending"}
    assert [order["lines"] for order in export["orders"]] == [
        [{"sku": "TEA", "quantity": 1, "unit_amount": amount}] for amount in (1000, 2000, 3000)
    ]
    outcomes = {entry["id"]: (entry["status"], entry["refunds"]) for entry in export["payments"]}
    assert outcomes == {payment["id"]: ("captured", [refund]), refused["id"]: ("declined", [])}
    for strange in (bob.email, strangers_order["id"], strangers_payment["id"]):
        assert strange not in answer.text
    for secret in (PASSWORD, "argon2", "password"):
        assert secret not in answer.text


async def test_after_the_erasure_nothing_of_the_person_is_left_but_the_order(
    service: Service, provider: RunningProvider
) -> None:
    person = await service.person()
    earlier = person.headers
    await person.log_in()
    order = await person.order()
    assert (await person.pay(order["id"])).status_code == 201
    for headers in (earlier, person.headers):  # both sessions are cached as good from here on
        assert (await service.http.get("/v1/users/me", headers=headers)).status_code == 200

    assert (await person.delete("/v1/users/me")).status_code == 204

    for headers in (earlier, person.headers):
        for path in ("/v1/users/me", f"/v1/orders/{order['id']}", "/v1/users/me/export"):
            refused = await service.http.get(path, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
    assert (await person.log_in()).status_code == 401
    stored = await _everything_stored(service)
    assert person.email not in stored["users"]
    assert "Ada" not in stored["users"]
    assert "argon2" not in stored["users"]
    assert order["id"].replace("-", "") in stored["orders"].replace("-", "")


async def test_an_address_is_free_again_after_the_erasure(service: Service) -> None:
    person = await service.person()
    order = await person.order()
    first = (await person.get("/v1/users/me")).json()
    await person.delete("/v1/users/me")
    second = await person.register()
    assert second["id"] != first["id"]
    assert (await person.log_in()).status_code == 200
    assert (await person.get(f"/v1/orders/{order['id']}")).status_code == 404
    assert (await person.get("/v1/orders")).json()["items"] == []


async def test_a_log_in_that_was_under_way_does_not_survive_the_erasure(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await sqlite_service.person()
    owner = dict(person.headers)

    async def erase_meanwhile(_password: str, _hash: str | None) -> bool:
        answer = await sqlite_service.http.delete("/v1/users/me", headers=owner)
        assert answer.status_code == 204
        return True

    monkeypatch.setattr("app.users.service.verify_password", erase_meanwhile)
    answer = await person.log_in()
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")


async def _everything_stored(service: Service) -> dict[str, str]:
    async with service.app.state.database.transaction() as session:
        return {
            table: str((await session.execute(text(f"SELECT * FROM {table}"))).all())
            for table in ("users", "orders")
        }

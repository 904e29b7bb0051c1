"""The monitoring's own traffic in the running service: what leaves it out, and what counts it."""

import asyncio
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import text

from app.infrastructure.database import Database
from app.orders import service as orders
from app.users import service as users
from app.users.models import User
from app.users.tokens import read_token
from tests.integration.conftest import OpenService
from tests.service import Service, ServiceClient

TOKEN = "a-token-of-the-monitoring"
MARK = {"X-Synthetic-Token": TOKEN}
SECONDS = 60.0
KPIS = (
    "user_registrations", "funnel_steps", "feature_usage", "orders_created", "order_value", "payments",
    "payment_duration_seconds", "revenue", "revenue_events", "refunds", "refunded_amount",
)  # fmt: skip
HTTP = (
    "http_requests", "http_request_duration_seconds", "http_request_size_bytes",
    "http_response_size_bytes",
)  # fmt: skip


def samples(*families: str) -> dict[str, float]:
    """Return every sample of these families that is not 0."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in REGISTRY.collect()
        if family.name in families
        for sample in family.samples
        if sample.value and not sample.name.endswith(("_sum", "_created"))
    }


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest_asyncio.fixture
async def service(open_here: OpenService) -> AsyncIterator[Service]:
    """The API with the setting."""
    async with open_here(synthetic_token=SecretStr(TOKEN)) as running:
        yield running


@pytest_asyncio.fixture
async def service_with_worker(open_here: OpenService) -> AsyncIterator[Service]:
    """The API with the setting, and a worker."""
    async with open_here(synthetic_token=SecretStr(TOKEN), worker=True) as running:
        yield running


async def registered(service: Service, **headers: str) -> ServiceClient:
    """Return somebody who registered with these headers and logged in without them."""
    person = ServiceClient(service.http)
    body = {"email": person.email, "password": "correct horse battery", "name": "Ada"}
    answer = await service.http.post("/v1/users", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    assert (await person.log_in()).status_code == 200
    return person


async def be_a_customer(person: ServiceClient) -> None:
    """Do everything that a KPI counts."""
    first = await person.order(key=str(uuid.uuid4()))
    assert (await person.pay(first["id"], "tok_declined")).json()["status"] == "declined"
    paid = (await person.pay(first["id"])).json()
    assert paid["status"] == "captured"
    assert (await person.post(f"/v1/payments/{paid['id']}/refund", {})).status_code == 201
    cancelled = await person.order()
    assert (await person.post(f"/v1/orders/{cancelled['id']}/cancel")).status_code == 200
    assert (await person.get("/v1/users/me/export")).status_code == 200
    page = (await person.get("/v1/orders", limit=1)).json()
    await person.get("/v1/orders", limit=1, cursor=page["next_cursor"])
    assert (await person.delete("/v1/users/me")).status_code == 204


async def test_a_flagged_account_is_in_no_kpi_even_without_the_header(service: Service) -> None:
    person = await registered(service, **MARK)
    kpis, http = samples(*KPIS), samples(*HTTP)

    await be_a_customer(person)

    assert samples(*KPIS) == kpis
    assert samples(*HTTP) == http


async def test_a_log_in_of_a_flagged_account_is_known_by_the_account(service: Service) -> None:
    kpis, http = samples(*KPIS), samples(*HTTP)
    apart = value("synthetic_http_requests_total", handler="/v1/auth/token", status="200")

    await registered(service, **MARK)

    assert (samples(*KPIS), samples(*HTTP)) == (kpis, http)
    assert (
        value("synthetic_http_requests_total", handler="/v1/auth/token", status="200") == apart + 1
    )


async def test_a_guess_at_a_flagged_account_is_a_strangers(service: Service) -> None:
    person = await registered(service, **MARK)
    labels = {"method": "POST", "handler": "/v1/auth/token", "status": "401"}
    before = value("http_requests_total", **labels)

    assert (await person.log_in("wrong password")).status_code == 401

    assert value("http_requests_total", **labels) == before + 1


@pytest.mark.parametrize("headers", [{}, {"X-Synthetic-Token": "wrong"}], ids=["none", "wrong"])
async def test_a_customer_is_counted_exactly(service: Service, headers: dict[str, str]) -> None:
    counted: list[tuple[str, dict[str, str], float]] = [
        ("user_registrations_total", {"method": "password", "source": "web"}, 1),
        ("funnel_steps_total", {"step": "login"}, 1),
        ("orders_created_total", {"currency": "EUR"}, 2),
        ("order_value_count", {"currency": "EUR"}, 2),
        ("payments_total", {"status": "captured", "decline_reason": "none"}, 1),
        ("payments_total", {"status": "declined", "decline_reason": "do_not_honor"}, 1),
        ("revenue_total", {"currency": "EUR"}, 25),
        ("refunds_total", {"currency": "EUR"}, 1),
        ("feature_usage_total", {"feature": "erasure"}, 1),
        ("feature_usage_total", {"feature": "pagination"}, 1),
        ("http_requests_total", {"method": "POST", "handler": "/v1/orders", "status": "201"}, 2),
    ]

    def now() -> list[float]:
        return [value(name, **labels) for name, labels, _ in counted]

    before, apart = now(), samples("synthetic_http_requests")

    await be_a_customer(await registered(service, **headers))

    grown = [after - then for after, then in zip(now(), before, strict=True)]
    assert grown == [expected for *_, expected in counted]
    assert samples("synthetic_http_requests") == apart


async def test_a_customers_token_with_the_header_is_the_monitoring_for_that_request(
    service: Service,
) -> None:
    person = await service.person()
    before = value("orders_created_total", currency="EUR")

    lines = [{"sku": "TEA", "quantity": 1, "unit_amount": 100}]
    await person.post("/v1/orders", {"currency": "EUR", "lines": lines}, **MARK)
    assert value("orders_created_total", currency="EUR") == before
    await person.order()

    assert value("orders_created_total", currency="EUR") == before + 1


async def test_security_database_and_calls_count_it_as_anybody(service: Service) -> None:
    def counts() -> list[float]:
        return [
            value("auth_attempts_total", result="success"),
            value("security_events_total", event="account_erased"),
            value("audit_entries_total", action="registration", outcome="success"),
            value("database_queries_per_request_count", handler="/v1/payments"),
            value("external_requests_total", dependency="payment_provider", outcome="success"),
        ]

    before = counts()

    await be_a_customer(await registered(service, **MARK))

    assert all(after > then for after, then in zip(counts(), before, strict=True))


async def test_the_token_says_that_the_account_is_flagged_and_a_customers_says_nothing(
    service: Service,
) -> None:
    flagged, customer = await registered(service, **MARK), await registered(service)

    claims = [
        read_token(service.settings, person.headers["Authorization"].removeprefix("Bearer "))
        for person in (flagged, customer)
    ]
    assert [one.synthetic for one in claims] == [True, False]


async def test_samples_leave_out_what_belongs_to_flagged_accounts(service: Service) -> None:
    database: Database = service.app.state.database
    for headers in ({}, MARK, MARK):
        person = await registered(service, **headers)
        await person.order()

    async with database.transaction() as session:
        active, sessions = await users.count_active(session)
        found = dict(await orders.count_by_status(session))
        await session.execute(text("UPDATE orders SET status = 'paid'"))
        paid = dict(await orders.count_paid(session))
    assert active == {"1d": 1, "7d": 1, "30d": 1}
    assert found == {"pending": 1, "paid": 0, "fulfilled": 0, "cancelled": 0, "refunded": 0}
    assert paid == {"paid": 1}
    assert sessions == 3  # a matter of security


async def test_an_account_of_before_the_migration_is_a_customers(service: Service) -> None:
    database: Database = service.app.state.database
    insert = (
        "INSERT INTO users (id, method, source, created_at, failed_logins)"
        " VALUES (:id, 'password', 'web', CURRENT_TIMESTAMP, 0)"
    )
    identity = uuid.uuid4()
    async with database.transaction() as session:
        # As a version of the program does that does not know the column yet.
        shown = identity.hex if database.is_sqlite else identity
        await session.execute(text(insert), {"id": shown})
        user = await session.get_one(User, identity)
    assert user.synthetic is False


async def test_the_token_is_not_handed_on_to_the_provider(open_here: OpenService) -> None:
    with recording() as (port, heard):
        # The outcome is unknown then, which is an answer.
        provider_url = f"http://127.0.0.1:{port}"
        async with open_here(
            synthetic_token=SecretStr(TOKEN), provider_url=provider_url, external_attempts=1
        ) as service:
            person = await registered(service, **MARK)
            person.headers |= MARK
            await person.pay((await person.order())["id"])

    said = b"".join(heard).decode("latin-1").lower()
    assert "post /v1/charges" in said
    assert "x-request-id" in said
    assert TOKEN not in said
    assert "synthetic" not in said


@contextmanager
def recording() -> Iterator[tuple[int, list[bytes]]]:
    """Listen, take down what arrives and close without an answer."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(65_536))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield listener.getsockname()[1], heard
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


# The worker -------------------------------------------------------------------------------------------


async def test_messages_of_the_monitoring_are_marked_and_others_are_not(
    service_with_worker: Service,
) -> None:
    database: Database = service_with_worker.app.state.database
    done = "SELECT count(*) FROM outbox_deliveries WHERE state = 'done'"
    query = "SELECT topic, headers FROM outbox_messages"
    for headers in (MARK, {}):
        person = await registered(service_with_worker, **headers)
        order = await person.order()
        assert (await person.pay(order["id"])).status_code == 201
    async with asyncio.timeout(SECONDS):
        while True:
            async with database.transaction() as session:
                if await session.scalar(text(done)) == 4:  # a receipt and a fulfilment for each
                    break
            await asyncio.sleep(0.05)

    async with database.transaction() as session:
        rows = (await session.execute(text(query))).all()
    marks = {(topic, '"synthetic"' in str(headers).replace("'", '"')) for topic, headers in rows}
    assert marks == {
        (topic, mark)
        for topic in ("user.registered", "order.placed", "payment.captured")
        for mark in (True, False)
    }


@pytest.mark.parametrize("synthetic", [True, False])
async def test_what_reconciliation_settles_is_counted_for_customers_only(
    open_here: OpenService, synthetic: bool
) -> None:
    settings = {"external_attempts": 1, "external_read_timeout_seconds": 0.2}
    async with open_here(synthetic_token=SecretStr(TOKEN), **settings) as service:
        person = await registered(service, **(MARK if synthetic else {}))
        paid = (await person.pay((await person.order())["id"])).json()
        late = (await person.pay((await person.order())["id"], "tok_timeout")).json()
        assert late["status"] == "pending"
        database: Database = service.app.state.database
        async with database.transaction() as session:
            await session.execute(
                text("UPDATE payments SET check_at = created_at WHERE status = 'pending'")
            )
        before = value("payments_total", status="captured", decline_reason="none")
        revenue = value("revenue_total", currency="EUR")
    async with open_here(synthetic_token=SecretStr(TOKEN), worker=True) as service:
        person.http = service.http
        async with asyncio.timeout(SECONDS):
            while (await person.get(f"/v1/payments/{late['id']}")).json()["status"] == "pending":
                await asyncio.sleep(0.05)
        refunded = await person.post(f"/v1/payments/{paid['id']}/refund", {})
        assert refunded.status_code == 201

    expected = 0 if synthetic else 1
    assert value("payments_total", status="captured", decline_reason="none") == before + expected
    assert value("revenue_total", currency="EUR") == revenue + 25 * expected

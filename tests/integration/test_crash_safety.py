"""Money and messages survive `kill -9` of every process at any moment.

Customers shop while the API, two workers and the provider are killed again and again by a seeded
schedule. Afterwards both sides' books must agree to the last cent. The invariants hold for every
schedule, so each run takes a new one; `CRASH_SEED` repeats that of a run that failed.
"""

import asyncio
import os
import random
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import func, select, update

from app.infrastructure.database import Database, now
from app.infrastructure.outbox import OutboxDelivery, OutboxMessage
from app.orders.models import Order
from app.payments.models import Payment, Receipt, Refund
from app.payments.provider import PaymentProvider
from app.payments.reconciliation import reconcile
from tests.integration.crash.books import Books, discrepancies, read_books
from tests.integration.crash.customers import Answer, Customer, Diary
from tests.integration.crash.processes import PROGRAM, Mortal
from tests.nursery import open_nursery
from tests.service import UNLIMITED, ServiceClient, test_settings

CUSTOMERS = 5
ROUNDS = 8
"""Each customer buys so often at least, however fast the killing is done."""
DEATHS = {"api": 7, "worker-1": 4, "worker-2": 4, "provider": 6}
POWER_CUTS = 3
SETTLE_WITHIN_SECONDS = 60.0

FAULTS = {
    "PROVIDER_LATENCY_MS": "5",
    "PROVIDER_LATENCY_JITTER_MS": "40",
    "PROVIDER_SLOW_SECONDS": "0.3",
    "PROVIDER_FAILURE_RATE": "0.15",
}
IMPATIENT = {
    "EXTERNAL_READ_TIMEOUT_SECONDS": "0.5",
    "EXTERNAL_DEADLINE_SECONDS": "1.5",
    "EXTERNAL_ATTEMPTS": "1",  # the customers ask again: each lost answer is one of an unknown outcome
    "CIRCUIT_RECOVERY_SECONDS": "0.3",
}


@dataclass(slots=True)
class World:
    """What runs, and what can look into it."""

    database: Database
    api: Mortal
    workers: tuple[Mortal, Mortal]
    provider: Mortal

    @property
    def mortals(self) -> dict[str, Mortal]:
        return {mortal.name: mortal for mortal in (self.api, *self.workers, self.provider)}


@asynccontextmanager
async def running_world(directory: Path, database_url: str, redis_url: str) -> AsyncIterator[World]:
    """Start all processes; whatever is left of them is killed at the end."""
    with open_nursery(PROGRAM, directory) as nursery:
        provider = Mortal(
            nursery,
            "provider",
            "provider",
            {"PROVIDER_DATABASE": str(directory / "ledger.db"), "LOG_FORMAT": "json", **FAULTS},
        )
        environment = {
            "ENVIRONMENT": "test",
            "LOG_FORMAT": "json",
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "PAYMENT_PROVIDER_URL": provider.url,
            "RATE_LIMIT_LOGIN": UNLIMITED,
            "RATE_LIMIT_REGISTRATION": UNLIMITED,
            **IMPATIENT,
        }
        database = Database(test_settings(database_url))
        world = World(
            database,
            Mortal(nursery, "api", "serve", environment),
            (
                Mortal(nursery, "worker-1", "worker", environment),
                Mortal(nursery, "worker-2", "worker", environment),
            ),
            provider,
        )
        for mortal in world.mortals.values():
            await asyncio.to_thread(mortal.start)
        try:
            yield world
        finally:
            await database.dispose()


async def cut_the_power(mortals: list[Mortal], rng: random.Random) -> None:
    """Kill all processes at once; they come back one after the other, in any order."""
    await asyncio.sleep(rng.uniform(0.3, 1.0))
    for mortal in mortals:
        await asyncio.to_thread(mortal.kill)
    for mortal in rng.sample(mortals, len(mortals)):
        await asyncio.to_thread(mortal.start)
        await asyncio.sleep(rng.choice((0.0, 0.2)))


async def haunt(mortal: Mortal, deaths: int, rng: random.Random) -> None:
    """Kill a process `deaths` times, each time after it has lived a little."""
    for _ in range(deaths):
        await asyncio.sleep(rng.uniform(0.02, 1.0))
        await asyncio.to_thread(mortal.kill)
        await asyncio.sleep(rng.choice((0.0, 0.0, 0.1, 0.5)))
        await asyncio.to_thread(mortal.start)


async def hurry(database: Database) -> None:
    """Let time pass: everything that waits is due now, also what a living process is busy with."""
    waiting = (
        (Payment, Payment.check_at, Payment.check_at > now()),
        (Refund, Refund.check_at, Refund.check_at > now()),
        (
            OutboxDelivery,
            OutboxDelivery.due_at,
            OutboxDelivery.state.in_(("queued", "retrying")) & (OutboxDelivery.due_at > now()),
        ),
    )
    for table, moment, condition in waiting:
        # What is locked will be there the next time. To wait for it, with locks of one's own, is how
        # this clock could end in a ring with two of the processes.
        free = select(table.id).where(condition).with_for_update(skip_locked=True)
        async with database.transaction() as session:
            await session.execute(
                update(table)
                .where(table.id.in_(free))
                .values({moment: now()})
                .execution_options(synchronize_session=False)
            )


async def reconcile_without_pause(world: World) -> None:
    """Be a third worker that asks about every payment at once, while the request that pays is alive."""
    provider = PaymentProvider(
        test_settings(
            "sqlite://",  # unused
            payment_provider_url=world.provider.url,
            external_attempts=1,
            circuit_failure_threshold=1000,  # it goes on asking, whatever happens
        )
    )
    try:
        while True:
            await hurry(world.database)
            await reconcile(world.database, provider)
            await asyncio.sleep(0.05)
    finally:
        await provider.aclose()


async def is_settled(database: Database) -> bool:
    """Whether nothing waits for anything any more."""
    async with database.transaction() as session:
        for query in (
            select(func.count()).select_from(Payment).where(Payment.status == "pending"),
            select(func.count()).select_from(Refund).where(Refund.status == "pending"),
            select(func.count())
            .select_from(OutboxMessage)
            .where(OutboxMessage.published_at.is_(None)),
            select(func.count())
            .select_from(OutboxDelivery)
            .where(OutboxDelivery.state.in_(("queued", "retrying"))),
        ):
            if await session.scalar(query):
                return False
    return True


async def settle(database: Database) -> None:
    """Wait until all has come to its end, or for SETTLE_WITHIN_SECONDS: the books tell what is left."""
    deadline = time.monotonic() + SETTLE_WITHIN_SECONDS
    while not await is_settled(database) and time.monotonic() < deadline:
        await hurry(database)
        await asyncio.sleep(1.0)


async def test_no_money_and_no_message_is_lost_or_doubled_whoever_is_killed_when(
    postgres_service_database: str, redis_database: str, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(2**32))
    rng = random.Random(seed)
    diary = Diary()
    async with (
        running_world(tmp_path, postgres_service_database, redis_database) as world,
        httpx2.AsyncClient(base_url=world.api.url) as http,
    ):
        customers = []
        for _ in range(CUSTOMERS):
            person = ServiceClient(http)
            await person.register()
            assert (await person.log_in()).status_code == 200
            customers.append(Customer(person, diary, random.Random(rng.random())))
        try:
            await torment(world, customers, rng)
            httpx2.put(f"{world.provider.url}/v1/behaviour", json={"failure_rate": 0.0})
            deaths = sum(mortal.deaths for mortal in world.mortals.values())
            await settle(world.database)
            ledger = httpx2.get(f"{world.provider.url}/v1/ledger").json()["entries"]
            books = await read_books(world.database, ledger)
            # The processes live: none of them has ended by itself since its last start.
            for mortal in world.mortals.values():
                await asyncio.to_thread(mortal.kill)
        except BaseException as error:
            error.add_note(f"CRASH_SEED={seed}")
            raise
    wrong = [*discrepancies(books, diary.answers), *diary.contradictions]
    assert not wrong, f"CRASH_SEED={seed}\n" + "\n".join(wrong)
    assert deaths >= 20
    # Else there was nothing to lose: every customer has bought something while processes died.
    assert len(books.orders) >= CUSTOMERS * ROUNDS
    assert any(payment.status == "captured" for payment in books.payments)
    assert diary.repeated > 0


async def torment(world: World, customers: list[Customer], rng: random.Random) -> None:
    """Let the customers shop while processes die; return when the last one has been served."""
    over = False
    async with asyncio.TaskGroup() as group:
        reconciling = group.create_task(reconcile_without_pause(world))
        shopping = [
            group.create_task(customer.shop(rounds=ROUNDS, is_over=lambda: over))
            for customer in customers
        ]
        async with asyncio.TaskGroup() as ghosts:
            for name, mortal in world.mortals.items():
                ghosts.create_task(haunt(mortal, DEATHS[name], random.Random(rng.random())))
        for _ in range(POWER_CUTS):
            await cut_the_power(list(world.mortals.values()), rng)
        over = True
        await asyncio.wait(shopping)
        reconciling.cancel()


# What the test above can see ----------------------------------------------------------------------------


def good_books() -> tuple[Books, list[Answer]]:
    """Return the books of one paid and partly refunded order, and of one whose card was declined."""
    user, moment = uuid.uuid4(), now()
    paid, declined = (
        Order(
            id=uuid.uuid4(),
            user_id=user,
            status=status,
            payment_in_progress=False,
            currency="EUR",
            total_amount=100,
            created_at=moment,
            updated_at=moment,
        )
        for status in ("fulfilled", "pending")
    )
    captured, refused = (
        Payment(
            id=uuid.uuid4(),
            order_id=order.id,
            user_id=user,
            status=status,
            amount=100,
            refunded_amount=back,
            currency="EUR",
            created_at=moment,
        )
        for order, status, back in ((paid, "captured", 30), (declined, "declined", 0))
    )
    refund = Refund(
        id=uuid.uuid4(), payment_id=captured.id, status="succeeded", amount=30, created_at=moment
    )
    receipts = [
        Receipt(
            kind=kind, subject_id=subject, payment_id=captured.id, amount=amount, currency="EUR"
        )
        for kind, subject, amount in (("receipt", captured.id, 100), ("credit_note", refund.id, 30))
    ]
    messages = [
        OutboxMessage(
            id=uuid.uuid4(), topic=topic, payload={name: str(subject)}, published_at=moment
        )
        for topic, name, subject in (
            ("order.placed", "order_id", paid.id),
            ("order.placed", "order_id", declined.id),
            ("payment.captured", "payment_id", captured.id),
            ("payment.declined", "payment_id", refused.id),
            ("order.refunded", "refund_id", refund.id),
        )
    ]
    deliveries = [
        OutboxDelivery(id=uuid.uuid4(), message_id=message.id, consumer=consumer, state="done")
        for message, consumer in (
            (messages[2], "fulfil_order"),
            (messages[2], "write_receipt"),
            (messages[4], "write_credit_note"),
        )
    ]
    common = {"currency": "EUR", "created_at": ""}
    ledger = [
        {"kind": kind, "key": str(key), "reference": str(reference), "amount": amount}
        | common
        | {"status": status}
        for kind, key, reference, amount, status in (
            ("charge", captured.id, paid.id, 100, "succeeded"),
            ("charge", refused.id, declined.id, 100, "declined"),
            ("refund", refund.id, captured.id, 30, "succeeded"),
        )
    ]
    answers = [
        Answer("order", "1", 201, {"id": str(paid.id), "status": "pending"}),
        Answer("order", "2", 201, {"id": str(declined.id), "status": "pending"}),
        Answer("payment", "3", 201, {"id": str(captured.id), "status": "captured"}),
        Answer("payment", "4", 201, {"id": str(refused.id), "status": "declined"}),
        Answer("payment", "5", 409, {"code": "payment_in_progress"}),
        Answer("refund", "6", 201, {"id": str(refund.id), "status": "pending"}),
    ]
    books = Books(
        ledger, [paid, declined], [captured, refused], [refund], receipts, messages, deliveries
    )
    return books, answers


def _another_charge(books: Books, answers: list[Answer]) -> None:
    books.ledger.append(books.ledger[0] | {"key": str(uuid.uuid4())})


def _wrong_amount(books: Books, answers: list[Answer]) -> None:
    books.ledger[0]["amount"] = 99


def _no_charge(books: Books, answers: list[Answer]) -> None:
    del books.ledger[0]


def _declined_but_charged(books: Books, answers: list[Answer]) -> None:
    books.ledger[1]["status"] = "succeeded"


def _failed_but_charged(books: Books, answers: list[Answer]) -> None:
    books.payments[0].status = "failed"


def _still_pending(books: Books, answers: list[Answer]) -> None:
    books.payments[1].status = "pending"


def _refund_unknown_to_us(books: Books, answers: list[Answer]) -> None:
    books.ledger.append(books.ledger[2] | {"key": str(uuid.uuid4())})


def _refund_unknown_to_provider(books: Books, answers: list[Answer]) -> None:
    del books.ledger[2]


def _refund_still_pending(books: Books, answers: list[Answer]) -> None:
    books.refunds[0].status = "pending"


def _refund_not_added_up(books: Books, answers: list[Answer]) -> None:
    books.payments[0].refunded_amount = 0


def _fully_refunded_yet_captured(books: Books, answers: list[Answer]) -> None:
    books.payments[0].refunded_amount = books.refunds[0].amount = 100
    books.ledger[2]["amount"] = books.receipts[1].amount = 100


def _order_paid_twice(books: Books, answers: list[Answer]) -> None:
    books.payments[1].order_id = books.orders[0].id
    books.payments[1].status = "captured"


def _paid_order_not_fulfilled(books: Books, answers: list[Answer]) -> None:
    books.orders[0].status = "paid"


def _unpaid_order_fulfilled(books: Books, answers: list[Answer]) -> None:
    books.orders[1].status = "fulfilled"


def _order_held_for_ever(books: Books, answers: list[Answer]) -> None:
    books.orders[1].payment_in_progress = True


def _no_receipt(books: Books, answers: list[Answer]) -> None:
    books.receipts = books.receipts[1:]


def _second_credit_note(books: Books, answers: list[Answer]) -> None:
    books.receipts = [*books.receipts, books.receipts[1]]


def _event_missing(books: Books, answers: list[Answer]) -> None:
    books.messages = books.messages[1:]


def _event_for_nothing(books: Books, answers: list[Answer]) -> None:
    books.messages[3].topic = "payment.captured"


def _event_not_relayed(books: Books, answers: list[Answer]) -> None:
    books.messages[0].published_at = None


def _delivery_missing(books: Books, answers: list[Answer]) -> None:
    books.deliveries = books.deliveries[1:]


def _delivery_doubled(books: Books, answers: list[Answer]) -> None:
    books.deliveries = [*books.deliveries, books.deliveries[0]]


def _dead_letter(books: Books, answers: list[Answer]) -> None:
    books.deliveries[0].state = "dead"


def _captured_for_the_customer_only(books: Books, answers: list[Answer]) -> None:
    answers[3] = Answer("payment", "4", 201, answers[3].body | {"status": "captured"})


def _told_of_nothing(books: Books, answers: list[Answer]) -> None:
    answers[2] = Answer("payment", "3", 201, {"id": str(uuid.uuid4()), "status": "captured"})


def _order_placed_twice(books: Books, answers: list[Answer]) -> None:
    del answers[1]


def _refused_without_reason(books: Books, answers: list[Answer]) -> None:
    answers[4] = Answer("payment", "5", 404, {"code": "order_not_found"})


Error = Callable[[Books, list[Answer]], None]
ERRORS: list[Error] = [
    _another_charge,
    _wrong_amount,
    _no_charge,
    _declined_but_charged,
    _failed_but_charged,
    _still_pending,
    _refund_unknown_to_us,
    _refund_unknown_to_provider,
    _refund_still_pending,
    _refund_not_added_up,
    _fully_refunded_yet_captured,
    _order_paid_twice,
    _paid_order_not_fulfilled,
    _unpaid_order_fulfilled,
    _order_held_for_ever,
    _no_receipt,
    _second_credit_note,
    _event_missing,
    _event_for_nothing,
    _event_not_relayed,
    _delivery_missing,
    _delivery_doubled,
    _dead_letter,
    _captured_for_the_customer_only,
    _told_of_nothing,
    _order_placed_twice,
    _refused_without_reason,
]


def test_the_comparison_finds_nothing_in_good_books() -> None:
    assert discrepancies(*good_books()) == []


@pytest.mark.parametrize("make_error", ERRORS, ids=lambda error: error.__name__.strip("_"))
def test_the_comparison_sees_the_error(make_error: Error) -> None:
    books, answers = good_books()
    make_error(books, answers)
    assert discrepancies(books, answers)

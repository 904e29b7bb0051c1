"""What is broken on purpose in the live stack, and who has to be told of it.

Each scenario breaks something real and mends it, also when what was expected of it does not come: the next
scenario begins with all well. No metric is faked, no rule is bent. The demo profile makes the minutes of
production seconds.
"""

import asyncio
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import httpx2
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from tests.monitoring.customers import Customers
from tests.monitoring.stack import LiveStack
from tests.tools import run_async

POOL: Final = {
    "DATABASE_POOL_SIZE": "4",
    "DATABASE_MAX_OVERFLOW": "0",
    "DATABASE_POOL_TIMEOUT_SECONDS": "1",
}
"""A pool that a few requests exhaust."""
LIMITS: Final = {"RATE_LIMIT_LOGIN": "30/minute"}
"""Whoever guesses passwords is soon refused, instead of costing a third of a second of hashing each; the
customers and the synthetic one, 21 log-ins a minute from the same address, are not."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something breaks, `alert` fires with `labels`, `receiver` is told; mended, it resolves."""

    alert: str
    receiver: str
    happens: Callable[[LiveStack, Customers], AbstractContextManager[None]]
    labels: tuple[tuple[str, str], ...] = ()
    also: tuple[str, ...] = ()
    """Alerts that fire with it, by other rules that see the same."""

    def __str__(self) -> str:
        return self.happens.__name__.replace("_", " ")


@contextmanager
def the_provider_is_down(stack: LiveStack, customers: Customers) -> Iterator[None]:
    """The payment provider's process is killed."""
    del customers
    stack.provider.kill()
    try:
        yield
    finally:
        stack.provider.start()


@contextmanager
def orders_fail(stack: LiveStack, customers: Customers) -> Iterator[None]:
    """A bug that nobody foresaw: the database refuses an insert, and requests end with 500."""
    del customers
    _sql(
        stack,
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '23514'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON order_lines FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    try:
        yield
    finally:
        _sql(stack, "DROP TRIGGER refuse ON order_lines")


@contextmanager
def payments_are_slow(stack: LiveStack, customers: Customers) -> Iterator[None]:
    """The provider takes its time over everything, and so do the payments of several people."""
    del customers
    stack.provider.behave(latency_ms=1_500)
    try:
        with _crowd(stack, 6):
            yield
    finally:
        stack.provider.behave()


@contextmanager
def nobody_orders(stack: LiveStack, customers: Customers) -> Iterator[None]:
    """Customers come and look, and place no order any more: a button is broken, no request fails."""
    del stack
    customers.ordering = False
    try:
        yield
    finally:
        customers.ordering = True


@contextmanager
def passwords_are_guessed(stack: LiveStack, customers: Customers) -> Iterator[None]:
    """Somebody tries passwords, faster than people do."""
    del customers
    ended = threading.Event()

    def guess() -> None:
        with httpx2.Client(base_url=stack.api.url, timeout=10) as http:
            while not ended.wait(0.05):
                form = {"username": "ada@example.com", "password": secrets.token_hex(8)}
                with suppress(httpx2.TransportError):
                    http.post("/v1/auth/token", data=form)

    burglar = threading.Thread(target=guess, name="guesses passwords")
    burglar.start()
    try:
        yield
    finally:
        ended.set()
        burglar.join()


@contextmanager
def the_pool_is_exhausted(stack: LiveStack, customers: Customers) -> Iterator[None]:
    """Somebody holds a lock on the orders: whoever needs them waits, and keeps its connection."""
    del customers
    with _crowd(stack, 2 * int(POOL["DATABASE_POOL_SIZE"])), _locked(stack, "orders"):
        yield


@contextmanager
def the_worker_is_gone(stack: LiveStack, customers: Customers) -> Iterator[None]:
    """The worker's process is killed."""
    del customers
    stack.worker.kill()
    try:
        yield
    finally:
        stack.worker.start()


@contextmanager
def the_database_is_down(stack: LiveStack, customers: Customers) -> Iterator[None]:
    """PostgreSQL stops, and comes back with what it had."""
    del customers
    stack.postgres.stop()
    try:
        yield
    finally:
        stack.postgres.start()


@contextmanager
def _crowd(stack: LiveStack, people: int) -> Iterator[None]:
    with ExitStack() as crowd:
        for _ in range(people):
            crowd.enter_context(stack.customers())
        yield


def _sql(stack: LiveStack, *statements: str) -> None:
    async def execute() -> None:
        engine = create_async_engine(stack.postgres.url, poolclass=NullPool)
        async with engine.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)
        await engine.dispose()

    run_async(execute())


@contextmanager
def _locked(stack: LiveStack, table: str) -> Iterator[None]:
    """Hold a table's lock for the time of the block, in a thread of its own."""
    held: Future[None] = Future()
    let_go = threading.Event()

    async def hold() -> None:
        engine = create_async_engine(stack.postgres.url, poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            held.set_result(None)
            await asyncio.to_thread(let_go.wait)
        await engine.dispose()

    def hold_or_say_why_not() -> None:
        try:
            asyncio.run(hold())
        except Exception as error:
            if held.done():
                raise
            held.set_exception(error)

    holder = threading.Thread(target=hold_or_say_why_not, name="holds the lock")
    holder.start()
    try:
        held.result()
        yield
    finally:
        let_go.set()
        holder.join()

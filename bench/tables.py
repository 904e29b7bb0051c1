"""What becomes dearer as the tables grow: list and read, and what the worker asks again and again.

On a PostgreSQL database of its own that is filled step by step (rows.py). Requests are measured on the
service; the statements of the worker's rounds, and of list and read, are those that the code sends, each
with its plan (plans.py). SQLite has no such plans, so there nothing is measured.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import jwt
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure.database import Database, now
from app.orders import service as orders
from app.orders.pagination import Place
from app.payments.provider import PaymentProvider
from app.settings import Settings
from app.worker import Worker
from bench.client import connected
from bench.cpu import CONNECTIONS
from bench.family import stopping
from bench.fits import exponent, percentile
from bench.plans import Plan, plans_of
from bench.process import ServerProcess
from bench.requests import OPERATIONS
from bench.rows import SPACING, add_waiting_messages, fill
from bench.stage import Customer, Stage, customer
from tests.service import migrate_database
from tests.tools import create_database, drop_database, free_port

OPERATIONS_MEASURED: Final = ("read", "list")
FLAT_BELOW: Final = 0.2
"""Exponent: a thousand times the rows cost at most four times as much, as a few more levels of a B-tree."""
SMALL_PAGES: Final = 500
"""Pages (4 MB) that nobody needs to worry about, whatever they grow like."""
_STATEMENT_TIMEOUT_MS: Final = 120_000


@dataclass(frozen=True, slots=True)
class Requests:
    """One operation with so many orders in the tables."""

    operation: str
    orders: int
    p50_ms: float
    """Of one request at a time, the database's work included."""
    cpu_us: float
    """Of the service, a request, many at a time."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of one piece of work, with its plan for each number of orders."""

    work: str
    statement: str
    plans: tuple[tuple[int, Plan], ...]

    @property
    def exponent(self) -> float:
        """How the pages that it looks at follow the orders: 0 not at all, 1 in proportion."""
        if len(self.plans) < 2:  # noqa: PLR2004 - one point has no slope
            return 0.0
        sizes = [size for size, _ in self.plans]
        return exponent(sizes, [max(1, plan.buffers) for _, plan in self.plans])

    @property
    def grows(self) -> bool:
        """Whether it reads more and more as the tables grow."""
        return self.exponent > FLAT_BELOW and self.plans[-1][1].buffers > SMALL_PAGES


@dataclass(frozen=True, slots=True)
class Tables:
    """What was seen."""

    requests: tuple[Requests, ...]
    statements: tuple[Statement, ...]


async def measure_tables(
    stage: Stage, progress: Callable[[str], None], *, sizes: Sequence[int], seconds: float
) -> Tables:
    """Fill a database step by step, and look at each."""
    if not stage.on_postgres:
        progress("the tables do not grow: without PostgreSQL there are no plans to see")
        return Tables((), ())
    url = await asyncio.to_thread(create_database, stage.database_url)
    try:
        await asyncio.to_thread(migrate_database, url)
        return await _grow(stage, url, progress, sizes, seconds)
    finally:
        await asyncio.to_thread(drop_database, url)


async def _grow(
    stage: Stage, url: str, progress: Callable[[str], None], sizes: Sequence[int], seconds: float
) -> Tables:
    requests: list[Requests] = []
    plans: dict[tuple[str, str], list[tuple[int, Plan]]] = {}
    settings = _settings(url)
    database = Database(settings)
    provider = PaymentProvider(settings)
    worker = Worker(settings, database, provider)
    port = free_port()
    environment = stage.environment("sampling_0.01") | {
        "DATABASE_URL": url,
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    }
    try:
        with stopping(ServerProcess("sampling_0.01", port, environment)) as server:
            who = await asyncio.to_thread(customer, port)
            user_id = _user_of(who)
            await add_waiting_messages(database.engine)
            first = 1
            for size in sorted(sizes):
                progress(f"filling the tables with {size} orders")
                await fill(database.engine, first=first, last=size, customer_id=str(user_id))
                first = size + 1
                progress(f"asking with {size} orders")
                requests += [
                    await _ask(server, name, who, size, seconds) for name in OPERATIONS_MEASURED
                ]
                for work, run in _works(database, worker, user_id, who, size).items():
                    for plan in await plans_of(database.engine, run):
                        plans.setdefault((work, plan.statement), []).append((size, plan))
    finally:
        await provider.aclose()
        await database.dispose()
    statements = (
        Statement(work, statement, tuple(dict(found).items()))
        for (work, statement), found in plans.items()
    )
    return Tables(tuple(requests), tuple(statements))


def _settings(url: str) -> Settings:
    return Settings(
        _env_file=None,
        environment="test",
        database_url=url,
        database_statement_timeout_ms=_STATEMENT_TIMEOUT_MS,
        secret_key=SecretStr("of nobody: the audit log of a benchmark"),
        redis_url=None,
    )


def _user_of(who: Customer) -> uuid.UUID:
    claims = jwt.decode(who.token, options={"verify_signature": False})  # we asked for it
    return uuid.UUID(claims["sub"])


async def _ask(
    server: ServerProcess, name: str, who: Customer, size: int, seconds: float
) -> Requests:
    operation = OPERATIONS[name]
    asked = operation.make(server.port, who)
    async with connected(server.port, 1) as client:
        await client.burst(lambda: asked, operation.status, seconds / 4)
        durations = await client.burst(lambda: asked, operation.status, seconds)
    async with connected(server.port, CONNECTIONS) as client:
        before = server.cpu_seconds()
        many = await client.burst(lambda: asked, operation.status, seconds)
    used = (server.cpu_seconds() - before) / len(many) * 1e6
    return Requests(name, size, percentile(durations, 0.5) * 1e3, used)


def _works(
    database: Database, worker: Worker, user_id: uuid.UUID, who: Customer, size: int
) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return what sends the statements to look at: requests, and one round of each of the worker's."""

    def in_transaction(
        work: Callable[[AsyncSession], Awaitable[object]],
    ) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            async with database.transaction() as session:
                await work(session)

        return run

    async def sample() -> None:
        for one in worker._samples:  # all of them, however seldom the worker would ask
            await in_transaction(one.ask)()

    order_id = uuid.UUID(who.order_id)
    # Halfway down the list of somebody who has a tenth of all orders.
    place = Place(now() - size * SPACING / 2, uuid.UUID(int=0))
    return {
        "read": in_transaction(
            lambda session: orders.get_order(session, order_id=order_id, user_id=user_id)
        ),
        "list": in_transaction(
            lambda session: orders.list_orders(session, user_id=user_id, limit=50, after=None)
        ),
        "list, halfway": in_transaction(
            lambda session: orders.list_orders(session, user_id=user_id, limit=50, after=place)
        ),
        **{f"worker: {periodic.task}": periodic.run for periodic in worker._periodic},
        "worker: sample": sample,
    }

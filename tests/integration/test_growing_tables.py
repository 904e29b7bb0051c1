"""What the worker asks of tables that only grow: by an index, however many rows are done with.

The statements are run as the worker runs them, on tables that PostgreSQL has statistics of and that are
large enough for reading them through to be the wrong plan.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial

import pytest
import pytest_asyncio
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure import idempotency, outbox, purge
from app.infrastructure.audit_chain import sample_unsealed
from app.infrastructure.database import Database
from app.infrastructure.outbox import Consumer, Message
from app.orders import service as orders
from app.users import service as users
from bench.plans import explaining
from tests.service import test_settings
from tests.tools import create_database, drop_database, run_async

ROWS = 50_000
"""Of which a handful is not done, and a handful old enough to be deleted."""
_GROWN = (
    "SELECT setseed(0.5)",
    """
    INSERT INTO users (id, method, source, created_at, last_seen_at, failed_logins, synthetic)
    SELECT gen_random_uuid(), 'password', 'web', now(), now() - n * interval '1 hour', 0, n < 3
    FROM generate_series(1, 1000) AS n
    """,
    f"""
    INSERT INTO user_sessions (id, user_id, created_at, expires_at)
    SELECT gen_random_uuid(), (SELECT id FROM users LIMIT 1), now() - interval '60 days',
           now() + (random() * 29 - CASE WHEN n % 5000 = 0 THEN 60 ELSE 29 END) * interval '1 day'
    FROM generate_series(1, {ROWS}) AS n
    """,
    f"""
    INSERT INTO idempotency_keys (owner_id, operation, key, fingerprint, expires_at)
    SELECT gen_random_uuid(), 'orders', n, n,
           now() + CASE WHEN n % 5000 = 0 THEN -1 ELSE 1 + random() END * interval '1 hour'
    FROM generate_series(1, {ROWS}) AS n
    """,
    f"""
    INSERT INTO orders
        (id, user_id, status, payment_in_progress, currency, total_amount, created_at, updated_at)
    SELECT gen_random_uuid(), id, CASE WHEN n % 5000 = 0 THEN 'paid' ELSE 'fulfilled' END, false,
           'EUR', 2500, now(), now()
    FROM (SELECT id, row_number() OVER () AS n FROM users, generate_series(1, {ROWS // 1000})) AS u
    """,
    f"""
    INSERT INTO outbox_messages (id, topic, payload, headers, created_at, published_at)
    SELECT gen_random_uuid(), 'tea.brewed', json_build_object('n', n), '{{}}', moment,
           CASE WHEN n % 5000 <> 1 THEN moment END
    FROM (SELECT n, now() - random() * interval '6 days'
                    - CASE WHEN n % 5000 = 0 THEN interval '7 days' ELSE interval '0' END AS moment
          FROM generate_series(1, {ROWS}) AS n) AS numbered
    """,
    """
    INSERT INTO outbox_deliveries
        (id, message_id, consumer, state, attempts, due_at, created_at, finished_at)
    SELECT gen_random_uuid(), id, 'first', state, 1,
           created_at, created_at, CASE WHEN state IN ('done', 'dead') THEN created_at END
    FROM (SELECT *, CASE (payload ->> 'n') :: int % 5000 WHEN 2 THEN 'queued' WHEN 3 THEN 'retrying'
                    WHEN 4 THEN 'dead' ELSE 'done' END AS state
          FROM outbox_messages WHERE published_at IS NOT NULL) AS published
    """,
    "VACUUM ANALYZE",
)


async def _do_nothing(session: AsyncSession, message: Message) -> None:
    return


async def _grow(url: str) -> None:
    database = Database(test_settings(url))
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("SET statement_timeout = '60s'"))
        for statement in _GROWN:
            await connection.execute(text(statement))
    await database.dispose()


@pytest.fixture(scope="module")
def grown_database(postgres_url: str, postgres_template: str) -> Iterator[str]:
    url = create_database(postgres_url, template=make_url(postgres_template).database)
    run_async(_grow(url))
    yield url
    drop_database(url)


@pytest_asyncio.fixture
async def grown(grown_database: str) -> AsyncIterator[Database]:
    database = Database(test_settings(grown_database))
    yield database
    await database.dispose()


async def _some_leases(session: AsyncSession) -> None:
    ids = await outbox.redeliver(session, limit=5)
    assert len(ids) == 5
    await outbox.renew(session, ids)
    assert await outbox.leased(session, ids) == set(ids)
    assert await outbox.claim_with_message(session, ids[0]) is not None


ASKED: dict[str, Callable[[AsyncSession], Awaitable[object]]] = {
    "depth": outbox.depth,
    "relay": partial(outbox.relay, consumers=[Consumer("c", "tea.brewed", _do_nothing)], limit=5),
    "leases": _some_leases,
    "list_dead": partial(outbox.list_dead, limit=10),
    "replay_dead": outbox.replay_dead,
    "purge_finished": outbox.purge_finished,
    "purge_sessions": users.purge_sessions,
    "purge_expired": idempotency.purge_expired,
    "count_paid": orders.count_paid,
    "sample_unsealed": sample_unsealed,
}


async def test_nothing_reads_a_table_from_end_to_end_that_only_grows(
    grown: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As small against these tables as it is against those of a year.
    monkeypatch.setattr(purge, "PURGE_BATCH", 100)
    scanned: dict[str, tuple[str, ...]] = {}
    for name, ask in ASKED.items():
        with explaining(grown.engine) as plans:
            async with grown.transaction() as session:
                await ask(session)
                await session.rollback()
        assert plans, f"{name} asked nothing"
        for plan in plans:
            # That one has the few entries of this test.
            found = tuple(table for table in plan.scanned if table != "audit_entries")
            if found:
                scanned[f"{name}: {plan.text}"] = found
    assert scanned == {}


async def test_a_purge_finds_what_is_old_and_leaves_the_rest(
    grown: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "PURGE_BATCH", 7)
    for some in (outbox.purge_finished, users.purge_sessions, idempotency.purge_expired):
        deleted = []
        for _ in range(3):
            async with grown.transaction() as session:
                deleted.append(await some(session))
        assert deleted == [7, 3, 0], some

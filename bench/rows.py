"""Fills the tables of a PostgreSQL as years of business would, one statement for each table.

So many orders bring as many outbox messages, deliveries and payments, and for each ten of them a
session, an idempotency key and an audit entry; a customer has a hundred, except for one who has a
tenth of all. All of it is finished business, as nearly everything in an old database is.
"""

import datetime as dt
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

ORDERS_OF_A_CUSTOMER: Final = 100
SPACING: Final = dt.timedelta(seconds=20)
"""Between two orders."""
_MOMENT: Final = f"now() - (n * interval '{SPACING.total_seconds():.0f} seconds')"
_STATEMENTS: Final = (
    """
    INSERT INTO users (id, email, name, method, source, created_at, last_seen_at, failed_logins, synthetic)
    SELECT gen_random_uuid(), 'bench' || n || '@example.com', 'B', 'email', 'web', {moment}, {moment}, 0,
           false
    FROM generate_series((cast(:first AS bigint) - 1) / {each} + 1, cast(:last AS bigint) / {each}) AS n
    """,
    """
    CREATE TEMPORARY TABLE buyers ON COMMIT DROP AS
    SELECT id, row_number() OVER () - 1 AS number FROM users WHERE email LIKE 'bench%'
    """,
    "CREATE INDEX ON buyers (number)",
    """
    CREATE TEMPORARY TABLE bought ON COMMIT DROP AS
    SELECT n, gen_random_uuid() AS order_id, gen_random_uuid() AS payment_id,
           CASE WHEN n % 10 = 0 THEN cast(:customer AS uuid) ELSE buyers.id END AS user_id
    FROM generate_series(cast(:first AS bigint), cast(:last AS bigint)) AS n
    JOIN buyers ON buyers.number = n % (SELECT count(*) FROM buyers)
    """,
    """
    INSERT INTO orders
        (id, user_id, status, payment_in_progress, currency, total_amount, created_at, updated_at)
    SELECT order_id, user_id, (ARRAY['fulfilled','fulfilled','fulfilled','cancelled','refunded'])[1 + n % 5],
           false, 'EUR', 2500, {moment}, {moment} FROM bought
    """,
    """
    INSERT INTO order_lines (order_id, position, sku, quantity, unit_amount)
    SELECT order_id, position, 'TEA-GREEN-100', 2, 799 FROM bought, generate_series(0, 1) AS position
    """,
    """
    INSERT INTO payments
        (id, order_id, user_id, status, amount, refunded_amount, currency, created_at, settled_at)
    SELECT payment_id, order_id, user_id, 'captured', 2500, 0, 'EUR', {moment}, {moment} FROM bought
    """,
    """
    INSERT INTO outbox_messages (id, topic, payload, headers, created_at, published_at)
    SELECT payment_id, 'payment.captured', json_build_object('order_id', order_id), '{{}}', {recent}, {recent}
    FROM bought
    """,
    """
    INSERT INTO outbox_deliveries
        (id, message_id, consumer, state, attempts, due_at, created_at, finished_at)
    SELECT gen_random_uuid(), payment_id, 'write_receipt', 'done', 1, {recent}, {recent}, {recent} FROM bought
    """,
    """
    INSERT INTO user_sessions (id, user_id, created_at, expires_at)
    SELECT gen_random_uuid(), user_id, {recent}, {recent} + interval '1 hour' FROM bought WHERE n % 10 = 1
    """,
    """
    INSERT INTO idempotency_keys (owner_id, operation, key, fingerprint, status_code, body, expires_at)
    SELECT user_id, 'orders.create', order_id::text, 'f', 201, '{{}}', now() + interval '1 day'
    FROM bought WHERE n % 10 = 2
    """,
    """
    INSERT INTO audit_entries
        (id, occurred_at, action, actor, record_type, record_id, outcome, request_id, trace_id,
         client_network, details, position, previous_hash, key_id, hash)
    SELECT gen_random_uuid(), {recent}, 'user.log_in', user_id::text, 'user', user_id::text,
           'succeeded', 'r', 't', '203.0.113.0', '{{}}', 1000000 + n, repeat('0', 64), 'k', repeat('0', 64)
    FROM bought WHERE n % 10 = 3
    """,
)
_RECENT: Final = "now() - ((n % 500000) * interval '1 second')"
"""Within the week that finished messages are kept: the purge finds none of them."""
_WAITING: Final = """
    INSERT INTO outbox_messages (id, topic, payload, headers, created_at)
    SELECT gen_random_uuid(), 'bench.nothing', '{}', '{}', now() FROM generate_series(1, 1000) AS n
"""


async def fill(engine: AsyncEngine, *, first: int, last: int, customer_id: str) -> None:
    """Add the orders numbered `first` to `last`, a tenth of them this customer's, and what they bring."""
    async with engine.begin() as connection:
        # As a restored dump does: the rows are right, and neither checks nor triggers need to look.
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        numbers = {"first": first, "last": last, "customer": customer_id}
        for statement in _STATEMENTS:
            sql = statement.format(moment=_MOMENT, recent=_RECENT, each=ORDERS_OF_A_CUSTOMER)
            used = {name: value for name, value in numbers.items() if f":{name}" in sql}
            await connection.execute(text(sql), used)
    await refresh(engine)


async def add_waiting_messages(engine: AsyncEngine) -> None:
    """Add a thousand messages that no relay has seen, of a topic that nobody consumes."""
    async with engine.begin() as connection:
        await connection.execute(text(_WAITING))
    await refresh(engine)


async def refresh(engine: AsyncEngine) -> None:
    """Count anew and mark what all can see, as autovacuum does a minute after such changes."""
    async with engine.connect() as connection:
        automatic = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await automatic.execute(text("SET statement_timeout = 0"))
        await automatic.execute(text("VACUUM (ANALYZE)"))

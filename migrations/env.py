"""Runs the migrations against the database of the settings: the same files on PostgreSQL and SQLite.

On PostgreSQL an advisory lock lets one process migrate while the others wait, so that several replicas
may be started at once. They ask for it again and again instead of waiting in a statement: an index that is
built CONCURRENTLY waits for every statement that began before it, and would wait for theirs for ever.
Statements have no time-out here: a migration may take its time. Each is a transaction of its own.
"""

import asyncio
import time
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

import app.infrastructure.audit_chain
import app.infrastructure.idempotency
import app.infrastructure.outbox
import app.orders.models
import app.payments.models
import app.users.models  # noqa: F401 - each import adds its tables to the metadata
from app.infrastructure.database import Base, DatabaseSettings, UtcDateTime, prepare_directory

_LOCK = 7_236_423_411
"""Any number that no other program takes: the name of the lock."""
_ASK_AGAIN_SECONDS = 0.1


def _render(kind: str, item: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    """Keep application types out of migrations: these stay as they are when the types change."""
    del autogen_context
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _run(connection: Connection | None = None, *, url: str | None = None) -> None:
    if connection is not None and connection.dialect.name == "postgresql":
        _wait_for_turn(connection)
    context.configure(
        connection=connection,
        url=url,
        target_metadata=Base.metadata,
        render_item=_render,
        compare_type=True,
        transaction_per_migration=True,
        literal_binds=url is not None,
        dialect_opts={"paramstyle": "named"} if url is not None else {},
    )
    with context.begin_transaction():
        context.run_migrations()


def _wait_for_turn(connection: Connection) -> None:
    """Take the lock, which is the connection's until that ends, whatever it commits meanwhile."""
    while not connection.scalar(text(f"SELECT pg_try_advisory_lock({_LOCK})")):
        connection.rollback()
        time.sleep(_ASK_AGAIN_SECONDS)
    connection.commit()


async def _run_online(url: str) -> None:
    prepare_directory(url)
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


_url = context.config.get_main_option("sqlalchemy.url") or DatabaseSettings().database_url
if context.is_offline_mode():
    _run(url=_url)
else:
    asyncio.run(_run_online(_url))

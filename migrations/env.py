"""Runs the migrations against the database of the settings: the same files on PostgreSQL and SQLite.

On PostgreSQL an advisory lock lets one process migrate while the others wait, so that several replicas
may be started at once. Statements have no time-out here: a migration may take its time.
"""

import asyncio
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


def _render(kind: str, item: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    """Keep application types out of migrations: these stay as they are when the types change."""
    del autogen_context
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _run(connection: Connection | None = None, *, url: str | None = None) -> None:
    context.configure(
        connection=connection,
        url=url,
        target_metadata=Base.metadata,
        render_item=_render,
        compare_type=True,
        literal_binds=url is not None,
        dialect_opts={"paramstyle": "named"} if url is not None else {},
    )
    with context.begin_transaction():
        if context.get_context().dialect.name == "postgresql" and connection is not None:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        context.run_migrations()


async def _run_online(url: str) -> None:
    prepare_directory(url)
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


_url = context.config.get_main_option("sqlalchemy.url") or DatabaseSettings().database_url
if context.is_offline_mode():
    _run(url=_url)
else:
    asyncio.run(_run_online(_url))

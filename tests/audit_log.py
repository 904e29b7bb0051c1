"""An audit log for tests: write to it, seal it, and do to it what an administrator of the database can."""

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import select, text

from app.infrastructure import audit
from app.infrastructure.audit import AuditEntry
from app.infrastructure.audit_chain import AuditHead, AuditKeys, BrokenChain, seal
from app.infrastructure.audit_verify import verify
from app.infrastructure.database import Database
from tests.service import test_settings

SECRET = "the key that the database does not know"
KEYS = AuditKeys(SECRET)
DAY = dt.timedelta(days=1)
WHO = uuid.UUID("01234567-89ab-4def-8123-456789abcdef")


class Log:
    """An audit log with a connection of its own, on a migrated database."""

    def __init__(self, url: str, database: Database) -> None:
        self.url = url
        self.database = database
        self.kind = "sqlite" if database.is_sqlite else "postgresql"

    async def write(self, entries: int = 1) -> None:
        """Record so many log-ins, each in a transaction of its own."""
        for number in range(entries):
            async with self.database.transaction() as session:
                self.add(session, number)

    @staticmethod
    def add(session: Any, number: int = 0) -> None:
        audit.record(
            session,
            action="login",
            actor=WHO,
            record_type="user",
            record_id=WHO,
            details={"number": number},
        )

    async def seal(self, keys: AuditKeys = KEYS, *, limit: int = 500) -> int:
        """Do one round of the worker."""
        async with self.database.transaction() as session:
            return await seal(session, keys, limit=limit)

    async def entries(self) -> Sequence[AuditEntry]:
        """Return all entries in the order of the chain, unsealed ones last."""
        async with self.database.transaction() as session:
            found = await session.scalars(
                select(AuditEntry).order_by(AuditEntry.position.is_(None), AuditEntry.position)
            )
            return found.all()

    async def head(self) -> AuditHead:
        async with self.database.transaction() as session:
            return await session.get_one(AuditHead, 1)

    async def execute(self, *statements: str) -> None:
        """Do in one transaction what anybody may do who is connected."""
        async with self.database.transaction() as session:
            for statement in statements:
                await session.execute(text(statement))

    async def tamper(self, *statements: str) -> None:
        """Do it with the triggers and the unique position out of the way."""
        tables = ("audit_entries", "audit_head")
        if self.kind == "postgresql":
            off = [f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in tables]
            off.append("ALTER TABLE audit_entries DROP CONSTRAINT uq_audit_entries_position")
        else:  # a copy has neither
            off = []
            for table in tables:
                off += [
                    f"CREATE TABLE copy AS SELECT * FROM {table}",
                    f"DROP TABLE {table}",
                    f"ALTER TABLE copy RENAME TO {table}",
                ]
        await self.execute(*off, *statements)

    async def broken(self, **given: Any) -> BrokenChain:
        """Return what verification finds."""
        with pytest.raises(BrokenChain) as caught:
            await verify(self.database, KEYS, **given)
        return caught.value


@asynccontextmanager
async def open_log(url: str) -> AsyncIterator[Log]:
    """Yield the audit log of a database."""
    database = Database(test_settings(url))
    yield Log(url, database)
    await database.dispose()


def lines(log_records: list[dict[str, Any]], message: str = "Audit entry") -> list[dict[str, Any]]:
    """Return what the lines with this message say."""
    return [record["extra"] for record in log_records if record["message"] == message]

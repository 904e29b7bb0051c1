"""What a route may ask for, as annotated aliases, so that a signature reads like prose."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header, Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure.database import Database


def get_database(request: Request) -> Database:
    """Return the database of this application."""
    database: Database = request.app.state.database
    return database


DatabaseDep = Annotated[Database, Depends(get_database)]


async def get_session(database: DatabaseDep) -> AsyncIterator[AsyncSession]:
    """Yield the session of this request: committed when the handler returns, else rolled back."""
    async with database.transaction() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session, scope="function")]
"""`scope="function"` commits BEFORE the response is sent. With the default scope a client could be
told 201 for a transaction that then fails."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Makes a retry safe: the same key and body give the same answer for 24 hours.",
    ),
]

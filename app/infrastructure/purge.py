"""Deletes what is old in portions: locks are held for moments, and what others hold is left to them."""

from typing import Any, cast

from sqlalchemy import ColumnElement, delete, inspect, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.infrastructure.database import Base

PURGE_BATCH = 1000
"""Rows deleted by one transaction."""


async def delete_oldest(
    session: AsyncSession, age: InstrumentedAttribute[Any], *conditions: ColumnElement[bool]
) -> int:
    """Delete the rows that all `conditions` hold for, those with the lowest `age` first.

    Args:
        session: In whose transaction.
        age: The column, of the table to delete from, that says how old a row is; needs an index.
        conditions: What makes a row one to delete.

    Returns:
        How many: PURGE_BATCH at most. Then there may be more.
    """
    table = cast("type[Base]", age.class_)
    identity = inspect(table).primary_key
    old = (
        select(*identity)
        .where(*conditions)
        .order_by(age)
        .limit(PURGE_BATCH)
        .with_for_update(skip_locked=True)
    )
    deleted = await session.scalars(
        delete(table)
        .where(tuple_(*identity).in_(select(*old.cte("old").c)))
        .returning(identity[0])
        .execution_options(synchronize_session=False)
    )
    return len(deleted.all())

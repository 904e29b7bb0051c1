"""Samples: what is counted in rows, asked again and again without the asking becoming the load.

A count reads every row that it counts, and tables grow. So a question that took long is asked seldom: all
askings of it together take no more than SHARE of the time, whatever the size of the table, until it is asked
every LONGEST_PAUSE_SECONDS. What takes less than QUICK_SECONDS is never left out: a busy machine is no large
table. A question that fails is put off likewise, and stops none of those before it; time to get a connection
does not count, so that all are asked again as soon as the database is back.
"""

import time
from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure.database import Database

SHARE = 0.01
"""A question that takes 1 s is asked every 100 s."""
QUICK_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 600.0


class Sample:
    """One question, asked in a transaction of its own; `ask` publishes the answer."""

    def __init__(self, ask: Callable[[AsyncSession], Awaitable[None]]) -> None:
        self.ask = ask
        self._due = 0.0

    async def take(self, database: Database) -> None:
        """Ask, unless it is too early for it."""
        if time.monotonic() < self._due:
            return
        async with database.transaction() as session:
            began = time.monotonic()
            try:
                await self.ask(session)
            finally:
                took = time.monotonic() - began
                if took > QUICK_SECONDS:
                    self._due = began + min(took / SHARE, LONGEST_PAUSE_SECONDS)

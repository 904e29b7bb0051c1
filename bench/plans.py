"""How PostgreSQL executes the statements that a function sends: EXPLAIN (ANALYZE, BUFFERS) of each, as sent.

The plan is asked for in the function's own transaction, a moment before the statement itself runs there
with the same parameters; what changes rows is explained in a savepoint that is rolled back.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

_EXPLAINED: Final = ("SELECT", "UPDATE", "DELETE", "WITH")
_BUFFERS: Final = re.compile(r"Buffers: shared((?: (?:hit|read)=\d+)+)")
_ROWS: Final = re.compile(r"actual time=[\d.]+\.\.[\d.]+ rows=([\d.]+)")
_TIME: Final = re.compile(r"Execution Time: ([\d.]+) ms")
_NODE: Final = re.compile(
    r"(Index Only Scan|Index Scan|Bitmap Index Scan|Seq Scan)"
    r"(?: Backward)?(?: using (?P<using>\w+))? on (?P<on>\w+)"
)
_NEVER: Final = "never executed"


@dataclass(frozen=True, slots=True)
class Plan:
    """One statement as it was executed."""

    statement: str
    text: str
    """What EXPLAIN answered."""

    @property
    def indexes(self) -> tuple[str, ...]:
        """The indexes that were looked into, each once."""
        found = (
            match["using"] or match["on"]
            for match in self._scans()
            if not match[1].startswith("Seq")
        )
        return tuple(dict.fromkeys(found))

    @property
    def scanned(self) -> tuple[str, ...]:
        """The tables that were read from end to end, each once."""
        return tuple(
            dict.fromkeys(match["on"] for match in self._scans() if match[1] == "Seq Scan")
        )

    @property
    def rows(self) -> int:
        """Rows that came out."""
        found = _ROWS.search(self.text)
        return round(float(found[1])) if found else 0

    @property
    def buffers(self) -> int:
        """Pages of 8 kB that were looked at, cached or not."""
        found = _BUFFERS.search(self.text)  # the outermost node's: it includes those below it
        return sum(int(part.partition("=")[2]) for part in found[1].split()) if found else 0

    @property
    def milliseconds(self) -> float:
        """Time of its execution; EXPLAIN's own clock-reading is in it."""
        found = _TIME.search(self.text)
        return float(found[1]) if found else 0.0

    @property
    def summary(self) -> str:
        """One line: what was used, how many rows came out, how many pages were looked at."""
        ways = [*self.indexes, *(f"all of {table}" for table in self.scanned)]
        return (
            f"{', '.join(ways) or 'no table'}: {self.rows} rows, {self.buffers} pages, "
            f"{self.milliseconds:.2f} ms"
        )

    def _scans(self) -> Iterator[re.Match[str]]:
        for line in self.text.splitlines():
            if _NEVER not in line and (match := _NODE.search(line)):
                yield match


@contextmanager
def explaining(engine: AsyncEngine) -> Iterator[list[Plan]]:
    """Explain each statement that is sent over `engine` during the block."""
    plans: list[Plan] = []
    asking = False

    def explain(
        connection: Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: Any,
        many: bool,
    ) -> None:
        nonlocal asking
        del cursor, context
        word = statement.lstrip().split(None, 1)[0].upper()
        if asking or many or word not in _EXPLAINED:
            return
        asking = True
        try:
            plans.append(Plan(statement, _ask(connection, statement, parameters)))
        finally:
            asking = False

    event.listen(engine.sync_engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", explain)


def _ask(connection: Connection, statement: str, parameters: Any) -> str:
    connection.exec_driver_sql("SAVEPOINT explained")
    answer = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters)
    text = "\n".join(row[0] for row in answer)
    connection.exec_driver_sql("ROLLBACK TO SAVEPOINT explained")
    return text


async def plans_of(engine: AsyncEngine, run: Callable[[], Awaitable[object]]) -> list[Plan]:
    """Return the plans of what `run` sends, with the pages that it needs in memory."""
    await run()
    with explaining(engine) as plans:
        await run()
    return plans

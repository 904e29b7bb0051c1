"""The ledger's lines in a SQLite file: appended in transactions, never changed, never removed.

A committed line survives `kill -9` and a power cut (write-ahead log, synchronous=FULL). A transaction
excludes every other one, in this process (a lock) and in others on the same file (BEGIN IMMEDIATE): what
is read inside it stays true until it commits.

Blocks while it reads and writes: call it from a thread, not from the event loop.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sandbox.payment_provider.schemas import ChargeStatus, Kind

BUSY_SECONDS = 5.0
"""How long a writer in another process is waited for."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('charge', 'refund')),
    key TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('succeeded', 'declined', 'canceled')),
    amount INTEGER NOT NULL CHECK (amount >= 0),
    currency TEXT NOT NULL,
    decline_reason TEXT,
    reference TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (kind, key)
);
CREATE INDEX IF NOT EXISTS refunds_of_charge ON entries (reference) WHERE kind = 'refund';
"""
_COLUMNS = (
    "kind, key, id, status, amount, currency, decline_reason, reference, fingerprint, created_at"
)
_REFUNDED = """
SELECT COALESCE(SUM(amount), 0) FROM entries
WHERE kind = 'refund' AND reference = ? AND status = 'succeeded'
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `fingerprint` identifies the request that led to it; the payment token is not kept."""

    kind: Kind
    key: str
    id: str
    status: ChargeStatus
    amount: int
    currency: str
    decline_reason: str | None
    reference: str
    fingerprint: str
    created_at: str


class Transaction:
    """What can be done inside a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, kind: Kind, key: str) -> Entry | None:
        """Return the line of this kind with this idempotency key."""
        query = f"SELECT {_COLUMNS} FROM entries WHERE kind = ? AND key = ?"  # noqa: S608 - a constant
        row = self._connection.execute(query, (kind, key)).fetchone()
        return Entry(*row) if row is not None else None

    def refunded(self, charge_key: str) -> int:
        """Return how much of a charge was given back, in minor units."""
        amount: int = self._connection.execute(_REFUNDED, (charge_key,)).fetchone()[0]
        return amount

    def append(
        self,
        kind: Kind,
        key: str,
        *,
        status: ChargeStatus,
        amount: int,
        currency: str,
        reference: str,
        fingerprint: str,
        decline_reason: str | None = None,
    ) -> Entry:
        """Append a line and return it."""
        entry = Entry(
            kind=kind,
            key=key,
            id=f"{kind}_{secrets.token_hex(12)}",
            status=status,
            amount=amount,
            currency=currency,
            decline_reason=decline_reason,
            reference=reference,
            fingerprint=fingerprint,
            created_at=datetime.now(UTC).isoformat(),
        )
        values = [getattr(entry, column) for column in _COLUMNS.split(", ")]
        marks = ", ".join("?" * len(values))
        self._connection.execute(f"INSERT INTO entries ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608
        return entry

    def all(self) -> list[Entry]:
        """Return every line, oldest first."""
        query = f"SELECT {_COLUMNS} FROM entries ORDER BY position"  # noqa: S608 - a constant
        return [Entry(*row) for row in self._connection.execute(query)]


class Store:
    """The lines in the file `path`, which is created when it does not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Open the file; does nothing when it is open.

        Raises:
            OSError, sqlite3.Error: the file cannot be created, or is no SQLite database.
        """
        with self._lock:
            if self._connection is not None:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(_SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection

    def close(self) -> None:
        """Close the file, after the transaction at hand."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Run the block in a transaction: committed at its end, rolled back by an exception."""
        with self._lock:
            connection = self._connection
            if connection is None:
                raise RuntimeError("The ledger is closed: open it first.")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

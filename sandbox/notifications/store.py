"""The newest notifications, in one SQLite file: what was there first goes first, and a restart loses none.

Bounds, so that an alert that flaps over a weekend fills no disk: 2,000 notifications and 64 MB of them. The
Watchdog is heard every few minutes for ever; of it the newest ten are kept, or it would push out all others.
Kept is what was sent; how it reads is found out when somebody reads it.

Blocks while it reads and writes: call it from a thread, not from the event loop.
"""

import sqlite3
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sandbox.notifications.shown import Channel

WATCHDOG: Final = "watchdog"
"""The receiver of the alert that always fires (monitoring/alertmanager/alertmanager.yml)."""
BUSY_SECONDS: Final = 5.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at TEXT NOT NULL,
    channel TEXT NOT NULL,
    receiver TEXT NOT NULL,
    body BLOB NOT NULL
);
"""
_DROP_OLDEST: Final = """
DELETE FROM notifications WHERE id IN (
    SELECT id FROM (
        SELECT id,
               ROW_NUMBER() OVER (ORDER BY id DESC) AS number,
               SUM(LENGTH(body)) OVER (ORDER BY id DESC) AS bytes,
               ROW_NUMBER() OVER (PARTITION BY receiver ORDER BY id DESC) AS number_of_receiver,
               receiver
        FROM notifications
    )
    WHERE number > :notifications OR bytes > :bytes
       OR (receiver = :watchdog AND number_of_receiver > :of_watchdog)
)
"""
_SELECT: Final = """
SELECT id, received_at, channel, receiver, body FROM notifications
WHERE id > :after
  AND (:channel IS NULL OR channel = :channel)
  AND (:receiver IS NULL OR receiver = :receiver)
  AND (:without_watchdog = 0 OR receiver <> :watchdog)
ORDER BY id DESC LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept."""

    notifications: int = 2_000
    body_bytes: int = 64 * 1024 * 1024
    of_watchdog: int = 10


@dataclass(frozen=True, slots=True)
class Stored:
    """One notification as it was sent; ids grow and are never used twice."""

    id: int
    received_at: datetime
    channel: Channel
    receiver: str
    body: bytes


class NotificationStore:
    """The notifications in the file `path`, which is created when it does not exist."""

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self._path = path
        self._limits = limits or Limits()
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Open the file; does nothing when it is open.

        Raises:
            OSError, sqlite3.Error: The file cannot be created, or is no SQLite database.
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
                connection.executescript(_SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def add(self, channel: Channel, receiver: str, body: bytes) -> None:
        """Keep a notification that arrived now."""
        limits = self._limits
        row = (datetime.now(UTC).isoformat(timespec="milliseconds"), channel, receiver, body)
        with self._lock:
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute(
                    "INSERT INTO notifications (received_at, channel, receiver, body) "
                    "VALUES (?, ?, ?, ?)",
                    row,
                )
                bounds = {
                    "notifications": limits.notifications,
                    "bytes": limits.body_bytes,
                    "of_watchdog": limits.of_watchdog,
                    "watchdog": WATCHDOG,
                }
                connection.execute(_DROP_OLDEST, bounds)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def newest(
        self,
        *,
        channel: Channel | None = None,
        receiver: str | None = None,
        after: int = 0,
        limit: int = 100,
        without_watchdog: bool = False,
    ) -> list[Stored]:
        """Return the newest first: of a channel, of a receiver, with an id above `after`."""
        parameters = {
            "channel": channel,
            "receiver": receiver,
            "after": after,
            "limit": limit,
            "without_watchdog": int(without_watchdog),
            "watchdog": WATCHDOG,
        }
        with self._lock:
            rows = self._opened().execute(_SELECT, parameters).fetchall()
        return [
            Stored(number, datetime.fromisoformat(at), channel_, receiver_, body)
            for number, at, channel_, receiver_, body in rows
        ]

    def version(self) -> str:
        """Return what is another once something has arrived."""
        with self._lock:
            query = "SELECT COALESCE(MAX(id), 0) FROM notifications"
            newest: int = self._opened().execute(query).fetchone()[0]
        return str(newest)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("The file of notifications is closed: open it first.")
        return self._connection

"""SQLite: its online backup, which is consistent beside a service that writes, and its integrity check."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from deploy.backup.errors import BackupFailed

BUSY_SECONDS: Final = 15.0


def copy_sqlite(database: Path, to: Path) -> None:
    """Copy the database into a new file and verify it.

    Raises:
        BackupFailed: There is no database, no copy, or the copy is damaged.
    """
    if not database.is_file():
        raise BackupFailed(f"there is no database {database}")
    try:
        with (
            closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(to)) as copy,
        ):
            source.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
            # In one step, that is in one transaction: in several, every commit of the service begins it anew.
            source.backup(copy)
            # One file, without a journal beside it that would be missing in another place.
            copy.execute("PRAGMA journal_mode = DELETE")
            found = [str(row[0]) for row in copy.execute("PRAGMA integrity_check(1)")]
            tables = copy.execute(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
            ).fetchone()
    except sqlite3.Error as error:
        raise BackupFailed(f"{database} could not be copied: {error}") from error
    if found != ["ok"]:
        raise BackupFailed(f"{database} is damaged: {found[0]}")
    if tables[0] == 0:
        raise BackupFailed(f"{database} has no tables: does DATABASE_URL name the right database?")

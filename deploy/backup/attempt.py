"""One attempt at a backup: copy, verify, name, clear away what is too old, and say in metrics how it went."""

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from deploy.backup.directory import Directory
from deploy.backup.errors import BackupFailed
from deploy.backup.metrics import read_metrics, write_metrics
from deploy.backup.postgres import copy_postgres
from deploy.backup.sqlite import copy_sqlite


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made: `kept` is how many there are now, this one included."""

    path: Path
    size: int
    seconds: float
    kept: int


def attempt(
    database_url: str, *, to: Path, keep: int, metrics: Path | None, seconds: float
) -> Backup:
    """Make a backup.

    Args:
        database_url: As the service has it.
        to: The directory.
        keep: How many backups to keep, this one included; at least 1.
        metrics: Where the textfile collector looks, if anywhere.
        seconds: How long pg_dump and pg_restore may take, each.

    Raises:
        BackupFailed: There is no new backup, or nobody will learn of it from the metrics.
    """
    begin = time.monotonic()
    try:
        backup = _make(make_url(database_url), to=to, keep=keep, seconds=seconds)
    except BaseException:  # also when it is ended by a signal
        if metrics:
            # Why there is no backup is worth more than why there are no metrics.
            with suppress(BackupFailed):
                write_metrics(metrics, read_metrics(metrics).after_failure(at=time.time()))
        raise
    if metrics:
        duration = time.monotonic() - begin
        known = read_metrics(metrics).after_success(
            at=time.time(), duration=duration, size=backup.size
        )
        write_metrics(metrics, known)
    return backup


def _make(url: URL, *, to: Path, keep: int, seconds: float) -> Backup:
    begin = time.monotonic()
    at = datetime.now(UTC)
    is_sqlite = url.get_backend_name() == "sqlite"
    name = Path(url.database or "").stem if is_sqlite else (url.database or "")
    if not name or name == ":memory:":
        raise BackupFailed("DATABASE_URL names no database that could be copied")
    directory = Directory(
        to, name=re.sub(r"[^\w.-]", "_", name), suffix="db" if is_sqlite else "dump"
    )
    with directory.locked():
        with directory.new_file(at) as file:
            if is_sqlite:
                copy_sqlite(Path(url.database or ""), file)
            else:
                copy_postgres(url, file, seconds=seconds)
        newest = directory.backups()[0]
        return Backup(newest, newest.stat().st_size, time.monotonic() - begin, directory.keep(keep))

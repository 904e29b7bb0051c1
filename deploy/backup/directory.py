"""The directory of backups: a file has its final name only when it is whole, verified and on the disk.

Until then it is hidden and called `.partial`: whoever copies or counts `*.dump` never sees half a backup,
whenever the power fails. One backup at a time; the next one clears away what a killed one left.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from deploy.backup.errors import BackupFailed

PARTIAL: Final = ".partial"
_STAMP: Final = "%Y%m%dT%H%M%S.%fZ"
_STAMPED: Final = r"\d{8}T\d{6}\.\d{6}Z"


class Directory:
    """Backups of one database, `NAME-TIME.SUFFIX`; other files are left alone.

    Args:
        path: An existing directory, or one to make.
        name: Of the database.
        suffix: Of its files: `dump` or `db`.
    """

    def __init__(self, path: Path, *, name: str, suffix: str) -> None:
        self.path = path
        self._name = name
        self._suffix = suffix

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else make backups here.

        Raises:
            BackupFailed: Somebody does, or nothing can be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise BackupFailed(f"{self.path} cannot be written to: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BackupFailed(f"another backup to {self.path} is running") from error
            for left_over in self.path.glob(f".*{PARTIAL}*"):
                left_over.unlink(missing_ok=True)
            yield

    @contextmanager
    def new_file(self, at: datetime) -> Iterator[Path]:
        """Yield the path to write to; without an exception, the file then has its final name.

        Yields:
            A path below the directory that does not exist yet; what is there after an exception is removed.
        """
        partial = self.path / f".{self._file_name(at)}{PARTIAL}"
        try:
            yield partial
            _sync(partial)
            partial.rename(self.path / self._file_name(at))
            _sync(self.path)
        except OSError as error:
            raise BackupFailed(f"{self.path} cannot be written to: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)

    def keep(self, number: int) -> int:
        """Remove all but the newest `number` backups; return how many there are now."""
        backups = self.backups()
        for old in backups[number:]:
            old.unlink()
        return min(len(backups), number)

    def backups(self) -> list[Path]:
        """Return the backups, newest first."""
        name = re.compile(rf"{re.escape(self._name)}-{_STAMPED}\.{self._suffix}")
        found = [file for file in self.path.iterdir() if name.fullmatch(file.name)]
        return sorted(found, key=lambda file: file.name, reverse=True)

    def _file_name(self, at: datetime) -> str:
        return f"{self._name}-{at.strftime(_STAMP)}.{self._suffix}"


def replace(path: Path, text: str, *, mode: int) -> None:
    """Write a text file so that a reader finds the old or the new content, never half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        partial.write_text(text)
        partial.chmod(mode)
        _sync(partial)
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

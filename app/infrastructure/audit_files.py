"""Archives of the audit log as files: one part of the chain each, without a gap.

gzip, one JSON object a line; the first line describes the part. A file appears under its name when it
is complete, on the disk and read back, or not at all. The same entries make the same bytes.
"""

import fcntl
import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from app.infrastructure.audit_chain import AuditKeys, BrokenChain, Walk

FORMAT = 1
_DAMAGE = (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError)


class ArchiveRefused(Exception):
    """Something stands in the way; nothing was deleted. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a file holds: the first line of it."""

    first: int
    last: int
    previous_hash: str
    last_hash: str
    newest: str
    """The latest `occurred_at` in it."""
    format: int = FORMAT

    @property
    def name(self) -> str:
        """The name of the file, which sorts like the chain."""
        return f"audit-{self.first:012d}-{self.last:012d}.jsonl.gz"


def list_files(directory: Path, *, first: int | None = None) -> list[Path]:
    """Return the archives in a directory, those that begin with the entry `first` where it is given."""
    begin = "*" if first is None else f"{first:012d}"
    return sorted(directory.glob(f"audit-{begin}-*.jsonl.gz"))


def read_part(path: Path) -> Part:
    """Return what an archive says of itself.

    Raises:
        BrokenChain: It cannot be read.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            part = Part(**json.loads(file.readline()))
            name = part.name
    except _DAMAGE as error:
        raise BrokenChain(0, f"{path} is no archive of the audit log") from error
    if part.format != FORMAT:
        raise BrokenChain(part.first, f"{path} has format {part.format}; this reads {FORMAT}")
    if path.name.removesuffix(".partial") != name:
        raise BrokenChain(part.first, f"{path} does not describe what it holds")
    return part


def walk_file(path: Path, walk: Walk) -> str:
    """Take every entry of a file; return the latest `occurred_at`.

    Raises:
        BrokenChain: One does not fit, or the file is damaged.
    """
    part, newest = read_part(path), ""
    if walk.previous is None:
        walk.previous = part.previous_hash
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            file.readline()
            for line in file:
                entry = json.loads(line)
                walk.step(entry)
                newest = max(newest, entry["occurred_at"])
    except _DAMAGE as error:
        raise BrokenChain(walk.position + 1, f"{path} is damaged from here on") from error
    if (part.last, part.last_hash) != (walk.position, walk.previous):
        raise BrokenChain(walk.position + 1, f"is missing: {path} should go on to {part.last}")
    if part.newest != newest:
        raise BrokenChain(part.first, f"{path} does not describe what it holds")
    return newest


def open_walk(
    files: Sequence[Path], keys: AuditKeys, anchors: dict[int, str]
) -> tuple[list[Path], Walk]:
    """Return the files in the chain's order, and a walk that stands before the first.

    The oldest may have expired, so the first need not begin with entry 1: what it follows is part of
    what its first entry was sealed with.
    """
    parts = sorted(((read_part(path).first, path) for path in files), key=lambda pair: pair[0])
    walk = Walk(keys, position=parts[0][0] - 1, previous=None, anchors=anchors)
    return [path for _, path in parts], walk


class PartWriter:
    """Writes one file. Without `keep` nothing of it will be found under its name."""

    def __init__(self, directory: Path, part: Part) -> None:
        self._part = part
        self._path = directory / part.name
        self._partial = directory / f"{part.name}.partial"
        # For nobody else to read, and for nobody to write in again.
        descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        self._raw: IO[bytes] = os.fdopen(descriptor, "wb")
        self._file = gzip.GzipFile("", "wb", 6, self._raw, mtime=0)
        self.write(asdict(part))

    def write(self, content: Mapping[str, Any]) -> None:
        """Add one line."""
        line = json.dumps(content, sort_keys=True, separators=(",", ":"))
        self._file.write(line.encode() + b"\n")

    def keep(self, keys: AuditKeys) -> Path:
        """Bring the file to the disk, read it back, and give it its name.

        Raises:
            BrokenChain: What was written does not verify.
        """
        self._file.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        part = self._part
        before = Walk(keys, position=part.first - 1, previous=part.previous_hash, anchors={})
        walk_file(self._partial, before)
        self._partial.replace(self._path)
        sync_directory(self._path.parent)
        return self._path

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._raw.close()


def remove_files(files: Sequence[Path], directory: Path) -> None:
    """Delete files, for good when this returns."""
    for path in files:
        path.unlink()
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Make sure that what was renamed or deleted in it is so after a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Make the directory where needed, and keep other runs on this machine out of it.

    Raises:
        ArchiveRefused: There is one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArchiveRefused(f"another run is working in {directory}") from error
        for left in directory.glob("audit-*.partial"):  # by a run that was killed
            left.unlink()
        yield

"""Verifies the audit log from end to end: archives, rows, head, and a head that was noted elsewhere.

Reads in batches, in short transactions, so that it takes little memory and holds nobody up. Entries
that are sealed meanwhile come after the end that was read at first; rows that are archived meanwhile
are passed over, since they were verified by that.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from app.infrastructure.audit import AuditEntry
from app.infrastructure.audit_archive import read_range
from app.infrastructure.audit_chain import (
    GENESIS,
    HEAD,
    NOT_AS_NOTED,
    AuditHead,
    AuditKeys,
    BrokenChain,
    Walk,
    check_head,
    sealed_content,
)
from app.infrastructure.audit_files import open_walk, walk_file
from app.infrastructure.database import Database, now

NOT_SEALED_SECONDS = 60.0
"""The worker seals every second; what waits longer waits for a worker that is not there."""
_NOT_GIVEN = "is archived, so it was not compared: name its file, too"


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found whole."""

    first: int
    last: int
    hash: str
    unsealed: int
    oldest_unsealed_seconds: float

    def __str__(self) -> str:
        """Say it in sentences."""
        if self.last < self.first:
            said = "the audit log has no sealed entry yet"
        else:
            said = f"entries {self.first} to {self.last} are whole; head {self.last}:{self.hash}"
        if self.first > 1:
            said += f"; entries 1 to {self.first - 1} are archived and were not given"
        if self.unsealed:
            said += f"; {self.unsealed} not sealed yet"
        if self.oldest_unsealed_seconds > NOT_SEALED_SECONDS:
            waits = dt.timedelta(seconds=round(self.oldest_unsealed_seconds))
            said += f", the oldest for {waits}: is a worker running?"
        return said


def read_anchor(text: str) -> tuple[int, str]:
    """Return the position and the hash of `POSITION:HASH`. Raises ValueError for anything else."""
    position, _, digest = text.partition(":")
    if not position.isdecimal() or len(digest) != len(GENESIS):
        raise ValueError("a head is written as POSITION:HASH, as the log line of type audit has it")
    return int(position), digest


async def verify(
    database: Database,
    keys: AuditKeys,
    *,
    files: Sequence[Path] = (),
    anchor: tuple[int, str] | None = None,
) -> Verified:
    """Walk along all entries that are given.

    Args:
        database: Holds the rows.
        keys: All that were used.
        files: Archives; without them the walk begins behind what is archived.
        anchor: Position and hash of an entry, noted down outside of the database.

    Raises:
        BrokenChain: The first entry that is not as it was sealed.
    """
    async with database.transaction() as session:
        head = check_head(await session.scalar(HEAD), keys)
    first = head.archived_position + 1
    anchors = {head.archived_position: head.archived_hash}
    if anchor and anchors.setdefault(*anchor) != anchor[1]:
        raise BrokenChain(anchor[0], NOT_AS_NOTED)
    if files:
        first = _verify_files(files, keys, head, anchors)
    elif anchor and anchor[0] < head.archived_position:
        raise BrokenChain(anchor[0], _NOT_GIVEN)
    if anchor and anchor[0] > head.position:
        raise BrokenChain(head.position + 1, "is missing: the end of the chain was cut off")
    walk = Walk(keys, position=head.archived_position, previous=head.archived_hash, anchors=anchors)
    while walk.position < head.position:
        try:
            await _verify_rows(database, walk, head.position)
        except BrokenChain:
            if not await _was_archived(database, keys, walk):
                raise
    if walk.position == head.position and walk.previous != head.hash:
        raise BrokenChain(head.position, "the head of the chain names another hash")
    if anchor and anchor[0] > head.archived_position and anchor[0] in anchors:
        raise BrokenChain(anchor[0], _NOT_GIVEN)  # archived while this walked
    unsealed, oldest = await _look_behind(database)
    age = max(0.0, (now() - oldest).total_seconds()) if oldest else 0.0
    return Verified(first, walk.position, str(walk.previous), unsealed, age)


def _verify_files(
    files: Sequence[Path], keys: AuditKeys, head: AuditHead, anchors: dict[int, str]
) -> int:
    """Verify the archives, which must reach the rows; return the position that they begin with."""
    ordered, walk = open_walk(files, keys, anchors)
    first = walk.position + 1
    for path in ordered:
        walk_file(path, walk)
    walk.end(position=head.archived_position)
    return first


async def _verify_rows(database: Database, walk: Walk, last: int) -> None:
    async for entries in read_range(database, walk.position + 1, last):
        for entry in entries:
            walk.step(sealed_content(entry))
    walk.end(position=last)


async def _was_archived(database: Database, keys: AuditKeys, walk: Walk) -> bool:
    """Go on behind what was archived since the walk passed, if that is why an entry is missing."""
    async with database.transaction() as session:
        head = check_head(await session.scalar(HEAD), keys)
    if head.archived_position <= walk.position:
        return False
    walk.position, walk.previous = head.archived_position, head.archived_hash
    return True


async def _look_behind(database: Database) -> tuple[int, dt.datetime | None]:
    """Return how many entries are not sealed, and since when; look for rows behind the head."""
    async with database.transaction() as session:
        end = select(AuditHead.position).where(AuditHead.id == 1).scalar_subquery()
        # One statement: a sealer that commits in between moves both.
        stray = await session.scalar(
            select(func.min(AuditEntry.position)).where(AuditEntry.position > end)
        )
        if stray is not None:
            raise BrokenChain(stray, "lies behind the head of the chain")
        count, oldest = (
            await session.execute(
                select(func.count(), func.min(AuditEntry.occurred_at)).where(
                    AuditEntry.position.is_(None)
                )
            )
        ).one()
    return count, oldest

"""Moves old entries of the audit log into files, and ends those that were kept long enough.

`archive` writes a file (audit_files.py: on the disk and read back); only then one transaction moves the
mark "archived up to here" and deletes the rows, which the database allows up to that mark alone. So
nothing is lost whenever it is interrupted: a file whose rows are still there is made again.
`expire` deletes whole files, the oldest first, and only when all of them verify.

Both are entries themselves. Must never delete what it has not read back.
"""

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import delete, func, select

from app.infrastructure.audit import OPERATOR, AuditEntry, record
from app.infrastructure.audit_chain import (
    HEAD,
    AuditKeys,
    BrokenChain,
    check_head,
    seal_head,
    sealed_content,
)
from app.infrastructure.audit_files import (
    ArchiveRefused,
    Part,
    PartWriter,
    alone_in,
    list_files,
    open_walk,
    read_part,
    remove_files,
    walk_file,
)
from app.infrastructure.database import Database, now

ENTRIES_PER_FILE = 50_000
"""So many rows are deleted in one transaction: a second or so, whatever has piled up."""
READ_BATCH = 1_000


async def read_range(
    database: Database, first: int, last: int
) -> AsyncIterator[Sequence[AuditEntry]]:
    """Yield the entries `first` to `last` in order and in batches, each in a transaction of its own."""
    for begin in range(first, last + 1, READ_BATCH):
        async with database.transaction() as session:
            found = await session.scalars(
                select(AuditEntry)
                .where(AuditEntry.position.between(begin, min(begin + READ_BATCH - 1, last)))
                .order_by(AuditEntry.position, AuditEntry.id)
            )
            entries = found.all()
        yield entries


async def archive(
    database: Database, keys: AuditKeys, *, older_than: dt.timedelta, directory: Path
) -> list[Path]:
    """Move sealed entries older than that into files in `directory`; return the files.

    Takes the chain from its beginning up to the first entry that is younger.

    Raises:
        BrokenChain: What would be archived does not verify: it stays where it is.
        ArchiveRefused: Another run is at it, or left something that has to be looked at.
    """
    before = now() - older_than
    moved: list[Path] = []
    with alone_in(directory):
        while (part := await _next_part(database, keys, before, directory)) is not None:
            try:
                with closing(PartWriter(directory, part)) as file:
                    async for entries in read_range(database, part.first, part.last):
                        for entry in entries:
                            file.write(sealed_content(entry))
                    path = file.keep(keys)
            except BrokenChain:
                # Rows that are missing because another machine has just archived them are no theft.
                if await _is_archived(database, keys, part):
                    raise ArchiveRefused("another run has archived meanwhile") from None
                raise
            await _delete(database, keys, part)
            moved.append(path)
    return moved


async def _next_part(
    database: Database, keys: AuditKeys, before: dt.datetime, directory: Path
) -> Part | None:
    async with database.transaction() as session:
        head = check_head(await session.scalar(HEAD), keys)
        first = head.archived_position + 1
        last = min(head.position, head.archived_position + ENTRIES_PER_FILE)
        reach = AuditEntry.position.between(first, last)
        youngest = await session.scalar(
            select(func.min(AuditEntry.position)).where(reach, AuditEntry.occurred_at >= before)
        )
        last = min(last, youngest - 1 if youngest else last)
        for left in list_files(directory, first=first):
            # An earlier run was interrupted before it deleted: the same file is made again.
            end = read_part(left).last
            if end > last:
                raise ArchiveRefused(
                    f"{left} was left by an interrupted run that took more: repeat that one,"
                    " or remove the file, whose entries are all in the database"
                )
            last = end
        if last < first:
            return None
        reach = AuditEntry.position.between(first, last)
        newest = await session.scalar(select(func.max(AuditEntry.occurred_at)).where(reach))
        last_hash = await session.scalar(select(AuditEntry.hash).where(AuditEntry.position == last))
    if last_hash is None or newest is None:
        raise BrokenChain(last, "is missing")
    moment = newest.astimezone(dt.UTC).isoformat(timespec="microseconds")
    return Part(first, last, head.archived_hash, last_hash, moment)


async def _is_archived(database: Database, keys: AuditKeys, part: Part) -> bool:
    async with database.transaction() as session:
        head = check_head(await session.scalar(HEAD), keys)
    return head.archived_position >= part.first


async def _delete(database: Database, keys: AuditKeys, part: Part) -> None:
    async with database.transaction() as session:
        head = check_head(await session.scalar(HEAD.with_for_update()), keys)
        if head.archived_position != part.first - 1:
            raise ArchiveRefused(f"another run has archived meanwhile: remove {part.name}")
        head.archived_position, head.archived_hash = part.last, part.last_hash
        seal_head(head, keys)
        await session.flush()  # the trigger looks at it
        deleted = await session.execute(
            delete(AuditEntry)
            .where(AuditEntry.position.between(part.first, part.last))
            .returning(AuditEntry.position)
            .execution_options(synchronize_session=False)
        )
        if len(deleted.all()) != part.last - part.first + 1:
            raise BrokenChain(part.first, "the rows changed while they were archived")
        record(
            session,
            action="archival",
            actor=OPERATOR,
            record_type="audit_entries",
            record_id=f"{part.first}-{part.last}",
            details={"file": part.name},
        )


async def expire(
    database: Database, keys: AuditKeys, *, older_than: dt.timedelta, directory: Path
) -> list[Path]:
    """Delete the files whose entries are all older than that; return them.

    Raises:
        BrokenChain: A file of the directory does not verify: then all of them stay, as evidence.
        ArchiveRefused: Another run is at it.
    """
    limit = (now() - older_than).astimezone(dt.UTC).isoformat(timespec="microseconds")
    with alone_in(directory):
        files = list_files(directory)
        if not files:
            return []
        files, walk = open_walk(files, keys, {})
        newest = [walk_file(path, walk) for path in files]
        young = next((i for i, moment in enumerate(newest) if moment >= limit), len(newest))
        expired = files[:young]
        # First: a file that is gone without an entry would look like theft.
        async with database.transaction() as session:
            for part in map(read_part, expired):
                record(
                    session,
                    action="expiry",
                    actor=OPERATOR,
                    record_type="audit_entries",
                    record_id=f"{part.first}-{part.last}",
                    details={"file": part.name},
                )
        remove_files(expired, directory)
    return expired

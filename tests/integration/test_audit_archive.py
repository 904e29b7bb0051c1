"""Archives of the audit log: nothing is lost on the way, nothing is missed on the way back."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.infrastructure import audit, audit_archive
from app.infrastructure.audit import AuditEntry
from app.infrastructure.audit_archive import archive, expire
from app.infrastructure.audit_chain import (
    BrokenChain,
)
from app.infrastructure.audit_files import ArchiveRefused, list_files
from app.infrastructure.audit_verify import verify
from app.infrastructure.database import Database, now
from tests.audit_log import DAY, KEYS, SECRET, Log, open_log
from tests.service import ROOT, test_settings

WITHIN_SECONDS = 60.0


@pytest_asyncio.fixture
async def log(service_database: str) -> AsyncIterator[Log]:
    """An empty audit log, on both kinds of database."""
    async with open_log(service_database) as opened:
        yield opened


@pytest_asyncio.fixture
async def aged(log: Log, monkeypatch: pytest.MonkeyPatch) -> Log:
    """Eight entries of a hundred days ago and two of today, sealed; files take three each."""
    monkeypatch.setattr(audit_archive, "ENTRIES_PER_FILE", 3)
    monkeypatch.setattr(audit, "now", lambda: now() - 100 * DAY)
    await log.write(8)
    await log.seal()
    monkeypatch.setattr(audit, "now", now)
    await log.write(2)
    await log.seal()
    return log


def names(directory: Path) -> list[str]:
    return [file.name for file in list_files(directory)]


async def archive_old(log: Log, directory: Path) -> list[Path]:
    return await archive(log.database, KEYS, older_than=30 * DAY, directory=directory)


async def test_old_entries_move_into_files_and_the_chain_goes_on(aged: Log, tmp_path: Path) -> None:
    files = await archive_old(aged, tmp_path / "archive")
    assert [file.name for file in files] == [
        "audit-000000000001-000000000003.jsonl.gz",
        "audit-000000000004-000000000006.jsonl.gz",
        "audit-000000000007-000000000008.jsonl.gz",
    ]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o400] * 3
    assert await archive_old(aged, tmp_path / "archive") == []
    await aged.seal()
    entries = await aged.entries()
    assert [entry.position for entry in entries] == list(range(9, 14))
    assert {(entry.action, entry.record_id) for entry in entries[2:]} == {
        ("archival", "1-3"),
        ("archival", "4-6"),
        ("archival", "7-8"),
    }
    whole = await verify(aged.database, KEYS, files=files[::-1])
    assert (whole.first, whole.last) == (1, 13)
    rows = await verify(aged.database, KEYS)
    assert (rows.first, rows.last) == (9, 13)
    assert "entries 1 to 8 are archived and were not given" in str(rows)


async def test_what_is_not_sealed_or_too_young_is_not_archived(
    log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await log.write()  # young, and in front of the old ones
    await log.seal()
    monkeypatch.setattr(audit, "now", lambda: now() - 100 * DAY)
    await log.write()
    await log.seal()
    await log.write()
    assert await archive_old(log, tmp_path) == []
    assert len(await log.entries()) == 3


async def test_a_missing_archive_is_noticed(aged: Log, tmp_path: Path) -> None:
    files = await archive_old(aged, tmp_path)
    middle = await aged.broken(files=[files[0], files[2]])
    assert (middle.position, "is missing" in str(middle)) == (4, True)
    last = await aged.broken(files=files[:2])
    assert (last.position, "is missing" in str(last)) == (7, True)
    without_first = await verify(aged.database, KEYS, files=files[1:])
    assert without_first.first == 4
    assert "entries 1 to 3" in str(without_first)


async def test_a_noted_head_is_looked_for_in_the_archives_too(aged: Log, tmp_path: Path) -> None:
    noted = {entry.position: str(entry.hash) for entry in await aged.entries()}
    files = await archive_old(aged, tmp_path)
    for position in (2, 8, 9):
        anchor = (position, noted[position])
        await verify(aged.database, KEYS, files=files, anchor=anchor)
        found = await aged.broken(files=files, anchor=(position, "f" * 64))
        assert (found.position, "noted down" in str(found)) == (position, True)
    assert "name its file" in str(await aged.broken(anchor=(2, noted[2])))


async def test_a_broken_chain_is_not_archived(aged: Log, tmp_path: Path) -> None:
    await aged.tamper("UPDATE audit_entries SET actor = 'nobody' WHERE position = 5")
    with pytest.raises(BrokenChain, match="entry 5"):
        await archive_old(aged, tmp_path)
    assert names(tmp_path) == ["audit-000000000001-000000000003.jsonl.gz"]
    # The part before it is as good as it was.
    assert [entry.position for entry in await aged.entries()][:2] == [4, 5]


KILLED = """
import asyncio, datetime as dt, os, pathlib, signal, sys
from app.infrastructure import audit_archive, audit_files
from app.infrastructure.audit_chain import AuditKeys
from app.infrastructure.database import Database, DatabaseSettings

def die(*given, **named):
    os.kill(os.getpid(), signal.SIGKILL)

module, _, name = sys.argv[1].partition(":")
owner = {"archive": audit_archive, "files": audit_files, "writer": audit_files.PartWriter}[module]
setattr(owner, name, die)
asyncio.run(audit_archive.archive(
    Database(DatabaseSettings()), AuditKeys(sys.argv[2]), older_than=dt.timedelta(days=30),
    directory=pathlib.Path(sys.argv[3]),
))
"""


@pytest.mark.parametrize(
    "moment", ["writer:keep", "files:walk_file", "archive:_delete", "archive:record"]
)
async def test_archiving_that_is_killed_loses_nothing_and_is_taken_up_again(
    log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moment: str
) -> None:
    monkeypatch.setattr(audit, "now", lambda: now() - 100 * DAY)
    await log.write(5)
    await log.seal()
    directory = tmp_path / "archive"
    killed = await asyncio.to_thread(
        lambda: subprocess.run(
            [
                sys.executable,
                "-c",
                KILLED,
                moment,
                SECRET,
                directory,
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": log.url},
            capture_output=True,
            timeout=WITHIN_SECONDS,
            check=False,
        )
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = {file: file.read_bytes() for file in directory.glob("*.gz")}
    assert bool(left) is moment.startswith("archive:")
    assert (await verify(log.database, KEYS)).last == 5
    assert (await verify(log.database, KEYS, files=list(left))).last == 5

    # Later more is old enough; the part that was begun is the one that is finished.
    await log.write(2)
    await log.seal()
    files = await archive_old(log, directory)
    for file, content in left.items():
        assert files[0] == file
        assert file.read_bytes() == content
    assert {file.name for file in directory.glob("*")} == {".lock", *(file.name for file in files)}
    whole = await verify(log.database, KEYS, files=files)
    assert (whole.first, whole.last) == (1, 7)
    async with log.database.transaction() as session:
        assert not await session.scalar(
            select(func.count()).where(AuditEntry.position.is_not(None))
        )


async def test_two_runs_do_not_archive_at_once(aged: Log, tmp_path: Path) -> None:
    there = await asyncio.gather(
        *(archive_old(aged, tmp_path) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in there) == ["ArchiveRefused", "list"]
    files = list_files(tmp_path)
    assert (await verify(aged.database, KEYS, files=files)).last >= 10


async def test_runs_on_two_machines_delete_each_row_once(aged: Log, tmp_path: Path) -> None:
    outcomes = await asyncio.gather(
        *(archive_old(aged, tmp_path / name) for name in "ab"), return_exceptions=True
    )
    moved = [file for outcome in outcomes if isinstance(outcome, list) for file in outcome]
    refused = [one for one in outcomes if isinstance(one, BaseException)]
    assert all(isinstance(one, ArchiveRefused) for one in refused)
    # Whoever came second wrote a file in vain, with the same entries: nothing is lost.
    files = {file.name: file for name in "ab" for file in list_files(tmp_path / name)}
    assert {file.name for file in moved} <= set(files)
    await verify(aged.database, KEYS, files=list(files.values()))


async def test_verification_goes_on_while_entries_are_sealed_and_archived(
    aged: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(audit_archive, "READ_BATCH", 1)
    archived: list[bool] = []

    async def once() -> None:
        if not archived:
            archived.append(True)
            await archive_old(aged, tmp_path)
            await aged.seal()

    class Slow(Database):
        """The database, with a run of `archive` between the second and the third entry."""

        transactions = 0

        @asynccontextmanager
        async def transaction(self) -> AsyncIterator[AsyncSession]:
            self.transactions += 1
            if self.transactions == 4:
                await once()
            async with super().transaction() as session:
                yield session

    slow = Slow(test_settings(aged.url))
    found = await verify(slow, KEYS)
    await slow.dispose()
    assert archived
    assert found.last == 10
    assert (await verify(aged.database, KEYS)).first == 9


async def test_expired_archives_are_deleted_oldest_first_and_only_whole_ones(
    aged: Log, tmp_path: Path
) -> None:
    files = await archive_old(aged, tmp_path)
    keep = {"directory": tmp_path, "older_than": 101 * DAY}
    assert await expire(aged.database, KEYS, **keep) == []  # type: ignore[arg-type]
    assert all(file.exists() for file in files)

    files[1].chmod(0o600)
    content = files[1].read_bytes()
    files[1].write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(BrokenChain):
        await expire(aged.database, KEYS, older_than=99 * DAY, directory=tmp_path)
    assert all(file.exists() for file in files)

    files[1].write_bytes(content)
    assert await expire(aged.database, KEYS, older_than=99 * DAY, directory=tmp_path) == files
    assert names(tmp_path) == []
    await aged.seal()
    expiries = [entry for entry in await aged.entries() if entry.action == "expiry"]
    assert [entry.record_id for entry in expiries] == ["1-3", "4-6", "7-8"]
    assert (await verify(aged.database, KEYS)).first == 9

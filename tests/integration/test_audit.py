"""The audit log on both databases: complete, append-only, and telling where somebody changed it.

Who tampers here may do everything that an administrator of the database may: triggers and constraints
are out of the way. The one thing that is missing is the key.
"""

import asyncio
import uuid
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import text as sql
from sqlalchemy.exc import IntegrityError

from app.infrastructure import audit
from app.infrastructure.audit_chain import (
    GENESIS,
    AuditKeys,
    BrokenChain,
    audit_keys,
    seal,
    sealed_content,
)
from app.infrastructure.audit_verify import verify
from app.infrastructure.database import Database, now
from app.observability.context import RequestContext, bind_context
from tests.audit_log import DAY, KEYS, SECRET, WHO, Log, lines
from tests.service import test_settings

WITHIN_SECONDS = 60.0


@pytest_asyncio.fixture
async def sealed(log: Log) -> Log:
    """Ten sealed entries."""
    await log.write(10)
    assert await log.seal() == 10
    return log


def counted(action: str, outcome: str) -> float:
    labels = {"action": action, "outcome": outcome}
    return REGISTRY.get_sample_value("audit_entries_total", labels) or 0.0


# With the action, or not at all -------------------------------------------------------------------


async def test_an_entry_is_there_if_and_only_if_the_action_committed(
    log: Log, log_records: list[dict[str, Any]]
) -> None:
    before = counted("login", "success")
    with suppress(ZeroDivisionError):
        async with log.database.transaction() as session:
            log.add(session)
            await session.flush()
            raise ZeroDivisionError
    assert await log.entries() == []
    assert lines(log_records) == []
    assert counted("login", "success") == before

    with bind_context(RequestContext("the-request")):
        await log.write()
    (entry,) = await log.entries()
    (line,) = lines(log_records)
    assert counted("login", "success") == before + 1
    assert (entry.actor, entry.record_id, entry.request_id) == (str(WHO), str(WHO), "the-request")
    assert line["type"] == "audit"
    assert line["audit_id"] == str(entry.id)
    for name in ("action", "actor", "record_type", "record_id", "outcome", "details"):
        assert line[name] == getattr(entry, name)


async def test_details_pass_the_redaction_before_they_are_stored(log: Log) -> None:
    async with log.database.transaction() as session:
        audit.record(
            session,
            action="profiling",
            actor=audit.OPERATOR,
            record_type="process",
            record_id="self",
            details={"password": "hunter2", "note": "ada@example.com asked", "ratio": float("nan")},
        )
    (entry,) = await log.entries()
    assert "hunter2" not in str(entry.details)
    assert "ada" not in str(entry.details)
    assert await log.seal() == 1
    await verify(log.database, KEYS)


async def test_what_operators_do_goes_on_without_a_database_and_is_counted(
    log_records: list[dict[str, Any]],
) -> None:
    def failures() -> float:
        labels = {"action": "profiling"}
        return REGISTRY.get_sample_value("audit_failures_total", labels) or 0.0

    before = failures()
    away = Database(test_settings("postgresql://nobody@127.0.0.1:9/nothing"))
    await audit.record_use(away, action="debug.profile", details={"seconds": 5})
    await away.dispose()
    assert failures() == before + 1
    (line,) = lines(log_records, "Audit entry could not be stored")
    assert (line["type"], line["action"], line["details"]) == ("audit", "profiling", {"seconds": 5})


async def test_operators_do_not_wait_long_for_a_database_that_hangs(
    postgres_log: Log, monkeypatch: pytest.MonkeyPatch, log_records: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(audit, "PATIENCE_SECONDS", 0.1)
    patient = {"database_lock_timeout_ms": 600_000, "database_statement_timeout_ms": 600_000}
    waiting = Database(test_settings(postgres_log.url, **patient))
    async with asyncio.timeout(WITHIN_SECONDS):
        async with postgres_log.database.transaction() as hanging:
            await hanging.execute(sql("LOCK TABLE audit_entries"))
            await audit.record_use(waiting, action="debug.profile")
        while not lines(log_records):
            await asyncio.sleep(0.02)
    await waiting.dispose()
    (entry,) = await postgres_log.entries()
    assert entry.record_id == "debug.profile"


async def test_what_operators_do_is_recorded(log: Log) -> None:
    await audit.record_use(log.database, action="debug.profile", details={"seconds": 5})
    (entry,) = await log.entries()
    assert (entry.action, entry.actor, entry.details) == ("profiling", "operator", {"seconds": 5})
    assert (entry.record_type, entry.record_id) == ("process", "debug.profile")


# Append-only --------------------------------------------------------------------------------------

FORBIDDEN = {
    "change a sealed entry": "UPDATE audit_entries SET actor = 'nobody' WHERE position = 3",
    "change details": """UPDATE audit_entries SET details = '{"number": 9}' WHERE position = 3""",
    "change an unsealed entry": "UPDATE audit_entries SET actor = 'x' WHERE position IS NULL",
    "change while sealing": (
        "UPDATE audit_entries SET actor = 'x', position = 99, hash = 'x' WHERE position IS NULL"
    ),
    "seal without a hash": "UPDATE audit_entries SET position = 99 WHERE position IS NULL",
    "take out of the chain": "UPDATE audit_entries SET position = NULL WHERE position = 3",
    "seal again": "UPDATE audit_entries SET hash = 'x' WHERE position = 3",
    "delete a sealed entry": "DELETE FROM audit_entries WHERE position = 1",
    "delete an unsealed entry": "DELETE FROM audit_entries WHERE position IS NULL",
    "delete all": "DELETE FROM audit_entries",
    "insert into the chain": (
        "INSERT INTO audit_entries SELECT '{id}', occurred_at, action, actor, record_type,"
        " record_id, outcome, request_id, trace_id, client_network, details, 99, previous_hash,"
        " key_id, hash FROM audit_entries WHERE position = 3"
    ),
    "set the head back": "UPDATE audit_head SET position = 1",
    "delete the head": "DELETE FROM audit_head",
}


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN)
async def test_the_database_refuses_to(sealed: Log, statement: str) -> None:
    await sealed.write()
    before = [sealed_content(entry) for entry in await sealed.entries()]
    with pytest.raises(IntegrityError, match="audit"):
        await sealed.execute(statement.replace("{id}", str(uuid.uuid4())))
    assert [sealed_content(entry) for entry in await sealed.entries()] == before
    assert (await verify(sealed.database, KEYS)).last == 10


async def test_the_database_refuses_to_truncate(postgres_log: Log) -> None:
    for table in ("audit_entries", "audit_head"):
        with pytest.raises(IntegrityError, match="never truncated"):
            await postgres_log.execute(f"TRUNCATE {table} CASCADE")


async def test_the_database_refuses_to_replace(sqlite_service_database: str) -> None:
    database = Database(test_settings(sqlite_service_database))
    log = Log(sqlite_service_database, database)
    await log.write()
    with pytest.raises(IntegrityError, match="audit"):
        await log.execute(
            "INSERT OR REPLACE INTO audit_entries SELECT id, occurred_at, action, 'nobody',"
            " record_type, record_id, outcome, request_id, trace_id, client_network, details,"
            " NULL, NULL, NULL, NULL FROM audit_entries"
        )
    await database.dispose()


# The chain ----------------------------------------------------------------------------------------


async def test_entries_are_sealed_without_a_gap_and_verify(sealed: Log) -> None:
    entries = await sealed.entries()
    assert [entry.position for entry in entries] == list(range(1, 11))
    assert [entry.details["number"] for entry in entries] == list(range(10))
    hashes = [entry.hash for entry in entries]
    assert [entry.previous_hash for entry in entries] == [GENESIS, *hashes[:-1]]
    found = await verify(sealed.database, KEYS)
    assert (found.first, found.last, found.hash, found.unsealed) == (1, 10, hashes[-1], 0)


async def test_an_empty_log_verifies(log: Log) -> None:
    assert str(await verify(log.database, KEYS)) == "the audit log has no sealed entry yet"
    assert await log.seal() == 0


async def test_entries_that_nobody_seals_are_told(
    sealed: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "now", lambda: now() - DAY)
    await sealed.write(3)
    found = await verify(sealed.database, KEYS)
    assert found.unsealed == 3
    assert found.oldest_unsealed_seconds >= DAY.total_seconds()
    assert "3 not sealed yet, the oldest for 1 day" in str(found)
    assert str(found).endswith("is a worker running?")


TAMPERED: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "content": (
        4,
        "its content was changed",
        ("UPDATE audit_entries SET actor = 'nobody' WHERE position IN (4, 7)",),
    ),
    "details": (
        4,
        "its content was changed",
        ("""UPDATE audit_entries SET details = '{"number": 99}' WHERE position = 4""",),
    ),
    "moment": (
        10,
        "its content was changed",
        ("UPDATE audit_entries SET occurred_at = '2020-01-01 00:00:00' WHERE position = 10",),
    ),
    "hash": (
        4,
        "its content was changed",
        ("UPDATE audit_entries SET hash = previous_hash WHERE position = 4",),
    ),
    "a middle row deleted": (
        4,
        "is missing; the next one is 5",
        ("DELETE FROM audit_entries WHERE position = 4",),
    ),
    "deleted and closed up": (
        4,
        "its content was changed",
        (
            "DELETE FROM audit_entries WHERE position = 4",
            "UPDATE audit_entries SET position = position - 1 WHERE position > 4",
        ),
    ),
    "the first row deleted": (
        1,
        "is missing; the next one is 2",
        ("DELETE FROM audit_entries WHERE position = 1",),
    ),
    "the tail deleted": (
        9,
        "is missing: the end of the chain was cut off",
        ("DELETE FROM audit_entries WHERE position >= 9",),
    ),
    "the tail deleted and the head set back": (
        8,
        "the head of the chain was changed",
        (
            "DELETE FROM audit_entries WHERE position >= 9",
            ("UPDATE audit_head SET position = 8,"
            " hash = (SELECT hash FROM audit_entries WHERE position = 8)"),
        ),
    ),
    "the beginning deleted and called archived": (
        10,
        "the head of the chain was changed",
        (
            ("UPDATE audit_head SET archived_position = 4,"
            " archived_hash = (SELECT hash FROM audit_entries WHERE position = 4)"),
            "DELETE FROM audit_entries WHERE position <= 4",
        ),
    ),
    "everything deleted": (
        1,
        "is missing: the end of the chain was cut off",
        ("DELETE FROM audit_entries",),
    ),
    "the head made new": (
        1,
        "lies behind the head of the chain",
        (
            ("UPDATE audit_head SET position = 0, seal = '', key_id = '',"
            f" hash = '{GENESIS}'"),
        ),
    ),
    "the head deleted": (0, "the head of the chain is missing", ("DELETE FROM audit_head",)),
    "two swapped": (
        4,
        "its content was changed",
        (
            ("UPDATE audit_entries SET position = CASE position WHEN 4 THEN 7 ELSE 4 END"
            " WHERE position IN (4, 7)"),
        ),
    ),
    "one twice": (
        4,
        "is there twice",
        (
            "INSERT INTO audit_entries SELECT * FROM audit_entries WHERE position = 4",
        ),
    ),
    "one more behind the head": (
        11,
        "lies behind the head of the chain",
        (
            "UPDATE audit_entries SET position = 11 WHERE position IS NULL",
        ),
    ),
    "sealed with another key": (
        4,
        "was sealed with a key that is not given",
        ("UPDATE audit_entries SET key_id = 'theirs' WHERE position = 4",),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("position", "problem", "statements"), TAMPERED.values(), ids=TAMPERED)
async def test_verification_names_the_first_broken_entry(
    sealed: Log, position: int, problem: str, statements: tuple[str, ...]
) -> None:
    ids = {entry.position: str(entry.id) for entry in await sealed.entries()}
    await sealed.write()  # one that is not sealed yet
    if "one twice" in str(statements) or "SELECT * FROM" in str(statements):
        statements = ("ALTER TABLE audit_entries DROP CONSTRAINT pk_audit_entries", *statements)
        statements = statements if sealed.kind == "postgresql" else statements[1:]
    await sealed.tamper(*statements)
    found = await sealed.broken()
    assert (found.position, problem in str(found)) == (position, True), str(found)
    assert str(found).startswith(f"entry {position}")
    if (
        problem == "its content was changed"
        and "position" not in statements[-1].split("SET")[1][:10]
    ):
        assert found.entry_id == ids[position]


async def test_who_has_no_key_cannot_make_a_change_fit(sealed: Log) -> None:
    entry = (await sealed.entries())[3]
    entry.actor = "nobody"
    forged = sealed_content(entry)
    del forged["hash"]
    theirs = AuditKeys("another key")
    forged["key_id"] = theirs.current
    remade = theirs.hash(forged)
    await sealed.tamper(
        f"UPDATE audit_entries SET actor = 'nobody', hash = '{remade}' WHERE position = 4",
        f"UPDATE audit_entries SET previous_hash = '{remade}' WHERE position = 5",
    )
    assert (await sealed.broken()).position == 4


async def test_a_chain_whose_links_were_sealed_apart_is_broken(sealed: Log) -> None:
    # As if two sealers with the key had each gone on from the same entry.
    entry = (await sealed.entries())[3]
    entry.previous_hash = GENESIS
    apart = sealed_content(entry)
    del apart["hash"]
    await sealed.tamper(
        f"UPDATE audit_entries SET previous_hash = '{GENESIS}', hash = '{KEYS.hash(apart)}'"
        " WHERE position = 4"
    )
    found = await sealed.broken()
    assert (found.position, found.entry_id) == (4, str(entry.id))
    assert "does not follow the one before it" in str(found)


async def test_a_noted_head_tells_that_everything_was_set_back(
    sealed: Log, log_records: list[dict[str, Any]]
) -> None:
    back_then = await sealed.head()
    await sealed.write(3)
    await sealed.seal()
    (line,) = lines(log_records, "Audit log sealed")
    anchor = (line["position"], line["hash"])
    assert (line["type"], line["position"], line["entries"]) == ("audit", 13, 3)
    assert (await verify(sealed.database, KEYS, anchor=anchor)).last == 13

    await sealed.tamper(
        "DELETE FROM audit_entries WHERE position > 10",
        f"UPDATE audit_head SET position = 10, hash = '{back_then.hash}',"
        f" seal = '{back_then.seal}'",
    )
    # The database alone was like this once: that is what anchors are for.
    assert (await verify(sealed.database, KEYS)).last == 10
    found = await sealed.broken(anchor=anchor)
    assert (found.position, "cut off" in str(found)) == (11, True)


async def test_a_noted_head_must_be_the_one_that_is_there(sealed: Log) -> None:
    head = await sealed.head()
    for position in (1, 5, 10):
        found = await sealed.broken(anchor=(position, "f" * 64))
        assert (found.position, "not the one that was noted" in str(found)) == (position, True)
    entry = (await sealed.entries())[4]
    assert entry.hash is not None
    await verify(sealed.database, KEYS, anchor=(5, entry.hash))
    await verify(sealed.database, KEYS, anchor=(10, head.hash))


async def test_nothing_is_sealed_on_top_of_a_forged_head(sealed: Log) -> None:
    await sealed.write()
    await sealed.tamper(
        "DELETE FROM audit_entries WHERE position = 10",
        "UPDATE audit_head SET position = 9,"
        " hash = (SELECT hash FROM audit_entries WHERE position = 9)",
    )
    with pytest.raises(BrokenChain, match="head of the chain was changed"):
        await sealed.seal()
    assert (await sealed.head()).position == 9


async def test_the_chain_goes_on_under_a_new_key_as_long_as_the_old_one_is_named(
    sealed: Log,
) -> None:
    secret = SecretStr(SECRET)
    settings = test_settings(sealed.url, audit_key=SecretStr("n" * 32))
    both = audit_keys(settings, secret)  # SECRET_KEY sealed before there was an AUDIT_KEY
    await sealed.write(2)
    with pytest.raises(BrokenChain, match="AUDIT_RETIRED_KEYS"):
        await sealed.seal(AuditKeys("n" * 32))
    assert await sealed.seal(both) == 2
    assert (await verify(sealed.database, both)).last == 12
    with pytest.raises(BrokenChain, match="AUDIT_RETIRED_KEYS"):
        await verify(sealed.database, AuditKeys("n" * 32))
    rotated = test_settings(
        sealed.url,
        audit_retired_keys=f"{'n' * 32}, {secret.get_secret_value()}",
    )
    assert (await verify(sealed.database, audit_keys(rotated, SecretStr("z" * 32)))).last == 12


# Side by side -------------------------------------------------------------------------------------


async def test_two_hundred_writers_three_sealers_and_a_verifier_at_once(log: Log) -> None:
    done = asyncio.Event()
    verified = 0

    async def write() -> None:
        async with log.database.transaction() as session:
            log.add(session)

    async def seal_all() -> None:
        while not done.is_set():
            await log.seal(limit=7)
            await asyncio.sleep(0)

    async def look() -> None:
        nonlocal verified
        while not done.is_set():
            verified = max(verified, (await verify(log.database, KEYS)).last)
            await asyncio.sleep(0)

    beside = [asyncio.create_task(one) for one in (seal_all(), seal_all(), seal_all(), look())]
    # At most so many at once as there are connections left: the pool's limit is not the subject.
    room = asyncio.Semaphore(8)

    async def wait_and_write() -> None:
        async with room:
            await write()

    try:
        await asyncio.gather(*(wait_and_write() for _ in range(200)))
        async with asyncio.timeout(WITHIN_SECONDS):
            while any(entry.position is None for entry in await log.entries()):
                await asyncio.sleep(0.05)
    finally:
        done.set()
        await asyncio.gather(*beside)
    assert [entry.position for entry in await log.entries()] == list(range(1, 201))
    assert (await verify(log.database, KEYS)).last == 200


async def test_only_one_of_two_sealers_works_and_the_other_does_not_wait(
    postgres_log: Log,
) -> None:
    await postgres_log.write(3)
    async with postgres_log.database.transaction() as busy:
        assert await seal(busy, KEYS, limit=1) == 1
        async with asyncio.timeout(WITHIN_SECONDS):
            assert await postgres_log.seal() == 0
    assert await postgres_log.seal() == 2
    assert (await verify(postgres_log.database, KEYS)).last == 3


async def test_an_entry_that_commits_late_is_sealed_later(postgres_log: Log) -> None:
    async with postgres_log.database.transaction() as slow:
        postgres_log.add(slow, 1)
        await slow.flush()
        await postgres_log.write()
        assert await postgres_log.seal() == 1
        assert (await verify(postgres_log.database, KEYS)).last == 1
    assert await postgres_log.seal() == 1
    first, second = await postgres_log.entries()
    assert second.details == {"number": 1}
    assert second.occurred_at < first.occurred_at
    assert (await verify(postgres_log.database, KEYS)).last == 2

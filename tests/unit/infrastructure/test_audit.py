"""The audit log without a database: keys, hashes that never change, files that tell every change."""

import datetime as dt
import gzip
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from app.infrastructure import audit
from app.infrastructure.audit_chain import (
    GENESIS,
    AuditKeys,
    AuditSettings,
    BrokenChain,
    Walk,
    audit_keys,
)
from app.infrastructure.audit_configuration import digests
from app.infrastructure.audit_files import (
    ArchiveRefused,
    Part,
    PartWriter,
    alone_in,
    open_walk,
    read_part,
    walk_file,
)
from app.infrastructure.audit_verify import Verified, read_anchor
from tests.service import test_settings

KEYS = AuditKeys("a secret of some length")


def chain(entries: int) -> list[dict[str, Any]]:
    """Return so many sealed entries."""
    made: list[dict[str, Any]] = []
    for position in range(1, entries + 1):
        content: dict[str, Any] = {
            "id": f"00000000-0000-0000-0000-{position:012d}",
            "occurred_at": f"2026-11-21T12:00:{position:02d}.000000+00:00",
            "details": {"amount": position, "note": "naïve — ☕"},
            "position": position,
            "previous_hash": made[-1]["hash"] if made else GENESIS,
            "key_id": KEYS.current,
        }
        made.append(content | {"hash": KEYS.hash(content)})
    return made


def written(directory: Path, entries: list[dict[str, Any]]) -> Path:
    part = Part(
        first=entries[0]["position"],
        last=entries[-1]["position"],
        previous_hash=entries[0]["previous_hash"],
        last_hash=entries[-1]["hash"],
        newest=entries[-1]["occurred_at"],
    )
    with closing(PartWriter(directory, part)) as writer:
        for entry in entries:
            writer.write(entry)
        return writer.keep(KEYS)


def walk(*files: Path, keys: AuditKeys = KEYS) -> int:
    """Walk along files; return where the walk ended."""
    ordered, passage = open_walk(files, keys, {})
    for path in ordered:
        walk_file(path, passage)
    return passage.position


def test_the_hash_of_an_entry_is_the_same_in_every_version() -> None:
    # Archives are kept for years. When this fails, what was sealed before no longer verifies.
    assert KEYS.current == "664a85b93de3b187"
    assert [entry["hash"] for entry in chain(2)] == [
        "3d45000f3858e98a245e724bb5a193879256af5b8ec251b4ba86fee98f7cb9a3",
        "4055f7273449826b85b71714a5516b4d9cb6d3dce3742332059d2525d4701332",
    ]


def test_a_key_is_found_by_its_name_among_those_that_sealed_before() -> None:
    old, new = AuditKeys("the old secret"), AuditKeys("the new secret", "the old secret")
    assert old.current in new
    assert new.current not in old
    assert new.current != old.current
    content = {"key_id": old.current}
    assert old.hash(content) == new.hash(content)
    assert "no key" not in new
    assert [] not in new


def test_the_key_is_that_of_the_service_unless_there_is_one_of_its_own() -> None:
    service = SecretStr("s" * 32)
    without = audit_keys(AuditSettings(), service)
    assert without.current == AuditKeys("s" * 32).current
    own = audit_keys(AuditSettings(audit_key=SecretStr("a" * 32)), service)
    assert own.current == AuditKeys("a" * 32).current
    assert without.current in own


def test_retired_keys_come_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_RETIRED_KEYS", " one, two,")
    keys = audit_keys(AuditSettings(), SecretStr("s" * 32))
    assert AuditKeys("one").current in keys
    assert AuditKeys("two").current in keys


def test_a_short_key_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_KEY", "hunter2")
    with pytest.raises(ValidationError) as caught:
        AuditSettings()
    assert "hunter2" not in str(caught.value)


def test_a_stranger_has_one_name_for_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = dt.datetime(2026, 11, 21, 23, 59, tzinfo=dt.UTC)
    monkeypatch.setattr(audit, "now", lambda: moment)
    first = audit.stranger("Ada@example.com", key="k")
    assert first == audit.stranger(" ada@example.com ", key="k")
    assert first != audit.stranger("eve@example.com", key="k")
    assert first != audit.stranger("ada@example.com", key="another")
    assert len(first) <= 64, "it must fit its column"
    monkeypatch.setattr(audit, "now", lambda: moment + dt.timedelta(minutes=2))
    assert first != audit.stranger("ada@example.com", key="k")


def test_a_walk_along_what_was_sealed_ends_at_its_last_entry() -> None:
    passage = Walk(KEYS, position=0, previous=GENESIS, anchors={})
    entries = chain(3)
    for entry in entries:
        passage.step(entry)
    assert (passage.position, passage.previous) == (3, entries[-1]["hash"])
    passage.end(position=3)
    with pytest.raises(BrokenChain, match="entry 4: is missing"):
        passage.end(position=4)


@pytest.mark.parametrize(
    "change",
    [
        {"details": {}},
        {"extra": "field"},
        {"id": ""},
        {"hash": ""},
        {"hash": "\ud800"},
        {"key_id": []},
        {"key_id": None},
        {"position": "2"},
        {"position": None},
        {"previous_hash": GENESIS},
    ],
)
def test_any_change_of_an_entry_is_told(change: dict[str, Any]) -> None:
    passage = Walk(KEYS, position=0, previous=GENESIS, anchors={})
    first, second = chain(2)
    passage.step(first)
    with pytest.raises(BrokenChain, match=r"^entry 2"):
        passage.step(second | change)


def test_a_file_holds_what_was_written_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    path = written(tmp_path, chain(3))
    content = path.read_bytes()
    assert path.name == "audit-000000000001-000000000003.jsonl.gz"
    described, *lines = map(json.loads, gzip.decompress(content).splitlines())
    assert lines == chain(3)
    assert (described["format"], described["first"], described["last"]) == (1, 1, 3)
    assert walk(path) == 3
    path.unlink()
    assert written(tmp_path, chain(3)).read_bytes() == content


def test_what_does_not_verify_gets_no_name(tmp_path: Path) -> None:
    entries = chain(3)
    entries[1]["details"] = {}
    with pytest.raises(BrokenChain, match="entry 2"):
        written(tmp_path, entries)
    assert list(tmp_path.glob("*.gz")) == []


def test_files_are_walked_in_the_order_of_the_chain_and_must_join(tmp_path: Path) -> None:
    entries = chain(9)
    files = [written(tmp_path, entries[begin : begin + 3]) for begin in (0, 3, 6)]
    assert walk(*reversed(files)) == 9
    assert walk(*files[1:]) == 9
    with pytest.raises(BrokenChain, match="entry 4: is missing; the next one is 7"):
        walk(files[0], files[2])
    with pytest.raises(BrokenChain, match=r"entry 1 .*: is there twice"):
        walk(files[0], written(tmp_path, entries[:2]))


def test_an_archive_of_another_key_does_not_verify(tmp_path: Path) -> None:
    path = written(tmp_path, chain(3))
    with pytest.raises(BrokenChain, match=r"entry 1 .*key that is not given"):
        walk(path, keys=AuditKeys("another"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("first", 2), ("last", 2), ("last", 4), ("previous_hash", "f" * 64), ("last_hash", "f" * 64),
     ("newest", "1999"), ("format", 2), ("other", 1)],
)  # fmt: skip
def test_a_changed_description_of_a_file_is_told(tmp_path: Path, name: str, value: object) -> None:
    path = written(tmp_path, chain(3))
    described, *lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    changed = json.dumps(json.loads(described) | {name: value}).encode() + b"\n"
    path.chmod(0o600)
    path.write_bytes(gzip.compress(b"".join([changed, *lines])))
    with pytest.raises(BrokenChain):
        walk(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_any_damage_is_told_or_says_the_same(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / Part(1, 3, "", "", "").name
    path.unlink(missing_ok=True)
    content = written(tmp_path, chain(3)).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "append"]))
    byte = bytes([data.draw(st.integers(0, 255))])
    changed = {
        "flip": content[:place] + byte + content[place + 1 :],
        "cut": content[:place],
        "insert": content[:place] + byte + content[place:],
        "append": content + byte,
    }[kind]
    path.chmod(0o600)
    path.write_bytes(changed)
    try:
        end = walk(path)
    except BrokenChain:
        return
    # Only the header of gzip (its time, its system) may differ.
    assert end == 3
    assert gzip.decompress(changed) == gzip.decompress(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", gzip.compress(b"", mtime=0), gzip.compress(b"[]\n", mtime=0)],
    ids=["empty", "no gzip", "nothing inside", "no header"],
)
def test_what_is_no_archive_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit-1-2.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(BrokenChain, match="is no archive of the audit log"):
        read_part(path)


def test_one_run_works_in_a_directory_and_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    left = tmp_path / "audit-1-2.jsonl.gz.partial"
    left.touch()
    with alone_in(tmp_path):
        assert not left.exists()
        with pytest.raises(ArchiveRefused, match="another run"), alone_in(tmp_path):
            pass
    with alone_in(tmp_path):
        pass


def test_a_head_is_written_with_its_position() -> None:
    assert read_anchor(f"12:{GENESIS}") == (12, GENESIS)
    for wrong in ("", "12", f"x:{GENESIS}", f"-1:{GENESIS}", "12:abc", GENESIS):
        with pytest.raises(ValueError, match="POSITION:HASH"):
            read_anchor(wrong)


def test_what_was_found_is_said_in_one_sentence() -> None:
    found = Verified(first=5, last=9, hash=GENESIS, unsealed=2, oldest_unsealed_seconds=3.0)
    assert str(found) == (
        f"entries 5 to 9 are whole; head 9:{GENESIS}; entries 1 to 4 are archived and were not"
        " given; 2 not sealed yet"
    )


def test_digests_of_settings_differ_where_the_settings_do_and_show_nothing() -> None:
    key = SecretStr("k" * 32)
    url = "sqlite:///somewhere.db"
    one = digests(test_settings(url, sentry_dsn="https://secret@sentry.example/1"), key)
    other = digests(test_settings(url, sentry_dsn="https://other@sentry.example/1"), key)
    assert {name for name in one if one[name] != other[name]} == {"SENTRY_DSN"}
    assert one == digests(test_settings(url, sentry_dsn="https://secret@sentry.example/1"), key)
    assert one != digests(
        test_settings(url, sentry_dsn="https://secret@sentry.example/1"), SecretStr("z" * 32)
    )
    retired = digests(test_settings(url, audit_retired_keys="one"), key)
    assert retired["AUDIT_RETIRED_KEYS"] != one["AUDIT_RETIRED_KEYS"]
    assert all(len(digest) == 17 for digest in one.values())

"""The chain of the audit log: each entry's hash covers its content and the hash before it.

Entries are inserted without a place in the chain, so writers never wait for each other. The worker
calls `seal` every second: it gives places without a gap, in whatever order entries were committed, and
HMAC-SHA256 hashes. The key is derived from AUDIT_KEY, or SECRET_KEY without it, and is not in the
database: whoever may change every row there can still not make them fit.
The head (one row) holds the end of the chain and the end of its archived part, under a hash of its own.

Each round logs the head (type `audit`, position, hash): an anchor that is out of the database's reach.
`verify` compares with one, which also tells when database and head were set back to an earlier state.

Must never seal on top of a head that does not verify: that would make a forgery genuine.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Annotated, Any

from loguru import logger
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import BigInteger, String, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.infrastructure.audit import AuditEntry, audit_unsealed, content_of
from app.infrastructure.database import Base
from app.observability.business import after_commit

GENESIS = "0" * 64
"""What stands for the hash before the first entry."""
SEAL_BATCH = 500


class AuditSettings(BaseSettings):
    """With what the chain is made, and with what its older parts were."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    audit_key: SecretStr | None = Field(
        None, min_length=32, description="Unset: SECRET_KEY. Only the worker and commands need it."
    )
    audit_retired_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Comma-separated earlier values of AUDIT_KEY or SECRET_KEY, to verify."
    )

    @field_validator("audit_retired_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(key.strip() for key in value.split(",") if key.strip())
        return value


class BrokenChain(Exception):
    """The audit log is not what was written; the text says where it first differs, and how."""

    def __init__(self, position: int, problem: str, *, entry_id: str = "") -> None:
        self.position = position
        self.entry_id = entry_id
        super().__init__(f"entry {position}{f' ({entry_id})' if entry_id else ''}: {problem}")


class AuditKeys:
    """The key that seals, and those that sealed before it."""

    def __init__(self, current: str, *retired: str) -> None:
        self._keys: dict[str, bytes] = {}
        for secret in (*retired, current):
            key = hmac.digest(secret.encode(), b"audit chain, version 1", "sha256")
            self.current = hmac.new(key, b"id", hashlib.sha256).hexdigest()[:16]
            self._keys[self.current] = key

    def __contains__(self, key_id: object) -> bool:
        return isinstance(key_id, str) and key_id in self._keys

    def hash(self, content: Mapping[str, Any]) -> str:
        """Return the keyed hash of `content`, which names its key under `key_id`."""
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hmac.new(self._keys[content["key_id"]], text.encode(), hashlib.sha256).hexdigest()


def audit_keys(settings: AuditSettings, secret_key: SecretStr) -> AuditKeys:
    """Return the keys of these settings; `secret_key` is that of the service."""
    retired = [key.get_secret_value() for key in settings.audit_retired_keys]
    if settings.audit_key is None:
        return AuditKeys(secret_key.get_secret_value(), *retired)
    # Who sets AUDIT_KEY later goes on with the chain that SECRET_KEY began.
    return AuditKeys(settings.audit_key.get_secret_value(), secret_key.get_secret_value(), *retired)


class AuditHead(Base):
    """The one row that knows where the chain ends, and how far it is archived."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(64))
    archived_position: Mapped[int] = mapped_column(BigInteger)
    archived_hash: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str] = mapped_column(String(16))
    seal: Mapped[str] = mapped_column(String(64))
    """Hash of the columns above; empty as long as nothing was ever sealed."""


HEAD = select(AuditHead).where(AuditHead.id == 1)


def _head_content(head: AuditHead) -> dict[str, Any]:
    columns = ("position", "hash", "archived_position", "archived_hash", "key_id")
    return {"head": 1} | {name: getattr(head, name) for name in columns}


def seal_head(head: AuditHead, keys: AuditKeys) -> None:
    """Make the head genuine again after a change."""
    head.key_id = keys.current
    head.seal = keys.hash(_head_content(head))


def check_head(head: AuditHead | None, keys: AuditKeys) -> AuditHead:
    """Return the head.

    Raises:
        BrokenChain: It is missing, or was not written by a holder of the key.
    """
    if head is None:
        raise BrokenChain(0, "the head of the chain is missing")
    if not head.seal and head.position == 0 and head.archived_position == 0:
        return head
    if head.key_id not in keys:
        raise BrokenChain(head.position, f"the head of the chain {_UNKNOWN_KEY}")
    if not hmac.compare_digest(head.seal, keys.hash(_head_content(head))):
        raise BrokenChain(head.position, "the head of the chain was changed")
    return head


_UNKNOWN_KEY = "was sealed with a key that is not given: name the earlier key in AUDIT_RETIRED_KEYS"


def sealed_content(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry with its place in the chain, as values of JSON."""
    place = ("position", "previous_hash", "key_id", "hash")
    return content_of(entry) | {name: getattr(entry, name) for name in place}


async def seal(session: AsyncSession, keys: AuditKeys, *, limit: int = SEAL_BATCH) -> int:
    """Put up to `limit` entries into the chain; return how many.

    Entries that commit late get a later place: the chain proves what was there when it was sealed, and
    `occurred_at` says when it happened. Returns 0 while another worker seals.

    Raises:
        BrokenChain: The head is not genuine; nothing is sealed until it is.
    """
    waiting = await session.scalars(
        select(AuditEntry.id).where(AuditEntry.position.is_(None)).limit(1)
    )
    if waiting.first() is None:
        return 0
    head = await session.scalar(HEAD.with_for_update(skip_locked=True))
    if head is None:
        check_head(await session.scalar(HEAD), keys)
        return 0  # locked: another worker is at it
    check_head(head, keys)
    # Only now: what another sealer took before this one got the lock is no longer unsealed.
    found = await session.scalars(
        select(AuditEntry)
        .where(AuditEntry.position.is_(None))
        .order_by(AuditEntry.occurred_at, AuditEntry.id)
        .limit(limit)
    )
    entries = found.all()
    for entry in entries:
        head.position += 1
        entry.position = head.position
        entry.previous_hash = head.hash
        entry.key_id = keys.current
        content = sealed_content(entry)
        del content["hash"]
        entry.hash = head.hash = keys.hash(content)
    seal_head(head, keys)
    anchor = {"position": head.position, "hash": head.hash, "entries": len(entries)}
    after_commit(session, lambda: logger.bind(type="audit", **anchor).info("Audit log sealed"))
    return len(entries)


async def sample_unsealed(session: AsyncSession) -> None:
    """Publish how many entries wait for the sealer."""
    waiting = await session.scalar(
        select(func.count()).select_from(AuditEntry).where(AuditEntry.position.is_(None))
    )
    audit_unsealed.set(waiting or 0)


NOT_AS_NOTED = "is not the one that was noted down"


class Walk:
    """One passage along the chain, which raises BrokenChain at the first entry that does not fit."""

    def __init__(
        self, keys: AuditKeys, *, position: int, previous: str | None, anchors: dict[int, str]
    ) -> None:
        """Stand behind the entry `position` with this hash; None where it is not known.

        `anchors` are hashes that are known from elsewhere, by position; those compared are taken out.
        """
        self._keys = keys
        self._anchors = anchors
        self.position = position
        self.previous = previous

    def step(self, entry: Mapping[str, Any]) -> None:
        """Take the next entry, as `sealed_content` returns it."""
        wanted = self.position + 1
        position, entry_id = entry.get("position"), str(entry.get("id", ""))
        if not isinstance(position, int) or position > wanted:
            raise BrokenChain(wanted, f"is missing; the next one is {position}")
        if position < wanted:
            raise BrokenChain(position, "is there twice", entry_id=entry_id)
        content = dict(entry)
        given = str(content.pop("hash", ""))
        if content.get("key_id") not in self._keys:
            raise BrokenChain(position, _UNKNOWN_KEY, entry_id=entry_id)
        if not hmac.compare_digest(
            given.encode(errors="replace"), self._keys.hash(content).encode()
        ):
            raise BrokenChain(position, "its content was changed", entry_id=entry_id)
        if self.previous is not None and content["previous_hash"] != self.previous:
            raise BrokenChain(position, "does not follow the one before it", entry_id=entry_id)
        if given != self._anchors.pop(position, given):
            raise BrokenChain(position, NOT_AS_NOTED, entry_id=entry_id)
        self.position, self.previous = position, given

    def end(self, *, position: int) -> None:
        """Stop where the chain is said to end."""
        if self.position < position:
            raise BrokenChain(self.position + 1, "is missing: the end of the chain was cut off")

"""Idempotency keys: a creating call that is repeated gives the first answer and acts once.

The key is claimed inside the caller's transaction by inserting a row. PostgreSQL makes a second
claimant of the same key wait on the unique index until the first transaction ends: then it either
finds the stored answer or, after a rollback, may go ahead itself. So the race needs no lock of ours.
A refusal (4xx, 5xx) rolls the claim back: only answers of calls that succeeded are kept.
(Source: IETF draft-ietf-httpapi-idempotency-key-header.)
"""

import datetime as dt
import hashlib
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy import String, Text, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column
from starlette.responses import Response

from app.errors import AppError
from app.infrastructure.database import Base, Database, now
from app.infrastructure.purge import delete_oldest
from app.observability.business import count_feature
from app.observability.security import record_security_event

Answer = TypeVar("Answer", bound=BaseModel)

RETENTION = dt.timedelta(hours=24)


class IdempotencyKeyReused(AppError):
    """The key was used before with another body: a client's mistake that must not be guessed away."""

    status = 422
    code = "idempotency_key_reused"
    title = "This idempotency key was used with another request"


class IdempotencyRecord(Base):
    """A claimed key (its digest) and, once the call has succeeded, its answer."""

    __tablename__ = "idempotency_keys"

    owner_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    operation: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    resource_id: Mapped[uuid.UUID | None]
    status_code: Mapped[int | None]
    body: Mapped[str | None] = mapped_column(Text)
    expires_at: Mapped[dt.datetime] = mapped_column(index=True)

    def replay(self) -> Response | None:
        """Return the stored answer, byte for byte, or None while there is none."""
        if self.status_code is None or self.body is None:
            return None
        count_feature("idempotent_replay")
        return Response(
            self.body,
            self.status_code,
            headers={"Idempotency-Replayed": "true"},
            media_type="application/json",
        )

    def complete(self, *, status_code: int, answer: BaseModel) -> None:
        """Keep the answer, to be stored by the transaction that this record belongs to."""
        self.status_code = status_code
        self.body = answer.model_dump_json()


def stored_key(key: str) -> str:
    """Return what is stored of a key: clients make keys of e-mail addresses, and we only compare."""
    return hashlib.blake2b(key.encode(), digest_size=32).hexdigest()


def fingerprint(request: BaseModel) -> str:
    """Return a digest of the validated body, so that spacing and key order do not matter."""
    return hashlib.blake2b(request.model_dump_json().encode(), digest_size=32).hexdigest()


async def claim(
    session: AsyncSession,
    *,
    owner_id: uuid.UUID,
    operation: str,
    key: str,
    request: BaseModel,
) -> IdempotencyRecord:
    """Claim `key` for this owner and operation in the transaction of `session`.

    Returns:
        The locked record: with an answer to replay, or the caller's to complete.

    Raises:
        IdempotencyKeyReused: The key belongs to a request with another body.
    """
    digest = fingerprint(request)
    moment = now()
    insert = (sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert)(
        IdempotencyRecord
    )
    identity = {"owner_id": owner_id, "operation": operation, "key": stored_key(key)}
    await session.execute(
        delete(IdempotencyRecord).filter_by(**identity).where(IdempotencyRecord.expires_at < moment)
    )
    record: IdempotencyRecord | None = None
    while record is None:
        await session.execute(
            insert.values(
                **identity, fingerprint=digest, expires_at=moment + RETENTION
            ).on_conflict_do_nothing()
        )
        # None when the call that held the key was refused, and gave it back, between these two.
        record = await session.get(IdempotencyRecord, identity, with_for_update=True)
    if record.fingerprint != digest:
        record_security_event("idempotency_key_mismatch")
        raise IdempotencyKeyReused
    return record


async def purge_expired(session: AsyncSession) -> int:
    """Delete keys whose time is over, a portion (purge.PURGE_BATCH) at most; return how many."""
    expires = IdempotencyRecord.expires_at
    return await delete_oldest(session, expires, expires < now())


async def run_resumable(
    database: Database,
    *,
    owner_id: uuid.UUID,
    operation: str,
    key: str | None,
    request: BaseModel,
    begin: Callable[[AsyncSession], Awaitable[uuid.UUID]],
    act: Callable[[uuid.UUID], Awaitable[Answer]],
    is_final: Callable[[Answer], bool],
    status_code: int,
) -> Answer | Response:
    """Run a call that talks to the outside world between two transactions, once for each key.

    `begin` stores what is to be done, together with the key, and returns its id. `act` does it; it
    must be repeatable for that id, since a call that comes while the first one is under way, or after
    its process was killed, does not wait but acts again; all of them have to learn the same. The first
    final answer is kept and given to all; one that is not final (`is_final`) is given, and asked for
    again by the next call.
    A refusal (AppError below 500) leaves the key unused; after anything else a retry resumes.
    What a call learns late, when another was refused and a third has begun anew with the key, is no word
    on what the third one does: it neither gives the key back nor answers for it.
    """
    identity = {"owner_id": owner_id, "operation": operation, "key": key and stored_key(key)}
    async with database.transaction() as session:
        if key is None:
            resource_id = await begin(session)
        else:
            record = await claim(
                session, owner_id=owner_id, operation=operation, key=key, request=request
            )
            if answer := record.replay():
                return answer
            if record.resource_id is None:
                record.resource_id = await begin(session)
            resource_id = record.resource_id
    try:
        acted = await act(resource_id)
    except AppError as refusal:
        if key is not None and refusal.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            async with database.transaction() as session:
                await session.execute(
                    delete(IdempotencyRecord).filter_by(**identity, resource_id=resource_id)
                )
        raise
    if key is None:
        return acted
    async with database.transaction() as session:
        kept = await session.get(IdempotencyRecord, identity, with_for_update=True)
        if kept is not None and kept.resource_id == resource_id:
            if answer := kept.replay():
                return answer
            if is_final(acted):
                kept.complete(status_code=status_code, answer=acted)
    return acted

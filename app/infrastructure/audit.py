"""The audit log: who did what to which record, written in the transaction that does it.

`record` adds one row to the session at hand, so there is no action without its entry and no entry
without its action. What is refused has no transaction that commits: it is recorded in one of its own.
The worker seals the entries into a chain (audit_chain.py), commands verify, archive and expire it
(audit_archive.py), triggers in the database refuse to change or delete them (the migration 0002).

Owns `audit_entries_total{action,outcome}`, `audit_failures_total{action}`, `audit_unsealed_entries` and
the log lines of type `audit`: one for each entry after its commit, with the same fields, so that a log
store with a retention of its own holds a second copy.

Must never hold personal data, since erasure does not reach it: ids of users, networks instead of
addresses, and pseudonyms of one day for what strangers type.
"""

import asyncio
import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any, Literal

from loguru import logger
from prometheus_client import Counter, Gauge
from sqlalchemy import JSON, BigInteger, Index, String, UniqueConstraint, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.infrastructure.database import Base, Database, PrimaryKey, now
from app.observability.business import after_commit
from app.observability.context import RequestContext, current_context, current_trace_ids
from app.observability.redaction import pseudonym, redact, redact_address

Action = Literal[
    "registration",
    "login",
    "lockout",
    "logout",
    "data_export",
    "erasure",
    "refund",
    "profiling",
    "configuration",
    "archival",
    "expiry",
]
Outcome = Literal["success", "failure", "denied", "requested"]
"""`denied`: not allowed to try. `requested`: begun, and another entry will tell how it ended."""

OPERATOR = "operator"
"""Whoever holds the operations token or the command line: the service cannot tell them apart."""
SYSTEM = "system"

PATIENCE_SECONDS = 3.0
"""An operator waits this long for an entry that must not hold him up."""

audit_entries = Counter("audit_entries_total", "Entries of the audit log.", ["action", "outcome"])
audit_failures = Counter(
    "audit_failures_total", "Operators' actions that went on without an entry.", ["action"]
)
audit_unsealed = Gauge(
    "audit_unsealed_entries",
    "Entries that the chain does not protect yet, sampled by the worker.",
    multiprocess_mode="livemostrecent",
)
_USUAL: tuple[tuple[Action, Outcome], ...] = (
    ("registration", "success"),
    ("login", "success"),
    ("login", "failure"),
    ("login", "denied"),
    ("lockout", "success"),
    ("logout", "success"),
    ("data_export", "success"),
    ("erasure", "success"),
    ("refund", "requested"),
    ("refund", "success"),
    ("refund", "failure"),
    ("profiling", "success"),
    ("configuration", "success"),
)
for _pair in _USUAL:
    audit_entries.labels(*_pair)


class AuditEntry(Base):
    """One entry. The last four columns are empty until the worker seals it, and then never change."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        UniqueConstraint("position"),
        Index("ix_audit_entries_record", "record_type", "record_id", "occurred_at"),
    )

    id: Mapped[PrimaryKey]
    occurred_at: Mapped[dt.datetime]
    action: Mapped[str] = mapped_column(String(32))
    actor: Mapped[str] = mapped_column(String(64))
    record_type: Mapped[str] = mapped_column(String(32))
    record_id: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    request_id: Mapped[str] = mapped_column(String(128))
    trace_id: Mapped[str] = mapped_column(String(32))
    client_network: Mapped[str] = mapped_column(String(45))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)

    position: Mapped[int | None] = mapped_column(BigInteger)
    previous_hash: Mapped[str | None] = mapped_column(String(64))
    key_id: Mapped[str | None] = mapped_column(String(16))
    hash: Mapped[str | None] = mapped_column(String(64))


Index(
    "ix_audit_entries_unsealed",
    AuditEntry.occurred_at,
    postgresql_where=AuditEntry.position.is_(None),
    sqlite_where=AuditEntry.position.is_(None),
)


def content_of(entry: AuditEntry) -> dict[str, Any]:
    """Return what the entry says, as values of JSON: what is logged, sealed and archived."""
    return {
        "id": str(entry.id),
        "occurred_at": entry.occurred_at.astimezone(dt.UTC).isoformat(timespec="microseconds"),
        "action": entry.action,
        "actor": entry.actor,
        "record_type": entry.record_type,
        "record_id": entry.record_id,
        "outcome": entry.outcome,
        "request_id": entry.request_id,
        "trace_id": entry.trace_id,
        "client_network": entry.client_network,
        "details": entry.details,
    }


def record(
    session: AsyncSession,
    *,
    action: Action,
    actor: uuid.UUID | str,
    record_type: str,
    record_id: uuid.UUID | str,
    outcome: Outcome = "success",
    details: Mapping[str, object] | None = None,
) -> None:
    """Add an entry to the transaction of `session`: it is there if and only if that commits.

    Args:
        session: That of the action.
        action: What was done.
        actor: Id of the user who did it, OPERATOR, SYSTEM or what `stranger` returns.
        record_type: What it was done to, such as `user` or `refund`.
        record_id: Which one.
        outcome: How it ended.
        details: Amounts, reasons, names of settings; never personal data. It is redacted all the same.
    """
    context = current_context()
    entry = AuditEntry(
        id=uuid.uuid4(),
        occurred_at=now(),
        action=action,
        actor=str(actor),
        record_type=record_type,
        record_id=str(record_id),
        outcome=outcome,
        request_id=context.request_id if context else "",
        trace_id=current_trace_ids()[0],
        client_network=_network(context),
        details=redact(details or {}),
    )
    session.add(entry)
    if context is not None:
        context.audited = True
    content = content_of(entry)

    def announce() -> None:
        audit_entries.labels(action, outcome).inc()
        content["audit_id"] = content.pop("id")
        del content["trace_id"]  # the line has it anyway
        # For comparing, by a program; the names of what differs are there, too.
        content["details"] = {k: v for k, v in content["details"].items() if k != "digests"}
        logger.bind(type="audit", **content).info("Audit entry")

    after_commit(session, announce)


def _network(context: RequestContext | None) -> str:
    client = context.scope.get("client") if context and context.scope else None
    return redact_address(client[0]) if client else ""


def stranger(typed: str, *, key: str) -> str:
    """Return an actor for somebody who is not known, by what he typed in place of a known address.

    The pseudonym is good for one day (UTC): it tells one attempt a hundred times from a hundred
    attempts, and joins nothing to the person who may register with that address a week later.
    """
    return f"unknown:{pseudonym(f'{now().date()} {typed.strip()}', key)}"


async def record_use(
    database: Database, *, action: str, details: Mapping[str, object] | None = None
) -> None:
    """Record that an operator looks into this process, in a transaction of its own.

    `action` says how, such as `debug.profile`: an entry of the action `profiling`.

    Never raises and never waits for long: operators look into a process when things burn, which may
    well be the database. What has no entry then is logged with the same words and counted.
    """
    # Not cancelled when the time is over: that would cost a connection, and it may still succeed.
    attempt = asyncio.create_task(_store_use(database, action, details or {}), name="record-use")
    _attempts.add(attempt)
    attempt.add_done_callback(_attempts.discard)
    await asyncio.wait([attempt], timeout=PATIENCE_SECONDS)


_attempts: set[asyncio.Task[None]] = set()


async def _store_use(database: Database, action: str, details: Mapping[str, object]) -> None:
    try:
        async with database.transaction() as session:
            record(
                session,
                action="profiling",
                actor=OPERATOR,
                record_type="process",
                record_id=action,
                details=details,
            )
    except Exception as error:  # noqa: BLE001 - see above
        audit_failures.labels("profiling").inc()
        logger.bind(
            type="audit",
            action="profiling",
            actor=OPERATOR,
            record_id=action,
            details=redact(details),
            error=type(error).__name__,
        ).error("Audit entry could not be stored")


async def list_latest(session: AsyncSession, *, limit: int) -> list[AuditEntry]:
    """Return up to `limit` entries, the latest first: those not sealed yet, then down the chain."""
    unsealed = await session.scalars(
        select(AuditEntry)
        .where(AuditEntry.position.is_(None))
        .order_by(AuditEntry.occurred_at.desc())
        .limit(limit)
    )
    sealed = await session.scalars(
        select(AuditEntry)
        .where(AuditEntry.position.is_not(None))
        .order_by(AuditEntry.position.desc())
        .limit(limit)
    )
    return [*unsealed.all(), *sealed.all()][:limit]

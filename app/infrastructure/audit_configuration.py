"""A changed configuration is an entry of the audit log: which settings changed, never to what.

At its start a process compares keyed digests of its settings with those of the last entry of its
service. The tenth replica with the same settings finds them equal and writes nothing; so does a restart.

Must never keep a process from starting or ending: it is tried in the background until it succeeds.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from loguru import logger
from pydantic import SecretStr
from pydantic_settings import BaseSettings
from sqlalchemy import select

from app.infrastructure.audit import SYSTEM, AuditEntry, record
from app.infrastructure.audit_chain import HEAD
from app.infrastructure.database import Database
from app.observability.tracing import untraced

LONGEST_PAUSE_SECONDS = 60.0
END_SECONDS = 1.0
"""An attempt that runs when the process ends has this long to finish."""


def digests(settings: BaseSettings, key: SecretStr) -> dict[str, str]:
    """Return a keyed digest of each setting, by the name of its variable.

    Keyed, since many values could be guessed; the letter in front keeps a digest that happens to
    consist of figures from looking like a card number to the redaction.
    """
    found = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        text = f"{name}={_plain(value)!r}"
        digest = hmac.digest(key.get_secret_value().encode(), text.encode(), "sha256").hex()[:16]
        found[name.upper()] = f"x{digest}"
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return tuple(_plain(one) for one in value)
    return value


async def record_configuration(
    database: Database, settings: BaseSettings, *, service: str, key: SecretStr
) -> bool:
    """Write an entry if the settings of `service` are not those of its last one; return whether."""
    current = digests(settings, key)
    async with database.transaction() as session:
        # Of replicas that start together, one at a time looks.
        await session.scalar(HEAD.with_for_update())
        last = await session.scalar(
            select(AuditEntry.details)
            .where(
                AuditEntry.action == "configuration",
                AuditEntry.record_type == "service",
                AuditEntry.record_id == service,
            )
            .order_by(AuditEntry.occurred_at.desc())
            .limit(1)
        )
        # As texts: under a name such as SECRET_KEY the redaction would take the digest for the secret.
        before = dict(str(pair).split(" ", 1) for pair in (last or {}).get("digests", ()))
        changed = sorted(name for name in before | current if before.get(name) != current.get(name))
        if last is not None and not changed:
            return False
        record(
            session,
            action="configuration",
            actor=SYSTEM,
            record_type="service",
            record_id=service,
            details={
                "is_first": last is None,
                "changed": changed if last is not None else [],
                "digests": [f"{name} {digest}" for name, digest in current.items()],
            },
        )
    return True


@asynccontextmanager
async def recording_configuration(
    database: Database, settings: BaseSettings, *, service: str, key: SecretStr
) -> AsyncIterator[None]:
    """Record the configuration as soon as the database allows it, beside the block."""
    ending = asyncio.Event()

    async def persist() -> None:
        failures = 0
        while not ending.is_set():
            try:
                with untraced():
                    await record_configuration(database, settings, service=service, key=key)
            except Exception as error:  # noqa: BLE001 - the database may be away: the process stays
                failures += 1
                if failures == 1:
                    logger.bind(
                        type="audit", action="configuration", error=type(error).__name__
                    ).warning("Audit entry could not be stored yet")
                with suppress(TimeoutError):
                    pause = min(2.0**failures, LONGEST_PAUSE_SECONDS)
                    await asyncio.wait_for(ending.wait(), pause)
            else:
                return

    task = asyncio.create_task(persist(), name="record-configuration")
    try:
        yield
    finally:
        ending.set()
        await asyncio.wait([task], timeout=END_SECONDS)
        task.cancel()
        await asyncio.wait([task], timeout=END_SECONDS)

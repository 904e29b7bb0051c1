"""The commands `python -m app audit ...`: verify, list, archive and expire the audit log."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from app.infrastructure import audit
from app.infrastructure.audit_archive import archive, expire
from app.infrastructure.audit_chain import AuditKeys, audit_keys
from app.infrastructure.audit_verify import read_anchor, verify
from app.infrastructure.database import Database
from app.observability.logs import flush_logs, setup_logs
from app.settings import Settings

LAST_LINES_SECONDS = 1.0

Days = Annotated[int, typer.Option(min=0)]
Archives = Annotated[
    list[Path],
    typer.Option(
        "--archive",
        default_factory=list,
        show_default=False,
        exists=True,
        help="A file; repeat it.",
    ),
]
Head = Annotated[
    str, typer.Option(metavar="POSITION:HASH", help="From a log line or an earlier verify.")
]


def audit_commands(
    load_settings: Callable[[], Settings],
    saying_trouble: Callable[[str], AbstractContextManager[None]],
) -> typer.Typer:
    """Return the commands; the arguments say on the terminal what is wrong, and end the process."""
    app = typer.Typer(no_args_is_help=True, help="Look after the audit log.")

    def run(
        work: Callable[[Database, AuditKeys], Awaitable[str]], *, is_logged: bool = False
    ) -> None:
        settings = load_settings()
        if is_logged:
            setup_logs(settings)

        async def with_database() -> str:
            database = Database(settings)
            try:
                return await work(database, audit_keys(settings, settings.secret_key))
            finally:
                await database.dispose()

        with saying_trouble("the audit log"):
            sentence = asyncio.run(with_database())
        if is_logged:
            flush_logs(LAST_LINES_SECONDS)
        typer.echo(sentence)

    @app.command("verify")
    def verify_log(archives: Archives, expect_head: Head = "") -> None:
        """Name the first entry that is not as it was sealed, or say that all are."""

        async def work(database: Database, keys: AuditKeys) -> str:
            anchor = read_anchor(expect_head) if expect_head else None
            return str(await verify(database, keys, files=archives, anchor=anchor))

        run(work)

    @app.command("list")
    def list_log(
        limit: Annotated[int, typer.Option(min=1, help="So many, the latest first.")] = 20,
    ) -> None:
        """List entries."""

        async def work(database: Database, keys: AuditKeys) -> str:
            del keys
            async with database.transaction() as session:
                entries = await audit.list_latest(session, limit=limit)
            return "\n".join(
                f"{entry.position or '-'} {entry.occurred_at:%Y-%m-%dT%H:%M:%S.%fZ} {entry.action} "
                f"{entry.outcome} by {entry.actor} on {entry.record_type} {entry.record_id}"
                for entry in entries
            )

        run(work)

    @app.command("archive")
    def archive_log(older_than_days: Days, to: Annotated[Path, typer.Option()]) -> None:
        """Move sealed entries that are older into files, verified before the rows go."""

        async def work(database: Database, keys: AuditKeys) -> str:
            age = dt.timedelta(days=older_than_days)
            files = await archive(database, keys, older_than=age, directory=to)
            return "\n".join(map(str, files)) or f"nothing is older than {older_than_days} days"

        run(work, is_logged=True)

    @app.command("expire")
    def expire_log(
        keep_days: Days, directory: Annotated[Path, typer.Option("--from", exists=True)]
    ) -> None:
        """Delete archives whose entries are all older, when every archive there verifies."""

        async def work(database: Database, keys: AuditKeys) -> str:
            age = dt.timedelta(days=keep_days)
            files = await expire(database, keys, older_than=age, directory=directory)
            return "\n".join(f"deleted {file}" for file in files) or "no archive is old enough"

        run(work, is_logged=True)

    return app

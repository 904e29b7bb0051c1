"""`python -m deploy.backup`: makes one backup of DATABASE_URL, or says in one sentence why there is none.

Exit codes: 0 there is a new, verified backup; 1 there is none, or its metrics could not be written;
2 the command was not understood; 143 it was ended by SIGTERM (and 130 by Ctrl-C).
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from app.infrastructure.database import DatabaseSettings
from deploy.backup.attempt import attempt
from deploy.backup.errors import BackupFailed


class BackupSettings(DatabaseSettings):
    """The service's own setting, read where the service reads it."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True)


def backup(
    *,
    to: Annotated[Path, typer.Option(help="The directory of backups.", metavar="DIRECTORY")],
    keep: Annotated[int, typer.Option(min=1, help="How many to keep, the new one included.")] = 14,
    metrics: Annotated[
        Path | None,
        typer.Option(help="A .prom file for the node exporter to read.", metavar="FILE"),
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="When pg_dump takes longer, it is ended.")
    ] = 120,
) -> None:
    """Make a verified backup of the database that DATABASE_URL names."""
    signal.signal(signal.SIGTERM, _end)
    os.umask(0o077)  # a copy of the database is as secret as the database
    try:
        url = BackupSettings().database_url
        made = attempt(url, to=to, keep=keep, metrics=metrics, seconds=minutes * 60)
    except ValidationError as error:
        _fail(f"DATABASE_URL: {error.errors()[0]['msg'].removeprefix('Value error, ')}")
    except BackupFailed as error:
        _fail(str(error))
    typer.echo(
        f"backup made and verified: {made.path}, {made.size} bytes in {made.seconds:.1f} s; {made.kept} kept"
    )


def _end(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - signal's signature
    # Raised where the program is: pg_dump is ended and the partial file removed on the way out.
    sys.exit(128 + signum)


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"error: {sentence}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    typer.run(backup)

"""PostgreSQL: pg_dump's custom format, read back by pg_restore from the first byte to the last.

Everything about the connection is in the environment of the programs (libpq's PG* variables): a command
line can be read by every account of the machine, so no password is ever on one.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL

from deploy.backup.errors import BackupFailed

CONNECT_SECONDS: Final = 10
LOCK_WAIT_SECONDS: Final = 60
"""A migration may hold a table; a dump that waits for it holds up every later migration."""

_SSL: Final = frozenset({"ssl", "sslmode"})


def copy_postgres(url: URL, to: Path, *, seconds: float) -> None:
    """Dump the database into a new file and verify it.

    Args:
        url: Of the database, as SQLAlchemy has it.
        to: The file.
        seconds: After which each of the programs is ended, and the backup has failed.

    Raises:
        BackupFailed: There is no dump, or it cannot be read back.
    """
    environment = connection(url)
    dump = ["--format=custom", "--no-password", f"--lock-wait-timeout={LOCK_WAIT_SECONDS}s"]
    _run("pg_dump", *dump, f"--file={to}", environment=environment, seconds=seconds)
    listed = _run("pg_restore", "--list", str(to), environment=environment, seconds=seconds)
    if " TABLE DATA " not in listed:
        raise BackupFailed("the dump has no tables: does DATABASE_URL name the right database?")
    # The list is at the beginning of the file; reading the data finds what is cut off or damaged behind it.
    _run("pg_restore", "--file=/dev/null", str(to), environment=environment, seconds=seconds)


def connection(url: URL) -> dict[str, str]:
    """Return the environment that leads libpq to a database.

    Raises:
        BackupFailed: The address has a parameter that cannot be handed on.
    """
    if unknown := sorted(set(url.query) - _SSL):
        raise BackupFailed(f"DATABASE_URL has parameters that pg_dump is not told: {unknown}")
    # What the caller's environment says about another database must not lead there; a password file may stay.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PG") or name == "PGPASSFILE"
    }
    given = {
        "PGHOST": url.host,
        "PGPORT": url.port,
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
        "PGSSLMODE": url.query.get("sslmode") or url.query.get("ssl"),
        "PGCONNECT_TIMEOUT": CONNECT_SECONDS,
        "PGAPPNAME": "glasshouse-backup",
    }
    return environment | {name: str(value) for name, value in given.items() if value is not None}


def _run(program: str, *arguments: str, environment: dict[str, str], seconds: float) -> str:
    path = shutil.which(program)
    if path is None:
        raise BackupFailed(
            f"{program} is not installed: install PostgreSQL's client programs (Debian: postgresql-client)"
        )
    try:
        done = subprocess.run(
            [path, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BackupFailed(f"{program} was not done after {seconds:g} s: ended") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise BackupFailed(said if said.startswith(program) else f"{program}: {said}")
    return done.stdout

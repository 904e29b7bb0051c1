"""A backup that restores: both databases, with everything that was in them, and what it says of itself."""

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from deploy.backup.postgres import connection
from tests.service import ROOT, migrate_database
from tests.tools import create_database, drop_database, require_tool, run_async

WITHIN_SECONDS = 60.0


def backup(
    directory: Path, database_url: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a scheduler would, with nothing else in its environment."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.backup", "--to", str(directory / "backups"), *arguments],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": database_url,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
        check=False,
    )


def backups(directory: Path) -> list[Path]:
    """Return everything that looks like a backup to a person, and what is hidden except for the lock."""
    return sorted(file for file in (directory / "backups").iterdir() if file.name != ".lock")


def metrics(path: Path) -> Mapping[str, float]:
    """Return the values as the node exporter would read them."""
    families = text_string_to_metric_families(path.read_text())
    return {sample.name: sample.value for family in families for sample in family.samples}


def sqlite_database(directory: Path, *, users: int = 3) -> str:
    """Make a database with so many users; return its URL."""
    url = f"sqlite:///{directory}/shop.db"
    migrate_database(url.replace("sqlite:", "sqlite+aiosqlite:"))
    with closing(sqlite3.connect(directory / "shop.db")) as connection, connection:
        connection.execute("CREATE TABLE probe (number INTEGER)")
        connection.executemany("INSERT INTO probe VALUES (?)", [(n,) for n in range(users)])
    return url


async def _execute(url: str, *statements: str) -> list[int]:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        for statement in statements:
            result = await connection.execute(text(statement))
        numbers = [row[0] for row in result] if result.returns_rows else []
    await engine.dispose()
    return numbers


def test_a_dump_of_postgresql_restores_every_row(tmp_path: Path, postgres_database: str) -> None:
    require_tool("pg_dump")
    migrate_database(postgres_database)
    run_async(
        _execute(
            postgres_database,
            "CREATE TABLE probe (number INTEGER)",
            "INSERT INTO probe SELECT generate_series(1, 1000)",
        )
    )

    done = backup(tmp_path, postgres_database)

    assert done.returncode == 0, done.stderr
    (made,) = backups(tmp_path)
    assert str(made) in done.stdout
    server = make_url(postgres_database).set(database="postgres")
    other = create_database(server.render_as_string(hide_password=False))
    try:
        subprocess.run(
            [
                require_tool("pg_restore"),
                "--no-owner",
                "--exit-on-error",
                f"--dbname={make_url(other).database}",
                made,
            ],
            env=connection(make_url(other)),
            check=True,
        )
        assert run_async(_execute(other, "SELECT sum(number) FROM probe")) == [500_500]
        # The schema came with it, down to the version that migrations go on from.
        migrate_database(other)
    finally:
        drop_database(other)


def test_variables_about_another_database_do_not_lead_there(
    tmp_path: Path, postgres_database: str
) -> None:
    require_tool("pg_dump")
    migrate_database(postgres_database)

    done = backup(tmp_path, postgres_database, PGHOSTADDR="127.0.0.9", PGOPTIONS="--no-such")

    assert done.returncode == 0, done.stderr


def test_a_copy_of_sqlite_holds_what_is_committed_while_somebody_writes(tmp_path: Path) -> None:
    url = sqlite_database(tmp_path)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as writer:
        writer.execute("INSERT INTO probe VALUES (99)")  # not committed

        done = backup(tmp_path, url)

        writer.rollback()
    assert done.returncode == 0, done.stderr
    (made,) = backups(tmp_path)
    with closing(sqlite3.connect(f"{made.as_uri()}?mode=ro", uri=True)) as copy:
        assert copy.execute("SELECT count(*), max(number) FROM probe").fetchone() == (3, 2)
    assert re.fullmatch(r"shop-\d{8}T\d{6}\.\d{6}Z\.db", made.name)


def test_only_the_owner_may_read_a_backup_and_everybody_its_metrics(tmp_path: Path) -> None:
    told = tmp_path / "backup.prom"

    backup(tmp_path, sqlite_database(tmp_path), "--metrics", str(told))

    (made,) = backups(tmp_path)
    assert oct(made.stat().st_mode)[-3:] == "600"
    assert oct(told.stat().st_mode)[-3:] == "644"


def test_metrics_tell_of_a_success(tmp_path: Path) -> None:
    told, before = tmp_path / "backup.prom", time.time()

    done = backup(tmp_path, sqlite_database(tmp_path), "--metrics", str(told))

    assert done.returncode == 0, done.stderr
    values = metrics(told)
    (made,) = backups(tmp_path)
    assert values["backup_size_bytes"] == made.stat().st_size
    assert before <= values["backup_last_success_timestamp_seconds"] <= time.time()
    assert values["backup_last_attempt_timestamp_seconds"] >= before
    assert values["backup_last_attempt_success"] == 1
    assert 0 < values["backup_duration_seconds"] < WITHIN_SECONDS


def test_a_failure_keeps_what_is_known_of_the_last_success(tmp_path: Path) -> None:
    told, url = tmp_path / "backup.prom", sqlite_database(tmp_path)
    backup(tmp_path, url, "--metrics", str(told))
    good = metrics(told)
    (tmp_path / "shop.db").unlink()

    done = backup(tmp_path, url, "--metrics", str(told))

    assert done.returncode == 1
    bad = metrics(told)
    assert bad["backup_last_attempt_success"] == 0
    assert (
        bad["backup_last_attempt_timestamp_seconds"] > good["backup_last_attempt_timestamp_seconds"]
    )
    for kept in ("last_success_timestamp_seconds", "duration_seconds", "size_bytes"):
        assert bad[f"backup_{kept}"] == good[f"backup_{kept}"]
    assert len(backups(tmp_path)) == 1


def test_a_first_attempt_that_fails_says_that_there_never_was_a_backup(tmp_path: Path) -> None:
    told = tmp_path / "backup.prom"

    backup(tmp_path, f"sqlite:///{tmp_path}/nowhere.db", "--metrics", str(told))

    values = metrics(told)
    assert values["backup_last_success_timestamp_seconds"] == 0
    assert values["backup_last_attempt_success"] == 0


def test_metrics_of_somebody_else_are_no_reason_to_make_no_backup(tmp_path: Path) -> None:
    told = tmp_path / "backup.prom"
    told.write_text("{ not a metric")

    done = backup(tmp_path, sqlite_database(tmp_path), "--metrics", str(told))

    assert done.returncode == 0, done.stderr
    assert metrics(told)["backup_last_attempt_success"] == 1


def test_the_newest_are_kept_and_other_files_left_alone(tmp_path: Path) -> None:
    url = sqlite_database(tmp_path)
    (tmp_path / "backups").mkdir()
    others = ["notes.txt", "shop-before-the-move.db", "other-20200101T000000.000000Z.db"]
    for other in others:
        (tmp_path / "backups" / other).touch()

    made = [backup(tmp_path, url, "--keep", "2").stdout for _ in range(3)]

    ours = [file for file in backups(tmp_path) if file.name not in others]
    assert [str(file) in sentence for file, sentence in zip(ours, made[1:], strict=True)] == [
        True,
        True,
    ]
    assert {file.name for file in backups(tmp_path)} >= set(others)


@pytest.mark.parametrize("keep", ["0", "-1"])
def test_to_keep_none_is_not_understood(tmp_path: Path, keep: str) -> None:
    assert backup(tmp_path, sqlite_database(tmp_path), "--keep", keep).returncode == 2

"""A backup that cannot be made: one sentence, exit code 1, and never a file that looks like a backup."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.test_backup import backup, backups, metrics, sqlite_database
from tests.service import ROOT, migrate_database
from tests.tools import free_port, require_tool, wait_until

SECRET = "hunter2-of-the-tests"

HANGING_PG_DUMP = """#!/bin/sh
# Writes some of a dump, tells what it was called with, and hangs.
for argument; do
    case $argument in --file=*) echo half of it >"${argument#--file=}" ;; esac
done
printf '%s\\n' "$@" >"$TOLD.arguments"
echo "$PGPASSWORD" >"$TOLD.password"
echo $$ >"$TOLD"
exec sleep 600
"""


def assert_one_sentence(done: subprocess.CompletedProcess[str], about: str) -> None:
    """Check that it failed as a command of this house does."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert about in done.stderr
    assert SECRET not in done.stderr


def test_a_server_that_is_gone(tmp_path: Path) -> None:
    require_tool("pg_dump")
    told = tmp_path / "backup.prom"
    url = f"postgresql://shop:{SECRET}@127.0.0.1:{free_port()}/shop"

    done = backup(tmp_path, url, "--metrics", str(told))

    assert_one_sentence(done, "Connection refused")
    assert backups(tmp_path) == []
    assert metrics(told)["backup_last_attempt_success"] == 0


def test_a_database_without_tables_is_the_wrong_one(tmp_path: Path, postgres_database: str) -> None:
    require_tool("pg_dump")

    done = backup(tmp_path, postgres_database)

    assert_one_sentence(done, "no tables")
    assert backups(tmp_path) == []


def test_a_dump_that_is_cut_off_is_no_backup(tmp_path: Path, postgres_database: str) -> None:
    """The table of contents is at the beginning of a dump: only who reads on finds out."""
    migrate_database(postgres_database)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "pg_dump").write_text(
        "#!/bin/sh\n"
        f'"{require_tool("pg_dump")}" "$@"\n'
        "for argument; do case $argument in --file=*) file=${argument#--file=} ;; esac; done\n"
        'size=$(stat -c %s "$file")\n'
        'truncate -s $((size - 100)) "$file"\n'
    )
    (programs / "pg_dump").chmod(0o755)

    done = backup(tmp_path, postgres_database, PATH=f"{programs}:{os.environ['PATH']}")

    assert_one_sentence(done, "pg_restore")
    assert backups(tmp_path) == []


def test_a_missing_pg_dump_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    done = backup(tmp_path, "postgresql://shop@127.0.0.1/shop", PATH=str(tmp_path / "empty"))

    assert_one_sentence(done, "pg_dump is not installed")


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    url = sqlite_database(tmp_path)
    (tmp_path / "backups").write_text("a file where the directory should be")

    assert_one_sentence(backup(tmp_path, url), "cannot be written to")


def test_metrics_that_cannot_be_written_fail_the_command_and_keep_the_backup(
    tmp_path: Path,
) -> None:
    done = backup(
        tmp_path, sqlite_database(tmp_path), "--metrics", str(tmp_path / "nowhere/backup.prom")
    )

    assert_one_sentence(done, "metrics cannot be written")
    assert len(backups(tmp_path)) == 1


def test_the_cause_is_told_when_metrics_cannot_be_written_either(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere/backup.prom")

    done = backup(tmp_path, f"sqlite:///{tmp_path}/nothing.db", "--metrics", nowhere)

    assert_one_sentence(done, "there is no database")


def test_a_damaged_sqlite_is_no_backup(tmp_path: Path) -> None:
    url = sqlite_database(tmp_path, users=5000)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        (root,) = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'probe'"
        ).fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / "shop.db").open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)

    done = backup(tmp_path, url)

    assert done.returncode == 1
    assert backups(tmp_path) == []


@pytest.mark.parametrize("url", ["sqlite://", "mysql://127.0.0.1/shop"])
def test_what_is_no_database_of_ours_is_refused(tmp_path: Path, url: str) -> None:
    assert backup(tmp_path, url).returncode == 1


def test_a_parameter_that_pg_dump_would_not_get_is_refused(tmp_path: Path) -> None:
    done = backup(tmp_path, "postgresql://shop@127.0.0.1/shop?target_session_attrs=read-write")

    assert_one_sentence(done, "target_session_attrs")


class Hanging:
    """A backup whose pg_dump has written half of its file and does not go on."""

    def __init__(self, directory: Path) -> None:
        programs = directory / "bin"
        programs.mkdir()
        (programs / "pg_dump").write_text(HANGING_PG_DUMP)
        (programs / "pg_dump").chmod(0o755)
        self.directory = directory
        self.told = directory / "told"
        self.metrics = directory / "backup.prom"
        to = ["--to", str(directory / "backups"), "--metrics", str(self.metrics)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.backup", *to],
            cwd=directory,
            env={
                "PATH": f"{programs}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "TOLD": str(self.told),
                "DATABASE_URL": f"postgresql://shop:{SECRET}@127.0.0.1/shop",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: self.told.exists() and bool(self.told.read_text()), "pg_dump hangs")

    def pg_dump_is_there(self) -> bool:
        """Whether pg_dump still runs."""
        return Path(f"/proc/{int(self.told.read_text())}").exists()

    def end(self, number: signal.Signals) -> int:
        """Send a signal to the backup; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


def test_the_password_is_on_no_command_line(tmp_path: Path) -> None:
    hanging = Hanging(tmp_path)
    try:
        assert Path(f"{hanging.told}.password").read_text().strip() == SECRET
        assert SECRET not in Path(f"{hanging.told}.arguments").read_text()
    finally:
        hanging.end(signal.SIGTERM)


def test_what_is_ended_by_a_signal_ends_pg_dump_leaves_no_file_and_tells(tmp_path: Path) -> None:
    hanging = Hanging(tmp_path)

    assert hanging.end(signal.SIGTERM) == 128 + signal.SIGTERM

    wait_until(lambda: not hanging.pg_dump_is_there(), "pg_dump is ended")
    assert backups(tmp_path) == []
    assert metrics(hanging.metrics)["backup_last_attempt_success"] == 0


def test_what_is_killed_leaves_nothing_with_a_final_name_and_the_next_one_clears_it_away(
    tmp_path: Path,
) -> None:
    hanging = Hanging(tmp_path)

    hanging.end(signal.SIGKILL)

    os.kill(int(hanging.told.read_text()), signal.SIGKILL)
    assert [file.name.startswith(".") for file in backups(tmp_path)] == [True]
    done = backup(tmp_path, sqlite_database(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [file.suffix for file in backups(tmp_path)] == [".db"]


def test_two_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    hanging = Hanging(tmp_path)
    try:
        assert_one_sentence(backup(tmp_path, sqlite_database(tmp_path)), "another backup")
        assert hanging.pg_dump_is_there()
    finally:
        hanging.end(signal.SIGTERM)


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "pg_dump").write_text("#!/bin/sh\nexec sleep 600\n")
    (programs / "pg_dump").chmod(0o755)

    done = backup(
        tmp_path,
        "postgresql://shop@127.0.0.1/shop",
        "--minutes",
        "0.01",
        PATH=f"{programs}:{os.environ['PATH']}",
    )

    assert_one_sentence(done, "not done after 0.6 s")

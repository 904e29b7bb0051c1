"""The command line: what goes wrong is one sentence on stderr and exit code 1, never a traceback."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner, Result

from app import cli
from app.infrastructure import outbox
from app.infrastructure.database import Database, now
from app.infrastructure.outbox import Consumer, Message, OutboxDelivery
from app.observability.context import RequestContext, bind_context
from tests.service import ROOT, test_settings
from tests.tools import free_port, run_async

WITHIN_SECONDS = 60.0
UNREACHABLE = "postgresql://glasshouse:hunter2@127.0.0.1:9/glasshouse"


def run_python(
    directory: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in an empty directory with nothing but these variables set."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
        check=False,
    )


def app(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m app`."""
    return run_python(directory, "-m", "app", *arguments, **environment)


Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in this process, which is quicker: for those that leave nothing behind."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **environment: CliRunner().invoke(
        cli.app, arguments, env={"PORT": None, **environment}
    )


def sentence(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a refusal wrote to stderr."""
    assert ended.returncode == 1, (ended.stdout, ended.stderr)
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in ended.stdout
    return line


def test_to_import_the_program_does_nothing(tmp_path: Path) -> None:
    # With settings that cannot be: whoever reads them while he is imported fails here.
    ended = run_python(
        tmp_path,
        "-c",
        "import sys, threading, app.cli\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "from loguru import logger; assert len(logger._core.handlers) == 1",
        DATABASE_URL="nonsense",
        PORT="nonsense",
        SENTRY_DSN="nonsense",
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "variable"), [("serve", "PORT"), ("worker", "WORKER_METRICS_PORT")]
)
def test_a_port_that_is_taken_is_said_with_the_variable_that_chooses_it(
    tmp_path: Path, command: str, variable: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        said = sentence(app(tmp_path, command, **{variable: port}))
    assert port in said
    assert said.endswith(f"set {variable} to use another port")


def test_each_bad_setting_is_named_and_no_value_is_repeated(tmp_path: Path) -> None:
    said = sentence(
        app(
            tmp_path,
            "serve",
            DATABASE_URL="mysql://root:hunter2@db/shop",
            REDIS_URL="http://:hunter2@cache",
            PORT="many",
        )
    )
    assert all(name in said for name in ("DATABASE_URL", "REDIS_URL", "PORT"))
    assert "hunter2" not in said


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_production_refuses_to_start_with_defaults_and_says_why(
    tmp_path: Path, command: str
) -> None:
    said = sentence(app(tmp_path, command, ENVIRONMENT="production"))
    for name in ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "PAYMENT_PROVIDER_URL"):
        assert name in said
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("migrate", "the migration failed: "),
        ("dead-letters", "the database cannot be asked: The database cannot answer right now"),
    ],
)
def test_a_database_that_cannot_be_reached_is_said(tmp_path: Path, command: str, what: str) -> None:
    said = sentence(app(tmp_path, command, DATABASE_URL=UNREACHABLE))
    assert what in said
    assert "hunter2" not in said


def test_a_database_file_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "directory.db").mkdir()
    url = f"sqlite:///{tmp_path / 'directory.db'}"
    assert "unable to open database file" in sentence(app(tmp_path, "migrate", DATABASE_URL=url))


def test_dead_letters_without_a_schema_are_a_sentence(tmp_path: Path) -> None:
    sentence(app(tmp_path, "dead-letters", DATABASE_URL=f"sqlite:///{tmp_path / 'empty.db'}"))


def test_migrate_makes_the_database_where_there_is_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'shop.db'}"
    ended = app(tmp_path, "migrate", DATABASE_URL=url)
    assert ended.returncode == 0, ended.stderr
    assert "the schema was migrated" in ended.stdout
    assert (tmp_path / "new" / "shop.db").exists()


def test_models_and_migrations_agree(invoke: Invoke) -> None:
    assert invoke("check-migrations").exit_code == 0


class _Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/live" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        return


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Answer the liveness probe with `status`; yield the port."""
    handler = type("Answer", (_Answer,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_healthcheck_tells_by_its_exit_code_whether_the_process_is_alive(
    tmp_path: Path, invoke: Invoke
) -> None:
    with answering(200) as alive, answering(503) as ill:
        fine = app(tmp_path, "healthcheck", PORT=str(alive))
        # A proxy is for other machines.
        proxied = invoke("healthcheck", PORT=str(alive), http_proxy="http://127.0.0.1:9")
        is_ill = invoke("healthcheck", "--port", str(ill))
        is_elsewhere = invoke("healthcheck", "--port", str(alive), "--path", "/elsewhere")
    nobody = invoke("healthcheck", PORT=str(free_port()))
    assert (fine.returncode, fine.stderr) == (0, "")
    assert (proxied.exit_code, proxied.stderr) == (0, "")
    assert [run.exit_code for run in (is_ill, is_elsewhere, nobody)] == [1, 1, 1]
    assert "Service Unavailable" in is_ill.stderr
    assert "refused" in nobody.stderr


async def _do_nothing(session: object, message: Message) -> None:
    return


async def _bury(url: str, letters: int) -> None:
    database = Database(test_settings(url))
    async with database.transaction() as session:
        with bind_context(RequestContext("the-request")):
            for _ in range(letters + 1):
                outbox.publish(session, topic="tea.brewed", payload={})
        await session.flush()
        consumer = Consumer("serve_cup", "tea.brewed", _do_nothing)
        _, ids = await outbox.relay(session, consumers=[consumer], limit=10)
        await session.flush()
        await session.execute(
            update(OutboxDelivery)
            .where(OutboxDelivery.id.in_(ids[:letters]))
            .values(
                state="dead",
                attempts=outbox.MAX_ATTEMPTS,
                last_error="TeapotError",
                finished_at=now(),
            )
        )
    await database.dispose()


async def _states(url: str) -> list[tuple[str, int]]:
    database = Database(test_settings(url))
    async with database.transaction() as session:
        rows = await session.execute(select(OutboxDelivery.state, OutboxDelivery.attempts))
        found = sorted((state, attempts) for state, attempts in rows)
    await database.dispose()
    return found


def test_dead_letters_are_listed_and_replayed(
    service_database: str, tmp_path: Path, invoke: Invoke
) -> None:
    run_async(_bury(service_database, letters=2))
    listed = invoke("dead-letters", "--limit", "1", DATABASE_URL=service_database)
    assert listed.exit_code == 0, listed.stderr
    latest, count = listed.stdout.splitlines()
    assert latest.startswith("tea.brewed to serve_cup: TeapotError, given up on 20")
    assert latest.endswith("request the-request")
    assert count == "2 dead letters"
    assert run_async(_states(service_database)) == [("dead", 6), ("dead", 6), ("queued", 0)]

    replayed = app(tmp_path, "dead-letters", "--replay", DATABASE_URL=service_database)
    assert (replayed.returncode, replayed.stdout) == (0, "2 dead letters handed over again\n")
    assert run_async(_states(service_database)) == [
        ("queued", 0),
        ("retrying", 0),
        ("retrying", 0),
    ]

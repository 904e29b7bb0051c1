"""What tests need from the machine: tools that must exist, free ports, and real servers.

A server is started on first use, on a free loopback port, with its data in a directory of its own, and
is ended by tests/guard.py with the run, also when tests fail or pytest is killed.

Must never touch a database that was there before the tests: what is dropped or flushed here was created
here, or named by TEST_POSTGRES_URL or TEST_REDIS_URL (see conftest.py).
"""

import asyncio
import atexit
import contextlib
import fcntl
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import pytest
import redis
from sqlalchemy import NullPool, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

T = TypeVar("T")

START_SECONDS = 30.0
PORTS = range(20_000, 32_000)
# Each one once; in no order, so that runs side by side seldom try the same
_ports: Final = iter(random.sample(PORTS, len(PORTS)))
_guards: list[subprocess.Popen[bytes]] = []


@atexit.register
def _leave_guards_alone() -> None:
    # The controlling process of the run ends them; Popen would warn that they are still running.
    for guard in _guards:
        guard.returncode = 0


def require_tool(name: str) -> Path:
    """Return where the program `name` is, looking where Debian hides PostgreSQL's, too.

    Without it the test is skipped with the reason, or fails where every tool is expected to be
    installed (REQUIRE_TOOLS=1, as in CI): a skipped check must not look like a passed one there.
    """
    found = shutil.which(name)
    if found is not None:
        return Path(found)  # as found: redis-server is a link whose name says what it does
    for candidate in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True):
        return candidate
    return skip_or_fail(
        f"{name} is not installed; install it, or leave it to CI (REQUIRE_TOOLS=1 makes this fail)"
    )


def skip_or_fail(reason: str) -> NoReturn:
    """End a test for which something is missing: skipped, or failed where REQUIRE_TOOLS=1."""
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """Return a free loopback port that is nobody else's until this process ends.

    Ports are chosen before they are used, while everything asks everything else whether it is there: of
    those that the system gives to connections (32768 and above on Linux, 49152 elsewhere), one is gone in
    every few starts. Nor may two tests be given the same one before either listens, whether they run in
    one process or side by side: each port is a byte of one file, locked by whom it was given to.
    """
    for port in _ports:
        try:
            fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    pytest.fail("every port of the tests was given out", pytrace=False)


@cache
def _claims() -> int:
    # Such a lock is gone with its process, however that ends, or once this file is closed here.
    name = Path(tempfile.gettempdir(), f"glasshouse-test-ports-{os.getuid()}")
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait for `condition` to hold; fail with `what` did not happen otherwise."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what}", pytrace=False)
        time.sleep(0.02)


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` to its end on a loop of its own in a thread, whether or not a loop runs here."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(coroutine))
        except BaseException as exc:  # noqa: BLE001 - raised again below, in the caller's thread
            failure.append(exc)

    thread = threading.Thread(target=run, name="run_async")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


class Server(ABC):
    """One real server process that tests may also stop, freeze and start again on the same port."""

    def __init__(self, *, name: str, owner: int, directory: Path) -> None:
        """`owner` is the process whose end ends the server; `directory` must exist and be private."""
        self.name = name
        self.port = free_port()
        self._owner = owner
        self._parent = directory
        self._directory = directory
        self._guard: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self, directory: Path) -> tuple[list[str], str]:
        """Prepare `directory` and return the command line with the account to run it as."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server answers."""

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self._directory = self._parent / f"{self.name}-{secrets.token_hex(4)}"
        self._directory.mkdir(mode=0o711)
        command, user = self.command(self._directory)
        guard = [sys.executable, str(Path(__file__).with_name("guard.py"))]
        self._guard = subprocess.Popen(
            [*guard, str(self._owner), str(self._directory), user, *command],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches pytest first; the guard then follows in order
        )
        _guards.append(self._guard)
        (self._parent / f"{self._directory.name}.guard").write_text(str(self._guard.pid))
        wait_until(lambda: self._failed() or self.is_ready(), f"{self.name} answers\n{self._log()}")
        if self._failed():
            pytest.fail(f"{self.name} did not start:\n{self._log()}", pytrace=False)

    def stop(self) -> None:
        """End the process in order: connections are refused from now on."""
        assert self._guard is not None
        self._guard.terminate()
        self._guard.wait(START_SECONDS)

    def freeze(self) -> None:
        """Let the process hang: connections are accepted by the kernel, nothing is answered."""
        os.kill(self._pid(), signal.SIGSTOP)

    def thaw(self) -> None:
        """End the freeze."""
        os.kill(self._pid(), signal.SIGCONT)

    def _pid(self) -> int:
        return int((self._directory / "pid").read_text())

    def _failed(self) -> bool:
        return self._guard is not None and self._guard.poll() is not None

    def _log(self) -> str:
        log = self._directory / "log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""


class RedisServer(Server):
    """redis-server without persistence, with 64 databases."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, directory: Path) -> tuple[list[str], str]:
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "databases": 64}
        options["maxmemory"] = (
            "64mb"  # as in earnest: without a limit there is no share of it in use
        )
        arguments = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
        return [str(require_tool("redis-server")), *arguments], "-"

    def is_ready(self) -> bool:
        client = redis.Redis(port=self.port, socket_timeout=1)
        try:
            return bool(client.ping())
        except redis.exceptions.RedisError:
            return False
        finally:
            client.close()


class PostgresServer(Server):
    """A PostgreSQL cluster that trusts loopback connections and trades durability for speed."""

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/postgres"

    def command(self, directory: Path) -> tuple[list[str], str]:
        data = directory / "data"
        data.mkdir(mode=0o700)
        user = "-"
        if os.geteuid() == 0:
            user = _unprivileged_user()
            shutil.chown(data, user, pwd.getpwnam(user).pw_gid)
        initdb = [
            str(require_tool("initdb")),
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
        ]
        made = subprocess.run(
            [*initdb, "--locale=C", "--no-sync", f"--pgdata={data}"],
            cwd=data,
            user=None if user == "-" else user,
            extra_groups=None if user == "-" else [],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            said = made.stderr.strip().splitlines()
            reason = next(
                (line for line in said if "rror" in line or "could not" in line), said[-1:]
            )
            pytest.fail(f"initdb ended with {made.returncode}: {reason}", pytrace=False)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": 200,
        }
        arguments = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [str(require_tool("postgres")), "-D", str(data), *arguments], user

    def is_ready(self) -> bool:
        try:
            run_async(_execute(self.url, "SELECT 1"))
        except (OSError, SQLAlchemyError):
            return False
        return True


def _unprivileged_user() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.fail("PostgreSQL refuses to run as root and there is no other account", pytrace=False)


async def _execute(url: str, statement: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


def create_database(server_url: str, *, template: str | None = None) -> str:
    """Create a database with a new name, empty or a copy of `template`; return its URL."""
    name = f"test_{secrets.token_hex(8)}"
    copy = f' TEMPLATE "{template}"' if template is not None else ""
    run_async(_execute(server_url, f'CREATE DATABASE "{name}"{copy}'))
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def drop_database(url: str) -> None:
    """Drop what `create_database` made, with the connections that are still open to it."""
    name = make_url(url).database or ""
    if not name.startswith("test_"):
        raise ValueError(f"{name!r} was not made by create_database: not dropped")
    server = make_url(url).set(database="postgres").render_as_string(hide_password=False)
    run_async(_execute(server, f'DROP DATABASE "{name}" WITH (FORCE)'))

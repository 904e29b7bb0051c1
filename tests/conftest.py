"""Real servers for the tests, one of each kind per run, shared by all pytest-xdist workers.

`TEST_POSTGRES_URL` (a role that may create databases) and `TEST_REDIS_URL` name servers to use instead
of starting them. Databases made for tests are dropped again. The Redis databases 0 to 63 of that server
are emptied: never name a Redis that holds something.
Missing programs skip the tests that need them; with REQUIRE_TOOLS=1 they fail (see tools.require_tool).
"""

import fcntl
import json
import logging
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from loguru import logger
from sqlalchemy import make_url

import tests.patient_clients
import tests.quiet_weakrefs  # noqa: F401 - for what they do
from tests.bugsink import INSTALL_SECONDS, BugsinkServer, Tracker
from tests.programs import not_given, without_what_is_not_here
from tests.tools import (
    PostgresServer,
    RedisServer,
    Server,
    create_database,
    drop_database,
    wait_until,
)

_STARTED = time.monotonic()
_RUN = pytest.StashKey[tuple[int, Path]]()
"""Of this run: the id of the controlling process, and the directory that its processes share."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs_program(*variables): needs programs (tests/programs.py)"
    )
    workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
    if workerinput is None:
        # In the system's directory, not pytest's: that one is closed to PostgreSQL's account.
        name = f"service-tests-{os.getpid()}-{secrets.token_hex(4)}"
        config.stash[_RUN] = os.getpid(), Path(tempfile.gettempdir()) / name
    else:
        config.stash[_RUN] = workerinput["run_owner"], Path(workerinput["run_directory"])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a program that is not here; let who may install bugsink take the time for it."""
    items[:], left_out = without_what_is_not_here(items)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if "bugsink" in getattr(item, "fixturenames", ()):
            seconds = INSTALL_SECONDS + float(config.getini("timeout"))
            item.add_marker(pytest.mark.timeout(seconds))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was not shown, so that nobody takes it for passed."""
    for variable, name in not_given().items():
        terminalreporter.write_line(f"not shown: tests on the real {name} ({variable})")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a pytest-xdist worker which run it belongs to."""
    owner, directory = node.config.stash[_RUN]
    node.workerinput |= {"run_owner": owner, "run_directory": str(directory)}


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep how long all tests took, for `make bench` to tell: written by the controlling process."""
    config = session.config
    option = config.option
    by_default = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    part = option.keyword or option.markexpr or option.collectonly or hasattr(config, "workerinput")
    if by_default and not part and exitstatus == pytest.ExitCode.OK:
        took = {"seconds": round(time.monotonic() - _STARTED, 1)}
        (config.rootpath / "var").mkdir(exist_ok=True)
        (config.rootpath / "var/test-duration.json").write_text(json.dumps(took))


def pytest_unconfigure(config: pytest.Config) -> None:
    """End this run's servers: in the controlling process, after the last worker."""
    owner, directory = config.stash[_RUN]
    if owner != os.getpid() or not directory.exists():
        return
    for guard in directory.glob("*.guard"):
        try:
            os.kill(int(guard.read_text()), signal.SIGTERM)
        except ProcessLookupError:
            continue
    # A guard removes its server's directory when the server is gone.
    wait_until(lambda: not any(directory.glob("*/pid")), "servers end", seconds=15)
    shutil.rmtree(directory, ignore_errors=True)


def _shared(config: pytest.Config, kind: Callable[..., Server], name: str) -> str:
    """Return the URL of the run's server of this kind; whoever asks first starts it."""
    owner, directory = config.stash[_RUN]
    directory.mkdir(mode=0o711, exist_ok=True)
    url = directory / f"{name}.url"
    with (directory / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not url.exists():
            server = kind(name=name, owner=owner, directory=directory)
            server.start()
            url.write_text(server.url)  # type: ignore[attr-defined]
    return url.read_text()


@pytest.fixture(scope="session")
def postgres_url(pytestconfig: pytest.Config) -> str:
    """The administrative URL of a PostgreSQL server (`postgresql+asyncpg://.../postgres`)."""
    given = os.environ.get("TEST_POSTGRES_URL")
    return given or _shared(pytestconfig, PostgresServer, "postgres")


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database that only this test uses."""
    url = create_database(postgres_url)
    yield url
    drop_database(url)


@pytest.fixture(scope="session")
def redis_url(pytestconfig: pytest.Config, worker_id: str) -> str:
    """The URL of a Redis database that only this pytest-xdist worker uses, empty at first."""
    server = os.environ.get("TEST_REDIS_URL") or _shared(pytestconfig, RedisServer, "redis")
    number = int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 0
    url = make_url(server).set(database=str(number)).render_as_string(hide_password=False)
    _flush(url)
    return url


@pytest.fixture
def redis_database(redis_url: str) -> str:
    """`redis_url`, empty."""
    _flush(redis_url)
    return redis_url


def _flush(url: str) -> None:
    client = redis.Redis.from_url(url, socket_timeout=5)
    try:
        client.flushdb()
    finally:
        client.close()


@pytest.fixture
def private_redis(pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    """A Redis of this test's own, to stop, freeze and start again."""
    owner, directory = pytestconfig.stash[_RUN]
    directory.mkdir(mode=0o711, exist_ok=True)
    server = RedisServer(name="redis-private", owner=owner, directory=directory)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def bugsink(pytestconfig: pytest.Config) -> Iterator[Tracker]:
    """The API of a Sentry-compatible server; ask it for a project of your own."""
    tracker = Tracker(_shared(pytestconfig, BugsinkServer, "bugsink"))
    yield tracker
    tracker.close()


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Undo, after each test, what `setup_logs` does to the standard library's logging."""
    root, access = logging.root, logging.getLogger("uvicorn.access")
    level, propagate = root.level, access.propagate
    yield
    logging.captureWarnings(capture=False)
    root.handlers = [
        one for one in root.handlers if type(one).__module__ != "app.observability.logs"
    ]
    root.setLevel(level)
    access.propagate = propagate


@pytest.fixture
def log_records() -> Iterator[list[dict[str, Any]]]:
    """What is logged from now on: one loguru record per line, bound values under "extra"."""
    records: list[dict[str, Any]] = []
    sink = logger.add(
        lambda message: records.append(dict(message.record)), level="TRACE", format=""
    )
    yield records
    logger.remove(sink)

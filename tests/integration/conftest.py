"""Migrated databases of both kinds, a running provider, and the service on top of them."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import make_url

from app.users import passwords
from tests.audit_log import Log, open_log
from tests.n_plus_one import no_n_plus_one  # noqa: F401 - a fixture
from tests.provider import RunningProvider, start_provider
from tests.service import Service, migrate_database, open_service
from tests.tools import create_database, drop_database


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate_database(f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database, to be copied."""
    url = create_database(postgres_url)
    migrate_database(url)
    yield url
    drop_database(url)


@pytest.fixture
def sqlite_service_database(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a migrated SQLite database that only this test uses."""
    copy = tmp_path / "service.db"
    shutil.copy(sqlite_template, copy)
    return f"sqlite+aiosqlite:///{copy}"


@pytest.fixture
def postgres_service_database(postgres_url: str, postgres_template: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database that only this test uses."""
    url = create_database(postgres_url, template=make_url(postgres_template).database)
    yield url
    drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def service_database(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database that only this test uses: the test runs on both kinds."""
    kind = "sqlite" if request.param == "sqlite" else "postgres"
    url: str = request.getfixturevalue(f"{kind}_service_database")
    return url


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    """The payment provider as a process, shared by the tests of a module."""
    with start_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 with little work, in this process: its cost is what tests/unit/users is about."""
    quick = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
    monkeypatch.setattr(passwords, "_hasher", quick)


@pytest.fixture(autouse=True)
def looked_at_for_n_plus_one(no_n_plus_one: None) -> None:  # noqa: F811 - the fixture above
    """Every test of this directory fails when a request or a job repeats one SELECT too often."""


OpenService = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def open_here(service_database: str, provider: RunningProvider) -> OpenService:
    """`open_service` with this test's database and provider, for tests that need settings."""
    return partial(open_service, service_database, provider_url=provider.url)


@pytest_asyncio.fixture
async def service(open_here: OpenService) -> AsyncIterator[Service]:
    """The API in this process, on both kinds of database, with a running provider."""
    async with open_here() as running:
        yield running


@pytest_asyncio.fixture
async def service_with_worker(open_here: OpenService) -> AsyncIterator[Service]:
    """The API and a worker in this process."""
    async with open_here(worker=True) as running:
        yield running


@pytest_asyncio.fixture
async def log(service_database: str) -> AsyncIterator[Log]:
    """An empty audit log, on both kinds of database."""
    async with open_log(service_database) as opened:
        yield opened


@pytest_asyncio.fixture
async def postgres_log(postgres_service_database: str) -> AsyncIterator[Log]:
    """An empty audit log where several transactions may write at once."""
    async with open_log(postgres_service_database) as opened:
        yield opened

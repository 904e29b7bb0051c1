"""The real processes that the contract tests ask: API, worker and provider on a migrated SQLite file."""

from collections.abc import Iterator

import pytest

from tests.provider import RunningProvider, start_provider
from tests.service import RunningProcess, migrate_database, start_process


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    """The payment provider as a process."""
    # Short, so that a token which provokes a time-out does not take the test's time.
    directory = tmp_path_factory.mktemp("provider")
    with start_provider(directory, slow_seconds=0.1, timeout_seconds=1) as running:
        yield running


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated SQLite file."""
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('database') / 'service.db'}"
    migrate_database(url)
    return url


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, provider: RunningProvider
) -> Iterator[RunningProcess]:
    """The API as a process."""
    with start_process(
        "serve",
        tmp_path_factory.mktemp("api"),
        database_url=database_url,
        provider_url=provider.url,
        EXTERNAL_READ_TIMEOUT_SECONDS="0.5",
        EXTERNAL_ATTEMPTS="1",
        # Generated cases provoke failure upon failure, which is not what this circuit is for.
        CIRCUIT_FAILURE_THRESHOLD="100000",
    ) as running:
        yield running

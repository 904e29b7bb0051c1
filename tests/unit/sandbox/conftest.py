"""A payment provider in this process, for the tests beside this file."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.provider import open_provider


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a provider with an empty ledger, without delays."""
    async with open_provider(
        tmp_path / "provider.db", slow_seconds=0.4, timeout_seconds=0.4
    ) as client:
        yield client

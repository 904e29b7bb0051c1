"""The receiver of notifications in this process, for the tests beside this file."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from sandbox.notifications import NotificationsSettings, create_notifications
from tests.unit.sandbox.notifications.messages import Client


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Client]:
    runbooks = tmp_path / "runbooks"
    runbooks.mkdir()
    settings = NotificationsSettings(
        notifications_database=tmp_path / "notifications.db", notifications_runbooks=runbooks
    )
    app = create_notifications(settings)
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield Client(http, app.state.store, runbooks)

"""The pattern library alone: no application of another test has told it anything."""

import pytest

from app.observability import context


@pytest.fixture(autouse=True)
def nothing_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Observe every path again that another application of this process took out of what is observed."""
    monkeypatch.setattr(context, "_operational", {"/metrics", "/health"})

"""What is kept: the newest, within bounds, over restarts."""

from pathlib import Path

import pytest

from sandbox.notifications.documents import describe
from sandbox.notifications.store import WATCHDOG, Limits, NotificationStore


def open_store(path: Path, limits: Limits | None = None) -> NotificationStore:
    store = NotificationStore(path / "notifications.db", limits)
    store.open()
    return store


def bodies(store: NotificationStore) -> list[bytes]:
    return [stored.body for stored in store.newest()]


def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    first.add("slack", "critical", b"one")
    first.close()
    second = open_store(tmp_path)
    second.add("slack", "critical", b"two")
    assert bodies(second) == [b"two", b"one"]
    assert second.version() == "2"
    second.close()


def test_the_oldest_go_first(tmp_path: Path) -> None:
    store = open_store(tmp_path, Limits(notifications=3))
    for number in range(5):
        store.add("slack", "critical", str(number).encode())
    assert bodies(store) == [b"4", b"3", b"2"]
    assert store.newest()[0].id == 5  # never used twice
    store.close()


def test_large_ones_are_fewer(tmp_path: Path) -> None:
    store = open_store(tmp_path, Limits(body_bytes=100))
    for number in range(5):
        store.add("slack", "critical", bytes([number]) * 40)
    assert len(bodies(store)) == 2
    store.close()


def test_the_watchdog_pushes_nothing_out(tmp_path: Path) -> None:
    store = open_store(tmp_path, Limits(notifications=5, of_watchdog=2))
    store.add("webhook", "critical", b"page")
    for _ in range(20):
        store.add("webhook", WATCHDOG, b"beat")
    assert bodies(store) == [b"beat", b"beat", b"page"]
    assert [one.body for one in store.newest(without_watchdog=True)] == [b"page"]
    store.close()


def test_what_an_earlier_version_kept_is_still_listed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.add("webhook", "critical", b'{"version": "3"}')
    (stored,) = store.newest()
    assert describe(stored)["title"] == "(kept by an earlier version)"
    store.close()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="open it first"):
        NotificationStore(tmp_path / "notifications.db").newest()

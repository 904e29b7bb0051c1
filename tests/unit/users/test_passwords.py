"""Password hashes: Argon2id, off the event loop, and never more at once than there are cores."""

import asyncio
import os
import threading
import time

import pytest

from app.users import passwords
from app.users.passwords import hash_password, verify_password


async def test_a_hash_is_argon2id_and_fits_only_its_password() -> None:
    first, second = await hash_password("correct horse"), await hash_password("correct horse")
    assert first.startswith("$argon2id$")
    assert first != second, "each has a salt of its own"
    assert len(first) <= 200, "the column's length"
    assert await verify_password("correct horse", first)
    assert not await verify_password("Correct horse", first)
    assert not await verify_password("", first)


async def test_without_a_hash_nothing_fits_not_even_the_placeholder() -> None:
    assert not await verify_password("no account has this password", None)
    assert not await verify_password("no account has this password", "")


async def test_no_more_are_hashed_at_once_than_there_are_cores_and_the_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = os.cpu_count() or 1
    lock, may_end = threading.Lock(), threading.Event()
    running: list[int] = [0, 0]

    class Slow:
        def hash(self, password: str) -> str:
            with lock:
                running[0] += 1
                running[1] = max(running)
            assert may_end.wait(30)
            with lock:
                running[0] -= 1
            return password

    monkeypatch.setattr(passwords, "_hasher", Slow())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(hash_password(str(number))) for number in range(cores + 3)]
        deadline = time.monotonic() + 30
        while running[0] < cores:  # the loop turns while they hash
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)
        may_end.set()
    assert running[1] == cores
    assert [task.result() for task in tasks] == [str(number) for number in range(cores + 3)]

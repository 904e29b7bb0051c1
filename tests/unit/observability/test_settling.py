"""What is put off is done soon, in order, once, and before anybody reads it."""

import asyncio
import os
import threading

import pytest

from app.observability import settling
from app.observability.settling import MAX_UNSETTLED, Later, settle


async def test_it_is_done_soon_by_itself() -> None:
    done: list[int] = []
    arrived = asyncio.Event()

    def handle(thing: int) -> None:
        done.append(thing)
        if thing == 2:
            arrived.set()

    later = Later(handle)
    for thing in range(3):
        later.add(thing)
    assert done == []

    async with asyncio.timeout(30):
        await arrived.wait()
    assert done == [0, 1, 2]


async def test_not_too_many_wait() -> None:
    done: list[int] = []
    later = Later(done.append)
    for thing in range(MAX_UNSETTLED):
        assert done == []
        later.add(thing)
    assert done == list(range(MAX_UNSETTLED))


async def test_who_reads_has_it_done() -> None:
    done: list[str] = []
    first, second = Later(done.append), Later(done.append)
    first.add("a")
    second.add("b")
    first.add("c")
    settle()
    assert done == ["a", "c", "b"]
    settle()
    assert done == ["a", "c", "b"]


def test_what_waited_when_its_loop_ended_is_not_lost() -> None:
    done: list[str] = []
    later = Later(done.append)

    async def once(thing: str) -> None:
        later.add(thing)

    asyncio.run(once("of a loop that ended"))
    assert done == []

    async def again() -> None:
        other: Later[str] = Later(done.append)
        other.add("of another")
        async with asyncio.timeout(30):
            while len(done) < 2:
                await asyncio.sleep(0)

    asyncio.run(again())
    assert sorted(done) == ["of a loop that ended", "of another"]


def test_what_waits_for_a_loop_that_has_gone_is_done_with_the_next_thing() -> None:
    done: list[int] = []
    later = Later(done.append)

    async def add(thing: int) -> None:
        later.add(thing)

    asyncio.run(add(1))
    assert done == []
    later.add(2)  # no loop runs
    assert done == [1, 2]

    asyncio.run(add(3))
    asyncio.run(add(4))  # another one does
    assert done[:3] == [1, 2, 3]
    settle()
    assert done == [1, 2, 3, 4]


async def test_what_cannot_be_done_takes_nothing_else_along() -> None:
    done: list[int] = []

    def handle(thing: int) -> None:
        if thing == 1:
            raise ValueError(thing)
        done.append(thing)

    later = Later(handle)
    for thing in range(4):
        later.add(thing)
    with pytest.raises(ValueError, match="1"):
        settle()
    assert done == [0, 2, 3]


async def test_a_timer_is_started_once_though_things_were_done_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers: list[float] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda seconds, _: timers.append(seconds))
    done: list[int] = []
    later = Later(done.append, seconds=0.5)
    for thing in range(1000):
        later.add(thing)
        later.settle()
    assert timers == [0.5]
    assert later not in settling._unsettled


def test_without_a_loop_it_is_done_at_once() -> None:
    done: list[int] = []
    later = Later(done.append)
    later.add(1)
    later.add(2)
    assert done == [1, 2]


async def test_it_is_done_once_however_many_settle() -> None:
    done: list[int] = []
    later = Later(done.append)

    def settle_often() -> None:
        for _ in range(200):
            settle()

    settlers = [threading.Thread(target=settle_often) for _ in range(4)]
    for settler in settlers:
        settler.start()
    for thing in range(5_000):
        later.add(thing)
    for settler in settlers:
        await asyncio.to_thread(settler.join)
    settle()
    assert sorted(done) == list(range(5_000))


async def test_a_child_does_not_do_it_again(capfd: pytest.CaptureFixture[str]) -> None:
    def handle(thing: str) -> None:
        os.write(1, f"done: {thing}\n".encode())

    Later(handle).add("it")
    child = os.fork()
    if child == 0:
        settle()
        os._exit(0)
    _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - nothing else is to run
    assert status == 0
    assert capfd.readouterr().out == ""
    settle()
    assert capfd.readouterr().out == "done: it\n"
    assert not settling._unsettled

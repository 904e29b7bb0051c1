"""What is put off is done soon, in order, once, and before anybody reads it."""

import asyncio
import os
import threading
from itertools import pairwise

import pytest

from app.observability import settling
from app.observability.settling import Later, is_settling, settle


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


async def test_when_many_wait_the_next_turns_are_theirs_a_few_at_a_time() -> None:
    done: list[int] = []
    published: list[int] = []
    later = Later(done.append, lambda: published.append(len(done)), seconds=3600, limit=16)
    for thing in range(20):
        assert done == []
        later.add(thing)
    seen = {0}
    async with asyncio.timeout(30):
        while len(done) < 16:
            await asyncio.sleep(0)
            seen.add(len(done))
    assert seen == {0, 8, 16}
    assert published == [16]
    for _ in range(5):
        await asyncio.sleep(0)
    assert done == list(range(16))  # the others have time
    settle()
    assert done == list(range(20))


async def test_where_more_wait_more_are_done_in_a_turn() -> None:
    done: list[int] = []
    later = Later(done.append, seconds=3600, limit=256)
    for thing in range(400):
        later.add(thing)
    turns = 0
    while len(done) < 256:
        await asyncio.sleep(0)
        turns += 1
    assert turns <= 6
    later.settle()
    assert done == list(range(400))


async def test_who_came_meanwhile_is_served_between_two_turns() -> None:
    order: list[str] = []
    later = Later(order.append, seconds=0, limit=1024, in_a_row=1)
    for _ in range(3):
        later.add("settled")
    asked = asyncio.get_running_loop()

    def serve() -> None:
        order.append("served")
        if len(order) < 6:
            asked.call_soon(serve)

    asked.call_soon(serve)
    async with asyncio.timeout(30):
        while order.count("settled") < 3:
            await asyncio.sleep(0)
    served = [place for place, what in enumerate(order) if what == "settled"]
    assert all(later - earlier > 1 for earlier, later in pairwise(served))


async def test_a_loop_that_lets_nobody_have_a_turn_does_not_keep_them_all() -> None:
    done: list[int] = []
    later = Later(done.append, seconds=3600, limit=4)
    for thing in range(100):
        later.add(thing)
        assert len(later._waiting) <= 32
    settle()
    assert done == list(range(100))


async def test_what_was_added_while_the_turns_went_on_has_its_time_too() -> None:
    done: list[int] = []
    arrived = asyncio.Event()

    def handle(thing: int) -> None:
        done.append(thing)
        if thing == 0:
            later.add(7)
        if thing == 7:
            arrived.set()

    later = Later(handle, seconds=0.001, limit=2)
    later.add(0)
    later.add(1)
    async with asyncio.timeout(30):
        await arrived.wait()
    assert done == [0, 1, 7]
    assert later not in settling._unsettled
    assert not is_settling()


async def test_a_failure_in_a_turn_is_told_to_the_loop_and_takes_nothing_along() -> None:
    done: list[int] = []
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(context["exception"])
    )

    def handle(thing: int) -> None:
        if thing == 1:
            raise ValueError(thing)
        done.append(thing)

    later = Later(handle, seconds=0)
    for thing in range(12):
        later.add(thing)
    async with asyncio.timeout(30):
        while len(done) < 11:
            await asyncio.sleep(0)
    assert done == [0, *range(2, 12)]
    assert [str(error) for error in told] == ["1"]


async def test_one_that_fails_does_not_keep_the_others_from_being_settled() -> None:
    done: list[int] = []

    def fail(thing: int) -> None:
        raise ValueError(thing)

    failing: Later[int] = Later(fail)
    failing.add(1)
    later = Later(done.append)
    later.add(2)
    with pytest.raises(ValueError, match="1"):
        settle()
    assert done == [2]


def test_turns_that_a_loop_has_not_given_before_it_ended_are_not_waited_for() -> None:
    done: list[int] = []
    later = Later(done.append, seconds=3600, limit=8, in_a_row=1)

    async def add() -> None:
        for thing in range(8):
            later.add(thing)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(add())
    loop.close()
    assert later._due > 0
    later.add(8)  # no loop runs
    assert done == list(range(9))


async def test_who_settles_is_known_to_what_it_calls() -> None:
    seen: list[bool] = []
    elsewhere: list[bool] = []

    def handle(_: int) -> None:
        seen.append(is_settling())
        thread = threading.Thread(target=lambda: elsewhere.append(is_settling()))
        thread.start()
        thread.join()

    Later(handle).add(1)
    assert not is_settling()
    settle()
    assert (seen, elsewhere) == ([True], [False])
    assert not is_settling()


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

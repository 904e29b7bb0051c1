"""Ctrl-C, a closed terminal and `kill` end the run in order: what it has started is ended first.

Only the first of them counts. A second would end the ending, and leave servers behind that are frozen.
"""

import asyncio
import selectors
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeVar

import uvloop

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_running: Final[list[asyncio.Task[Any]]] = []


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal that asks us to end."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        if not _running:
            raise KeyboardInterrupt
        # Raised here it could end in a callback of the loop, which takes it for a fault of the connection.
        _running[0].get_loop().call_soon_threadsafe(_running[0].cancel)

    before = {each: signal.signal(each, interrupt) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def run(coroutine: Coroutine[Any, Any, T], *, to_the_microsecond: bool = False) -> T:
    """Run it on a loop of its own to its end.

    Args:
        to_the_microsecond: Whether its timers have to be. uvloop's are not, nor are those of epoll: what is
            due within the same millisecond comes at once.

    Raises:
        KeyboardInterrupt: It was interrupted; it has been cancelled, and has cleaned up.
    """

    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None
        _running.append(task)
        try:
            return await coroutine
        finally:
            _running.remove(task)

    try:
        with asyncio.Runner(
            loop_factory=_exact_loop if to_the_microsecond else _quick_loop
        ) as runner:
            return runner.run(watched())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _quick_loop() -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop()


def _exact_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())

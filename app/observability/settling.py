"""What need not be done at once is done for several requests in a row: their lines, their counts.

It is done a few at a time, and between them the event loop serves who has come meanwhile: a request waits
for those before it, and should not wait for what became of those that were answered long ago.

Must never lose anything while the process lives, and never keep it for much longer than it is told to while
the event loop runs: one loop, since of several at once only the latest has timers. Who reads what is made of
it calls `settle` first.
"""

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

SETTLE_SECONDS: Final = 0.01
MAX_UNSETTLED: Final = 64
IN_A_ROW: Final = 8
"""So many at a time, or a quarter of what waits: where there is more than that to do, it is done sooner."""
_TURNS: Final = 4
_MUCH: Final = 8
"""Times the limit: what waits for so many is in a loop that lets nobody else have a turn."""


class Later(Generic[T]):
    """Does to several things in a row what could be done to each of them at once.

    Between two requests all of the server's code and data pass the processor's caches, so a function that
    takes 4 µs when it has just run takes 20 there. They should be small, since what is kept cannot be used
    for the next request.
    """

    def __init__(
        self,
        handle: Callable[[T], None],
        then: Callable[[], None] | None = None,
        *,
        seconds: float = SETTLE_SECONDS,
        limit: int = MAX_UNSETTLED,
        in_a_row: int = IN_A_ROW,
    ) -> None:
        """`handle` is called for each thing, in order, and `then` after several; they must not raise.

        `seconds` is how long they may wait, and `limit` how many, before the event loop's next turns are for
        them: `in_a_row` in each.
        """
        self._handle = handle
        self._then = then
        self._seconds = seconds
        self._limit = limit
        self._in_a_row = in_a_row
        self._waiting: deque[T] = deque()
        self._is_awaited = False
        self._due = 0
        """How many have turns on their way."""

    def add(self, thing: T) -> None:
        """Have it handled a bit later; at once where no event loop runs. Any thread may call it."""
        waiting = self._waiting
        waiting.append(thing)
        if not self._is_awaited:
            self._is_awaited = True
            self._settle_soon()
        elif _loop is None or _loop.is_closed():  # and with it the timer
            self._settle_soon()
        elif len(waiting) >= self._limit:
            self._settle_next()

    def _settle_soon(self) -> None:
        global _loop  # noqa: PLW0603 - one loop has the timers
        loop = _running_loop()
        if loop is None:
            self.settle()
            return
        if loop is not _loop:  # the one before may have gone, with all of its timers
            _loop = loop
            settle()
        _unsettled[self] = None
        if _timers.get(self) is not loop:
            _timers[self] = loop
            loop.call_later(self._seconds, self._on_time)

    def _on_time(self) -> None:
        _timers.pop(self, None)
        if self._waiting:
            self._settle_next()

    def _settle_next(self) -> None:
        """Give what waits the event loop's next turns."""
        if self._due and len(self._waiting) < _MUCH * self._limit:
            return
        loop = _running_loop()
        if self._due or loop is None or loop is not _loop:
            self.settle()
            return
        self._due = len(self._waiting)
        # Behind the requests that the loop has read together with this.
        loop.call_soon(self._take_turn, max(self._in_a_row, self._due // _TURNS))

    def _take_turn(self, number: int) -> None:
        """Handle so many of what is due."""
        if not self._due:
            return  # somebody has settled meanwhile
        with _settling:
            number = min(number, self._due)
            self._due -= number
            failure = self._handle_some(number)
            if self._due:
                asyncio.get_running_loop().call_soon(self._take_turn, number)
            else:
                self._is_awaited = False  # what comes from here on sees to itself
                _unsettled.pop(self, None)
                if self._then is not None:
                    self._then()
                if self._waiting and not self._is_awaited:  # it came meanwhile
                    self._is_awaited = True
                    self._settle_soon()
        if failure is not None:
            raise failure

    def settle(self) -> None:
        """Handle what waits."""
        with _settling:
            self._due = 0
            self._is_awaited = False
            _unsettled.pop(self, None)
            failure = self._handle_some(sys.maxsize)
            if self._then is not None:
                self._then()
        if failure is not None:
            raise failure

    def _handle_some(self, most: int) -> Exception | None:
        """Handle so many, and return the first failure: the others have their turn all the same."""
        global _settler  # noqa: PLW0603 - one thread settles
        waiting, handle, failure = self._waiting, self._handle, None
        before, _settler = _settler, threading.get_ident()
        try:
            while most and waiting:
                most -= 1
                try:
                    handle(waiting.popleft())
                except Exception as error:  # noqa: BLE001 - returned
                    failure = failure or error
        finally:
            _settler = before
        return failure

    def forget(self) -> None:
        """Drop what waits: another process handles it."""
        self._due = 0
        self._is_awaited = False
        self._waiting.clear()


_unsettled: Final[dict[Later[Any], None]] = {}
"""In the order in which they began to wait."""
_timers: Final[dict[Later[Any], asyncio.AbstractEventLoop]] = {}
_settling = threading.RLock()
_settler = 0
"""The thread that has it, while it handles something."""
_loop: asyncio.AbstractEventLoop | None = None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def settle() -> None:
    """Handle all that was put off. For who is about to read what it leads to."""
    failure: Exception | None = None
    for later in list(_unsettled):
        try:
            later.settle()
        except Exception as error:  # noqa: BLE001 - the others have their turn all the same
            failure = failure or error
    if failure is not None:
        raise failure


def is_settling() -> bool:
    """Whether we are called by what settles: nothing need be put off once more."""
    return _settler == threading.get_ident()


def _forget_in_child() -> None:
    global _settling, _settler, _loop
    _settling, _settler, _loop = threading.RLock(), 0, None
    for later in list(_unsettled):
        later.forget()
    _unsettled.clear()
    _timers.clear()


os.register_at_fork(after_in_child=_forget_in_child)

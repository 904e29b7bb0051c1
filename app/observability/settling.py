"""What need not be done at once is done for several requests in a row: their lines, their counts.

Must never lose anything while the process lives, and never keep it for longer than it is told to while the
event loop runs. Who reads what is made of it calls `settle` first.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

SETTLE_SECONDS: Final = 0.01
MAX_UNSETTLED: Final = 64


class Later(Generic[T]):
    """Does to several things in a row what could be done to each of them at once.

    Between two requests all of the server's code and data pass the processor's caches, so a function that
    takes 4 µs when it has just run takes 20 there. Not many may wait, since the event loop waits for all of
    them; and they should be small, since what is kept cannot be used for the next request.
    """

    def __init__(
        self,
        handle: Callable[[T], None],
        then: Callable[[], None] | None = None,
        *,
        seconds: float = SETTLE_SECONDS,
        limit: int = MAX_UNSETTLED,
    ) -> None:
        """`handle` is called for each thing, in order, and `then` after several; they must not raise.

        `seconds` is how long they may wait, and `limit` how many.
        """
        self._handle = handle
        self._then = then
        self._seconds = seconds
        self._limit = limit
        self._waiting: deque[T] = deque()
        self._is_awaited = False

    def add(self, thing: T) -> None:
        """Have it handled a bit later; at once where no event loop runs. Any thread may call it."""
        waiting = self._waiting
        waiting.append(thing)
        if not self._is_awaited:
            self._is_awaited = True
            self._settle_soon()
        elif len(waiting) >= self._limit:
            self.settle()
        elif _loop is None or _loop.is_closed():  # and with it the timer
            self._settle_soon()

    def _settle_soon(self) -> None:
        global _loop  # noqa: PLW0603 - one loop has the timers
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
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
        self.settle()

    def settle(self) -> None:
        """Handle what waits."""
        waiting, handle = self._waiting, self._handle
        failure: Exception | None = None
        with _settling:
            self._is_awaited = False  # what comes from here on sees to itself
            _unsettled.pop(self, None)
            while waiting:
                try:
                    handle(waiting.popleft())
                except Exception as error:  # noqa: BLE001 - the others have their turn all the same
                    failure = failure or error
            if self._then is not None:
                self._then()
        if failure is not None:
            raise failure

    def forget(self) -> None:
        """Drop what waits: another process handles it."""
        self._is_awaited = False
        self._waiting.clear()


_unsettled: Final[dict[Later[Any], None]] = {}
"""In the order in which they began to wait."""
_timers: Final[dict[Later[Any], asyncio.AbstractEventLoop]] = {}
_settling = threading.RLock()
_loop: asyncio.AbstractEventLoop | None = None


def settle() -> None:
    """Handle all that was put off. For who is about to read what it leads to."""
    for later in list(_unsettled):
        later.settle()


def _forget_in_child() -> None:
    global _settling, _loop
    _settling, _loop = threading.RLock(), None
    for later in list(_unsettled):
        later.forget()
    _unsettled.clear()
    _timers.clear()


os.register_at_fork(after_in_child=_forget_in_child)

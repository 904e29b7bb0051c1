"""What need not be done at once is done for several requests in a row: their lines, their counts.

Must never lose anything while the process lives, and never keep it for longer than SETTLE_SECONDS while
the event loop runs. Who reads what is made of it calls `settle` first.
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
    takes 4 µs when it has just run takes 20 there. Things wait for SETTLE_SECONDS at the most, and as few
    as MAX_UNSETTLED: the event loop must not wait for them. They should be small, since what is kept
    cannot be used for the next request.
    """

    def __init__(
        self,
        handle: Callable[[T], None],
        then: Callable[[], None] | None = None,
        *,
        limit: int = MAX_UNSETTLED,
    ) -> None:
        """`handle` is called for each thing, in order, and `then` after several; they must not raise.

        `limit` is how many may wait.
        """
        self._handle = handle
        self._then = then
        self._limit = limit
        self._waiting: deque[T] = deque()
        self._is_awaited = False

    def add(self, thing: T) -> None:
        """Have it handled a bit later; at once where no event loop runs. Any thread may call it."""
        waiting = self._waiting
        waiting.append(thing)
        if not self._is_awaited:
            self._is_awaited = True
            _settle_soon(self)
        elif len(waiting) >= self._limit:
            self.settle()

    def settle(self) -> None:
        """Handle what waits."""
        waiting, handle = self._waiting, self._handle
        with _settling:
            self._is_awaited = False  # what comes from here on sees to itself
            try:
                while waiting:
                    handle(waiting.popleft())
            finally:
                if waiting:  # it did raise: the others have their turn the next time
                    self._is_awaited = True
                    _unsettled.append(self)
                if self._then is not None:
                    self._then()

    def forget(self) -> None:
        """Drop what waits: another process handles it."""
        self._is_awaited = False
        self._waiting.clear()


_unsettled: Final[deque[Later[Any]]] = deque()
_settling = threading.RLock()
_timer_of: asyncio.AbstractEventLoop | None = None


def _settle_soon(later: Later[Any]) -> None:
    global _timer_of  # noqa: PLW0603 - one timer for all
    _unsettled.append(later)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        settle()
        return
    if _timer_of is not loop:
        _timer_of = loop
        loop.call_later(SETTLE_SECONDS, _on_time)


def _on_time() -> None:
    global _timer_of  # noqa: PLW0603 - one timer for all
    _timer_of = None
    settle()


def settle() -> None:
    """Handle all that was put off. For who is about to read what it leads to."""
    while _unsettled:
        _unsettled.popleft().settle()


def _forget_in_child() -> None:
    global _settling, _timer_of
    _settling, _timer_of = threading.RLock(), None
    while _unsettled:
        _unsettled.popleft().forget()


os.register_at_fork(after_in_child=_forget_in_child)

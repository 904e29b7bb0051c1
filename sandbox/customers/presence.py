"""Whether the API is there: everybody waits while it is not, and that is said once.

One asks for all, first soon and then ever more seldom: a service that comes up must not find a crowd at its
door.
"""

import threading
from collections.abc import Callable

from loguru import logger

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0


class Presence:
    """Knows whether the API answers.

    Args:
        answers: Asks it, in a moment.
        ended: Is set when nobody is to wait any longer.
    """

    def __init__(self, answers: Callable[[], bool], ended: threading.Event) -> None:
        self._answers = answers
        self._ended = ended
        self._asking = threading.Lock()
        self._is_there = False
        self._has_been_there = False

    def lost(self) -> None:
        """Take note that a request was not answered."""
        self._is_there = False

    def wait(self) -> bool:
        """Wait until the API is there; return False when the end came first."""
        with self._asking:
            if not self._is_there:
                self._find()
        return not self._ended.is_set()

    def _find(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        has_said = False
        while not self._answers():
            if not has_said:
                logger.bind(type="customers").warning("Customers wait for the API")
                has_said = True
            if self._ended.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        self._is_there = True
        if has_said or not self._has_been_there:
            self._has_been_there = True
            logger.bind(type="customers").info("Customers find the API")

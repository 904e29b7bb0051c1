"""What is being done and how long it will still take, on standard error.

On a terminal it is one line that changes; elsewhere (a CI's log) a line now and then.
"""

import sys
import time
from typing import Final, TextIO

_QUIET_SECONDS: Final = 10.0
"""Between two lines where they stay."""


class Progress:
    """Says what is being done; to be called with it. The time left is corrected as parts are done."""

    def __init__(self, expected_seconds: float | None, stream: TextIO | None = None) -> None:
        """`expected_seconds` is how long all of it may take; None if nobody knows."""
        self._stream = stream or sys.stderr
        self._known = expected_seconds is not None
        self._later = expected_seconds or 0.0
        self._end = time.monotonic() + self._later
        self._said = -_QUIET_SECONDS

    def begin(self, seconds: float) -> None:
        """Begin a part that was expected to take so long."""
        self._later -= seconds
        self.now_left(seconds)

    def now_left(self, seconds: float) -> None:
        """Correct what is left of this part."""
        self._end = time.monotonic() + seconds + max(0.0, self._later)

    def __call__(self, what: str) -> None:
        """Say what is being done now."""
        left = max(0.0, self._end - time.monotonic())
        line = f"{what}, about {_spoken(left)} left" if self._known else what
        if self._stream.isatty():
            self._write(f"\r\x1b[K{line}")
        elif time.monotonic() - self._said >= _QUIET_SECONDS:
            self._said = time.monotonic()
            self._write(f"{line}\n")

    def end(self) -> None:
        """Leave the terminal's line to what comes now."""
        if self._stream.isatty():
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _spoken(seconds: float) -> str:
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"

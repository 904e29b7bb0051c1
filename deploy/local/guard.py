"""Ends the processes of a supervisor that died without ending them itself (kill -9, a crash).

The supervisor starts this file as a process of its own and tells it through a pipe which process groups
exist: a line `+123` or `-123`. When the supervisor is gone, however it went, the pipe ends; whatever is still
on the list is asked to stop and, after GRACE_SECONDS, killed. A pipe works on Linux and macOS alike, where
PR_SET_PDEATHSIG is Linux only. Must never print: nobody may be left to read it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

GRACE_SECONDS = 5.0


class Guard:
    """The supervisor's end: a context that a child's process group is entered into and struck from."""

    def __enter__(self) -> "Guard":
        self._process = subprocess.Popen(
            # -I -S: neither the environment nor site-packages can keep it from working.
            [sys.executable, "-I", "-S", Path(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process.wait()

    def enter(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def strike(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        # A guard that was killed guards nothing any more, which is no reason to stop the house.
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(line.encode("ascii"))
                self._process.stdin.flush()


def _signal(groups: set[int], number: int) -> set[int]:
    """Send a signal (0: none, only look) to each group and return those that still exist."""
    existing = set()
    for group in groups:
        # macOS says PermissionError where only zombies are left of a group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
            existing.add(group)
    return existing


def main() -> None:
    """Follow the list on standard input; when it ends, end what is on it."""
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    left = _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = _signal(left, 0)
    _signal(left, signal.SIGKILL)


if __name__ == "__main__":
    main()

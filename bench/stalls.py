"""Moments in which a processor stood still, as a virtual machine's does when the host runs something else.

The system counts those that the host tells of (steal), which not every host does. So for each processor
somebody sleeps for a few milliseconds over and over, ahead of everybody else where that is allowed: when he
comes back late, nobody else has run there either. `python -m bench.stalls FD` adds up the seconds that each
processor has lost, in the file FD, until its standard input ends.
"""

import math
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from typing import Final

from bench.memory import stay

LATE_SECONDS: Final = 0.008
"""Who comes before everybody else and is later than that was held up."""
LATE_AMONG_OTHERS_SECONDS: Final = 0.02
"""So was who has to wait for others of ours, which takes less than that while little runs."""
_SLEEP_SECONDS: Final = 0.004
_LOST: Final = struct.Struct("=d")


def _processors() -> Sequence[int | None]:
    """Return those that we may use; None is whichever, where one cannot choose."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return [None]


class Stalls:
    """The process that watches, and how much it has seen."""

    def __init__(self) -> None:
        size = _LOST.size * len(_processors())
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            self._lost = mmap.mmap(file.fileno(), size)
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(file.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[file.fileno()],
                start_new_session=True,  # it ends when we have closed its input, or are no more
            )

    @property
    def seconds(self) -> float:
        """How long the processors have stood still so far, added up."""
        return math.fsum(lost for (lost,) in _LOST.iter_unpack(self._lost))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _watch(processor: int | None, lost: mmap.mmap, place: int) -> None:
    longest = LATE_AMONG_OTHERS_SECONDS
    with suppress(AttributeError, OSError):  # another system; or we may not
        if processor is not None:
            os.sched_setaffinity(0, {processor})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        longest = LATE_SECONDS
    before, total = time.perf_counter(), 0.0
    while True:
        time.sleep(_SLEEP_SECONDS)
        now = time.perf_counter()
        late = now - before - _SLEEP_SECONDS
        if late > longest:
            total += late
            _LOST.pack_into(lost, place, total)
        before = now


def main() -> None:
    """Watch until nobody wants to know any more."""
    stay()
    processors = _processors()
    with mmap.mmap(int(sys.argv[1]), _LOST.size * len(processors)) as lost:
        for number, processor in enumerate(processors):
            arguments = (processor, lost, _LOST.size * number)
            Thread(target=_watch, args=arguments, daemon=True).start()
        sys.stdin.read()
        os._exit(0)  # what the others write to is about to be closed


if __name__ == "__main__":
    main()

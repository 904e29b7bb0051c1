"""Keeps a process in memory: some virtual machines take from programs that rest what they do not use.

A server is frozen most of the time. What was taken is read from the disk again at its next turn, which
takes tens of milliseconds, and nobody used the processor meanwhile.
"""

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

_CURRENT, _FUTURE, _ON_FAULT = 1, 2, 4
_CAP_IPC_LOCK: Final = 14


def stay() -> bool:
    """Keep what this process has in memory, and will have there. Source: mlockall(2).

    Returns whether it is so: not every process may ask for it.
    """
    if sys.platform != "linux" or not _may_lock():
        return False
    # Only what is there already: otherwise all that it could ever use would count as used.
    refused: int = ctypes.CDLL(None).mlockall(_CURRENT | _FUTURE | _ON_FAULT)
    return not refused


def _may_lock(status: Path = Path("/proc/self/status")) -> bool:
    """Whether to ask: with a limit, all memory beyond it would be refused later."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    with suppress(OSError):
        for line in status.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "CapEff":
                return bool(int(value, 16) >> _CAP_IPC_LOCK & 1)
    return False

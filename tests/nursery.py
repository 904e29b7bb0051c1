"""Starts processes in a fraction of a second: a program that has imported everything forks a copy for each.

The program takes one order a line on its standard input, as JSON, and answers each with a number; at the
end of its input it kills what is left (see tests/integration/crash/preloaded.py for one).
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")  # and no setting of whoever runs the test


class Nursery:
    """The program, and the directory in which its copies work."""

    def __init__(self, program: str, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._preloaded = subprocess.Popen(
            [sys.executable, "-m", program],
            cwd=directory,
            env={name: os.environ[name] for name in _KEPT if name in os.environ}
            | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches pytest first; this one ends with its input
        )

    def order(self, **order: object) -> int:
        """Hand over an order, return the answer."""
        assert self._preloaded.stdin is not None
        assert self._preloaded.stdout is not None
        with self._lock:
            self._preloaded.stdin.write(json.dumps(order).encode() + b"\n")
            self._preloaded.stdin.flush()
            return int(self._preloaded.stdout.readline())

    def close(self) -> None:
        """Kill whatever is alive."""
        self._preloaded.communicate(timeout=30)


@contextmanager
def open_nursery(program: str, directory: Path) -> Iterator[Nursery]:
    """Yield a nursery in `directory`, for the time of the block."""
    nursery = Nursery(program, directory)
    try:
        yield nursery
    finally:
        nursery.close()


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""Reads a server's log lines and counts them, in a process of its own.

In the benchmark's own process a thread would do it, and the client would wait for the interpreter at each
line: what it then measures as the server's latency is its own. `python -m bench.lines FD < LOG` keeps both
counts in the 16 bytes of the file FD, for whoever has mapped it, too.
"""

import mmap
import os
import struct
import subprocess
import sys
import tempfile
from typing import Final

from bench.memory import stay

ACCESS_LINE: Final = b'"user_agent":'
"""What the access line of every variant has once, and no other line of the measured requests."""
_COUNTS: Final = struct.Struct("=QQ")
_PIECE: Final = 1 << 16


class LogLines:
    """Counts lines in what comes out of a pipe, in whatever pieces it comes."""

    def __init__(self) -> None:
        self.lines = 0
        self.access_lines = 0
        self._begun = b""
        """Of a line whose end has not come."""

    def add(self, chunk: bytes) -> None:
        """Count the lines that end in this."""
        ended, newline, begun = chunk.rpartition(b"\n")
        if newline:
            self.lines += ended.count(b"\n") + 1
            self.access_lines += (self._begun + ended).count(ACCESS_LINE)
            self._begun = b""
        self._begun += begun


class LogReader:
    """The process that reads, and what it has counted so far."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate(_COUNTS.size)
            self._counts = mmap.mmap(file.fileno(), _COUNTS.size)
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(file.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[file.fileno()],
                start_new_session=True,  # it ends when there is nothing left to read
            )

    def take_log(self) -> int:
        """Return where to write, for a process that is about to start."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def started(self) -> None:
        """Leave the writing to that process: when it ends, so does the log."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    @property
    def lines(self) -> int:
        """How many lines have been read."""
        return int(_COUNTS.unpack_from(self._counts)[0])

    @property
    def access_lines(self) -> int:
        """Those of them that tell of a request."""
        return int(_COUNTS.unpack_from(self._counts)[1])

    def finish(self, timeout: float) -> None:
        """Wait until all is read, `timeout` seconds at the most, and end it."""
        self.started()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:  # somebody else holds the pipe open
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Count until the log ends."""
    stay()
    counted = LogLines()
    with mmap.mmap(int(sys.argv[1]), _COUNTS.size) as counts:
        while chunk := os.read(sys.stdin.fileno(), _PIECE):
            counted.add(chunk)
            _COUNTS.pack_into(counts, 0, counted.lines, counted.access_lines)


if __name__ == "__main__":
    main()

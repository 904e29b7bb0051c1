"""Ends what the benchmark has started when it cannot do so itself, since it was killed.

A process of its own, `python -m bench.leash`, that reads "+PID" and "-PID" from its standard input. When that
ends, so has the benchmark, and what is still on the list is killed: servers that are frozen would stay for
good.
"""

import atexit
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Final

_lock: Final = threading.Lock()
_holder: subprocess.Popen[str] | None = None


def hold(pid: int) -> None:
    """Have this process of ours end with us, however we end."""
    _tell(f"+{pid}")


def release(pid: int) -> None:
    """Leave this one alone: it has ended, and its number may go to another."""
    _tell(f"-{pid}")


def _tell(what: str) -> None:
    global _holder  # noqa: PLW0603 - one benchmark has one
    with _lock:
        if _holder is None:
            _holder = subprocess.Popen(
                [sys.executable, "-m", "bench.leash"],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            atexit.register(_end, _holder)
        assert _holder.stdin is not None
        _holder.stdin.write(f"{what}\n")
        _holder.stdin.flush()


def _end(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    holder.stdin.close()
    holder.wait()


def main() -> None:
    """Hold until the benchmark is gone."""
    held: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        (held.add if line.startswith("+") else held.discard)(pid)
    for pid in held:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()

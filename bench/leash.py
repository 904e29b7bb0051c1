"""Ends what the benchmark has started when it cannot do so itself, since it was killed.

A process of its own, `python -m bench.leash`, that reads from its standard input what to hold and what to let
go: "+PID" or "+/DIRECTORY", and the same with "-". When that ends, so has the benchmark: the processes are
ended, in order if they will (servers that are frozen would stay for good), and the directories removed.
"""

import atexit
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]

GRACE_SECONDS: Final = 5.0
_lock: Final = threading.Lock()
_holder: subprocess.Popen[str] | None = None


def hold(what: int | Path) -> None:
    """Have this process or directory of ours end with us, however we end."""
    _tell(f"+{what}")


def release(what: int | Path) -> None:
    """Leave this one alone: it is gone, and its number may go to another."""
    if _holder is not None:
        _tell(f"-{what}")


def _tell(line: str) -> None:
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
        with suppress(BrokenPipeError):  # somebody has killed it
            _holder.stdin.write(f"{line}\n")
            _holder.stdin.flush()


def _end(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    with suppress(BrokenPipeError):
        holder.stdin.close()
    holder.wait()


def main() -> None:
    """Hold until the benchmark is gone."""
    held: set[str] = set()
    for line in sys.stdin:
        what = line[1:].rstrip("\n")
        (held.add if line.startswith("+") else held.discard)(what)
    processes = [
        psutil.Process(int(what))
        for what in held
        if not what.startswith("/") and psutil.pid_exists(int(what))
    ]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()  # a frozen process obeys no signal
    for process in psutil.wait_procs(processes, GRACE_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for what in held:
        if what.startswith("/"):
            shutil.rmtree(what, ignore_errors=True)


if __name__ == "__main__":
    main()

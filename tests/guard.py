"""Run one server process for the tests and make sure it ends: `guard.py OWNER DIRECTORY USER COMMAND...`.

The guard outlives the pytest-xdist worker that happened to need the server first, and ends the server
when the owner (the controlling pytest process) says so with SIGTERM or is gone, however it ended.
`DIRECTORY` belongs to this server alone: its output goes to `DIRECTORY/log`; it is removed at the end.
Its parent belongs to the run, and is removed with it if pytest can no longer do so itself.
`USER` is the account to run as, or "-" to stay who we are (PostgreSQL refuses to run as root).

Must never end anything but the one process it started.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main(owner: int, directory: Path, user: str, command: list[str]) -> None:
    """Start `command`, wait for its end or the owner's, clean up."""
    stop = False

    def ask_to_stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, ask_to_stop)
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            user=None if user == "-" else user,
            extra_groups=None if user == "-" else [],
        )
    (directory / "pid").write_text(str(server.pid))
    while server.poll() is None and not stop and is_alive(owner):
        time.sleep(POLL_SECONDS)
    if server.poll() is not None:
        (directory / "pid").unlink()  # it ended by itself: the log stays, for whoever waits for it
        return
    # SIGINT is the fast shutdown of PostgreSQL and the ordinary one of Redis. A paused process
    # (tests freeze servers to see time-outs) handles no signal before it is continued.
    server.send_signal(signal.SIGINT)
    server.send_signal(signal.SIGCONT)
    try:
        server.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    shutil.rmtree(directory, ignore_errors=True)
    if not is_alive(owner) and not any(directory.parent.glob("*/pid")):
        shutil.rmtree(
            directory.parent, ignore_errors=True
        )  # the last one out, when pytest was killed


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])

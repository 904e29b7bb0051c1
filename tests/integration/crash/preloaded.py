"""Imports the programs once and forks a copy for each start: `python -m tests.integration.crash.preloaded`.

Importing the service takes seconds, so a process that is killed twenty times would mostly import. What
runs in a copy is the program's own entry point in its own environment, and `kill -9` ends it as it ends
any process.

Takes one order a line on standard input, as JSON, and answers each with a number:
- {"start": PROGRAM, "environment": {...}, "log": FILE} -> the process id;
- {"kill": PID} -> its exit status, 0 where it was alive until then: -9 says nothing but "killed".
At the end of its input (the test is over, however it ended) it kills what is left and ends.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from app import cli
from sandbox.payment_provider import __main__ as provider

PROGRAMS: dict[str, Callable[[], object]] = {
    "serve": lambda: cli.app(["serve"]),
    "worker": lambda: cli.app(["worker"]),
    "provider": lambda: sys.exit(provider.main()),
}


def start(program: str, environment: dict[str, str], log: str) -> int:
    """Run `program` in a copy of this process; return its id."""
    pid = os.fork()
    if pid == 0:
        _become(program, environment, log)
    return pid


def _become(program: str, environment: dict[str, str], log: str) -> NoReturn:
    for descriptor, path in ((0, os.devnull), (1, log), (2, log)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.update(environment)
    code = 1
    try:
        PROGRAMS[program]()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        os._exit(code)


def kill(pid: int) -> int:
    """End a process as a power cut does; return 0, or its exit status where it had ended by itself."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended == 0:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return 0
    return os.waitstatus_to_exitcode(status) or 256  # to end by itself is wrong, even in order


def main() -> None:
    """Serve orders until the input ends."""
    assert threading.active_count() == 1, "a process with threads cannot be copied"
    alive: set[int] = set()
    for line in sys.stdin.buffer:
        order = json.loads(line)
        if "start" in order:
            answer = start(order["start"], order["environment"], order["log"])
            alive.add(answer)
        else:
            answer = kill(order["kill"])
            alive.discard(order["kill"])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    for pid in alive:
        kill(pid)


if __name__ == "__main__":
    main()

"""The programs of this repository, imported once and forked for each start; with faults on order.

`python -m tests.contract.canary.preloaded` takes one order a line on standard input, as JSON, and
answers each with a number:
- {"start": ARGUMENTS of `python -m app`, or ["provider"], "environment": {...}, "log": FILE} -> process id;
- {"end": PID, "signal": NUMBER or 0 to wait only} -> its exit status.
At the end of its input it kills what is left. What runs in a copy is the program's own entry point; its
standard output and standard error both go to FILE.
"""

import json
import os
import signal
import sys
import threading
from typing import NoReturn

from app import cli
from sandbox.payment_provider import __main__ as provider
from tests.contract.canary import faults


def _become(arguments: list[str], environment: dict[str, str], log: str) -> NoReturn:
    for descriptor, path in ((0, os.devnull), (1, log), (2, log)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.update(environment)
    code = 1
    try:
        if arguments == ["provider"]:
            code = provider.main()
        else:
            faults.install()
            cli.app(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve orders until the input ends."""
    assert threading.active_count() == 1, "a process with threads cannot be copied"
    alive: set[int] = set()
    for line in sys.stdin.buffer:
        order = json.loads(line)
        if "start" in order:
            answer = os.fork()
            if answer == 0:
                _become(order["start"], order["environment"], order["log"])
            alive.add(answer)
        else:
            if order["signal"]:
                os.kill(order["end"], order["signal"])
            answer = os.waitstatus_to_exitcode(os.waitpid(order["end"], 0)[1])
            alive.discard(order["end"])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()

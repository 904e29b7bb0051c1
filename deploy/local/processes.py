"""The processes of the house: started together, watched, shown on one terminal, stopped in order.

Each is a session of its own, so that a Ctrl-C on the terminal reaches the supervisor alone, once; its output
comes through a pipe, so that lines of two processes never mix. Must never leave a process behind: every
process group is known to the guard (guard.py) until it has ended.
"""

import contextlib
import http.client
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from deploy.local.errors import CannotRun
from deploy.local.guard import Guard

POLL_SECONDS = 0.1
OWN_WORDS_SECONDS = 0.5
READY_SECONDS = 60.0
"""A start takes 3 s; a busy machine with a cold disk gets twenty times that."""
ALL_STOPPED_SECONDS = 9.5
"""Whoever waits for the end (a person, make, an orchestrator) expects it within 10 s."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: `python -m` arguments, and the address that answers 200 once it is ready."""

    name: str
    arguments: tuple[str, ...]
    ready_url: str = ""
    stop_seconds: float = 2.5
    """How long it may take to stop before it is killed."""
    colour: int = 0
    """ANSI colour of its name in the output, 0 for none."""


class Terminal:
    """Standard output, one whole line at a time, each with the name of the process that wrote it."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._lock = threading.Lock()
        self._write_failed = False
        self._poll = select.poll()
        self._poll.register(sys.stdout.fileno(), 0)  # for hang-up and error, which are always told

    def write(self, text: bytes, program: Program | None = None) -> None:
        prefix = b""
        if program is not None:
            name = program.name.ljust(self._width)
            prefix = (
                f"\x1b[{program.colour}m{name} |\x1b[0m " if program.colour else f"{name} | "
            ).encode()
        # A reader that stands still must not keep the supervisor from stopping: its own few words are
        # left out then. The programs' lines wait, each in a thread of its own.
        is_own = program is None
        if not self._lock.acquire(timeout=OWN_WORDS_SECONDS if is_own else -1):
            return
        try:
            left = prefix + text.rstrip(b"\r\n") + b"\n"
            # Unbuffered: at the end no thread can be caught holding a buffer's lock.
            while left:
                output = sys.stdout.fileno()
                if is_own and not select.select([], [output], [], OWN_WORDS_SECONDS)[1]:
                    return
                left = left[os.write(output, left) :]
        except OSError:
            self._write_failed = True
        finally:
            self._lock.release()

    def is_gone(self) -> bool:
        """Whether nobody reads any more: a lost connection, a closed window, `| head`.

        The kernel signals a hang-up to the session's leader only, which may be make or ssh's shell.
        """
        return self._write_failed or any(
            events & (select.POLLHUP | select.POLLERR) for _, events in self._poll.poll(0)
        )


class Running:
    """One started program."""

    def __init__(
        self, program: Program, environment: Mapping[str, str], terminal: Terminal
    ) -> None:
        self.program = program
        self._terminal = terminal
        self._process = subprocess.Popen(
            [sys.executable, "-m", *program.arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.group = self._process.pid
        self.last_line = ""
        self._reader = threading.Thread(
            target=self._read, name=f"output of {program.name}", daemon=True
        )
        self._reader.start()

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        with self._process.stdout as output:
            for line in output:
                self.last_line = line.decode("utf-8", "replace").strip() or self.last_line
                self._terminal.write(line, self.program)

    def exit_code(self) -> int | None:
        """Return the exit code once the process has ended and its output is read; negative for a signal."""
        code = self._process.poll()
        if code is not None:
            self._reader.join(timeout=1)
        return code

    def is_ready(self) -> bool:
        """Whether its address answers 200 now. Never through a proxy that the environment names."""
        address = urlsplit(self.program.ready_url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=2)
        try:
            connection.request("GET", address.path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def ask_to_stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.group, signal.SIGTERM)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, signal.SIGKILL)


class Stopped(Exception):
    """The person asked to stop (or is gone) while something was under way."""


class House:
    """All that runs. Its methods are called from the main thread only."""

    def __init__(self, environment: Mapping[str, str], terminal: Terminal, guard: Guard) -> None:
        self._environment = environment
        self._terminal = terminal
        self._guard = guard
        self._running: list[Running] = []
        self.stopping = False
        """Set (by a signal handler) to stop in order what is under way."""

    def _pause(self) -> None:
        if self.stopping or self._terminal.is_gone():
            raise Stopped
        time.sleep(POLL_SECONDS)

    def _start(self, program: Program) -> Running:
        running = Running(program, self._environment, self._terminal)
        self._guard.enter(running.group)
        self._running.append(running)
        return running

    def _forget(self, running: Running) -> None:
        self._running.remove(running)
        self._guard.strike(running.group)

    def run_to_end(self, program: Program, failure: str) -> None:
        """Run a program that ends by itself; raises CannotRun, or Stopped when asked to stop."""
        running = self._start(program)
        while (code := running.exit_code()) is None:
            self._pause()
        self._forget(running)
        if code != 0:
            raise CannotRun(f"{failure}: {running.last_line or f'exit code {code}'}")

    def start(self, programs: Sequence[Program]) -> None:
        """Start them together and return when all are ready; raises CannotRun or Stopped."""
        waiting = [self._start(program) for program in programs]
        deadline = time.monotonic() + READY_SECONDS
        while waiting:
            self._pause()
            self._raise_for_ended()
            waiting = [running for running in waiting if not running.is_ready()]
            if waiting and time.monotonic() > deadline:
                late = waiting[0].program
                raise CannotRun(
                    f"{late.name} was not ready after {READY_SECONDS:.0f} s ({late.ready_url}): "
                    "its output above may say why."
                )

    def watch(self) -> None:
        """Return never: raises CannotRun when a process ends by itself, Stopped when asked to stop."""
        while True:
            self._raise_for_ended()
            self._pause()

    def _raise_for_ended(self) -> None:
        for running in self._running:
            code = running.exit_code()
            if code is not None:
                self._forget(running)
                how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
                raise CannotRun(
                    f"{running.program.name} ended {how}, so the rest was stopped; its output may say why."
                )

    def stop(self, stages: Sequence[Sequence[Program]]) -> None:
        """End everything, the last stage first: who serves customers goes before what he stands on."""
        self.stopping = True
        latest = time.monotonic() + ALL_STOPPED_SECONDS
        for stage in [*reversed(stages), [running.program for running in self._running]]:
            leaving = [running for running in self._running if running.program in stage]
            for running in leaving:
                running.ask_to_stop()
            begin = time.monotonic()
            while any(
                running.exit_code() is None
                and time.monotonic() < min(begin + running.program.stop_seconds, latest)
                for running in leaving
            ):
                time.sleep(POLL_SECONDS)
            for running in leaving:
                if running.exit_code() is None:
                    self._terminal.write(
                        f"{running.program.name} did not stop and is killed.".encode()
                    )
                running.kill()  # what is left of its group, too
                while running.exit_code() is None:
                    time.sleep(POLL_SECONDS)
                self._forget(running)

    def process_ids(self) -> dict[str, int]:
        """Return the process id of each program that runs."""
        return {running.program.name: running.group for running in self._running}

    def kill(self) -> None:
        """End everything at once."""
        for running in self._running:
            running.kill()

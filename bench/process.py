"""A server process under measurement: started, frozen while others work, its CPU time and memory read.

CPU time is what the operating system has booked on the process, in user and system mode and on all of its
threads, so what a library does in the background is in it.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import psutil  # type: ignore[import-untyped]

from app.settings import Settings
from bench import leash
from bench.lines import LogReader
from bench.processors import keep_to

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
READ_SECONDS: Final = 5.0
"""For what an ended server has written last."""
_CPUCLOCK_SCHED: Final = 2
_LAST_WORDS: Final = 20


class NotMeasurable(Exception):
    """Something was not as a measurement needs it; the text says what."""


class ServerProcess:
    """One process of `python -m bench.serve`, whose log goes into a pipe that is read."""

    def __init__(
        self, name: str, port: int, environment: Mapping[str, str], program: Sequence[str] = ()
    ) -> None:
        """Start it, or `python -m program` instead, and wait until it listens."""
        self.name = name
        self.port = port
        self.asked = 0
        """Requests that were sent to it and answered, for the check that they left their traces."""
        self._errors: threading.Thread | None = None
        self._said: deque[str] = deque(maxlen=_LAST_WORDS)
        self._log = LogReader()
        began = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *(program or ("bench.serve", name, str(port)))],
                env={**_inherited(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=self._log.take_log(),
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches the benchmark, which ends what it has started
            )
        except BaseException:
            self._log.finish(READ_SECONDS)
            raise
        try:
            self._log.started()
            leash.hold(self._process.pid)
            self._errors = threading.Thread(
                target=self._read_errors, name=f"errors of {name}", daemon=True
            )
            self._errors.start()
            self._accounts = psutil.Process(self._process.pid)
            self._wait_until_it_listens(began + START_SECONDS)
        except BaseException:  # Ctrl-C, too: nobody else knows of the process yet
            self.stop()
            raise
        self.start_seconds = time.monotonic() - began
        self.start_cpu_seconds = self.cpu_seconds()

    def _read_errors(self) -> None:
        """Keep the last of what it says to people: without trouble it is of no interest."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line.decode(errors="replace").rstrip())

    def _wait_until_it_listens(self, deadline: float) -> None:
        while True:
            if self._process.poll() is not None:
                if self._errors is not None:
                    self._errors.join(1)  # for its last words
                said = "\n".join(self._said)
                raise NotMeasurable(
                    f"{self.name} did not start: exit {self._process.returncode}\n{said}"
                )
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise NotMeasurable(f"{self.name} does not answer") from None
                time.sleep(0.02)
            else:
                return

    @property
    def lines(self) -> int:
        """How many log lines have been read."""
        return self._log.lines

    @property
    def access_lines(self) -> int:
        """Those of them that tell of a request."""
        return self._log.access_lines

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process has used so far."""
        if sys.platform == "linux":
            # To the nanosecond; /proc counts in hundredths. Source: clock_getcpuclockid(3) of glibc.
            return time.clock_gettime((~self._process.pid << 3) | _CPUCLOCK_SCHED)
        used = self._accounts.cpu_times()
        return used.user + used.system

    def resident_bytes(self) -> int:
        """Return the memory that the process holds."""
        return int(self._accounts.memory_info().rss)

    def threads(self) -> int:
        """Return how many threads it has."""
        return int(self._accounts.num_threads())

    def keep_to(self, processor: int) -> None:
        """Let it use one processor and no other."""
        keep_to(processor, self._process.pid)

    def freeze(self) -> None:
        """Let it do nothing at all until `thaw`."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def ask_to_stop(self) -> None:
        """Begin its end; `stop` waits for it. So many servers end together."""
        self.thaw()  # a frozen process obeys no signal
        self._process.terminate()

    def stop(self) -> None:
        """End it, in order if it will, and read what it still logs. To stop it twice is no mistake."""
        self.ask_to_stop()
        try:
            self._process.wait(STOP_SECONDS)
        except BaseException as trouble:  # Ctrl-C for the second time: at once, then
            self._process.kill()
            self._process.wait()
            if not isinstance(trouble, subprocess.TimeoutExpired):
                raise
        leash.release(self._process.pid)
        self._log.finish(READ_SECONDS)
        if self._errors is not None and self._errors.ident is not None:
            self._errors.join(READ_SECONDS)
        assert self._process.stderr is not None
        self._process.stderr.close()


def _inherited() -> dict[str, str]:
    """Return our environment without settings of the service: those that count are given."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in Settings.model_fields and not name.startswith(_SETTINGS)
    }


_SETTINGS: Final = ("OTEL_", "SENTRY_", "LOG_", "PROMETHEUS_")

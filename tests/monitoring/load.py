"""The customers of the sandbox, the real ones, for the live stack: in a process of their own, for locust.

`LIVELY` are the settings of a service in which little is much: limits that are reached, statements that are
soon slow, a provider that is soon given up.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.monitoring.stack import LiveStack
from tests.tools import START_SECONDS

ROOT: Final = Path(__file__).parents[2]
GUARD: Final = ROOT / "tests/guard.py"
TOUR_SECONDS: Final = 400.0

LIVELY: Final = {
    "FORWARDED_ALLOW_IPS": "127.0.0.1",
    "RATE_LIMIT_LOGIN": "10/minute",
    "RATE_LIMIT_REGISTRATION": "20/minute",
    "EXTERNAL_READ_TIMEOUT_SECONDS": "4",  # a busy machine is no outage
    "EXTERNAL_ATTEMPTS": "2",
    "DATABASE_SLOW_QUERY_MS": "200",
}


def take_the_tour(stack: LiveStack) -> None:
    """Let customers do everything that they do, once."""
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.customers", "--once"],
        env=_environment(stack),
        capture_output=True,
        text=True,
        timeout=TOUR_SECONDS,
        check=False,  # what it complained of is told below
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def customers(stack: LiveStack) -> Iterator[None]:
    """Let customers come and go for the time of the block; they end with this process, too."""
    directory = stack.directory / f"customers-{secrets.token_hex(4)}"
    directory.mkdir()
    program = [sys.executable, "-m", "sandbox.customers"]
    guard = subprocess.Popen(
        [sys.executable, str(GUARD), str(os.getpid()), str(directory), "-", *program],
        env=_environment(stack) | {"CUSTOMERS_USERS": "3", "CUSTOMERS_PAUSE_SECONDS": "0.5"},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        guard.terminate()
        guard.wait(START_SECONDS)


def _environment(stack: LiveStack) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LOG_FORMAT": "json",
        "CUSTOMERS_API_URL": stack.api.url,
        "CUSTOMERS_DAY_SECONDS": "0",
        "CUSTOMERS_SEED": "1",
        "no_proxy": "127.0.0.1",
    }

"""What can be known to be wrong before anything is started, each as one sentence for the person."""

import contextlib
import errno
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from deploy.local.environment import HOST, Ports
from deploy.local.errors import CannotRun


def check_ports(ports: Ports) -> None:
    """Raise CannotRun for the first port that something listens on or that may not be opened."""
    for variable, port in ports.by_variable().items():
        change = (
            f"stop what listens there or choose another one: make run {variable}={_free_port()}"
        )
        # macOS lets one bind 127.0.0.1 beside a listener on all addresses: so ask first.
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=0.5):
            raise CannotRun(f"port {port} ({variable}) is busy: {change}")
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((HOST, port))
            except OSError as error:
                why = "busy" if error.errno == errno.EADDRINUSE else "not available to this user"
                raise CannotRun(f"port {port} ({variable}) is {why}: {change}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def check_writable(directory: Path) -> None:
    """Make the directory and raise CannotRun where a file in it cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"glasshouse")
    except OSError as error:
        raise CannotRun(
            f"cannot write to {directory} ({error.strerror}): "
            "run from a directory that you own, with space left on its disk."
        ) from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def check_settings(environment: Mapping[str, str], *classes: type[BaseSettings]) -> None:
    """Raise CannotRun naming every variable that one of the settings classes refuses, never its value."""
    complaints: dict[str, str] = {}
    with _environment(environment):
        for settings in classes:
            try:
                settings()
            except ValidationError as error:
                for found in error.errors():
                    variable = str(found["loc"][0]).upper() + ": " if found["loc"] else ""
                    complaints.setdefault(variable, found["msg"].removeprefix("Value error, "))
    if complaints:
        listed = "; ".join(variable + message for variable, message in complaints.items())
        raise CannotRun(f"a setting is not valid (environment or .env): {listed}.")

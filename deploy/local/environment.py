"""Which settings the local processes run with: .env, overruled by the environment, then completed.

.env is read here for all processes alike: the payment provider knows nothing but its environment.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from deploy.local.errors import CannotRun

HOST = "127.0.0.1"
"""Everything local listens on the loopback interface only."""

VIEWED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "traces", "SENTRY_DSN": "errors"}
"""The variables that lead to the signals viewer unless they are set, and what they send there."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the processes listen."""

    api: int
    provider: int
    worker_metrics: int
    viewer: int | None = None
    """None: not started, since traces and errors go elsewhere."""

    def by_variable(self) -> dict[str, int]:
        viewer = {} if self.viewer is None else {"VIEWER_PORT": self.viewer}
        return {
            "PORT": self.api,
            "PROVIDER_PORT": self.provider,
            "WORKER_METRICS_PORT": self.worker_metrics,
            **viewer,
        }


def read_settings(directory: Path) -> dict[str, str]:
    """Return .env of the directory, if there is one, overruled by the environment."""
    file = directory / ".env"
    try:
        from_file = dotenv_values(file, interpolate=False, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotRun(f"{file} cannot be read: {error}.") from error
    # `NAME=` in the file stands for "not set", as it does for the application.
    return {name: value for name, value in from_file.items() if value} | os.environ


def read_ports(settings: Mapping[str, str]) -> Ports:
    """Return the ports that the settings ask for; raises CannotRun for one that cannot be."""

    def port(variable: str, default: int) -> int:
        text = settings.get(variable) or str(default)
        if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):  # noqa: PLR2004 - the TCP range
            raise CannotRun(
                f"{variable} must be a port, a number from 1 to 65535, and not {text!r}."
            )
        return int(text)

    ports = Ports(
        port("PORT", 8000),
        port("PROVIDER_PORT", 8001),
        port("WORKER_METRICS_PORT", 8002),
        None if all(map(settings.get, VIEWED)) else port("VIEWER_PORT", 4318),
    )
    seen: dict[int, str] = {}
    for variable, number in ports.by_variable().items():
        if number in seen:
            raise CannotRun(
                f"{seen[number]} and {variable} are both {number}: give each its own port."
            )
        seen[number] = variable
    return ports


def provider_url(ports: Ports) -> str:
    """Return the address of the sandbox provider that runs beside the service."""
    return f"http://{HOST}:{ports.provider}"


def viewer_addresses(ports: Ports) -> dict[str, str]:
    """Return the values of VIEWED that lead to the viewer; none where it is not started."""
    if ports.viewer is None:
        return {}
    here = f"{HOST}:{ports.viewer}"
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{here}", "SENTRY_DSN": f"http://local@{here}/1"}


def viewed_signals(environment: Mapping[str, str], ports: Ports) -> list[str]:
    """Return what the processes of this environment send to the viewer: traces, errors."""
    addresses = viewer_addresses(ports)
    return [
        signal
        for variable, signal in VIEWED.items()
        if variable in addresses and environment.get(variable) == addresses[variable]
    ]


def _reaching_the_viewer(settings: Mapping[str, str], ports: Ports) -> dict[str, str]:
    """Return what the processes need to send to the viewer what is not sent elsewhere."""
    to_viewer = {
        variable: address
        for variable, address in viewer_addresses(ports).items()
        if not settings.get(variable)
    }
    around = settings.get("no_proxy") or settings.get("NO_PROXY") or ""
    if to_viewer and around != "*":
        # The exporters ask the environment's proxy even for this machine's own address.
        around = f"{around},{HOST}".lstrip(",")
        to_viewer |= {"no_proxy": around, "NO_PROXY": around}
    return to_viewer


def complete(settings: Mapping[str, str], ports: Ports) -> dict[str, str]:
    """Return the environment of the processes: the settings, and what follows from this machine."""
    completed = {
        "PAYMENT_PROVIDER_URL": provider_url(ports),
        # A pipe reads the logs: colours have to be asked for, and lines must not wait in a buffer.
        **({"FORCE_COLOR": "1"} if has_colours(settings) else {}),
        "PYTHONUNBUFFERED": "1",
    }
    completed |= settings
    completed |= _reaching_the_viewer(settings, ports)
    completed |= {variable: str(number) for variable, number in ports.by_variable().items()}
    return completed


def has_colours(settings: Mapping[str, str]) -> bool:
    """Whether the person at the terminal sees colours (https://no-color.org)."""
    return sys.stdout.isatty() and not settings.get("NO_COLOR") and settings.get("TERM") != "dumb"

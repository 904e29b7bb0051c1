"""`make run`: the API, the worker, the payment provider and the signals viewer, as one command.

Checks what can be wrong, migrates the database, starts the viewer, the provider, then the API and the worker,
says where to look, shows their logs, and stops all of them on Ctrl-C, SIGTERM or a closed terminal.
Exit codes: 0 stopped as asked, 1 could not start or a process ended by itself (one sentence on standard
error says why), 130 the second Ctrl-C killed what was still stopping.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from app.settings import Settings
from deploy.local.checks import check_ports, check_settings, check_writable
from deploy.local.environment import (
    HOST,
    Ports,
    complete,
    has_colours,
    provider_url,
    read_ports,
    read_settings,
    viewed_signals,
)
from deploy.local.errors import CannotRun
from deploy.local.guard import Guard
from deploy.local.processes import House, Program, Stopped, Terminal
from deploy.local.welcome import welcome
from sandbox.payment_provider.settings import ProviderSettings
from sandbox.signals_viewer.settings import ViewerSettings

MIGRATE = Program("migrate", ("app", "migrate"))
STOP_SECONDS = 7.0
"""GRACEFUL_SECONDS (5) for what is in flight, and a flush; the provider and the viewer need less."""


def stages(ports: Ports, *, colours: bool) -> list[list[Program]]:
    """Return what to start, in order: the programs of a stage stand on those of the stages before it."""
    cyan, green, magenta, yellow = (36, 32, 35, 33) if colours else (0, 0, 0, 0)
    # First, so that it is last to go: what the others send on their way out arrives.
    viewer = Program(
        "viewer", ("sandbox.signals_viewer",), f"http://{HOST}:{ports.viewer}/health", colour=yellow
    )
    provider = Program(
        "provider", ("sandbox.payment_provider",), f"{provider_url(ports)}/health", colour=magenta
    )
    api = Program(
        "api", ("app", "serve"), f"http://{HOST}:{ports.api}/health/ready", STOP_SECONDS, cyan
    )
    worker = Program(
        "worker",
        ("app", "worker"),
        f"http://{HOST}:{ports.worker_metrics}/health/ready",
        STOP_SECONDS,
        green,
    )
    return [[viewer] if ports.viewer else [], [provider], [api, worker]]


def run(environment: Mapping[str, str], ports: Ports) -> None:
    """Run everything until it is asked to stop; raises CannotRun when it cannot go on."""
    programs = stages(ports, colours=has_colours(environment))
    terminal = Terminal(width=max(len(program.name) for stage in programs for program in stage))
    with Guard() as guard:
        house = House(environment, terminal, guard)

        def on_signal(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
            if house.stopping:
                house.kill()
                os._exit(130)  # at once, whatever the main thread waits for
            house.stopping = True

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, on_signal)
        try:
            house.run_to_end(MIGRATE, "the database could not be migrated")
            for stage in programs:
                house.start(stage)
            terminal.write(welcome(ports, viewed_signals(environment, ports)).encode())
            house.watch()
        except Stopped:
            terminal.write(b"Stopping ...")
        finally:
            house.stop(programs)


def main() -> int:
    """Check, then run; return the exit code."""
    try:
        settings = read_settings(Path.cwd())
        ports = read_ports(settings)
        environment = complete(settings, ports)
        check_writable(Path("var"))
        viewer = [ViewerSettings] if ports.viewer else []
        check_settings(environment, Settings, ProviderSettings, *viewer)
        check_ports(ports)
        run(environment, ports)
    except CannotRun as error:
        print(f"glasshouse: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

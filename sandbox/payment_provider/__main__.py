"""`python -m sandbox.payment_provider`: run the provider until SIGTERM or SIGINT.

What keeps it from starting (a bad setting, a busy port, an unusable ledger file) is one sentence on
standard error and exit code 1. A stop takes a few seconds at most, whoever still waits for an answer.
"""

import signal
import socket
import sqlite3
import sys
from types import FrameType

import uvicorn
from loguru import logger
from pydantic import ValidationError

from app.observability.exceptions import install_exception_hooks
from app.observability.logs import flush_logs, setup_logs
from app.observability.metrics import telemetry_dropped
from app.observability.tracing import setup_tracing
from sandbox.payment_provider.app import create_provider
from sandbox.payment_provider.behaviour import Faults
from sandbox.payment_provider.settings import ProviderSettings

STOP_SECONDS = 3
"""How long a stop waits for requests in flight; those that are told to hang are released at once."""
FLUSH_SECONDS = 2.0


class ProviderServer(uvicorn.Server):
    """Ends the injected delays before it waits for the requests in flight."""

    def __init__(self, config: uvicorn.Config, faults: Faults) -> None:
        super().__init__(config)
        self._faults = faults

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving, in order."""
        self._faults.release()
        await super().shutdown(sockets)


def main() -> int:
    """Run the provider; return the exit code."""
    try:
        settings = ProviderSettings()
    except ValidationError as error:
        return _refuse("; ".join(_complaints(error)) + ".")
    host, port = settings.provider_host, settings.provider_port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        return _refuse(
            f"Cannot listen on {host} port {port} ({error.strerror}): stop what listens there, "
            "or set PROVIDER_HOST and PROVIDER_PORT."
        )
    with listener:
        return _serve(settings, listener)


def _serve(settings: ProviderSettings, listener: socket.socket) -> int:
    setup_logs(settings, on_drop=telemetry_dropped("logs"))
    install_exception_hooks()
    tracing = setup_tracing(settings, on_drop=telemetry_dropped("traces"))
    app = create_provider(settings, tracing=tracing)
    try:
        app.state.ledger.open()
    except (OSError, sqlite3.Error) as error:
        return _refuse(
            f"Cannot open the ledger {settings.provider_database} ({error}): set PROVIDER_DATABASE."
        )
    config = uvicorn.Config(
        app, access_log=False, log_config=None, timeout_graceful_shutdown=STOP_SECONDS
    )
    # uvicorn repeats the signal that stopped it, for the handler that was there before: this one lets
    # the process end in order, with what is below, instead of being killed by its own signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        logger.bind(
            type="lifecycle", host=settings.provider_host, port=settings.provider_port
        ).info("payment provider starts")
        ProviderServer(config, app.state.faults).run(sockets=[listener])
    finally:
        tracing.shutdown(FLUSH_SECONDS)
        flush_logs(FLUSH_SECONDS)
    return 0


def _leave(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    raise SystemExit(0)


def _complaints(error: ValidationError) -> list[str]:
    # Not the values: a variable may be set to something secret by mistake.
    return [f"{str(found['loc'][0]).upper()}: {found['msg']}" for found in error.errors()]


def _refuse(reason: str) -> int:
    sys.stderr.write(f"The payment provider does not start. {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

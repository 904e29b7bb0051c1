"""`python -m sandbox.notifications`: run the receiver until SIGTERM or SIGINT.

What keeps it from starting (a bad setting, a busy port, an unusable file) is one sentence on standard error
and exit code 1.
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
from sandbox.notifications.app import create_notifications
from sandbox.notifications.settings import NotificationsSettings

STOP_SECONDS = 2
FLUSH_SECONDS = 1.0


def main() -> int:
    """Run the receiver; return the exit code."""
    try:
        settings = NotificationsSettings()
    except ValidationError as error:
        return _refuse("; ".join(_complaints(error)) + ".")
    host, port = settings.notifications_host, settings.notifications_port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        return _refuse(
            f"Cannot listen on {host} port {port} ({error.strerror}): stop what listens there, "
            "or set NOTIFICATIONS_HOST and NOTIFICATIONS_PORT."
        )
    with listener:
        return _serve(settings, listener)


def _serve(settings: NotificationsSettings, listener: socket.socket) -> int:
    setup_logs(settings, on_drop=telemetry_dropped("logs"))
    install_exception_hooks()
    app = create_notifications(settings)
    try:
        app.state.store.open()
    except (OSError, sqlite3.Error) as error:
        return _refuse(
            f"Cannot open {settings.notifications_database} ({error}): set NOTIFICATIONS_DATABASE."
        )
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    # uvicorn repeats the signal that stopped it, for the handler that was there before: this one lets
    # the process end in order.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        logger.bind(
            type="lifecycle", host=settings.notifications_host, port=settings.notifications_port
        ).info("notifications receiver starts")
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        flush_logs(FLUSH_SECONDS)
    return 0


def _leave(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    raise SystemExit(0)


def _complaints(error: ValidationError) -> list[str]:
    # Not the values: a variable may be set to something secret by mistake.
    return [f"{str(found['loc'][0]).upper()}: {found['msg']}" for found in error.errors()]


def _refuse(reason: str) -> int:
    sys.stderr.write(f"The receiver of notifications does not start. {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""`python -m sandbox.signals_viewer`: run the viewer until SIGTERM or SIGINT.

What keeps it from starting (a bad setting, a busy port) is one sentence on standard error and exit code 1.
A stop takes about a second: there is nothing to save, and who sends signals sends them again or does not
mind. Requests are not logged: they would be as many as what one came to see.
"""

import signal
import socket
import sys
from types import FrameType

import uvicorn
from loguru import logger
from pydantic import ValidationError

from app.observability.exceptions import install_exception_hooks
from app.observability.logs import flush_logs, setup_logs
from sandbox.signals_viewer.app import create_viewer
from sandbox.signals_viewer.settings import HOST, ViewerSettings

STOP_SECONDS = 1
FLUSH_SECONDS = 1.0


def main() -> int:
    """Run the viewer; return the exit code."""
    try:
        settings = ViewerSettings()
    except ValidationError as error:
        return _refuse("; ".join(_complaints(error)) + ".")
    port = settings.viewer_port
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        return _refuse(
            f"Cannot listen on {HOST} port {port} ({error.strerror}): stop what listens there, "
            "or set VIEWER_PORT."
        )
    with listener:
        setup_logs(settings)
        install_exception_hooks()
        config = uvicorn.Config(
            create_viewer(settings),
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        # uvicorn repeats the signal that stopped it, for the handler that was there before: this one
        # lets the process end in order.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
        try:
            logger.bind(type="lifecycle", host=HOST, port=port).info("signals viewer starts")
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
    sys.stderr.write(f"The signals viewer does not start. {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

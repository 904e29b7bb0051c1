"""Runs an ASGI application with uvicorn, in the one way that this service wants it.

Logs go through our sink, the end is bounded, and a port that is taken is said in one sentence.
"""

import signal
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI


class PortTaken(Exception):
    """Another program listens on the port."""


def serve(
    app: "FastAPI", *, host: str, port: int, graceful_seconds: int, proxies: str = ""
) -> None:
    """Serve until SIGTERM or SIGINT; `proxies` are those whose X-Forwarded-For is believed.

    Raises:
        PortTaken: The address is in use.
        SystemExit: With 0 after a signal, with 3 when the start failed.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        access_log=False,  # the access line is ours
        log_config=None,
        server_header=False,
        # uvicorn believes whoever calls from this machine by default: a rate limit for the asking.
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or None,
        timeout_graceful_shutdown=graceful_seconds,
        timeout_keep_alive=65,  # longer than load balancers keep theirs, or they meet closed sockets
    )
    # uvicorn sends itself the signal again when it is done; that is the end we wanted, not an error.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    sys.exit(0 if server.started else 3)


def _end(number: int, frame: "FrameType | None") -> None:
    del number, frame
    sys.exit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener

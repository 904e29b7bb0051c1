"""Runs an ASGI application with uvicorn, in the one way that this service wants it.

Logs go through our sink, the end is bounded, and a port that is taken is said in one sentence. One
process is the rule and a container is what is replicated; `serve_with_workers` is for those who have to
use several cores in one container (docs/decisions/0005-several-workers.md).
"""

import gc
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import uvicorn
from loguru import logger
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app.observability import shared_metrics

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from types import FrameType

    from fastapi import FastAPI

_FLUSH_SECONDS: Final = 3.5
"""What a worker needs for its last spans and lines, when their backends are dead."""
_SILENCE_SECONDS: Final = 30
"""A worker that does not answer for so long is replaced; a busy machine needs some to start one."""


class PortTaken(Exception):
    """Another program listens on the port."""


class DirectoryUnusable(Exception):
    """The workers cannot keep their metrics where they were told to."""


def serve(
    app: "FastAPI", *, host: str, port: int, graceful_seconds: int, proxies: str = ""
) -> None:
    """Serve until SIGTERM or SIGINT; `proxies` are those whose X-Forwarded-For is believed.

    Raises:
        PortTaken: The address is in use.
        SystemExit: With 0 after a signal, with 3 when the start failed.
    """
    listener = _listen(host, port)
    config = _Config(app, **_options(graceful_seconds, proxies))
    _end_on_signals()
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    sys.exit(0 if server.started else STARTUP_FAILURE)


def serve_with_workers(
    factory: str,
    *,
    workers: int,
    host: str,
    port: int,
    graceful_seconds: int,
    drain_seconds: float = 0.0,
    proxies: str = "",
    metrics_directory: str = "",
) -> NoReturn:
    """Serve like `serve`, by several processes that share the port and the page of metrics.

    A worker that dies or hangs is replaced while the others go on. SIGHUP replaces them all, one after
    the other; SIGTTIN and SIGTTOU make one more or one less.

    Args:
        factory: What each worker serves, as "module:function".
        metrics_directory: Where the workers count, best in memory (tmpfs) and for this start alone, since
            it is emptied; a private temporary directory unless given.

    Raises:
        PortTaken: The address is in use.
        DirectoryUnusable: `metrics_directory` cannot be written to.
        SystemExit: With 0 after a signal, with 3 when a worker's start failed.
    """
    listener = _listen(host, port)
    directory = Path(metrics_directory or tempfile.mkdtemp(prefix="glasshouse-metrics-")).resolve()
    try:
        shared_metrics.prepare(directory)
    except OSError as error:
        raise DirectoryUnusable(f"cannot keep metrics in {directory}: {error.strerror}") from error
    os.environ[shared_metrics.VARIABLE] = str(directory)  # for the workers, which inherit it
    config = _WorkerConfig(
        factory,
        factory=True,
        workers=workers,
        timeout_worker_healthcheck=_SILENCE_SECONDS,
        **_options(graceful_seconds, proxies),
    )
    supervisor = _Supervisor(
        config, listener, directory, end_seconds=drain_seconds + graceful_seconds + _FLUSH_SECONDS
    )
    try:
        supervisor.run()
    finally:
        if not metrics_directory:
            shutil.rmtree(directory, ignore_errors=True)
    sys.exit(STARTUP_FAILURE if supervisor.start_failed else 0)


class _Config(uvicorn.Config):
    """uvicorn's, and what was made by the time the application is there need not be looked at again."""

    def load(self) -> None:
        """Make the application. Modules and routes stay for good: the garbage collector may forget them."""
        super().load()
        gc.collect()
        gc.freeze()


def _options(graceful_seconds: int, proxies: str) -> dict[str, Any]:
    return {
        "access_log": False,  # the access line is ours
        "log_config": None,
        "server_header": False,
        # uvicorn believes whoever calls from this machine by default: a rate limit for the asking.
        "proxy_headers": bool(proxies),
        "forwarded_allow_ips": proxies or None,
        "timeout_graceful_shutdown": graceful_seconds,
        # Longer than load balancers keep theirs, or they meet closed sockets.
        "timeout_keep_alive": 65,
    }


def _end_on_signals() -> None:
    # uvicorn sends itself the signal again when it is done; that is the end we wanted, not an error.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)


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


# Several workers --------------------------------------------------------------------------------------


class _WorkerConfig(_Config):
    """What uvicorn hands to each worker, with what we have to do there."""

    def configure_logging(self) -> None:
        """Prepare the process: this is the first that uvicorn calls in a worker."""
        super().configure_logging()
        supervisor = multiprocessing.parent_process()
        if supervisor is not None:
            _end_on_signals()
            threading.Thread(
                target=_end_with, args=[supervisor], name="supervisor-watch", daemon=True
            ).start()

    def load(self) -> None:
        """Make the application, or fail like any other start instead of trying for ever."""
        try:
            super().load()
        except Exception:  # noqa: BLE001 - whatever it was, the next attempt would meet it, too
            logger.bind(type="lifecycle").exception("the application cannot be made")
            sys.exit(STARTUP_FAILURE)


def _end_with(supervisor: "BaseProcess") -> None:
    supervisor.join()  # killed: nobody would ever tell this worker to stop
    os.kill(os.getpid(), signal.SIGTERM)


class _Supervisor(Multiprocess):
    """uvicorn's supervisor, with the books kept on workers that die, and an end that is bounded."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        directory: Path,
        *,
        end_seconds: float,
    ) -> None:
        super().__init__(config, [listener])
        self._directory = directory
        self._end_seconds = end_seconds
        self.start_failed = False

    def keep_subprocess_alive(self) -> None:
        """Replace who has died or hangs; what the dead have counted stays."""
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        alive = {process.pid for process in self.processes if process.pid is not None}
        for pid in before - alive:
            logger.bind(type="lifecycle", pid=pid).warning("a worker died and was replaced")
        shared_metrics.bury(self._directory, alive)
        self.start_failed = any(process.exitcode == STARTUP_FAILURE for process in self.processes)

    def terminate_all(self) -> None:
        """Let no connection wait in a queue that nobody will serve, then end the workers."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Wait for the workers to end, and kill those that take longer than they may."""
        deadline = time.monotonic() + self._end_seconds
        for process in self.processes:
            process.process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                logger.bind(type="lifecycle", pid=process.pid).error("a worker did not end: killed")
                process.process.kill()
                process.process.join()

"""`python -m sandbox.synthetic_journey [--once]`: make journeys until SIGTERM or SIGINT, or a single one.

With `--once` each step is one line on standard output, and the exit code says how it went: 0, or 1 after a
sentence on standard error. What keeps it from starting is one such sentence, too.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from loguru import logger
from pydantic import ValidationError

from app.observability.exceptions import install_exception_hooks
from app.observability.logs import flush_logs, setup_logs
from app.observability.metrics import telemetry_dropped
from app.observability.tracing import setup_tracing
from sandbox.synthetic_journey.app import create_prober
from sandbox.synthetic_journey.journey import run_journey
from sandbox.synthetic_journey.outcomes import StepOutcome
from sandbox.synthetic_journey.settings import JourneySettings

STOP_SECONDS = 1
FLUSH_SECONDS = 2.0
_UNMARKED = "SYNTHETIC_TOKEN is not set: the service counts these journeys as a customer's."


def main() -> int:
    """Run the service or one journey; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.synthetic_journey")
    parser.add_argument("--once", action="store_true", help="make one journey and say how it went")
    once: bool = parser.parse_args().once
    try:
        # SYNTHETIC_TOKEN may be a file there, as for the service.
        settings = JourneySettings(_secrets_dir=os.environ.get("SECRETS_DIR") or None)
    except ValidationError as error:
        return _refuse("; ".join(_complaints(error)) + ".")
    if once:
        return _make_one(settings)
    host, port = settings.synthetic_host, settings.synthetic_port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        return _refuse(
            f"Cannot listen on {host} port {port} ({error.strerror}): stop what listens there, "
            "or set SYNTHETIC_HOST and SYNTHETIC_PORT."
        )
    with listener:
        return _serve(settings, listener)


def _make_one(settings: JourneySettings) -> int:
    # Its own lines say what there is to say, to a person.
    setup_logs(
        settings.model_copy(update={"log_level": "CRITICAL"}),
        on_drop=telemetry_dropped("logs"),
        destination=sys.stderr,
    )
    tracing = setup_tracing(settings, on_drop=telemetry_dropped("traces"))
    if settings.synthetic_token is None:
        sys.stderr.write(f"{_UNMARKED}\n")
    try:
        outcome = asyncio.run(run_journey(settings, on_step=_say))
    finally:
        tracing.shutdown(FLUSH_SECONDS)
        flush_logs(FLUSH_SECONDS)
    failed = outcome.failed
    if failed is None:
        return 0
    sys.stderr.write(f"The journey failed at the step {failed.step}. {failed.failure}\n")
    return 1


def _say(outcome: StepOutcome) -> None:
    verdict = "failed" if outcome.failure else "ok"
    sys.stdout.write(f"{outcome.step:<9} {verdict:<7} {outcome.seconds:7.3f} s\n")
    sys.stdout.flush()


def _serve(settings: JourneySettings, listener: socket.socket) -> int:
    setup_logs(settings, on_drop=telemetry_dropped("logs"))
    install_exception_hooks()
    tracing = setup_tracing(settings, on_drop=telemetry_dropped("traces"))
    config = uvicorn.Config(
        create_prober(settings),
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    # uvicorn repeats the signal that stopped it, for the handler that was there before: this one lets
    # the process end in order.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        logger.bind(
            type="lifecycle", host=settings.synthetic_host, port=settings.synthetic_port
        ).info("synthetic journey starts")
        if settings.synthetic_token is None:
            logger.bind(type="synthetic").warning("Synthetic journeys are not marked")
        uvicorn.Server(config).run(sockets=[listener])
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
    sys.stderr.write(f"The synthetic journey does not start. {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

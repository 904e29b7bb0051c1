"""`python -m sandbox.customers [--once]`: visit the shop until SIGTERM or SIGINT, or do everything once.

With `--once` each journey is one line on standard output, and the exit code says how it went: 0, or 1. What
keeps it from starting is one sentence on standard error.
"""

import argparse
import logging
import signal
import sys
import threading
import time

from gevent import signal_handler  # type: ignore[import-untyped]  # it has no stubs of its own
from locust.env import Environment
from loguru import logger
from pydantic import ValidationError

from app.observability.exceptions import install_exception_hooks
from app.observability.logs import flush_logs, setup_logs
from app.observability.metrics import telemetry_dropped
from sandbox.customers.load import LocustHttp, is_alive, new_session, run
from sandbox.customers.settings import CustomersSettings
from sandbox.customers.tour import take_the_tour

FLUSH_SECONDS = 1.0
START_SECONDS = 30.0


def main() -> int:
    """Run the customers; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.customers")
    parser.add_argument(
        "--once", action="store_true", help="do everything once and say how it went"
    )
    once: bool = parser.parse_args().once
    try:
        settings = CustomersSettings()
    except ValidationError as error:
        sys.stderr.write(f"The customers do not start. {'; '.join(_complaints(error))}.\n")
        return 1
    # locust's own lines are for who sits before it.
    logging.getLogger("locust").setLevel(logging.WARNING)
    return _take_the_tour(settings) if once else _live(settings)


def _live(settings: CustomersSettings) -> int:
    setup_logs(settings, on_drop=telemetry_dropped("logs"))
    install_exception_hooks()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal_handler(number, ended.set)
    logger.bind(
        type="lifecycle", users=settings.customers_users, api_url=settings.customers_api_url
    ).info("customers start")
    try:
        run(settings, ended)
    finally:
        flush_logs(FLUSH_SECONDS)
    return 0


def _take_the_tour(settings: CustomersSettings) -> int:
    # Its own lines say what there is to say, to a person.
    quiet = settings.model_copy(update={"log_level": "CRITICAL"})
    setup_logs(quiet, on_drop=telemetry_dropped("logs"), destination=sys.stderr)
    deadline = time.monotonic() + START_SECONDS
    while not is_alive(settings.customers_api_url):
        if time.monotonic() > deadline:
            sys.stderr.write(
                f"There is no answer from {settings.customers_api_url}: is it running, and is "
                "CUSTOMERS_API_URL right?\n"
            )
            return 1
        time.sleep(0.5)
    session = new_session(Environment(), settings.customers_api_url)
    return 0 if take_the_tour(settings, LocustHttp(session), _say) else 1


def _say(journey: str, wrong: str, seconds: float) -> None:
    sys.stdout.write(f"{journey:<28} {'failed' if wrong else 'ok':<7} {seconds:7.3f} s  {wrong}\n")
    sys.stdout.flush()


def _complaints(error: ValidationError) -> list[str]:
    # Not the values: a variable may be set to something secret by mistake.
    return [f"{str(found['loc'][0]).upper()}: {found['msg']}" for found in error.errors()]


if __name__ == "__main__":
    sys.exit(main())

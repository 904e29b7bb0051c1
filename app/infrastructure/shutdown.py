"""SIGTERM: first say "no more", then stop.

A load balancer learns from readiness that this process is going. Between that and the closed socket
there must be time for it to look, or requests are lost. So the signal first turns readiness to 503,
and the server gets it `drain_seconds` later. Then uvicorn ends what is in flight, bounded in time.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from loguru import logger
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.observability.health import Health


class ShutdownSettings(BaseSettings):
    """How long the end may take: together with the flush of telemetry less than 10 s."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    drain_seconds: float = Field(
        0.0, ge=0, le=5, description="Readiness says 503 for so long before the server stops."
    )
    graceful_seconds: int = Field(
        4, ge=1, le=60, description="Requests and jobs in flight have this long to end."
    )


@contextmanager
def drain_on_sigterm(health: Health, settings: ShutdownSettings) -> Iterator[None]:
    """For the time of the block, put draining before the SIGTERM handler that is installed.

    Works under any server that installed its handler before the lifespan began, as uvicorn does.
    Ctrl-C (SIGINT) is left alone: there a person waits.
    """
    previous = signal.getsignal(signal.SIGTERM)
    if not callable(previous):
        yield  # no server is listening to the signal: a test, or a program of somebody else
        return
    loop = asyncio.get_running_loop()

    def stop_later(number: int, frame: FrameType | None) -> None:
        health.drain()
        logger.bind(type="lifecycle", drain_seconds=settings.drain_seconds).info("draining")
        signal.signal(signal.SIGTERM, previous)  # a second signal stops at once
        loop.call_soon_threadsafe(
            lambda: loop.call_later(settings.drain_seconds, previous, number, frame)
        )

    signal.signal(signal.SIGTERM, stop_later)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)

"""Where the spans go while they are counted: a real OTLP receiver in the process that is measured."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from app.observability.settling import settle
from tests.listener import Answer, Asked
from tests.otlp import ReceivedSpan, Receiver

SECONDS: Final = 30.0
"""Spans and log lines that take longer do not come."""


class Collector(Receiver):
    """Keeps spans, except while memory is watched: what it keeps is not the service's."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[ReceivedSpan] = []
        self.keeps = True
        self._arrived: set[str] = set()

    def answer(self, asked: Asked) -> Answer:
        """Note what arrived."""
        answer = super().answer(asked)
        with self._lock:
            self._arrived = {span.trace_id for span in self._spans if span.kind == "SERVER"}
            if self.keeps:
                self.kept += self._spans
            self._spans.clear()
        return answer

    async def has_all(self, ask: Callable[[], Awaitable[str]]) -> None:
        """Wait for the span of one more request, hence for all before it: they are exported in order.

        `ask` sends one and returns its trace; again, where the machine is so busy that one gets lost.
        """
        traces = set()
        async with asyncio.timeout(SECONDS):
            while True:
                traces.add(await ask())
                settle()  # no timer does it here
                for _ in range(300):
                    if traces & self._arrived:
                        return
                    await asyncio.sleep(0.01)

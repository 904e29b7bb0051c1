"""Starts and stops the signals of one process: what the API and the worker have in common."""

import asyncio
import atexit
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from loguru import logger

from app.observability.error_tracking import flush_errors, report_exception, setup_error_tracking
from app.observability.exceptions import (
    install_exception_hooks,
    install_loop_hook,
    use_reporter,
)
from app.observability.logs import flush_logs, setup_logs
from app.observability.metrics import ERROR_REPORTS_SUPPRESSED, telemetry_dropped
from app.observability.runtime import monitor_event_loop
from app.observability.tracing import Tracing, fail_span, setup_tracing
from app.settings import Settings

FLUSH_SECONDS = 2.0
LAST_LINES_SECONDS = 1.0
"""What is buffered has this long to get out; dead backends must not delay the end beyond it."""


def _report(error: BaseException, /, **tags: str) -> None:
    """Tell the current span and the error tracker; `record_exception` has logged and counted."""
    fail_span(error)
    report_exception(error, **tags)


class Telemetry:
    """The signals of this process."""

    def __init__(self, settings: Settings) -> None:
        """Start them: logs first, since the others log."""
        setup_logs(settings, on_drop=telemetry_dropped("logs"))
        self.tracing: Tracing = setup_tracing(settings, on_drop=telemetry_dropped("traces"))
        setup_error_tracking(
            settings,
            on_drop=telemetry_dropped("errors"),
            on_suppress=ERROR_REPORTS_SUPPRESSED.inc,
        )
        use_reporter(_report)
        self._uninstall_hooks: Callable[[], None] = install_exception_hooks()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch the event loop for the time of the block, then send out all that is buffered."""
        uninstall = install_loop_hook(asyncio.get_running_loop())
        try:
            async with monitor_event_loop():
                yield
        finally:
            uninstall()
            await self.flush()
            self._uninstall_hooks()

    async def flush(self) -> None:
        """Send spans, error reports and logs, side by side and for FLUSH_SECONDS at the most."""
        await asyncio.gather(
            asyncio.to_thread(self.tracing.shutdown, FLUSH_SECONDS),
            asyncio.to_thread(flush_errors, FLUSH_SECONDS),
        )
        atexit.unregister(flush_errors)  # done: a dead server must not be waited for a second time
        logger.bind(type="lifecycle").info("telemetry flushed")
        await asyncio.to_thread(flush_logs, LAST_LINES_SECONDS)

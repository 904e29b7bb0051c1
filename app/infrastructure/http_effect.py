"""Whether a failed call may have had an effect on the other side.

Whoever charges a card has to know. The only certainty that exists is on our side: before the first byte
was handed to the socket, nothing can have happened. So `SentObserver` watches that moment in httpcore's
trace, instead of guessing from the type of the exception:
- `NotSent`: on no attempt can a byte of the request have left, so the other side has not acted;
- `OutcomeUnknown`: on some attempt it may have. That an answer came (429, 5xx) does not change this: a
  server may fail after it acted, and a gateway does not know.

Must never call a request "not sent" on a mere likelihood.
"""

from typing import Any, Literal

import httpx2

Outcome = Literal[
    "success", "client_error", "server_error", "timeout", "connection_error", "circuit_open"
]


class ExternalError(Exception):
    """A call failed for good.

    Attributes:
        dependency: Who was called.
        outcome: How the last attempt ended.
        response: The last attempt's answer (429 or 5xx), if there was one.
        retry_after: Seconds after which it may be worth trying again, if known.
    """

    def __init__(
        self,
        dependency: str,
        outcome: Outcome,
        *,
        response: httpx2.Response | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"call to {dependency} failed: {outcome}")
        self.dependency = dependency
        self.outcome = outcome
        self.response = response
        self.retry_after = retry_after


class NotSent(ExternalError):
    """Nothing of the request has left this process, on any attempt: it had no effect."""


class OutcomeUnknown(ExternalError):
    """The request, or a part of it, may have arrived: it may or may not have had its effect."""


_BEFORE_SENDING = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class SentObserver:
    """Watches attempts to send one request.

    Args:
        is_network: Whether the transport is httpcore's, which reports what it does. Of any other one
            only the types of its exceptions are known.
    """

    def __init__(self, *, is_network: bool) -> None:
        self._is_network = is_network
        self.may_have_left = False
        """Whether on any attempt so far a byte of the request may have left this process."""

    def watch(self, request: httpx2.Request) -> None:
        """Ask the transport to report on the attempt that follows."""
        request.extensions["trace"] = self._on_event

    def ended(self, error: BaseException | None) -> None:
        """Note how an attempt ended."""
        if error is None or not (self._is_network or isinstance(error, _BEFORE_SENDING)):
            self.may_have_left = True

    async def _on_event(self, event: str, _details: dict[str, Any]) -> None:
        # The last event before the first write, whether HTTP/1.1, HTTP/2 or to a proxy.
        if event.endswith("send_request_headers.started"):
            self.may_have_left = True

"""Calls to other services over HTTP: bounded in time, retried where that is safe, honest about the effect.

A call is up to `external_attempts` attempts within one deadline, each through the dependency's circuit
breaker (it sees attempts, not calls: an open circuit ends the retries, and a probe is one request).
It returns a response, or raises `NotSent` or `OutcomeUnknown` (http_effect.py). Any answer but 429 and
5xx is returned, 4xx included: what it means is the domain's to say. A cancelled call is cancelled: its
outcome is as unknown as OutcomeUnknown's.

What is tried again, and when, is said in http_retry.py.

Signals, per attempt: `external_requests_total{dependency,outcome}`, `external_request_duration_seconds
{dependency}`, `external_retries_total{dependency}`, a client span; per failed call one log line (type
`external`).

Must never log a body, a header or a query value, and must never follow a redirect by itself.
"""

import asyncio
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, get_args

import httpx2
import stamina
import stamina.instrumentation
from loguru import logger
from prometheus_client import Counter, Histogram
from pydantic import Field

from app.infrastructure.circuit_breaker import CircuitBreaker, CircuitOpen
from app.infrastructure.http_effect import (
    ExternalError,
    NotSent,
    Outcome,
    OutcomeUnknown,
    SentObserver,
)
from app.infrastructure.http_retry import (
    IDEMPOTENT_METHODS,
    RetrySettings,
    retry_after_seconds,
    wait_before_next,
)
from app.observability.context import REQUEST_ID_HEADER, current_context
from app.observability.redaction import redact_url
from app.observability.tracing import trace_http_client, untraced

external_requests_total = Counter(
    "external_requests_total",
    "Attempts to call a dependency, by outcome.",
    ["dependency", "outcome"],
)
external_request_duration_seconds = Histogram(
    "external_request_duration_seconds",
    "Time of one attempt until the whole answer was read or it failed.",
    ["dependency"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
external_retries_total = Counter(
    "external_retries_total", "Attempts after the first one of a call.", ["dependency"]
)


class HttpClientSettings(RetrySettings):
    """How patient this service is with others."""

    external_connect_timeout_seconds: float = Field(1.0, gt=0)
    external_read_timeout_seconds: float = Field(3.0, gt=0, description="Between two packets.")
    external_write_timeout_seconds: float = Field(2.0, gt=0)
    external_pool_timeout_seconds: float = Field(1.0, gt=0, description="Wait for a connection.")
    external_max_connections: int = Field(50, ge=1, description="Per dependency.")
    circuit_failure_threshold: int = Field(5, ge=1, description="Failures in a row that open it.")
    circuit_recovery_seconds: float = Field(10.0, gt=0, description="How long it then stays open.")


class _FailedAnswer(Exception):
    """A 5xx, as an exception for the circuit breaker."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(str(response.status_code))
        self.response = response


BLAMED_ON_DEPENDENCY = (
    _FailedAnswer,
    TimeoutError,  # the call's deadline
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.ReadError,
    httpx2.ReadTimeout,
    httpx2.WriteError,
    httpx2.WriteTimeout,
    httpx2.RemoteProtocolError,
    httpx2.ProxyError,
    httpx2.DecodingError,
)
"""Not among them: PoolTimeout (our own pool is too small), a 429 (it works, and we ask too much)."""


class ExternalClient:
    """The way to one dependency.

    Args:
        dependency: Label of its metrics and name of its circuit: a fixed word.
        base_url: What the paths of calls are relative to.
        transport: Instead of the network, for an application in this process.
    """

    def __init__(
        self,
        dependency: str,
        base_url: str,
        settings: HttpClientSettings,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.dependency = dependency
        self._settings = settings
        self._is_network = transport is None
        connections = settings.external_max_connections
        self._client = httpx2.AsyncClient(
            base_url=base_url,
            transport=transport,
            timeout=httpx2.Timeout(
                connect=settings.external_connect_timeout_seconds,
                read=settings.external_read_timeout_seconds,
                write=settings.external_write_timeout_seconds,
                pool=settings.external_pool_timeout_seconds,
            ),
            limits=httpx2.Limits(
                max_connections=connections,
                max_keepalive_connections=connections,
                # Below the 5 s after which uvicorn, among others, closes: a request sent into a closing
                # connection is lost, and its outcome unknown.
                keepalive_expiry=3.0,
            ),
            follow_redirects=False,
        )
        trace_http_client(self._client)
        self._breaker = CircuitBreaker(
            dependency,
            failures=BLAMED_ON_DEPENDENCY,
            failure_threshold=settings.circuit_failure_threshold,
            recovery_seconds=settings.circuit_recovery_seconds,
            probe_seconds=settings.external_deadline_seconds,
        )
        self._outcomes = {
            outcome: external_requests_total.labels(dependency, outcome)
            for outcome in get_args(Outcome)
        }
        self._duration = external_request_duration_seconds.labels(dependency)
        self._retries = external_retries_total.labels(dependency)
        # stamina's own hooks would count and log every retry a second time, without the dependency.
        stamina.instrumentation.set_on_retry_hooks([])

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = False,
        deadline_seconds: float | None = None,
    ) -> httpx2.Response:
        """Return the answer: any status but 429 and 5xx, the whole body read.

        Args:
            method: In capitals.
            path: Relative to the base URL.
            json: The body.
            params: The query.
            headers: More headers; X-Request-ID and the trace's are added.
            idempotent: The other side acts once however often it receives this (for a method that
                does not say so already).
            deadline_seconds: For the whole call, instead of `external_deadline_seconds`.

        Raises:
            NotSent: It had no effect.
            OutcomeUnknown: It may have had its effect.
        """
        call = _Call(
            request=self._client.build_request(
                method, path, json=json, params=params, headers=self._headers(headers)
            ),
            sent=SentObserver(is_network=self._is_network),
            is_idempotent=idempotent or method in IDEMPOTENT_METHODS,
            seconds=deadline_seconds or self._settings.external_deadline_seconds,
        )
        try:
            async for attempt in stamina.retry_context(
                on=lambda error: self._wait_before_next(call, error),
                attempts=self._settings.external_attempts,
                timeout=None,
            ):
                with attempt:
                    return await self._attempt(call)
        except ExternalError as error:
            self._log_failure(call, error)
            raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def ping(self, path: str) -> None:
        """Ask for `path` once, for a health check; raises httpx2.HTTPError unless the answer is 2xx.

        Outside of metrics, traces and the circuit: a health endpoint that answers says nothing about
        the calls that the circuit protects, and must not close it.
        """
        with untraced():
            response = await self._client.get(path)
        response.raise_for_status()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def _headers(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        context = current_context()
        request_id = {REQUEST_ID_HEADER: context.request_id} if context else {}
        return {**(headers or {}), **request_id}

    async def _attempt(self, call: "_Call") -> httpx2.Response:
        call.attempts += 1
        if call.attempts > 1:
            self._retries.inc()
        started = time.perf_counter()
        try:
            with self._breaker.attempt():
                try:
                    response = await self._send(call)
                finally:
                    self._duration.observe(time.perf_counter() - started)
        except CircuitOpen as error:
            raise self._failure(call, "circuit_open", retry_after=error.retry_after) from error
        except _FailedAnswer as error:
            raise self._failure(call, "server_error", error.response) from None
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise self._failure(call, "timeout") from error
        except httpx2.RequestError as error:
            raise self._failure(call, "connection_error") from error
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise self._failure(call, "client_error", response)
        outcome: Outcome = "client_error" if response.is_client_error else "success"
        self._outcomes[outcome].inc()
        return response

    async def _send(self, call: "_Call") -> httpx2.Response:
        seconds_left = call.seconds_left()
        call.sent.watch(call.request)
        call.request.extensions["timeout"] = self._phases(seconds_left)
        try:
            async with asyncio.timeout(seconds_left):
                response = await self._client.send(call.request)
        except BaseException as error:
            call.sent.ended(error)
            raise
        call.sent.ended(None)
        if response.is_server_error:
            raise _FailedAnswer(response)
        return response

    def _phases(self, seconds_left: float) -> dict[str, float | None]:
        # Waiting for a connection, TCP and TLS have a third of the rest at most, so that they end by
        # their own time-outs: httpcore leaks the socket when a TLS handshake is cancelled from outside.
        timeout, third = self._client.timeout, seconds_left / 3
        before_sending = {
            "pool": min(timeout.pool or third, third),
            "connect": min(timeout.connect or third, third),
        }
        return timeout.as_dict() | before_sending

    def _failure(
        self,
        call: "_Call",
        outcome: Outcome,
        response: httpx2.Response | None = None,
        *,
        retry_after: float | None = None,
    ) -> ExternalError:
        self._outcomes[outcome].inc()
        if response is not None:
            retry_after = retry_after_seconds(response)
        kind = OutcomeUnknown if call.sent.may_have_left else NotSent
        return kind(self.dependency, outcome, response=response, retry_after=retry_after)

    def _wait_before_next(self, call: "_Call", error: Exception) -> float | bool:
        return wait_before_next(
            error,
            self._settings,
            attempts=call.attempts,
            may_have_left=call.sent.may_have_left,
            is_idempotent=call.is_idempotent,
            seconds_left=call.seconds_left(),
        )

    def _log_failure(self, call: "_Call", error: ExternalError) -> None:
        cause = error.__cause__
        logger.bind(
            type="external",
            dependency=self.dependency,
            outcome=error.outcome,
            effect="none" if isinstance(error, NotSent) else "unknown",
            status=error.response.status_code if error.response is not None else None,
            error=type(cause).__name__ if cause is not None else None,
            method=call.request.method,
            url=redact_url(str(call.request.url)),
            attempts=call.attempts,
            duration_ms=round((time.monotonic() - call.started) * 1000, 1),
        ).warning("external call failed")


class _Call:
    """One call under way."""

    def __init__(
        self, *, request: httpx2.Request, sent: SentObserver, is_idempotent: bool, seconds: float
    ) -> None:
        self.request = request
        self.sent = sent
        self.is_idempotent = is_idempotent
        self.attempts = 0
        self.started = time.monotonic()
        self._seconds = seconds

    def seconds_left(self) -> float:
        return self.started + self._seconds - time.monotonic()

"""Calls to other services as a specification, over real sockets to a server that does what it is told."""

import asyncio
import datetime as dt
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
import stamina.instrumentation
import time_machine
from prometheus_client import REGISTRY

from app.infrastructure.http_client import ExternalClient, HttpClientSettings
from app.infrastructure.http_effect import ExternalError, NotSent, OutcomeUnknown
from app.infrastructure.http_retry import RetrySettings, retry_after_seconds, wait_before_next
from app.observability.context import RequestContext, bind_context
from tests.tools import free_port

SHORT = 0.05
"""Seconds after which to give up what cannot succeed, however slow the machine is."""


@dataclass
class Request:
    """What the server received."""

    line: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: str = "{}", **headers: str) -> Behaviour:
    """Answer properly."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        head = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        head |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"HTTP/1.1 {status} Some", *(f"{name}: {head[name]}" for name in head)]
        writer.write("\r\n".join([*lines, "", body]).encode())
        await writer.drain()

    return behave


async def hang(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def let_time_pass(seconds: float = 1000) -> None:
    """Let more time pass than anybody waits, once whoever waits has begun to: our loop is the client's."""
    loop = asyncio.get_running_loop()
    for _ in range(20):
        await asyncio.sleep(0)
    real_time = loop.time
    vars(loop)["time"] = lambda: real_time() + seconds


async def outlast(writer: asyncio.StreamWriter) -> None:
    """Never answer, for longer than the client waits."""
    await let_time_pass()
    await asyncio.Event().wait()


async def outlast_in_the_body(writer: asyncio.StreamWriter) -> None:
    """Begin to answer."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    while True:
        await let_time_pass()


async def close(writer: asyncio.StreamWriter) -> None:
    """Close the connection instead of an answer."""
    writer.close()


async def talk_nonsense(writer: asyncio.StreamWriter) -> None:
    """Answer with something that is not HTTP."""
    writer.write(b"?\r\n\r\n")
    await writer.drain()


@dataclass
class Server:
    """Behaves as told, one behaviour a request; then answers 200."""

    behaviours: list[Behaviour] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    received: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := (await reader.readline()).decode().strip():
                headers = {}
                while header := (await reader.readline()).decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append(Request(line, headers, body))
                self.received.set()
                behave = self.behaviours.pop(0) if self.behaviours else answer(200)
                await behave(writer)
        finally:
            writer.close()


@asynccontextmanager
async def serving(*behaviours: Behaviour) -> AsyncIterator[Server]:
    """Run a server on the loopback."""
    scripted = Server(list(behaviours))
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.create_task(scripted.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    scripted.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield scripted
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@asynccontextmanager
async def client_of(
    url: str, *, transport: httpx2.AsyncBaseTransport | None = None, **settings: float
) -> AsyncIterator[ExternalClient]:
    """A client that does not wait between attempts and is patient with a slow machine, unless told."""
    values: dict[str, Any] = {
        "external_backoff_seconds": 1e-6,
        "external_deadline_seconds": 60,
        "external_connect_timeout_seconds": 60,
        "external_read_timeout_seconds": 60,
        "external_write_timeout_seconds": 60,
        "external_pool_timeout_seconds": 60,
    }
    client = ExternalClient(
        "shop", url, HttpClientSettings(**values | settings), transport=transport
    )
    yield client
    await client.aclose()


def attempts(outcome: str) -> float:
    labels = {"dependency": "shop", "outcome": outcome}
    return REGISTRY.get_sample_value("external_requests_total", labels) or 0.0


def sample(name: str) -> float:
    return REGISTRY.get_sample_value(name, {"dependency": "shop"}) or 0.0


def unused_url() -> str:
    return f"http://127.0.0.1:{free_port()}"


# What is returned -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 303, 400, 404, 409, 422])
async def test_an_answer_that_says_something_is_returned(status: int) -> None:
    async with serving(answer(status, Location="/elsewhere")) as server, client_of(server.url) as c:
        response = await c.call("POST", "/v1/charges", json={"amount": 5})
    assert response.status_code == status
    assert [request.line for request in server.requests] == ["POST /v1/charges HTTP/1.1"]
    assert server.requests[0].body == b'{"amount":5}'


async def test_the_request_id_goes_along() -> None:
    async with serving() as server, client_of(server.url) as client:
        with bind_context(RequestContext("0123456789abcdef")):
            await client.call("GET", "/", headers={"Idempotency-Key": "key-1"})
        await client.call("GET", "/")
    first, second = server.requests
    assert first.headers["x-request-id"] == "0123456789abcdef"
    assert first.headers["idempotency-key"] == "key-1"
    assert "x-request-id" not in second.headers


# What had no effect, and what may have had one ------------------------------------------------------


async def test_a_refused_connection_is_not_sent() -> None:
    async with client_of(unused_url()) as client:
        with pytest.raises(NotSent) as failed:
            await client.call("POST", "/v1/charges")
    assert failed.value.outcome == "connection_error"


async def test_what_the_network_reports_no_sending_of_is_not_sent_whatever_the_error() -> None:
    async with client_of("ftp://127.0.0.1") as client:
        with pytest.raises(NotSent) as failed:
            await client.call("POST", "/v1/charges")
    assert isinstance(failed.value.__cause__, httpx2.UnsupportedProtocol)


async def test_a_connection_that_is_never_established_is_not_sent() -> None:
    """TCP is accepted by the kernel, but nobody answers the TLS handshake."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        async with client_of(url, external_connect_timeout_seconds=SHORT) as client:
            with pytest.raises(NotSent) as failed:
                await client.call("POST", "/v1/charges")
    assert failed.value.outcome == "timeout"


async def test_a_deadline_that_ends_while_connecting_is_not_sent_and_leaks_no_socket() -> None:
    async def begin_a_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await let_time_pass(150)  # more than the third of the deadline that a connection may take
        await let_time_pass(1000)
        with suppress(ConnectionError):
            await reader.read()
        is_closed.set()
        writer.close()

    is_closed = asyncio.Event()
    server = await asyncio.start_server(begin_a_handshake, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with (
        server,
        client_of(url, external_connect_timeout_seconds=5000, external_attempts=1) as client,
    ):
        with pytest.raises(NotSent) as failed:
            await client.call("POST", "/v1/charges", deadline_seconds=300)
        await is_closed.wait()  # for ever, if the socket is left open
    assert failed.value.outcome == "timeout"
    del failed
    gc.collect()  # whatever else was left open warns when it is collected, and warnings are errors


@pytest.mark.parametrize(("pool_timeout", "deadline"), [(100, 5000), (5000, 300)])
async def test_waiting_in_vain_for_a_connection_is_not_sent_and_not_the_dependencys_fault(
    pool_timeout: float, deadline: float
) -> None:
    async with (
        serving(hang) as server,
        client_of(
            server.url,
            external_max_connections=1,
            external_pool_timeout_seconds=pool_timeout,
            external_read_timeout_seconds=50_000,
            external_deadline_seconds=50_000,
            external_attempts=1,
            circuit_failure_threshold=1,
        ) as client,
    ):
        first = asyncio.create_task(client.call("GET", "/"))
        await server.received.wait()
        for _ in range(2):
            time = asyncio.create_task(let_time_pass(150))
            with pytest.raises(NotSent) as failed:
                await client.call("POST", "/v1/charges", deadline_seconds=deadline)
            await time
            assert failed.value.outcome == "timeout"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert len(server.requests) == 1


@pytest.mark.parametrize("behaviour", [close, talk_nonsense], ids=lambda found: found.__name__)
async def test_a_connection_lost_after_sending_is_unknown(behaviour: Behaviour) -> None:
    async with serving(behaviour) as server, client_of(server.url) as client:
        with pytest.raises(OutcomeUnknown) as failed:
            await client.call("POST", "/v1/charges")
    assert failed.value.outcome == "connection_error"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "behaviour", [outlast, outlast_in_the_body], ids=lambda found: found.__name__
)
@pytest.mark.parametrize(("read_timeout", "deadline"), [(500, 5000), (5000, 500)])
async def test_an_answer_that_does_not_come_is_unknown(
    behaviour: Behaviour, read_timeout: float, deadline: float
) -> None:
    async with (
        serving(behaviour) as server,
        client_of(server.url, external_read_timeout_seconds=read_timeout) as client,
    ):
        with pytest.raises(OutcomeUnknown) as failed:
            await client.call("POST", "/v1/charges", deadline_seconds=deadline)
    assert failed.value.outcome == "timeout"
    assert len(server.requests) == 1


async def test_a_body_that_was_sent_in_part_is_unknown() -> None:
    async def stop_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.transport.abort()

    server = await asyncio.start_server(stop_reading, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, client_of(url) as client:
        with pytest.raises(OutcomeUnknown):
            await client.call("POST", "/v1/charges", json={"note": "x" * 10_000_000})


@pytest.mark.parametrize(
    ("status", "outcome"), [(429, "client_error"), (500, "server_error"), (503, "server_error")]
)
async def test_an_answer_that_says_nothing_about_the_effect_is_unknown(
    status: int, outcome: str
) -> None:
    async with serving(answer(status, Retry_After="7")) as server, client_of(server.url) as client:
        with pytest.raises(OutcomeUnknown) as failed:
            await client.call("POST", "/v1/charges")
    assert failed.value.response is not None
    assert failed.value.response.status_code == status
    assert failed.value.retry_after == 7
    assert failed.value.outcome == outcome


async def test_one_attempt_that_may_have_arrived_makes_the_whole_call_unknown() -> None:
    listener = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"

    async def close_for_good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        server.close()
        writer.close()

    listener.close()
    await listener.wait_closed()
    server = await asyncio.start_server(close_for_good, "127.0.0.1", int(url.rpartition(":")[2]))
    async with client_of(url) as client:
        with pytest.raises(OutcomeUnknown) as failed:
            await client.call("POST", "/v1/charges", idempotent=True)
    assert failed.value.outcome == "connection_error"
    assert isinstance(failed.value.__cause__, httpx2.ConnectError)


async def test_an_open_circuit_is_not_sent() -> None:
    async with (
        serving(answer(500)) as server,
        client_of(server.url, circuit_failure_threshold=1, circuit_recovery_seconds=1000) as client,
    ):
        with pytest.raises(OutcomeUnknown):
            await client.call("POST", "/v1/charges")
        with pytest.raises(NotSent) as failed:
            await client.call("POST", "/v1/charges")
    assert failed.value.outcome == "circuit_open"
    assert failed.value.retry_after is not None
    assert 0 < failed.value.retry_after <= 1000
    assert len(server.requests) == 1


async def test_a_circuit_that_opens_between_attempts_ends_the_call_as_unknown() -> None:
    async with (
        serving(answer(503)) as server,
        client_of(server.url, circuit_failure_threshold=1) as client,
    ):
        with pytest.raises(OutcomeUnknown) as failed:
            await client.call("GET", "/")
    assert failed.value.outcome == "circuit_open"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx2.ConnectError("no"), NotSent),
        (httpx2.ConnectTimeout("no"), NotSent),
        (httpx2.PoolTimeout("no"), NotSent),
        (httpx2.ReadTimeout("no"), OutcomeUnknown),
        (httpx2.WriteError("no"), OutcomeUnknown),
        (httpx2.RemoteProtocolError("no"), OutcomeUnknown),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
async def test_of_a_transport_that_reports_nothing_only_the_exception_is_believed(
    error: Exception, expected: type[ExternalError]
) -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        raise error

    transport = httpx2.MockTransport(handle)
    async with client_of("http://shop", transport=transport) as client:
        with pytest.raises(expected):
            await client.call("POST", "/")


async def test_an_answer_of_a_transport_that_reports_nothing_was_asked_for() -> None:
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(503))
    async with client_of("http://shop", transport=transport) as client:
        with pytest.raises(OutcomeUnknown):
            await client.call("POST", "/")


async def test_of_a_transport_that_reports_nothing_a_deadline_is_unknown() -> None:
    async def handle(request: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    transport = httpx2.MockTransport(handle)
    async with client_of("http://shop", transport=transport) as client:
        with pytest.raises(OutcomeUnknown):
            await client.call("POST", "/", deadline_seconds=SHORT)


# What is tried again ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_passing_refusal_of_an_idempotent_call_is_tried_again(status: int) -> None:
    retries = sample("external_retries_total")
    async with serving(answer(status), answer(status)) as server, client_of(server.url) as client:
        response = await client.call("POST", "/v1/charges", json={"amount": 5}, idempotent=True)
    assert response.status_code == 200
    assert [request.body for request in server.requests] == [b'{"amount":5}'] * 3
    assert sample("external_retries_total") == retries + 2


@pytest.mark.parametrize("behaviour", [close, outlast], ids=lambda found: found.__name__)
async def test_a_lost_answer_to_an_idempotent_call_is_tried_again(behaviour: Behaviour) -> None:
    async with (
        serving(behaviour) as server,
        client_of(server.url, external_deadline_seconds=5000) as client,
    ):
        response = await client.call("POST", "/v1/charges", idempotent=True)
    assert response.status_code == 200
    assert len(server.requests) == 2


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_some_methods_are_idempotent_by_themselves(method: str) -> None:
    async with serving(answer(503)) as server, client_of(server.url) as client:
        assert (await client.call(method, "/")).status_code == 200


async def test_a_server_error_is_not_tried_again() -> None:
    async with serving(answer(500)) as server, client_of(server.url) as client:
        with pytest.raises(OutcomeUnknown):
            await client.call("GET", "/")
    assert len(server.requests) == 1


async def test_what_was_not_sent_is_tried_again_whatever_it_is() -> None:
    retries = sample("external_retries_total")
    async with client_of(unused_url(), external_attempts=3) as client:
        with pytest.raises(NotSent):
            await client.call("POST", "/v1/charges")
    assert sample("external_retries_total") == retries + 2


async def test_attempts_are_bounded() -> None:
    behaviours = [answer(503)] * 10
    async with (
        serving(*behaviours) as server,
        client_of(server.url, external_attempts=4, circuit_failure_threshold=99) as client,
    ):
        with pytest.raises(OutcomeUnknown):
            await client.call("GET", "/")
    assert len(server.requests) == 4


async def test_a_retry_after_beyond_the_deadline_ends_the_call_at_once() -> None:
    async with serving(answer(503, Retry_After="61")) as server, client_of(server.url) as client:
        with pytest.raises(OutcomeUnknown) as failed:
            await client.call("GET", "/")
    assert failed.value.retry_after == 61
    assert len(server.requests) == 1


async def test_a_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    real_sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await real_sleep(0)

    async with serving(answer(503, Retry_After="30")) as server, client_of(server.url) as client:
        monkeypatch.setattr(asyncio, "sleep", note)
        await client.call("GET", "/")
        monkeypatch.undo()
    assert 30 in waits


def failure(*, retry_after: float | None = None) -> ExternalError:
    return NotSent("shop", "connection_error", retry_after=retry_after)


PATIENCE = RetrySettings(external_backoff_seconds=0.1, external_backoff_max_seconds=2.0)


def wait(attempts: int, *, seconds_left: float = 60, retry_after: float | None = None) -> Any:
    return wait_before_next(
        failure(retry_after=retry_after),
        PATIENCE,
        attempts=attempts,
        may_have_left=False,
        is_idempotent=False,
        seconds_left=seconds_left,
    )


@pytest.mark.parametrize(("attempts", "bound"), [(1, 0.1), (2, 0.2), (3, 0.4), (6, 2.0), (10, 2.0)])
def test_waits_are_spread_from_zero_to_a_bound_that_doubles(attempts: int, bound: float) -> None:
    waits = [wait(attempts) for _ in range(1000)]
    assert all(0 <= seconds <= bound for seconds in waits)
    assert min(waits) < bound / 10 < bound * 9 / 10 < max(waits)  # fails once in 10^45


def test_no_wait_is_shorter_than_retry_after_or_reaches_the_deadline() -> None:
    assert wait(1, retry_after=5) == 5
    assert wait(1, retry_after=5, seconds_left=5) is False
    assert wait(1, seconds_left=0) is False


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120), ("0", 0), ("", None), ("-1", None), ("soon", None), ("1.5", None)],
)
def test_retry_after_in_seconds(header: str, seconds: float | None) -> None:
    assert retry_after_seconds(httpx2.Response(503, headers={"Retry-After": header})) == seconds


def test_retry_after_as_a_date() -> None:
    now = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    headers = {"Retry-After": format_datetime(now + dt.timedelta(seconds=100), usegmt=True)}
    with time_machine.travel(now, tick=False):
        assert retry_after_seconds(httpx2.Response(503, headers=headers)) == 100
    past = httpx2.Response(503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    assert retry_after_seconds(past) == 0


# What the circuit learns ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 404, 422, 429])
async def test_a_dependency_that_answers_below_500_is_well(status: int) -> None:
    behaviours = [answer(500), answer(status), answer(500)]
    async with (
        serving(*behaviours) as server,
        client_of(server.url, circuit_failure_threshold=2, external_attempts=1) as client,
    ):
        for _ in range(3):
            try:
                await client.call("POST", "/")
            except OutcomeUnknown as error:
                assert error.outcome != "circuit_open"  # noqa: PT017 - of each of three calls
        assert (await client.call("POST", "/")).status_code == 200


async def test_a_cancelled_call_frees_the_probe_of_the_circuit() -> None:
    async with (
        serving(answer(500), hang) as server,
        client_of(server.url, circuit_failure_threshold=1, circuit_recovery_seconds=1e-9) as client,
    ):
        with pytest.raises(OutcomeUnknown):
            await client.call("POST", "/")
        server.received.clear()
        probe = asyncio.create_task(client.call("POST", "/"))
        await server.received.wait()
        with pytest.raises(NotSent):
            await client.call("POST", "/")
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert (await client.call("POST", "/")).status_code == 200


async def test_a_health_check_leaves_circuit_and_metrics_alone() -> None:
    answered = attempts("success"), attempts("server_error")
    async with (
        serving(answer(500), answer(200), answer(503)) as server,
        client_of(server.url, circuit_failure_threshold=1) as client,
    ):
        with pytest.raises(OutcomeUnknown):
            await client.call("POST", "/")
        await client.ping("/health")
        with pytest.raises(httpx2.HTTPStatusError):
            await client.ping("/health")
        with pytest.raises(NotSent):
            await client.call("POST", "/")
    assert (attempts("success"), attempts("server_error") - 1) == answered


# What is told ---------------------------------------------------------------------------------------


async def test_every_attempt_is_counted_by_outcome_and_timed() -> None:
    outcomes = [
        "success",
        "client_error",
        "server_error",
        "timeout",
        "connection_error",
        "circuit_open",
    ]
    before = {outcome: attempts(outcome) for outcome in outcomes}
    timed = sample("external_request_duration_seconds_count")
    behaviours = [answer(200), answer(404), answer(503), answer(200), close, outlast, answer(500)]
    async with (
        serving(*behaviours) as server,
        client_of(server.url, circuit_failure_threshold=3) as client,
    ):
        await client.call("GET", "/")
        await client.call("GET", "/")
        await client.call("GET", "/")  # 503, then 200
        for expected in ("connection_error", "timeout", "server_error", "circuit_open"):
            with pytest.raises(ExternalError) as failed:
                await client.call("POST", "/")
            assert failed.value.outcome == expected
    assert {outcome: attempts(outcome) - before[outcome] for outcome in outcomes} == {
        "success": 2,
        "client_error": 1,
        "server_error": 2,
        "timeout": 1,
        "connection_error": 1,
        "circuit_open": 1,
    }
    assert sample("external_request_duration_seconds_count") == timed + 7


async def test_a_failed_call_is_logged_once_without_its_secrets(
    log_records: list[dict[str, Any]],
) -> None:
    async with (
        serving(answer(503, '{"echo": "s3cret"}'), answer(503)) as server,
        client_of(server.url, external_attempts=2) as client,
    ):
        with pytest.raises(OutcomeUnknown):
            await client.call(
                "POST",
                "/v1/charges",
                json={"token": "s3cret"},
                params={"q": "s3cret"},
                headers={"Authorization": "Bearer s3cret"},
                idempotent=True,
            )
    [line] = log_records
    assert line["message"] == "external call failed"
    told = line["extra"]
    assert (told["type"], told["dependency"], told["effect"]) == ("external", "shop", "unknown")
    assert (told["outcome"], told["status"], told["attempts"]) == ("server_error", 503, 2)
    assert told["url"].startswith(f"{server.url}/v1/charges?q=")
    assert "s3cret" not in str(told)


async def test_a_call_that_succeeds_after_a_retry_is_not_logged(
    log_records: list[dict[str, Any]],
) -> None:
    async with serving(answer(503)) as server, client_of(server.url) as client:
        await client.call("GET", "/")
    assert log_records == []


async def test_retries_are_not_counted_a_second_time_by_the_library() -> None:
    async with client_of(unused_url()):
        assert stamina.instrumentation.get_on_retry_hooks() == ()

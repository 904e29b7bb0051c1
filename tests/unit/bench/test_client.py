"""The client, against small servers of this process that answer as they are told."""

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bench import client as client_module
from bench.client import _arrivals, connected, request
from bench.interruption import run
from bench.process import NotMeasurable
from tests.tools import free_port

PONG = b"HTTP/1.1 200 OK\r\ndate: today\r\nContent-Length: 4\r\n\r\npong"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[int]:
    """Yield the port of a server that answers each request so."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield port
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)


def says(*parts: bytes) -> Answer:
    """Return what answers with these, one write each."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return answer


async def ask(answer: Answer, expected: int = 200) -> list[float]:
    async with served(answer) as port, connected(port, 2) as client:
        return await client.burst(lambda: request("GET", "/", port), expected, 0.02)


async def test_a_burst_asks_again_and_again_on_every_connection() -> None:
    durations = await ask(says(PONG))

    assert len(durations) > 4
    assert all(duration > 0 for duration in durations)


@pytest.mark.parametrize(
    "parts",
    [
        (PONG[:20], PONG[20:45], PONG[45:]),
        (PONG[:-4], PONG[-4:-1], PONG[-1:]),
        (b"HTTP/1.1 200 OK\r\nX-Content-Length: 9\r\ncontent-length: 0\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nserver: a\r\n\r\n",),
    ],
)
async def test_an_answer_may_come_in_any_pieces(parts: tuple[bytes, ...]) -> None:
    assert len(await ask(says(*parts))) > 4


async def test_another_status_than_expected_is_an_error() -> None:
    with pytest.raises(NotMeasurable, match="answered 500 instead of 200"):
        await ask(says(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"))


async def test_an_answer_in_chunks_is_an_error_and_not_misread() -> None:
    with pytest.raises(NotMeasurable, match="in chunks"):
        await ask(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npong\r\n"))


async def test_a_server_that_hangs_up_is_an_error() -> None:
    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.close()

    with pytest.raises(NotMeasurable, match="closed the connection"):
        await ask(hang_up)


async def test_a_connection_that_was_closed_before_it_is_asked_is_an_error() -> None:
    async with served(says(PONG)) as port, connected(port, 1) as client:
        client._connections[0].close()
        await asyncio.sleep(0)
        with pytest.raises(NotMeasurable, match="closed the connection"):
            await client.burst(lambda: request("GET", "/", port), 200, 0.02)


async def test_a_server_that_never_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.05)

    with pytest.raises(NotMeasurable, match="no answer within"):
        await ask(says())


def test_arrivals_are_the_same_for_every_variant_and_as_many_as_the_rate_says() -> None:
    arrivals = list(_arrivals(100, 50, seed=1))

    assert arrivals == list(_arrivals(100, 50, seed=1)) != list(_arrivals(100, 50, seed=2))
    assert arrivals == sorted(arrivals)
    assert 0 < arrivals[0] < arrivals[-1] < 50
    assert len(arrivals) == pytest.approx(5000, abs=5 * 5000**0.5)


async def test_a_server_that_stalls_is_charged_for_all_who_would_have_asked_meanwhile() -> None:
    """Without it, two requests would be slow, and the others asked after the stall: quick."""
    due = list(_arrivals(200, 0.25, seed=3))
    loop = asyncio.get_running_loop()
    released = asyncio.Event()
    moments: list[float] = []

    async def stall(writer: asyncio.StreamWriter) -> None:
        if not moments:
            loop.call_later(0.3, released.set)
        moments.append(loop.time())
        await released.wait()
        writer.write(PONG)

    async with served(stall) as port, connected(port, 2) as client:
        durations = await client.at_rate(lambda: request("GET", "/", port), 200, 0.25, 200, seed=3)

    began = moments[0] - due[0]  # or before
    waited = [moments[0] + 0.3 - began - one for one in due[2:]]
    assert len(durations) == len(due) > 20
    assert sum(sorted(durations)[: len(waited)]) > 0.9 * sum(waited) > 1


def test_a_request_is_what_a_browser_sends() -> None:
    asked = request("POST", "/v1/orders", 8000, token="abc", body=b"{}")

    head, _, body = asked.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n")
    assert b"\r\nAuthorization: Bearer abc\r\n" in head
    assert head.endswith(b"Content-Type: application/json\r\nContent-Length: 2")
    assert body == b"{}"
    assert b"Content-Length" not in request("GET", "/", 8000)


def test_at_a_rate_the_timers_are_to_the_microsecond() -> None:
    assert run(_selects(), to_the_microsecond=True)
    assert not run(_selects())


async def _selects() -> bool:
    """Whether the loop waits by select(2), whose time-out counts microseconds."""
    selector = getattr(asyncio.get_running_loop(), "_selector", None)
    return isinstance(selector, selectors.SelectSelector)

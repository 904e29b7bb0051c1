"""Asks one server as fast as it answers, or at a fixed rate, over connections that stay open.

It speaks just the HTTP/1.1 that uvicorn answers with (a Content-Length, no trailers): a client that does
everything would use more CPU than the server that is measured. A status that was not expected, a closed
connection and a long silence end it with NotMeasurable.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from bench.process import NotMeasurable

_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length: "
_CHUNKED = b"\r\ntransfer-encoding:"
SILENCE_SECONDS = 30.0
"""A server that has not answered by then never will."""


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._missing = 0
        self._status = 0
        self._answered: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(f"the server closed the connection{f': {exc!r}' if exc else ''}")

    def _fail(self, sentence: str) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(NotMeasurable(sentence))

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        """Send a request; the future is done with the status when the whole answer is here."""
        if self._transport is None:
            raise NotMeasurable("the server closed the connection")
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._buffer += data
            end = self._buffer.find(_END)
            if end < 0:
                return
            head = self._buffer[:end].lower() + b"\r"
            if _CHUNKED in head:
                self._fail("the server answered in chunks, which this client does not read")
                return
            at = head.find(_LENGTH) + len(_LENGTH)
            length = int(head[at : head.find(b"\r", at)]) if at >= len(_LENGTH) else 0
            self._status = int(self._buffer[9:12])
            self._missing = length - (len(self._buffer) - end - len(_END))
            self._buffer = b""
        if self._missing <= 0 and self._answered is not None and not self._answered.done():
            self._missing = 0
            self._answered.set_result(self._status)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Client:
    """Some connections to one server."""

    def __init__(self, connections: Sequence[_Connection]) -> None:
        self._connections = connections

    async def burst(self, make: Callable[[], bytes], expected: int, seconds: float) -> list[float]:
        """Ask on all connections without a pause; return the duration of each request in seconds."""
        durations: list[float] = []
        end = time.perf_counter() + seconds

        async def go_on(connection: _Connection) -> None:
            began = time.perf_counter()
            while began < end:
                _check(await connection.ask(make()), expected)
                now = time.perf_counter()
                durations.append(now - began)
                began = now

        await self._all(go_on, seconds)
        return durations

    async def _all(
        self, go_on: Callable[[_Connection], Coroutine[Any, Any, None]], seconds: float
    ) -> None:
        tasks = [asyncio.create_task(go_on(connection)) for connection in self._connections]
        try:
            async with asyncio.timeout(seconds + SILENCE_SECONDS):
                await asyncio.gather(*tasks)
        except TimeoutError:
            raise NotMeasurable(f"no answer within {SILENCE_SECONDS:.0f} s") from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def at_rate(
        self, make: Callable[[], bytes], expected: int, seconds: float, rate: float, seed: int
    ) -> list[float]:
        """Ask `rate` times a second at random moments, whether or not the server keeps up.

        While a connection is free, a duration begins as the request is sent: what our own timer is late is
        not the server's. While all are waiting for the server, it begins when the request was due, so that a
        server that stalls is charged for all who would have asked meanwhile (no coordinated omission).
        """
        due = deque(_arrivals(rate, seconds, seed))
        durations: list[float] = []
        began = time.perf_counter()

        async def go_on(connection: _Connection) -> None:
            while due:
                moment = began + due.popleft()
                if (pause := moment - time.perf_counter()) > 0:
                    await asyncio.sleep(pause)
                    moment = time.perf_counter()
                _check(await connection.ask(make()), expected)
                durations.append(time.perf_counter() - moment)

        await self._all(go_on, seconds)
        return durations


def _arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    chance = random.Random(seed)  # noqa: S311 - arrivals, not a secret
    moment = chance.expovariate(rate)
    while moment < seconds:
        yield moment
        moment += chance.expovariate(rate)


def _check(status: int, expected: int) -> None:
    if status != expected:
        raise NotMeasurable(f"the server answered {status} instead of {expected}")


@asynccontextmanager
async def connected(port: int, connections: int) -> AsyncIterator[Client]:
    """Yield a client with so many connections to a server of this machine."""
    loop = asyncio.get_running_loop()
    opened: list[_Connection] = []
    try:
        for _ in range(connections):
            _, protocol = await loop.create_connection(_Connection, "127.0.0.1", port)
            opened.append(protocol)
        yield Client(opened)
    finally:
        for connection in opened:
            connection.close()


def request(method: str, path: str, port: int, *, token: str = "", body: bytes = b"") -> bytes:
    """Return a request as a browser behind a proxy would send it: the headers that cost something."""
    head = [
        f"{method} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
        "Accept: application/json",
        "Accept-Encoding: gzip, deflate, br",
        "Connection: keep-alive",
    ]
    if token:
        head.append(f"Authorization: Bearer {token}")
    if body:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body

"""The requests whose cost is counted, and how one is put to an ASGI application without a server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from fastapi import FastAPI

from tests.service import PASSWORD

ORDERS: Final = 60
"""More than a page of the list holds."""
EMAIL: Final = "ada@example.com"
_ORDER: Final = {
    "currency": "EUR",
    "lines": [{"sku": "TEA", "quantity": 1, "unit_amount": 2500}],
}


class Reply(NamedTuple):
    """What was answered."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, sent as often as wanted."""

    method: str
    path: str
    status: int = 200
    query: str = ""
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def __call__(self, app: FastAPI) -> Reply:
        """Send it; anything but the expected status is an error."""
        messages: list[Any] = [{"type": "http.request", "body": self.body, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            return await asyncio.Event().wait()  # the client stays

        parts: list[Any] = []

        async def send(message: Any) -> None:
            parts.append(message)

        await app(self._scope(), receive, send)
        body = b"".join(part.get("body", b"") for part in parts[1:])
        answer = Reply(parts[0]["status"], dict(parts[0]["headers"]), body)
        if answer.status != self.status:
            raise RuntimeError(f"{self.method} {self.path}: {answer.status} {body.decode()}")
        return answer

    def _scope(self) -> dict[str, Any]:
        headers = [(b"host", b"service"), (b"user-agent", b"cost/1.0"), (b"accept", b"*/*")]
        if self.body:
            headers.append((b"content-length", str(len(self.body)).encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query.encode(),
            "root_path": "",
            "headers": [*headers, *self.headers],
            "client": ("192.0.2.1", 50_000),
            "server": ("service", 80),
            "state": {},
        }


PING: Final = Ask("GET", "/ping")


@dataclass(slots=True)
class Requests:
    """What is asked, by name; `prepare` makes the account and the orders that some of it needs."""

    named: dict[str, Ask] = field(default_factory=dict)

    async def prepare(self, ask: Callable[[Ask], Awaitable[Reply]]) -> None:
        """Register, log in and place orders, through the API."""
        person = {"email": EMAIL, "password": PASSWORD, "name": "Ada"}
        await ask(_json("/v1/users", person))
        form = (b"content-type", b"application/x-www-form-urlencoded")
        credentials = urlencode({"username": EMAIL, "password": PASSWORD}).encode()
        log_in = Ask("POST", "/v1/auth/token", body=credentials, headers=(form,))
        token = json.loads((await ask(log_in)).body)["access_token"]
        bearer = (b"authorization", f"Bearer {token}".encode())
        create = _json("/v1/orders", _ORDER, bearer)
        for _ in range(ORDERS):
            order = json.loads((await ask(create)).body)["id"]
        self.named |= {
            "ping": PING,
            "unmatched": Ask("GET", "/no/such/path", 404),
            "read_order": Ask("GET", f"/v1/orders/{order}", headers=(bearer,)),
            "list_orders": Ask("GET", "/v1/orders", query="limit=50", headers=(bearer,)),
            "create_order": create,
            "log_in": log_in,
            "live": Ask("GET", "/health/live"),
            "metrics": Ask("GET", "/metrics"),
        }


def _json(path: str, body: Any, *headers: tuple[bytes, bytes]) -> Ask:
    json_type = (b"content-type", b"application/json")
    encoded = json.dumps(body).encode()
    return Ask("POST", path, 201, body=encoded, headers=(json_type, *headers))

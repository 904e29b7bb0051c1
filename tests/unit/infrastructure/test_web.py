"""Home, and the outer layers: body limit, security headers, CORS."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Form, Request, Response
from starlette.types import Message, Receive, Scope, Send

from app.errors import install_error_handlers
from app.infrastructure.web import (
    SecurityHeadersMiddleware,
    WebSettings,
    allow_origins,
    install_home,
    limit_bodies,
    send_security_headers,
)
from app.observability import context
from app.observability.context import is_operational

FRIEND = "https://shop.example"
STRANGER = "https://elsewhere.example"
LIMIT = 1024
MULTIPART = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n'


def open_app(**settings: Any) -> httpx2.AsyncClient:
    """Return a client of a small application behind the three layers."""
    app = FastAPI()

    @app.post("/json")
    async def take_json(body: dict[str, str]) -> int:
        return len(body)

    @app.post("/form")
    async def take_form(text: str = Form()) -> int:
        return len(text)

    @app.post("/raw")
    async def take_raw(request: Request) -> int:
        return len(await request.body())

    @app.post("/unread")
    async def do_not_read() -> str:
        return "done"

    @app.get("/own-headers")
    async def set_headers() -> Response:
        return Response(headers={"Cache-Control": "max-age=60"})

    @app.get("/fails")
    async def fail() -> None:
        raise RuntimeError("on purpose")

    composed = WebSettings(max_body_bytes=LIMIT, **settings)
    install_error_handlers(app)
    limit_bodies(app, composed)
    allow_origins(app, composed)
    send_security_headers(app)
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://service")


async def chunked(size: int, beginning: bytes = b"") -> AsyncIterator[bytes]:
    """Yield `size` bytes of a body whose length is not declared."""
    if beginning:
        yield beginning
    for start in range(len(beginning), size, 100):
        yield b"x" * min(100, size - start)


@pytest.mark.parametrize("path", ["/json", "/form", "/raw", "/unread"])
async def test_a_body_that_is_declared_too_large_is_refused_before_it_is_read(path: str) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"x"

    async with open_app() as http:
        headers = {"Content-Length": str(LIMIT + 1)}
        answer = await http.post(path, content=body(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert answer.headers["Connection"] == "close"
    assert read == 0


@pytest.mark.parametrize(
    ("path", "media_type", "beginning"),
    [
        ("/json", "application/json", b'"'),
        ("/form", "application/x-www-form-urlencoded", b"text="),
        ("/form", "multipart/form-data; boundary=b", MULTIPART),
        ("/raw", "text/plain", b""),
    ],
)
async def test_a_body_that_turns_out_too_large_is_refused(
    path: str, media_type: str, beginning: bytes
) -> None:
    async with open_app() as http:
        headers = {"Content-Type": media_type}
        answer = await http.post(path, content=chunked(LIMIT + 1, beginning), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert answer.headers["Connection"] == "close"


async def test_a_body_of_just_the_limit_is_read() -> None:
    async with open_app() as http:
        assert (await http.post("/raw", content=b"x" * LIMIT)).json() == LIMIT
        assert (await http.post("/raw", content=chunked(LIMIT))).json() == LIMIT


async def test_a_body_that_nobody_reads_is_not_counted() -> None:
    async with open_app() as http:
        answer = await http.post("/unread", content=chunked(LIMIT * 2))
    assert answer.json() == "done"


async def test_a_body_that_grows_too_large_after_the_answer_began_ends_the_exchange() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    app = FastAPI()
    app.mount("/echo", echo)
    install_error_handlers(app)
    limit_bodies(app, WebSettings(max_body_bytes=LIMIT))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://service") as http:
        assert (await http.post("/echo/", content=chunked(LIMIT))).content == b"x" * LIMIT
        with pytest.raises(RuntimeError, match="already started"):
            await http.post("/echo/", content=chunked(LIMIT + 1))


async def test_every_answer_tells_browsers_to_be_careful() -> None:
    async with open_app() as http:
        for answer in (
            await http.post("/unread"),
            await http.get("/nothing-here"),
            await http.get("/unread"),
            await http.post("/json"),
            await http.post("/raw", content=b"x" * (LIMIT + 1)),
            await http.get("/fails"),
        ):
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "X-Frame-Options" not in answer.headers  # which frame-ancestors replaces
            assert answer.headers["Cache-Control"] == "no-store"
            policy = answer.headers["Content-Security-Policy"]
            assert policy == "default-src 'none'; frame-ancestors 'none'"


async def test_a_header_that_a_route_sets_is_left_alone() -> None:
    async with open_app() as http:
        answer = await http.get("/own-headers")
    assert answer.headers.get_list("Cache-Control") == ["max-age=60"]


async def test_the_documentation_may_load_its_scripts() -> None:
    async with open_app() as http:
        page = await http.get("/docs")
    assert page.status_code == 200
    assert "Content-Security-Policy" not in page.headers
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/unread", "/docs"])
async def test_only_over_https_is_https_asked_for(path: str) -> None:
    async with open_app() as http:
        plain = await http.get(path)
        secure = await http.get(f"https://service{path}")
    assert "Strict-Transport-Security" not in plain.headers
    assert secure.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
    added = {"strict-transport-security"}
    assert plain.headers.keys() == secure.headers.keys() - added


@pytest.mark.parametrize("scheme", [{"scheme": "ws"}, {}])
async def test_an_odd_scheme_is_no_https(scheme: dict[str, str]) -> None:
    # A proxy may say "ws" of an ordinary request, a server need not say anything, and an application need
    # not send headers.
    sent: list[Message] = []

    async def app(_: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def keep(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/v1/orders", **scheme}
    await SecurityHeadersMiddleware(app)(scope, receive, keep)
    names = {name for name, _ in sent[0]["headers"]}
    assert b"x-content-type-options" in names
    assert b"strict-transport-security" not in names


def preflight(origin: str) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
    }


def allowed_by(answer: httpx2.Response) -> set[str]:
    return {name for name in answer.headers if name.startswith("access-control-")}


async def test_no_page_of_another_origin_may_call_unless_it_is_configured() -> None:
    async with open_app() as http:
        for origin in (FRIEND, STRANGER, "null"):
            asked = await http.options("/unread", headers=preflight(origin))
            called = await http.post("/unread", headers={"Origin": origin})
            assert asked.status_code == 405
            assert allowed_by(asked) == allowed_by(called) == set()


async def test_only_a_configured_origin_may_call() -> None:
    async with open_app(cors_origins=f" {FRIEND} ,https://admin.example,") as http:
        asked = await http.options("/unread", headers=preflight(FRIEND))
        assert asked.status_code == 200
        assert asked.headers["Access-Control-Allow-Origin"] == FRIEND
        assert "POST" in asked.headers["Access-Control-Allow-Methods"]
        assert "idempotency-key" in asked.headers["Access-Control-Allow-Headers"].lower()
        assert "Access-Control-Allow-Credentials" not in asked.headers
        called = await http.post("/unread", headers={"Origin": FRIEND})
        assert called.headers["Access-Control-Allow-Origin"] == FRIEND

        for origin in (STRANGER, "null", FRIEND + ".evil.example", FRIEND.upper()):
            asked = await http.options("/unread", headers=preflight(origin))
            assert asked.status_code == 400
            assert "Access-Control-Allow-Origin" not in asked.headers
            called = await http.post("/unread", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in called.headers


async def test_a_page_may_read_errors_and_the_headers_that_help_to_report_them() -> None:
    async with open_app(cors_origins=FRIEND) as http:
        headers = {"Origin": FRIEND}
        for answer in (
            await http.get("/nothing-here", headers=headers),
            await http.post("/raw", content=b"x" * (LIMIT + 1), headers=headers),
            await http.get("/fails", headers=headers),
        ):
            assert answer.headers["Access-Control-Allow-Origin"] == FRIEND
            exposed = answer.headers["Access-Control-Expose-Headers"]
            for name in ("X-Request-ID", "X-Trace-ID", "Retry-After", "Idempotency-Replayed"):
                assert name in exposed


async def test_home_says_where_to_go_from_here_and_is_not_observed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context, "_operational", {"/health"})
    assert not is_operational("/")  # in an application without our home it is a page like any other
    app = FastAPI(title="Shop")
    install_home(app)
    transport = httpx2.ASGITransport(app=app)

    async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
        answer = await client.get("/")
        refused = await client.post("/")

    assert answer.json() == {
        "service": "Shop",
        "documentation": "/docs",
        "health": "/health",
        "metrics": "/metrics",
    }
    assert refused.status_code == 405
    assert is_operational("/")
    assert is_operational("/docs")
    assert not is_operational("/v1/orders")

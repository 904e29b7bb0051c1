"""What stands between the network and the routes: home, body limit, security headers, CORS.

Pure ASGI, since Starlette's BaseHTTPMiddleware doubles the cost of a request and breaks context
variables. (Sources: OWASP Secure Headers Project; RFC 9110, section 15.5.14.)
"""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import FastAPI
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.errors import PayloadTooLarge, respond_to
from app.observability.context import declare_operational

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DOCUMENTATION = ("/docs", "/redoc")


class WebSettings(BaseSettings):
    """Who may call from a browser, and how much a client may send."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated origins whose pages may call the API; none by default."
    )
    forwarded_allow_ips: str = Field(
        "",
        description="Comma-separated proxies whose X-Forwarded-For and -Proto are believed; none by default.",
    )
    max_body_bytes: int = Field(65_536, ge=1_024, description="The largest order takes some 12 kB.")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(origin.strip() for origin in value.split(",") if origin.strip())
        return value


def install_home(app: FastAPI) -> None:
    """Answer `/` with where to go from here, for whoever opens the bare address.

    Neither it nor the documentation is observed: a prober asks for both several times a minute, and where
    customers are few its good answers would hide their bad ones in every ratio.
    """
    links = {"documentation": "/docs", "health": "/health", "metrics": "/metrics"}

    async def home(_: Request) -> Response:
        return JSONResponse({"service": app.title, **links})

    app.add_route("/", home, methods=["GET"], include_in_schema=False)
    declare_operational("/", "/docs")


def limit_bodies(app: FastAPI, settings: WebSettings) -> None:
    """Refuse bodies over the limit with 413, before they are read where their length is declared."""
    app.add_middleware(cast("Any", BodyLimitMiddleware), max_bytes=settings.max_body_bytes)


def send_security_headers(app: FastAPI) -> None:
    """Add the headers that tell a browser to be careful with what this API answers."""
    app.add_middleware(cast("Any", SecurityHeadersMiddleware))


def allow_origins(app: FastAPI, settings: WebSettings) -> None:
    """Let the pages of the configured origins call the API; without any, CORS stays closed."""
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID"],
            expose_headers=["X-Request-ID", "X-Trace-ID", "Retry-After", "Idempotency-Replayed"],
            max_age=600,
        )


_WITHOUT_BODY = {"GET", "HEAD"}


class BodyLimitMiddleware:
    """Count what arrives and refuse what is too much."""

    def __init__(self, app: "ASGIApp", max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # The server takes no more than was announced; only what comes in pieces has to be counted.
        headers = dict(scope["headers"])
        length: bytes = headers.get(b"content-length", b"")
        announced = length.isdigit()
        if announced and int(length) > self.max_bytes:
            await self._refuse(scope, receive, send)
            return
        if b"transfer-encoding" not in headers and (announced or scope["method"] in _WITHOUT_BODY):
            await self.app(scope, receive, send)
            return
        received = 0
        started = False

        async def receive_limited() -> "Message":
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise PayloadTooLarge
            return message

        async def send_unless_refused(message: "Message") -> None:
            # FastAPI says 400 for whatever goes wrong while it reads a body; ours is the better word.
            nonlocal started
            if received <= self.max_bytes or started:
                started = True
                await send(message)

        await self.app(scope, receive_limited, send_unless_refused)
        if received > self.max_bytes and not started:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        error = PayloadTooLarge(headers={"Connection": "close"})
        await respond_to(error, path=scope["path"])(scope, receive, send)


_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
# Where a policy has frame-ancestors, browsers must ignore X-Frame-Options (CSP 3, section 6.4.2.2).
_OF_ANSWERS = [
    _NO_SNIFFING,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
# Only from a page does anybody go on to somewhere else.
_OF_PAGES = [_NO_SNIFFING, (b"x-frame-options", b"DENY"), (b"referrer-policy", b"no-referrer")]
# RFC 6797, section 7.2: it must not be sent over a connection that is not secure.
_SECURE = [(b"strict-transport-security", b"max-age=31536000; includeSubDomains")]
_PLAIN = (_OF_ANSWERS, _OF_PAGES)
_OVER_HTTPS = ([*_OF_ANSWERS, *_SECURE], [*_OF_PAGES, *_SECURE])
_NAMES = {name for name, _ in (*_OF_ANSWERS, *_OF_PAGES, *_SECURE)}


class SecurityHeadersMiddleware:
    """Add the headers to every response; a header that a route set itself is left alone."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # The documentation pages load their scripts from elsewhere; nothing else loads anything.
        # (The scheme is what a trusted proxy says, which may be anything.)
        of_answers, of_pages = _OVER_HTTPS if scope.get("scheme") == "https" else _PLAIN
        wanted = of_pages if scope["path"].startswith(_DOCUMENTATION) else of_answers

        # No coroutine: what it returns is the one of `send`. That saves a frame for each message.
        def send_with_headers(message: "Message") -> Awaitable[None]:
            if message["type"] == "http.response.start":
                present = message.get("headers", ())
                names = dict(present)
                if _NAMES.isdisjoint(names):
                    message["headers"] = [*present, *wanted]
                else:
                    missing = [header for header in wanted if header[0] not in names]
                    message["headers"] = [*present, *missing]
            return send(message)

        await self.app(scope, receive, send_with_headers)

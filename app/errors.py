"""Errors a client sees: one exception class, one document shape (RFC 9457 problem details).

Every refusal is an `AppError` subclass that states its HTTP status and its stable `code`; handlers turn
it, validation errors, unknown paths and unexpected exceptions into `application/problem+json`. Each
body carries `request_id` and `trace_id`, so that a screenshot from a user leads to the log line and
the trace. Must never repeat the value of a field: it may be a password.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.observability.context import (
    RequestContext,
    current_context,
    current_trace_ids,
    request_context,
)
from app.observability.exceptions import UnhandledExceptionMiddleware, record_request_error

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

PROBLEM_MEDIA_TYPE = "application/problem+json"


class AppError(Exception):
    """A refusal the client is told about. Subclasses set the three class attributes.

    Args:
        detail: A sentence for this occurrence; `title` is used when empty. Never an input value.
        headers: Extra response headers, such as Retry-After.
        extensions: Further members of the problem document (RFC 9457, section 3.2).
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self, detail: str = "", *, headers: Mapping[str, str] | None = None, **extensions: Any
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.headers = dict(headers or {})
        self.extensions = extensions


class ServiceUnavailable(AppError):
    """Something this request needs is down or saturated; the same request may work later."""

    status = 503
    code = "service_unavailable"
    title = "The service cannot answer right now"

    def __init__(self, detail: str = "", *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_seconds)})


class PayloadTooLarge(AppError):
    """The body exceeds what this service reads."""

    status = 413
    code = "payload_too_large"
    title = "The request body is too large"


class FieldProblem(BaseModel):
    """One invalid field of a request."""

    pointer: str = Field(examples=["/body/lines/0/quantity"])
    message: str = Field(examples=["Input should be greater than 0"])
    code: str = Field(examples=["greater_than"])


class Problem(BaseModel):
    """RFC 9457 problem details, with the ids that join it to logs and traces."""

    type: str = Field(examples=["urn:problem:order-not-payable"])
    title: str
    status: int
    detail: str
    code: str = Field(examples=["order_not_payable"])
    instance: str = Field(examples=["/v1/payments"])
    request_id: str
    trace_id: str
    errors: list[FieldProblem] | None = None


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` of a route that may answer with these problem statuses."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "model": Problem, "content": content}
        for status in statuses
    }


def problem_response(
    *,
    path: str,
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> Response:
    """Return the problem document of one occurrence."""
    context = current_context()
    body = {
        "type": f"urn:problem:{code.replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "instance": path,
        "request_id": context.request_id if context else "",
        "trace_id": current_trace_ids()[0],
        **(extensions or {}),
    }
    return Response(orjson.dumps(body), status, headers, PROBLEM_MEDIA_TYPE)


def respond_to(error: AppError, *, path: str) -> Response:
    """Return the problem document that says `error`."""
    return problem_response(
        path=path,
        status=error.status,
        code=error.code,
        title=error.title,
        detail=error.detail,
        headers=error.headers,
        extensions=error.extensions,
    )


async def _on_app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)  # noqa: S101 - registered for this class only
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        is_told = error.status != HTTPStatus.INTERNAL_SERVER_ERROR
        record_request_error(error.__cause__ or error, request.scope, handled=is_told)
    return respond_to(error, path=request.url.path)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    fields = [
        {
            "pointer": "".join(f"/{_escape(part)}" for part in found["loc"]),
            "message": found["msg"],
            "code": found["type"],
        }
        for found in error.errors()
    ]
    return problem_response(
        path=request.url.path,
        status=422,
        code="validation_failed",
        title="The request is not valid",
        detail=f"{len(fields)} field(s) are not valid; see errors.",
        extensions={"errors": fields},
    )


def _escape(step: str | int) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")  # RFC 6901, section 3


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    phrase = HTTPStatus(error.status_code).phrase
    return problem_response(
        path=request.url.path,
        status=error.status_code,
        code=phrase.lower().replace(" ", "_").replace("-", "_"),
        title=phrase,
        detail=str(error.detail or phrase),
        headers=error.headers,
    )


class UnhandledErrorMiddleware(UnhandledExceptionMiddleware):
    """Answer an unexpected exception with a 500 problem, recorded once, and record what escapes the lifespan.

    Stands inside the signals' middleware, unlike Starlette's own handler for `Exception`: so the
    metrics and the access line see a response with status 500, and it gets every header that the
    other responses have. After the response has begun nothing can be said any more: the exception
    goes on, and the server closes the connection.
    """

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        answer: RequestContext | _Answer | None = request_context(scope)
        if answer is None:  # nobody else looks at it
            answer = _Answer(send)
            send = answer.pass_on
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            if not isinstance(error, AppError):
                record_request_error(error, scope)
            if answer.answered:
                raise
            told = error if isinstance(error, AppError) else AppError("The error was recorded.")
            await respond_to(told, path=scope["path"])(scope, receive, send)
        except asyncio.CancelledError:
            # The server ends and has waited long enough. What was begun may have happened: an
            # idempotency key makes the retry safe.
            if not answer.answered:
                with suppress(Exception):
                    told = ServiceUnavailable("The service is stopping; the outcome is not known.")
                    await respond_to(told, path=scope["path"])(scope, receive, send)
            raise


class _Answer:
    """Notes whether an answer has begun."""

    def __init__(self, send: "Send") -> None:
        self._send = send
        self.answered = 0
        """Its status; 0 before that."""

    async def pass_on(self, message: "Message") -> None:
        if message["type"] == "http.response.start":
            self.answered = message["status"]
        await self._send(message)


Handler = Callable[[Request, Exception], Awaitable[Response]]


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""
    app.add_exception_handler(AppError, _on_app_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(UnhandledErrorMiddleware)
    _document_problems(app)


def _document_problems(app: FastAPI) -> None:
    """Leave one media type with each documented problem: FastAPI adds application/json by itself."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for operations in document.get("paths", {}).values():
            for operation in operations.values():
                for response in operation.get("responses", {}).values():
                    if PROBLEM_MEDIA_TYPE in response.get("content", {}):
                        response["content"].pop("application/json", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to change it

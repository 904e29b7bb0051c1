"""Refusals as RFC 9457 problem documents; the bodies have the members that the service's own have.

Must never put input into a body or a log line, except the names of unknown fields.
"""

import sqlite3
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from app.observability.context import current_context, current_trace_ids
from app.observability.exceptions import record_exception

MEDIA_TYPE = "application/problem+json"
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {}}}
    for status in (404, 422, 500, 503)
}
"""For the OpenAPI document: what every operation may answer."""

REPORTED_FIELDS = 20
"""A body with ten thousand unknown fields gets an answer of ordinary size."""


class Problem(Exception):
    """A refusal, told to the client as it stands here."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]


class UnknownKey(Problem):
    status, code = 404, "not_found"
    title = "Nothing was recorded under this idempotency key"


class InvalidKey(Problem):
    status, code = 422, "idempotency_key_invalid"
    title = "An idempotency key has 1 to 255 visible ASCII characters"


class KeyReused(Problem):
    status, code = 422, "idempotency_key_reused"
    title = "This idempotency key was used with another body"


class ChargeNotRefundable(Problem):
    status, code = 422, "charge_not_refundable"
    title = "There is no successful charge under this idempotency key"


class RefundTooLarge(Problem):
    status, code = 422, "refund_exceeds_charge"
    title = "The refunds of a charge never exceed it"


class ProcessingFailed(Problem):
    status, code = 500, "processing_failed"
    title = "The processing failed, as this token asks for; nothing was charged"


class Unavailable(Problem):
    """Injected before or after the fact: as in reality, the client cannot tell which."""

    status, code = 503, "unavailable"
    title = "No answer can be given right now; the request may or may not have taken effect"


def problem_response(
    request: Request,
    *,
    status: int,
    code: str,
    title: str,
    headers: Mapping[str, str] | None = None,
    **extensions: Any,
) -> JSONResponse:
    """Return the problem document of one occurrence, with the ids that lead to its log line and trace."""
    context = current_context()
    body = {
        "type": f"urn:problem:{code.replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": title,
        "code": code,
        "instance": request.url.path,
        "request_id": context.request_id if context else "",
        "trace_id": current_trace_ids()[0],
        **extensions,
    }
    return JSONResponse(body, status, headers, MEDIA_TYPE)


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)  # noqa: S101 - registered for this class only
    return problem_response(request, status=error.status, code=error.code, title=error.title)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    return problem_response(
        request,
        status=422,
        code="validation_failed",
        title="The request is not valid",
        errors=[
            {"pointer": _pointer(found["loc"]), "message": found["msg"], "code": found["type"]}
            for found in error.errors()[:REPORTED_FIELDS]
        ],
    )


def _pointer(location: tuple[str | int, ...]) -> str:
    # Shortened, as the name of an unknown field may be of any length.
    return ("/" + "/".join(str(part) for part in location))[:200]


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_")
    return problem_response(
        request, status=error.status_code, code=code, title=phrase, headers=error.headers
    )


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    record_exception(error, where="request")
    return problem_response(request, status=500, code="internal_error", title="Internal error")


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    # By name, so that it is answered inside the middleware of the signals, which then see a response;
    # the handler for all others stands outside of them.
    app.add_exception_handler(sqlite3.Error, _on_unexpected)
    app.add_exception_handler(Exception, _on_unexpected)

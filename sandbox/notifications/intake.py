"""The addresses that take notifications, with the answers that the real services give.

POST /alertmanager (webhook), /slack (incoming webhook) and /pagerduty/v2/enqueue (Events API v2). A body is
read no further than the limit. What cannot be read is refused with a problem document, and not kept.
"""

import secrets
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.responses import JSONResponse, PlainTextResponse

from sandbox.notifications.channels import READERS
from sandbox.notifications.pagerduty import IncompleteEvent
from sandbox.notifications.shown import Channel
from sandbox.notifications.slack import EmptyMessage
from sandbox.notifications.store import NotificationStore
from sandbox.payment_provider.problems import Problem

MAX_BODY_BYTES: Final = 1024 * 1024
"""A webhook of a hundred alerts, as many as are sent, takes some 200 kB; PagerDuty takes half of this."""

router = APIRouter()


class TooLong(Problem):
    status, code = 413, "body_too_long"
    title = f"At most {MAX_BODY_BYTES} bytes are read"


class NotJson(Problem):
    status, code = 400, "not_json"
    title = "The body is not JSON"


class WrongMediaType(Problem):
    # A form of a page elsewhere can send text here, but not this type without asking first.
    status, code = 415, "wrong_media_type"
    title = "A notification is sent as application/json"


class EmptyNotification(Problem):
    status, code = 422, "empty_notification"
    title = "The notification says nothing, or not what it is about"


def get_store(request: Request) -> NotificationStore:
    """Return the store of the application."""
    store: NotificationStore = request.app.state.store
    return store


Store = Annotated[NotificationStore, Depends(get_store)]


async def read_body(request: Request) -> bytes:
    """Return the body.

    Raises:
        Problem: It is too long, or said to be something else than JSON.
    """
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise WrongMediaType
    chunks, length = [], 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > MAX_BODY_BYTES:
            raise TooLong
        chunks.append(chunk)
    return b"".join(chunks)


Body = Annotated[bytes, Depends(read_body)]


@router.post("/alertmanager")
def take_webhook(body: Body, store: Store) -> Response:
    """Keep a webhook of Alertmanager."""
    _keep(store, "webhook", body)
    return JSONResponse({"status": "ok"})


@router.post("/slack")
def take_slack(body: Body, store: Store) -> Response:
    """Keep a message for Slack."""
    _keep(store, "slack", body)
    return PlainTextResponse("ok")


@router.post("/pagerduty/v2/enqueue")
def take_pagerduty(body: Body, store: Store) -> Response:
    """Keep an event for PagerDuty."""
    event = _keep(store, "pagerduty", body)
    key = event.get("dedup_key") or secrets.token_hex(16)
    answer = {"status": "success", "message": "Event processed", "dedup_key": key}
    return JSONResponse(answer, 202)


def _keep(store: NotificationStore, channel: Channel, body: bytes) -> dict[str, Any]:
    try:
        message = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise NotJson from error
    try:
        shown = READERS[channel](message)
    except ValidationError as error:
        raise RequestValidationError(
            error.errors(include_url=False, include_context=False)
        ) from error
    except (EmptyMessage, IncompleteEvent) as error:
        raise EmptyNotification from error
    store.add(channel, shown.receiver, body)
    kept: dict[str, Any] = message
    return kept

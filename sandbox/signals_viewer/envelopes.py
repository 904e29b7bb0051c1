"""Error reports out of a Sentry envelope; what else an SDK sends (sessions, client reports) is skipped.

An envelope is a line of JSON, then for each item a line of JSON about it and its payload.
(Source: Sentry developer documentation, "Envelopes" and "Event Payloads".)
"""

import time
import uuid
from typing import Any, Final

import orjson

from sandbox.signals_viewer.signals import (
    MAX_NAME,
    Breadcrumb,
    ErrorReport,
    Frame,
    Raised,
    clean,
)

MAX_ITEMS: Final = 100
MAX_FRAMES: Final = 50
MAX_CHAIN: Final = 10
MAX_TAGS: Final = 32
MAX_BREADCRUMBS: Final = 50


class NotAnEnvelope(ValueError):
    """The body is no Sentry envelope; the text says where it stops being one."""


def decode_envelope(body: bytes) -> tuple[str, list[ErrorReport]]:
    """Return the envelope's id, which is the answer to it, and the error reports in it.

    Raises:
        NotAnEnvelope: It cannot be read.
    """
    line, _, rest = body.partition(b"\n")
    header = _object(line, "its first line")
    reports = []
    for _ in range(MAX_ITEMS):
        if not rest.strip():
            break
        line, _, rest = rest.lstrip(b"\n").partition(b"\n")
        item = _object(line, "the header of an item")
        length = item.get("length")
        if isinstance(length, int) and not isinstance(length, bool) and length >= 0:
            payload, rest = rest[:length], rest[length:]
            if len(payload) < length:
                raise NotAnEnvelope("the body is no Sentry envelope: an item is cut off")
        else:
            payload, _, rest = rest.partition(b"\n")
        if item.get("type") == "event":
            reports.append(_report(_object(payload, "an event")))
    else:
        raise NotAnEnvelope(f"the envelope has more than {MAX_ITEMS - 1} items")
    first = reports[0].event_id if reports else uuid.uuid4().hex
    return _text(header.get("event_id"), MAX_NAME) or first, reports


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotAnEnvelope(f"the body is no Sentry envelope: {what} is not JSON") from error
    if not isinstance(found, dict):
        raise NotAnEnvelope(f"the body is no Sentry envelope: {what} is no JSON object")
    return found


def _report(event: dict[str, Any]) -> ErrorReport:
    chain = tuple(_raised(raised) for raised in _values(event.get("exception"))[-MAX_CHAIN:])
    tags = {
        clean(str(name), MAX_NAME): _text(value)
        for name, value in list(_mapping(event.get("tags")).items())[:MAX_TAGS]
    }
    trace = _mapping(_mapping(event.get("contexts")).get("trace"))
    said = _text(_mapping(event.get("logentry")).get("message")) or _text(event.get("message"))
    return ErrorReport(
        event_id=_identifier(event.get("event_id"), 32) or uuid.uuid4().hex,
        at=time.time_ns(),
        type=chain[-1].type if chain else _text(event.get("level"), MAX_NAME) or "message",
        message=chain[-1].message if chain else said,
        service=tags.get("service", ""),
        route=_text(event.get("transaction")) or tags.get("route", ""),
        trace_id=_identifier(trace.get("trace_id"), 32),
        span_id=_identifier(trace.get("span_id"), 16),
        release=_text(event.get("release"), MAX_NAME),
        # What is kept is less than what came: no value is longer than signals.MAX_TEXT.
        size=len(orjson.dumps(event)),
        tags=tags,
        chain=chain,
        breadcrumbs=tuple(
            Breadcrumb(
                _text(crumb.get("category"), MAX_NAME),
                _text(crumb.get("message")),
                {clean(str(k), MAX_NAME): _text(v) for k, v in _mapping(crumb.get("data")).items()},
            )
            for crumb in _values(event.get("breadcrumbs"))[-MAX_BREADCRUMBS:]
        ),
    )


def _raised(value: dict[str, Any]) -> Raised:
    stack = _mapping(value.get("stacktrace")).get("frames")
    frames = [_mapping(frame) for frame in stack] if isinstance(stack, list) else []
    # The SDK takes what a library generates ("<sqlalchemy generated ...>") for the application's own.
    return Raised(
        _text(value.get("type"), MAX_NAME) or "Exception",
        _text(value.get("value")),
        tuple(
            Frame(
                f"{_text(frame.get('filename'))}:{_text(frame.get('lineno'))}",
                _text(frame.get("function"), MAX_NAME),
                _text(frame.get("context_line")).strip(),
                frame.get("in_app") is True and not _text(frame.get("filename")).startswith("<"),
            )
            for frame in frames[-MAX_FRAMES:]
        ),
    )


def _values(value: object) -> list[dict[str, Any]]:
    """Return what the protocol writes as {"values": [...]}, or as the list alone."""
    found = value.get("values") if isinstance(value, dict) else value
    return [_mapping(item) for item in found] if isinstance(found, list) else []


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object, limit: int = 4_096) -> str:
    if value is None:
        return ""
    return clean(value if isinstance(value, str) else orjson.dumps(value).decode(), limit)


def _identifier(value: object, digits: int) -> str:
    """Return a hexadecimal id of so many digits, or nothing: it becomes part of an address."""
    text = value.replace("-", "").lower() if isinstance(value, str) else ""
    return text if len(text) == digits and set(text) <= set("0123456789abcdef") else ""

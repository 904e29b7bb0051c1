"""The access line: what the log says of a request that has ended, as fields and as JSON.

It is the one line that every request writes, so it is worth a way of its own; logs.py says when it is
written, and where to. Must never show what redaction.py would take out.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import orjson

from app.observability.context import UNMATCHED_ROUTE, DatabaseUse, RequestContext
from app.observability.redaction import (
    redact_address,
    redact_matched_path,
    redact_path,
    redact_text,
)

SERVED: Final = "request served"


@lru_cache(maxsize=4)
def second_of(since_epoch: int) -> str:
    """Return a second in UTC as log lines begin with it."""
    return datetime.fromtimestamp(since_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def access_fields(context: RequestContext, rate: float) -> dict[str, object]:
    """Return what the line says of the request, redacted."""
    database = context.database
    return {
        "type": "http_request",
        "method": context.method,
        "path": _path(context),
        "route": context.route,
        "status": context.status,
        "duration_ms": round(context.seconds * 1000, 3),
        "db_statements": database.statements,
        "db_duration_ms": round(database.seconds * 1000, 3),
        "db_wait_ms": round(database.wait_seconds * 1000, 3),
        "sample_rate": rate,
        "client_ip": redact_address(context.client[0]) if context.client else "",
        "user_agent": _user_agent(context.user_agent),
    }


_MAX_PATH: Final = 512
_MAX_USER_AGENT: Final = 256


def _path(context: RequestContext) -> str:
    redact = redact_path if context.route == UNMATCHED_ROUTE else redact_matched_path
    return redact(context.path, context.path_parameters, _MAX_PATH)


def _user_agent(given: bytes) -> str:
    return redact_text(given.decode("latin-1"), _MAX_USER_AGENT)


class AccessLine:
    """The access line as JSON, put together from parts that are the same for many requests.

    Says what a log line with the `access_fields` says, to the last field, at a quarter of its cost;
    tests/unit/observability/test_access_line.py compares the two.
    """

    def __init__(self, service: Mapping[str, str], *, logger: str) -> None:
        """`service` is what every line says of the service; `logger` who says it."""
        self._served, self._failed = (
            "".join(
                f',"{name}":{_quoted(value)}'
                for name, value in (
                    {"level": level, "message": SERVED, "logger": logger} | dict(service)
                ).items()
            )
            for level in ("INFO", "ERROR")
        )

    def __call__(self, context: RequestContext, status: int, rate: float) -> bytes:
        """Return the line of a request that has ended with `status`, and its end, in UTF-8."""
        seconds, milliseconds = divmod(int(context.ended * 1000), 1000)
        trace_id, span_id = context.trace_ids
        asked, path = _asked(context.method, context.route, context.synthetic)
        if context.path != context.route:
            path = _quoted(_path(context))
        database = context.used_database
        line = (
            f'{{"timestamp":"{second_of(seconds)}.{milliseconds:03d}Z'
            f'"{self._served if status < _SERVER_ERROR else self._failed}'
            f',"trace_id":"{trace_id}","span_id":"{span_id}","request_id":"{context.request_id}"'
            f',"user_id":{_quoted(context.user_id) if context.user_id else _EMPTY}{asked}{path}'
            f',"status":{status},"duration_ms":{context.seconds * 1000:.3f}'
            f"{_NO_DATABASE if database is None else _spent(database)}"
            f',"sample_rate":{rate},"client_ip":"{_network(context.client)}'
            f'","user_agent":{_agent(context.user_agent)}}}\n'
        )
        return line.encode()


_SERVER_ERROR: Final = 500
_EMPTY: Final = '""'
_NO_DATABASE: Final = ',"db_statements":0,"db_duration_ms":0.0,"db_wait_ms":0.0'
_SYNTHETIC: Final = ',"synthetic":true'


def _spent(database: DatabaseUse) -> str:
    return (
        f',"db_statements":{database.statements},"db_duration_ms":{database.seconds * 1000:.3f}'
        f',"db_wait_ms":{database.wait_seconds * 1000:.3f}'
    )


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()


@lru_cache(maxsize=1024)
def _asked(method: str, route: str, synthetic: bool) -> tuple[str, str]:
    """Return what is said up to the path, and the path of a request to the route itself."""
    mark = _SYNTHETIC if synthetic else ""
    text = f',"type":"http_request"{mark},"method":{_quoted(redact_text(method))}'
    return f'{text},"route":{_quoted(route)},"path":', _quoted(route[:_MAX_PATH])


def _network(client: tuple[str, int] | None) -> str:
    return redact_address(client[0]) if client else ""


_agents: dict[bytes, str] = {}
_MAX_AGENTS: Final = 1024


def _agent(given: bytes) -> str:
    """Return a user agent, redacted and quoted; the same few come all the time."""
    quoted = _agents.get(given)
    if quoted is None:
        text = given.decode("latin-1")
        redacted = _user_agent(given)
        quoted = _quoted(redacted)
        if redacted == text:  # no secret is to stay in memory
            if len(_agents) >= _MAX_AGENTS:
                _agents.clear()
            _agents[given] = quoted
    return quoted

"""Keep idempotency keys, which stand in URLs here, out of every signal.

A path is in the access log, in the span and in every problem document, and who knows a key can cancel
the charge. So the key is taken out of the path before anything else sees the request: inside, the path of
`GET /v1/charges/abc` is `/v1/charges/[key]`, and `PathKey` hands the key to the route. As the router never
sees the key, every visible character may stand in it, `/` included (percent-encoded or not).
"""

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, Path, Request
from pydantic import TypeAdapter, ValidationError

from sandbox.payment_provider.problems import InvalidKey
from sandbox.payment_provider.schemas import IdempotencyKey

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

MASK = "[key]"
_PREFIXES = ("/v1/charges/", "/v1/refunds/")
_ACTION = "/cancel"
_SCOPE_KEY = "payment_provider.idempotency_key"
_KEY: TypeAdapter[str] = TypeAdapter(IdempotencyKey)


class MaskingFastAPI(FastAPI):
    """A FastAPI whose middleware, routes and handlers see masked paths only."""

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request (ASGI)."""
        await super().__call__(_masked(scope), receive, send)


def _masked(scope: "Scope") -> "Scope":
    if scope["type"] != "http":
        return scope
    path: str = scope["path"]
    for prefix in _PREFIXES:
        if path.startswith(prefix):
            key = path.removeprefix(prefix)
            action = _ACTION if scope["method"] == "POST" and key.endswith(_ACTION) else ""
            masked = f"{prefix}{MASK}{action}"
            key = key.removesuffix(action)
            return {**scope, "path": masked, "raw_path": masked.encode(), _SCOPE_KEY: key}
    return scope


def _path_key(
    request: Request,
    idempotency_key: Annotated[str, Path(description="The key the request was made with.")],  # noqa: ARG001
) -> str:
    try:
        return _KEY.validate_python(request.scope[_SCOPE_KEY])
    except ValidationError:
        raise InvalidKey from None


PathKey = Annotated[str, Depends(_path_key)]
"""The idempotency key in the path of the request."""

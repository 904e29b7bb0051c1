"""Who may use the routes for operators: whoever holds the one operations token.

Health details, profiles and memory snapshots tell a stranger too much, and profiling costs time.
Without OPERATIONS_TOKEN these routes do not exist: they answer 404.

Must never compare a token in a way that tells how much of it was right.
"""

import hmac
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class OperationsSettings(BaseSettings):
    """The token of the operators."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    operations_token: SecretStr | None = Field(None, description="Bearer token for operators.")

    @field_validator("operations_token")
    @classmethod
    def _empty_token_is_unset(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is not None and value.get_secret_value() else None


def _problem(description: str) -> dict[str, Any]:
    schema = {"type": "object", "required": ["title", "status", "detail"]}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


OPERATIONS_PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: _problem("The operations token is missing or wrong."),
    404: _problem("No operations token is configured."),
}
"""What the documentation of a route with `operators_only` adds to its responses."""

_bearer = HTTPBearer(auto_error=False, scheme_name="OperationsToken")


def operators_only(
    settings: OperationsSettings, *, on_denied: Callable[[], object] = lambda: None
) -> Any:
    """Return a dependency that lets only operators pass: for `dependencies=[...]` of a route.

    `on_denied` is called when somebody comes without the token: it is worth a count.
    """

    async def check(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> None:
        if settings.operations_token is None:
            raise HTTPException(404, "Set OPERATIONS_TOKEN to enable this route.")
        expected = settings.operations_token.get_secret_value().encode()
        given = credentials.credentials.encode() if credentials is not None else b""
        if not hmac.compare_digest(given, expected):
            on_denied()
            raise HTTPException(
                401, "This route needs the operations token.", {"WWW-Authenticate": "Bearer"}
            )

    return Depends(check)

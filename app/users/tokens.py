"""Access tokens: short-lived JWTs that name a session, so that logging out takes effect.

(RFC 7519. HS256: the same service signs and verifies.)
"""

import datetime as dt
import uuid
from dataclasses import dataclass

import jwt
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infrastructure.database import now
from app.observability.security import record_auth_attempt, record_security_event
from app.users.errors import NotAuthenticated

DEFAULT_SECRET_KEY = "not-a-secret-for-development-only"  # noqa: S105 - production refuses it
_ALGORITHM = "HS256"
_ISSUER = "glasshouse"


class TokenSettings(BaseSettings):
    """How access tokens are signed and how long they last."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    secret_key: SecretStr = Field(SecretStr(DEFAULT_SECRET_KEY), min_length=32)
    access_token_minutes: int = Field(60, ge=1, le=24 * 60)


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """Who a token speaks for, and in which session."""

    user_id: uuid.UUID
    session_id: uuid.UUID
    expires_at: dt.datetime
    synthetic: bool = False


def issue_token(
    settings: TokenSettings,
    *,
    user_id: uuid.UUID,
    session_id: uuid.UUID,
    synthetic: bool = False,
) -> str:
    """Return a signed token for a session; that of a `synthetic` account says so.

    The mark is fixed at registration, so the token can carry it and no request has to look it up.
    """
    moment = now()
    claims: dict[str, object] = {
        "iss": _ISSUER,
        "sub": str(user_id),  # RFC 7519 wants a string, and PyJWT checks it
        "jti": str(session_id),
        "iat": moment,
        "exp": moment + dt.timedelta(minutes=settings.access_token_minutes),
    }
    if synthetic:
        claims["synthetic"] = True
    return jwt.encode(claims, settings.secret_key.get_secret_value(), _ALGORITHM)


def read_token(settings: TokenSettings, token: str) -> TokenClaims:
    """Return the claims of a good token.

    Raises:
        NotAuthenticated: Forged, expired, of another issuer, or not a token at all; it is counted.
    """
    try:
        claims = jwt.decode(
            token,
            settings.secret_key.get_secret_value(),
            algorithms=[_ALGORITHM],
            issuer=_ISSUER,
            options={"require": ["exp", "sub", "jti", "iss"]},
        )
        return TokenClaims(
            uuid.UUID(claims["sub"]),
            uuid.UUID(claims["jti"]),
            dt.datetime.fromtimestamp(claims["exp"], dt.UTC),
            synthetic=claims.get("synthetic") is True,
        )
    except jwt.ExpiredSignatureError as error:
        record_auth_attempt("expired")
        raise NotAuthenticated from error
    except (jwt.InvalidTokenError, ValueError) as error:
        # Nobody gets such a token from us: somebody tries.
        record_security_event("invalid_token")
        raise NotAuthenticated from error

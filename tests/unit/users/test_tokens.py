"""Access tokens: what is issued can be read, and nothing else."""

import datetime as dt
import json
import uuid

import jwt
import pytest
from pydantic import SecretStr, ValidationError

from app.infrastructure.database import now
from app.users.errors import NotAuthenticated
from app.users.tokens import TokenSettings, issue_token, read_token

SETTINGS = TokenSettings(secret_key=SecretStr("0123456789abcdef" * 2), access_token_minutes=5)
USER, SESSION = uuid.uuid4(), uuid.uuid4()


def test_a_token_names_the_person_the_session_and_its_end() -> None:
    claims = read_token(SETTINGS, issue_token(SETTINGS, user_id=USER, session_id=SESSION))
    assert (claims.user_id, claims.session_id) == (USER, SESSION)
    left = claims.expires_at - now()
    assert dt.timedelta(minutes=4) < left <= dt.timedelta(minutes=5)


def test_a_token_holds_nothing_but_ids_and_times() -> None:
    token = issue_token(SETTINGS, user_id=USER, session_id=SESSION)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert set(claims) == {"iss", "sub", "jti", "iat", "exp"}


def test_a_token_of_another_key_is_refused() -> None:
    other = TokenSettings(secret_key=SecretStr("f" * 32))
    with pytest.raises(NotAuthenticated):
        read_token(SETTINGS, issue_token(other, user_id=USER, session_id=SESSION))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"exp": "soon"},
        {"iss": "other"},
        {"sub": 7},
        {"sub": "7"},
        {"jti": 7},
        {"jti": "7"},
        {"iat": 2**40},
    ],
    ids=str,
)
def test_claims_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    claims = {
        "iss": "glasshouse",
        "sub": str(USER),
        "jti": str(SESSION),
        "iat": now(),
        "exp": now() + dt.timedelta(minutes=1),
    }
    key = SETTINGS.secret_key.get_secret_value()
    assert read_token(SETTINGS, jwt.encode(claims, key, "HS256")).user_id == USER
    header = jwt.api_jws.encode(_dump(claims | changes), key, "HS256")
    with pytest.raises(NotAuthenticated):
        read_token(SETTINGS, header)


def _dump(claims: dict[str, object]) -> bytes:
    numbers = {
        name: int(value.timestamp()) if isinstance(value, dt.datetime) else value
        for name, value in claims.items()
    }
    return json.dumps(numbers).encode()


def test_a_key_that_is_too_short_for_hs256_is_refused() -> None:
    with pytest.raises(ValidationError):
        TokenSettings(secret_key=SecretStr("x" * 31))

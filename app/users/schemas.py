"""What the API of users takes and gives."""

import datetime as dt
import uuid
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    EmailStr,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
)


class Source(StrEnum):
    """Where a registration came from: a label of `user_registrations_total`, so a closed list."""

    WEB = "web"
    MOBILE = "mobile"
    PARTNER = "partner"
    REFERRAL = "referral"
    OTHER = "other"


def _normalise(email: str) -> str:
    # One person, one account, however the address was typed.
    return email.lower()


Email = Annotated[EmailStr, AfterValidator(_normalise), Field(max_length=320)]


def _be_text(password: SecretStr) -> SecretStr:
    # JSON can spell half a character (a lone surrogate), which no encoding can.
    try:
        password.get_secret_value().encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode") from None
    return password


Password = Annotated[SecretStr, Field(min_length=8, max_length=128), AfterValidator(_be_text)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


_email = TypeAdapter[str](Email)


def normalise_email(typed: str) -> str | None:
    """Return the address as it is stored, however it was typed; None for what is no address."""
    try:
        return _email.validate_python(typed)
    except ValidationError:
        return None


class UserCreate(BaseModel):
    """A registration."""

    model_config = ConfigDict(extra="forbid")

    email: Email = Field(examples=["ada@example.com"])
    password: Password = Field(examples=["correct horse battery"])
    name: Name = Field(examples=["Ada Lovelace"])
    source: Source = Source.WEB


class UserRead(BaseModel):
    """A person's own profile."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    email: str
    name: str
    source: Source
    created_at: dt.datetime


class Token(BaseModel):
    """An access token (RFC 6749, section 5.1)."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a type, not a secret
    expires_in: int = Field(description="Seconds.")


class SessionRead(BaseModel):
    """One log-in, as the data export shows it."""

    model_config = ConfigDict(from_attributes=True)

    created_at: dt.datetime
    expires_at: dt.datetime
    revoked_at: dt.datetime | None


class UserExport(BaseModel):
    """What a person has given us and done with us (GDPR, article 20)."""

    user: UserRead
    sessions: list[SessionRead]
    orders: list[dict[str, Any]]
    payments: list[dict[str, Any]]

"""Refusals of the users domain.

Only two say that an e-mail address is known: registration, and the lock that five failures earn.
"""

import math
from datetime import datetime

from app.errors import AppError
from app.infrastructure.database import now


class EmailTaken(AppError):
    """Another account has this address."""

    status = 409
    code = "email_taken"
    title = "An account with this e-mail address exists"


class InvalidCredentials(AppError):
    """Address or password are wrong: which of them is not said."""

    status = 401
    code = "invalid_credentials"
    title = "The e-mail address or the password is wrong"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": "Bearer"})


class AccountLocked(AppError):
    """Too many failures; even the right password is refused for a while."""

    status = 429
    code = "account_locked"
    title = "Too many failed attempts; log-in is locked for a while"

    def __init__(self, until: datetime) -> None:
        seconds = max(1, math.ceil((until - now()).total_seconds()))
        super().__init__(headers={"Retry-After": str(seconds)})


class NotAuthenticated(AppError):
    """No token, or one that is not (or no longer) good."""

    status = 401
    code = "not_authenticated"
    title = "A valid access token is needed"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": "Bearer"})

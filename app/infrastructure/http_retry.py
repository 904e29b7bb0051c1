"""When a failed call is tried again, and how long it waits before that.

Retried are: every failure before anything was sent; and, only when the request is idempotent (by its
method, RFC 9110 section 9.2.2, or because the caller says so, as with a provider's idempotency key), lost
connections, time-outs and the answers 429, 502, 503 and 504. A 500 is not: it would fail again.
The waits grow exponentially with full jitter (Brooker, "Exponential Backoff And Jitter"), are never
shorter than Retry-After, and never reach beyond the deadline: then the call fails at once.

Must never let a request that acts be sent twice.
"""

import datetime as dt
import random
from email.utils import parsedate_to_datetime

import httpx2
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infrastructure.http_effect import ExternalError

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
RETRIED_STATUSES = frozenset({429, 502, 503, 504})


class RetrySettings(BaseSettings):
    """How often and how long a call is tried."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    external_deadline_seconds: float = Field(
        10.0, gt=0, description="For one call, with all its attempts and the waits between them."
    )
    external_attempts: int = Field(3, ge=1, le=10)
    external_backoff_seconds: float = Field(0.1, gt=0, description="Upper bound of the first wait.")
    external_backoff_max_seconds: float = Field(2.0, gt=0, description="Upper bound of any wait.")


def wait_before_next(
    error: Exception,
    settings: RetrySettings,
    *,
    attempts: int,
    may_have_left: bool,
    is_idempotent: bool,
    seconds_left: float,
) -> float | bool:
    """Return the seconds to wait before the next attempt, or False when there must be none.

    Args:
        error: How attempt number `attempts` (from 1) ended.
        settings: Bounds of the waits.
        attempts: How many were made.
        may_have_left: Whether on any of them a byte of the request may have been sent.
        is_idempotent: Whether sending it again cannot make a difference.
        seconds_left: Until the call's deadline.
    """
    if not isinstance(error, ExternalError) or error.outcome == "circuit_open":
        return False
    if error.response is not None and error.response.status_code not in RETRIED_STATUSES:
        return False
    if may_have_left and not is_idempotent:
        return False
    longest = min(
        settings.external_backoff_max_seconds,
        settings.external_backoff_seconds * 2 ** (attempts - 1),
    )
    wait = max(random.uniform(0, longest), error.retry_after or 0)  # noqa: S311 - not a secret
    return wait if wait < seconds_left else False


def retry_after_seconds(response: httpx2.Response) -> float | None:
    """Return Retry-After in seconds from now (RFC 9110, section 10.2.3), or None without a valid one."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return max(0.0, (moment - dt.datetime.now(dt.UTC)).total_seconds())

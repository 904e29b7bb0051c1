"""Security signals: who tried to get in, who was held off, and what looked wrong.

Owns `auth_attempts_total{result}`, `auth_lockouts_total`, `auth_sessions_active`,
`rate_limit_hits_total{scope}` and `security_events_total{event}`, and one log line for each event (type
`auth` or `security`). The lines carry the account where it is known,
and the request id; the access line with the same id has the rest.

Must never write an e-mail address, a password, a token or a full client address, to a log or a label.
"""

from typing import Literal, get_args

from loguru import logger
from prometheus_client import Counter, Gauge

AuthResult = Literal["success", "failure", "locked", "revoked", "expired"]
RateLimitScope = Literal["login", "registration"]
SecurityEvent = Literal[
    "account_locked",
    "invalid_token",
    "idempotency_key_mismatch",
    "operations_access_denied",
    "logout",
    "data_exported",
    "account_erased",
]

_ORDINARY = frozenset({"logout", "data_exported", "account_erased"})

auth_attempts = Counter("auth_attempts_total", "Attempts to authenticate, by result.", ["result"])
auth_lockouts = Counter("auth_lockouts_total", "Accounts locked after repeated failures.")
auth_sessions = Gauge(
    "auth_sessions_active",
    "Sessions that are neither expired nor revoked.",
    multiprocess_mode="livemostrecent",
)
rate_limit_hits = Counter("rate_limit_hits_total", "Requests refused by a rate limit.", ["scope"])
security_events = Counter("security_events_total", "Events worth a look in an audit.", ["event"])
for _result in get_args(AuthResult):
    auth_attempts.labels(_result)
for _scope in get_args(RateLimitScope):
    rate_limit_hits.labels(_scope)
for _event in get_args(SecurityEvent):
    security_events.labels(_event)


def record_auth_attempt(result: AuthResult, *, user_id: str = "") -> None:
    """Count and log one attempt to authenticate, with the account where it is known."""
    auth_attempts.labels(result).inc()
    line = logger.bind(type="auth", event="attempt", result=result)
    if user_id:
        line = line.bind(user_id=user_id)
    line.log("INFO" if result == "success" else "WARNING", "Authentication attempt")


def count_lockout(user_id: str = "") -> None:
    """Count and log that an account was locked."""
    auth_lockouts.inc()
    security_events.labels("account_locked").inc()
    line = logger.bind(type="auth", event="lockout")
    (line.bind(user_id=user_id) if user_id else line).warning("Account locked")


def set_active_sessions(sessions: int) -> None:
    """Publish how many sessions are valid now."""
    auth_sessions.set(sessions)


def record_rate_limit_hit(scope: RateLimitScope) -> None:
    """Count and log one request refused by the limit of `scope`."""
    rate_limit_hits.labels(scope).inc()
    logger.bind(type="security", event="rate_limit", scope=scope).warning("Rate limit hit")


def record_security_event(event: SecurityEvent) -> None:
    """Count and log one event; a warning unless it is what people do with their own account."""
    security_events.labels(event).inc()
    line = logger.bind(type="security", event=event)
    line.log("INFO" if event in _ORDINARY else "WARNING", "Security event")


def count_denied_operations() -> None:
    """Count that somebody asked for what needs the operations token, without it."""
    record_security_event("operations_access_denied")

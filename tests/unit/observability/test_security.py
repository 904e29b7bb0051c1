from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from app.observability.security import (
    count_lockout,
    record_auth_attempt,
    record_rate_limit_hit,
    record_security_event,
    set_active_sessions,
)


def value(name: str, labels: dict[str, str]) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


@pytest.mark.parametrize(
    ("record", "metric", "labels", "logged"),
    [
        (
            lambda: record_auth_attempt("failure"),
            "auth_attempts_total",
            {"result": "failure"},
            {"type": "auth", "event": "attempt", "result": "failure"},
        ),
        (count_lockout, "auth_lockouts_total", {}, {"type": "auth", "event": "lockout"}),
        (
            lambda: record_rate_limit_hit("login"),
            "rate_limit_hits_total",
            {"scope": "login"},
            {"type": "security", "event": "rate_limit", "scope": "login"},
        ),
        (
            lambda: record_security_event("account_erased"),
            "security_events_total",
            {"event": "account_erased"},
            {"type": "security", "event": "account_erased"},
        ),
    ],
)
def test_an_event_has_a_series_at_zero_is_counted_and_logged_once_without_personal_data(
    record: Callable[[], None],
    metric: str,
    labels: dict[str, str],
    logged: dict[str, str],
    log_records: list[Any],
) -> None:
    before = value(metric, labels)
    assert before is not None

    record()

    assert value(metric, labels) == before + 1
    assert [line["extra"] for line in log_records] == [logged]


@pytest.mark.parametrize(("result", "level"), [("success", "INFO"), ("failure", "WARNING")])
def test_only_a_refused_attempt_is_a_warning(
    result: Any, level: str, log_records: list[Any]
) -> None:
    record_auth_attempt(result)

    assert log_records[0]["level"].name == level


def test_active_sessions_are_published() -> None:
    set_active_sessions(7)

    assert value("auth_sessions_active", {}) == 7

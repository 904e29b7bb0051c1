"""Turns the cases of alerts into tests for promtool: each alert fires when it should, with exactly the
labels and texts that people will see, and is silent when it should be."""

from collections.abc import Iterable
from typing import Any, Final

from app.observability.service_levels.objectives import seconds
from monitoring.build.conventions import Conventions, annotations_of, labels_of
from monitoring.build.model import Alert, Fires, Group, Silent, expected_text
from monitoring.build.profile import PRODUCTION, Profile

EXTERNAL_LABELS: Final = {"environment": "test"}


def promtool_tests(
    groups: Iterable[Group],
    conventions: Conventions,
    *,
    rule_files: Iterable[str],
    profile: Profile = PRODUCTION,
    evaluation_interval: str = "15s",
) -> dict[str, Any]:
    """Return the content of a test file for all alerts of these groups.

    Raises:
        ValueError: An alert has no case, or one that proves nothing.
    """
    tests = []
    for group in groups:
        for alert in group.rules:
            if isinstance(alert, Alert):
                _check_cases(alert)
                tests += [_fires(alert, case, conventions, profile) for case in alert.fires]
                tests += [_silent(alert, case) for case in alert.silent]
    return {
        "rule_files": list(rule_files),
        "evaluation_interval": evaluation_interval,
        "tests": tests,
    }


def _check_cases(alert: Alert) -> None:
    if not alert.fires or (not alert.silent and alert.component != "watchdog"):
        raise ValueError(
            f"{alert.name} needs a case in which it fires and one in which it does not"
        )
    cases: tuple[Fires | Silent, ...] = (*alert.fires, *alert.silent)
    for case in cases:
        seconds(case.at)
        if not case.series and alert.component != "watchdog" and "absent" not in alert.expr:
            raise ValueError(f"{alert.name} has a case without series: it would prove nothing")


def _fires(alert: Alert, case: Fires, conventions: Conventions, profile: Profile) -> dict[str, Any]:
    labels = {**case.labels, **labels_of(alert, conventions)}
    texts = annotations_of(alert, conventions, profile)
    # What a template sees are the labels of the alert, those that the rule sets included.
    expected = {
        name: expected_text(text, labels=labels, external=EXTERNAL_LABELS, value=case.value)
        for name, text in texts.items()
    }
    return {
        "name": f"{alert.name} fires",
        "interval": case.interval,
        "external_labels": EXTERNAL_LABELS,
        "input_series": _series(case),
        "alert_rule_test": [
            {
                "eval_time": case.at,
                "alertname": alert.name,
                "exp_alerts": [{"exp_labels": labels, "exp_annotations": expected}],
            }
        ],
    }


def _silent(alert: Alert, case: Silent) -> dict[str, Any]:
    return {
        "name": f"{alert.name} is silent: {case.why}",
        "interval": case.interval,
        "external_labels": EXTERNAL_LABELS,
        "input_series": _series(case),
        "alert_rule_test": [{"eval_time": case.at, "alertname": alert.name, "exp_alerts": []}],
    }


def _series(case: Fires | Silent) -> list[dict[str, str]]:
    return [{"series": series, "values": values} for series, values in case.series.items()]

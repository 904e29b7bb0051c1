"""Tests for promtool of each objective's rules: exact values, and each alert through a whole incident.

An incident, for each pair of windows: a clean time, a burn of most of the long window, and its end. So it
is seen that the alert is silent while only the short window burns, fires when both do, and ends when only
the long one does. What burns is checked beside it: a test that a wrong rule passes would prove nothing.

Rules are evaluated every five minutes, those of long windows every half hour: three days at 15 s would
take minutes. `group_eval_order` is said since promtool would choose another one each time.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final

from app.observability.service_levels.objectives import (
    BurnWindow,
    Objective,
    Objectives,
    plain,
    seconds,
)
from monitoring.build.conventions import Conventions, annotations_of, labels_of
from monitoring.build.model import Alert
from monitoring.build.profile import PRODUCTION
from monitoring.build.promtool import EXTERNAL_LABELS
from monitoring.build.slo.checks import (
    Test,
    counts,
    firing,
    input_series,
    is_absent,
    timeline,
)
from monitoring.build.slo.groups import file_name, slo_groups
from monitoring.build.slo.indicators import series_of
from monitoring.build.slo.series import Phase, few_bad, idle, interval, series, share
from monitoring.build.slo.texts import filled_in
from monitoring.build.slo.value_tests import gone_tests, value_tests

PAGES_EVERY: Final = "5m"
TICKETS_EVERY: Final = "30m"
BURN: Final = Decimal("1.5")
"""How far an incident exceeds the limit, where so many events can be bad."""
MOST: Final = Decimal("0.95")


def slo_tests(declared: Objectives, conventions: Conventions) -> dict[str, dict[str, Any]]:
    """Return the content of the test files by their names, without their ending.

    Each names only the rule file that it needs.
    """
    files = {}
    for objective in declared.objectives:
        name = file_name(objective)
        alerts = [
            rule
            for group in slo_groups(declared)[name]
            for rule in group.rules
            if isinstance(rule, Alert)
        ]
        of_severity: dict[str, list[Test]] = {"page": [], "ticket": []}
        for window in objective.windows:
            of_severity[window.severity].append(_incident(objective, window))
        period = declared.period
        files[name] = _file(
            name,
            PAGES_EVERY,
            [
                *value_tests(objective, period),
                *gone_tests(objective, period),
                _texts(objective, alerts, conventions, period),
                *of_severity["page"],
                _exhausted(objective, period),
                _idle(objective),
                _few(objective),
            ],
        )
        files[f"{name}-tickets"] = _file(name, TICKETS_EVERY, of_severity["ticket"])
    return files


def _file(name: str, every: str, tests: list[Test]) -> dict[str, Any]:
    return {
        "rule_files": [f"../rules/{name}.rules.yml"],
        "evaluation_interval": every,
        "group_eval_order": [name, f"{name}-long", f"{name}-period", f"{name}-alerts"],
        "tests": tests,
    }


def _texts(
    objective: Objective, alerts: Iterable[Alert], conventions: Conventions, period: str
) -> Test:
    """Return the test that everything fires, with the labels and texts that people see."""
    limit = max(window.factor for window in objective.windows)
    bad = share(objective, min(BURN * limit * objective.budget, MOST))
    expected: dict[str, list[dict[str, Any]]] = {}
    for alert in alerts:
        labels = labels_of(alert, conventions)
        texts = {
            name: filled_in(text, objective, labels=labels, bad=bad, period=period)
            for name, text in annotations_of(alert, conventions, PRODUCTION).items()
        }
        expected.setdefault(alert.name, []).append({"exp_labels": labels, "exp_annotations": texts})
    return {
        "name": f"{objective.name}: all alerts fire when everything burns, and say so",
        "interval": interval(objective),
        "external_labels": EXTERNAL_LABELS,
        "input_series": input_series(series(objective, [Phase(180, bad)])),
        "alert_rule_test": [
            {"eval_time": "2h", "alertname": name, "exp_alerts": exp_alerts}
            for name, exp_alerts in expected.items()
        ],
    }


def _incident(objective: Objective, window: BurnWindow) -> Test:
    minutes = seconds(window.long) // 60
    bad = share(objective, min(BURN * window.factor * objective.budget, MOST))
    begin, end = minutes // 2, minutes // 2 + minutes * 11 // 12
    phases = [Phase(begin), Phase(end - begin, bad), Phase(minutes // 4)]
    threshold = plain(window.factor * objective.budget)

    def burns(span: str) -> str:
        return f"slo:sli_error:ratio_rate{span}{series_of(objective)} > {threshold}"

    def at(minute: int, *, long: bool, short: bool, fires: bool) -> Iterator[Test]:
        moment = f"{minute}m"
        yield counts(burns(window.long), moment, int(long))
        yield counts(burns(window.short), moment, int(short))
        yield counts(firing(objective, window.long), moment, int(fires))

    return timeline(
        objective,
        f"{window.long} and {window.short} together fire, one of them does not",
        series(objective, phases),
        [
            *at(begin, long=False, short=False, fires=False),
            *at(begin + minutes // 6, long=False, short=True, fires=False),
            *at(end, long=True, short=True, fires=True),
            *at(end + minutes // 6, long=True, short=False, fires=False),
        ],
    )


def _exhausted(objective: Objective, period: str) -> Test:
    bad = share(objective, min(20 * objective.budget, MOST))
    left = f"slo:period_error_budget_remaining:ratio{series_of(objective)}"
    # So many times the budget are bad that it is spent when one part in so many of the time was bad.
    clean = 600
    spent_after = int(clean / (bad / objective.budget - 1)) + 1
    first = clean + (spent_after // 5 + 1) * 5
    return timeline(
        objective,
        "the budget is spent, and the alert stays when the burning has ended",
        series(objective, [Phase(clean), Phase(first - clean + 15, bad), Phase(60)]),
        [
            counts(f"{left} > 0.99", f"{clean}m", 1),
            counts(firing(objective, period), f"{clean}m", 0),
            counts(f"{left} > 0 < 0.8", f"{clean + 15}m", 1),
            counts(firing(objective, period), f"{clean + 15}m", 0),
            counts(f"{left} < 0", f"{first + 10}m", 1),
            counts(firing(objective, period), f"{first + 15}m", 1),
            counts(firing(objective, period), f"{first + 25}m", 1),
            counts(f"{left} > -1", f"{first + 25}m", 1),
        ],
    )


def _idle(objective: Objective) -> Test:
    return timeline(
        objective,
        "with nothing to do there is no ratio, and no alert",
        idle(objective, 480),
        [
            is_absent('{__name__=~"slo:sli_error:.+|slo:period_.+|slo:current_.+"}', "7h"),
            is_absent("ALERTS", "7h"),
        ],
    )


def _few(objective: Objective) -> Test:
    bad = objective.minimum_bad_events - 1
    highest = plain(max(window.factor for window in objective.windows) * objective.budget)
    ever = 'count_over_time(ALERTS{sloth_id!=""}[3h])'
    return timeline(
        objective,
        f"one or {bad} bad events in little traffic are no alert",
        few_bad(objective, bad),
        [
            # They would be, but for their number: of the few events, most are bad.
            counts(f"slo:sli_error:ratio_rate1h{series_of(objective)} > {highest}", "20m", 1),
            is_absent(ever, "15m"),
            is_absent(ever, "2h"),
        ],
    )

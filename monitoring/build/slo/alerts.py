"""The alerts of an objective: its budget burns too fast, or is gone.

One rule for each pair of windows, told apart by `sloth_window` (the long one). Both windows must burn:
the long one says that it matters, the short one that it still goes on. And there must have been more
than an accident: at 99.9 %, one failure among a quiet hour's fifty requests burns twenty times too fast.
"""

from typing import Final

from app.observability.service_levels.objectives import BurnWindow, Objective, plain
from monitoring.build.model import Alert, Severity
from monitoring.build.slo.indicators import series_of, sloth_id

PAGE: Final = "ErrorBudgetBurnPage"
TICKET: Final = "ErrorBudgetBurnTicket"
EXHAUSTED: Final = "ErrorBudgetExhausted"

WAIT: Final = "2m"
"""An outage of everything burns 99.9 % in less than a minute. The alert of what is down needs one (and a
scrape): it must be there first, since then this one is its symptom, and nobody is told twice."""

_JOIN: Final = "and on (sloth_id)"


def labels_of_series(objective: Objective) -> dict[str, str]:
    """Return Sloth's labels of everything that is recorded for an objective."""
    return {
        "sloth_id": sloth_id(objective),
        "sloth_service": objective.service,
        "sloth_slo": objective.name,
    }


def burn_alert(objective: Objective, window: BurnWindow, period: str) -> Alert:
    """Return the alert of one pair of windows."""
    series = series_of(objective)
    threshold = plain(window.factor * objective.budget)
    is_page = window.severity == "page"
    return _alert(
        objective,
        name=PAGE if is_page else TICKET,
        expr=(
            f"slo:sli_error:ratio_rate{window.long}{series} > {threshold}\n"
            f"{_JOIN} slo:sli_error:ratio_rate{window.short}{series} > {threshold}\n"
            f"{_JOIN} slo:bad_events:increase{window.long}{series} >= {objective.minimum_bad_events}"
        ),
        severity="critical" if is_page else "warning",
        summary=f"The error budget of {objective.name} burns {_speed(window)}.",
        description=(
            f"{objective.description} Over <{window.long}> {{{{ $value | humanizePercentage }}}} were bad,"
            f" {_burning(objective, window.long)} times what the budget allows, and over"
            f" <{window.short}> {_burning(objective, window.short)} times; the limit is {window.factor}."
            f" {_standing(objective, period)}"
        ),
        labels={"sloth_window": window.long, "sloth_severity": window.severity},
    )


def exhausted_alert(objective: Objective, period: str) -> Alert:
    """Return the alert that the budget of the period is gone."""
    series = series_of(objective)
    return _alert(
        objective,
        name=EXHAUSTED,
        expr=(
            f"slo:period_error_budget_remaining:ratio{series} <= 0\n"
            f"{_JOIN} slo:bad_events:increase{period}{series} >= {objective.minimum_bad_events}"
        ),
        severity="warning",
        summary=f"The error budget of {objective.name} is spent.",
        description=(
            f"{objective.description} The promise for <{period}> is broken until the bad time has passed"
            " out of the window: {{ $value | humanizePercentage }} of the budget is left, where below 0 is"
            f" overspent. {_good(objective, period)}"
        ),
        labels={"sloth_window": period, "sloth_severity": "ticket"},
    )


def _alert(
    objective: Objective,
    *,
    name: str,
    expr: str,
    severity: Severity,
    summary: str,
    description: str,
    labels: dict[str, str],
) -> Alert:
    return Alert(
        name=name,
        expr=expr,
        severity=severity,
        component="slo",
        summary=summary,
        description=description,
        dashboard="slo",
        variables=("service=sloth_service", "slo=sloth_slo"),
        wait=WAIT,
        depends_on=objective.depends_on,
        runbook=objective.runbook,
        # Static, though the series have them, too: Alertmanager groups and inhibits by them.
        labels={"team": objective.owner, **labels_of_series(objective), **labels},
        # Its cases are slo_tests.py: they are about windows and budgets, which a case here cannot say.
        fires=(),
        silent=(),
    )


def _speed(window: BurnWindow) -> str:
    return "faster than it may" if window.factor == 1 else f"over {window.factor} times too fast"


def _burning(objective: Objective, window: str) -> str:
    """Return a template that says how many times too fast the budget burnt in a window."""
    ratio = f"slo:sli_error:ratio_rate{window}{series_of(objective)}"
    return _first(f"{ratio} / {objective.budget}", 'printf "%.1f"')


def _standing(objective: Objective, period: str) -> str:
    """Return a template that says how the period stands."""
    series = series_of(objective)
    left = _first(f"slo:period_error_budget_remaining:ratio{series}", "humanizePercentage")
    return f"{_good(objective, period)} Budget left: {left}."


def _good(objective: Objective, period: str) -> str:
    sli = _first(
        f"1 - slo:sli_error:ratio_rate{period}{series_of(objective)}", "humanizePercentage"
    )
    return f"Over <{period}> {sli} were good (promised: {objective.target} %)."


def _first(query: str, form: str) -> str:
    # Without `with`, an empty answer would make the whole text an error message.
    return (
        f"{{{{ with query `{query}` }}}}{{{{ . | first | value | {form} }}}}"
        "{{ else }}an unknown part{{ end }}"
    )

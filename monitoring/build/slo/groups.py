"""Turns each objective into its rule file: Sloth's records, what they are made of, and alerts.

    slo:events:increase*, slo:bad_events:increase*   how many, in each window
    slo:sli_error:ratio_rate*                        bad / events: the error ratio that alerts look at
    slo:period_error_budget_remaining:ratio          1: nothing spent; 0: all of it; below: promise broken

Names and labels are Sloth's, so that its dashboards work; numbers are exact decimals, unlike Sloth's.
Where there were no events there is no sample, of any of them: an idle hour says nothing, and weighs
nothing in the 30 days around it. Absence of the indicator itself is for other alerts to tell.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from app.observability.service_levels.objectives import (
    BURN_WINDOWS,
    FreshnessIndicator,
    Objective,
    Objectives,
    seconds,
)
from monitoring.build.model import Group, Record
from monitoring.build.slo.alerts import burn_alert, exhausted_alert, labels_of_series
from monitoring.build.slo.indicators import (
    LONGEST_DIRECT_SECONDS,
    bad_events,
    events,
    moments,
    series_of,
    stale_moments,
)

LONG_INTERVAL: Final = "1m"
PERIOD_INTERVAL: Final = "2m"
"""Slow sums of what changes slowly; well below five minutes, after which a sample counts as gone."""

SCHEMA_PATH: Final = "monitoring/slo/objectives.schema.json"

WINDOWS: Final = tuple(
    sorted({w for pair in BURN_WINDOWS for w in (pair.long, pair.short)}, key=seconds)
)
"""Those that alerts look at, the shortest first."""


def file_name(objective: Objective) -> str:
    """Return the name of the objective's rule file, without its ending."""
    return f"slo-{objective.name}"


def slo_groups(declared: Objectives) -> dict[str, tuple[Group, ...]]:
    """Return the groups of each rule file, by its name."""
    return {
        file_name(objective): _groups(objective, declared.period)
        for objective in declared.objectives
    }


def schema() -> str:
    """Return the JSON schema of objectives.yml, for editors."""
    content: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Generated from app/observability/service_levels/objectives.py.",
        **Objectives.model_json_schema(),
    }
    return json.dumps(content, indent=2) + "\n"


def _groups(objective: Objective, period: str) -> tuple[Group, ...]:
    name = file_name(objective)
    direct = [window for window in WINDOWS if seconds(window) <= LONGEST_DIRECT_SECONDS]
    summed = [window for window in WINDOWS if seconds(window) > LONGEST_DIRECT_SECONDS]
    return (
        Group(
            name,
            (
                *_promise(objective, period),
                *_moments(objective),
                *_windows(objective, direct),
                _current_burn_rate(objective),
            ),
        ),
        Group(f"{name}-long", tuple(_windows(objective, summed)), interval=LONG_INTERVAL),
        Group(
            f"{name}-period",
            (*_windows(objective, [period]), *_budget(objective, period)),
            interval=PERIOD_INTERVAL,
        ),
        Group(
            f"{name}-alerts",
            (
                *(burn_alert(objective, window, period) for window in objective.windows),
                exhausted_alert(objective, period),
            ),
        ),
    )


def _windows(objective: Objective, windows: Iterable[str]) -> Iterable[Record]:
    """Yield events, bad events and error ratio of each window: the later are made of the former."""
    labels, series = labels_of_series(objective), series_of(objective)
    for window in windows:
        yield Record(
            f"slo:events:increase{window}",
            events(objective, window),
            f"Events (or moments) of the objective in the last {window}.",
            labels,
        )
        yield Record(
            f"slo:bad_events:increase{window}",
            bad_events(objective, window),
            f"Those of them that were bad, in the last {window}: without enough, no alert.",
            labels,
        )
        yield Record(
            f"slo:sli_error:ratio_rate{window}",
            f"slo:bad_events:increase{window}{series} / (slo:events:increase{window}{series} > 0)",
            f"Share of bad events in the last {window}, each event counting the same (0 to 1).",
            labels | {"sloth_window": window},
        )


def _promise(objective: Objective, period: str) -> Iterable[Record]:
    labels = labels_of_series(objective)
    days = f"{seconds(period) / 86_400:g}"
    yield Record("slo:objective:ratio", f"vector({objective.ratio})", "What is promised.", labels)
    yield Record(
        "slo:error_budget:ratio",
        f"vector({objective.budget})",
        "The share of events that may be bad.",
        labels,
    )
    yield Record(
        "slo:time_period:days", f"vector({days})", "Days that the promise is about.", labels
    )
    yield Record(
        "sloth_slo_info",
        "vector(1)",
        "Always 1; the labels say whose objective it is.",
        labels
        | {
            "sloth_mode": "glasshouse",
            "sloth_objective": str(objective.target),
            "sloth_spec": "monitoring/slo/objectives.yml",
            "sloth_version": "none",
            "owner": objective.owner,
            "journey": objective.journey,
        },
    )


def _moments(objective: Objective) -> Iterable[Record]:
    indicator = objective.indicator
    if isinstance(indicator, FreshnessIndicator):
        labels = labels_of_series(objective)
        yield Record(
            "slo:moments:count",
            moments(indicator),
            "Things that have to be fresh at this moment.",
            labels,
        )
        yield Record(
            "slo:stale_moments:count",
            stale_moments(indicator),
            "Those of them that are too old at this moment.",
            labels,
        )


def _current_burn_rate(objective: Objective) -> Record:
    return Record(
        "slo:current_burn_rate:ratio",
        _per_budget(objective, "5m"),
        "How many times too fast the budget burns right now; 1 spends it in exactly the period.",
        labels_of_series(objective),
    )


def _budget(objective: Objective, period: str) -> Iterable[Record]:
    labels = labels_of_series(objective)
    yield Record(
        "slo:period_burn_rate:ratio",
        _per_budget(objective, period),
        "How much of the period's budget is spent (1: all of it).",
        labels,
    )
    yield Record(
        "slo:period_error_budget_remaining:ratio",
        f"1 - slo:period_burn_rate:ratio{series_of(objective)}",
        "How much of the period's budget is left: 1 all of it, below 0 the promise is broken.",
        labels,
    )


def _per_budget(objective: Objective, window: str) -> str:
    series = series_of(objective)
    return (
        f"slo:sli_error:ratio_rate{window}{series}\n"
        "/ on (sloth_id, sloth_slo, sloth_service) group_left ()\n"
        f"slo:error_budget:ratio{series}"
    )

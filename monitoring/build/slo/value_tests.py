"""Tests for promtool of an objective's records: exact values, and what is observed no more."""

from collections.abc import Iterator
from decimal import Decimal

from app.observability.service_levels.objectives import (
    FreshnessIndicator,
    Objective,
    ProbeIndicator,
    seconds,
)
from monitoring.build.slo.alerts import labels_of_series
from monitoring.build.slo.checks import Test, counts, firing, is_absent, is_exactly, timeline
from monitoring.build.slo.groups import WINDOWS
from monitoring.build.slo.indicators import series_of
from monitoring.build.slo.series import TASKS, Phase, Series, nothing_bad_yet, series, share


def value_tests(objective: Objective, period: str) -> Iterator[Test]:
    """Yield the tests that every record has the value it should."""
    labels = labels_of_series(objective)
    bad = share(objective, 2 * objective.budget)
    spent = bad / objective.budget
    exact = [
        (f"slo:sli_error:ratio_rate{window}", labels | {"sloth_window": window}, bad)
        for window in (*WINDOWS, period)
    ]
    exact += [
        ("slo:objective:ratio", labels, objective.ratio),
        ("slo:error_budget:ratio", labels, objective.budget),
        ("slo:time_period:days", labels, Decimal(seconds(period)) / 86_400),
        ("slo:current_burn_rate:ratio", labels | {"sloth_window": "5m"}, spent),
        ("slo:period_burn_rate:ratio", labels | {"sloth_window": period}, spent),
        (
            "slo:period_error_budget_remaining:ratio",
            labels | {"sloth_window": period},
            1 - spent,
        ),
    ]
    if not isinstance(objective.indicator, ProbeIndicator | FreshnessIndicator):
        exact += [
            ("slo:events:increase1h", labels, Decimal(60_000)),
            ("slo:bad_events:increase1h", labels, 60_000 * bad),
        ]
    yield timeline(
        objective,
        "every record of a steady share of bad events is exact",
        series(objective, [Phase(180, bad)]),
        [is_exactly(name, "2h", labels, value) for name, labels, value in exact],
    )
    yield timeline(
        objective,
        "while nothing is bad, the error ratio is 0 and all of the budget is left",
        nothing_bad_yet(objective, 180),
        [
            *(
                is_exactly(
                    f"slo:sli_error:ratio_rate{window}",
                    "2h",
                    labels | {"sloth_window": window},
                    Decimal(0),
                )
                for window in (*WINDOWS, period)
            ),
            is_exactly(
                "slo:period_error_budget_remaining:ratio",
                "2h",
                labels | {"sloth_window": period},
                Decimal(1),
            ),
        ],
    )
    if not isinstance(objective.indicator, ProbeIndicator | FreshnessIndicator):
        # 3,000 of 66,000; the mean of the two hours' ratios would be 25 %.
        phases = [Phase(60, Decimal(0), 1_000), Phase(60, Decimal("0.5"), 100)]
        yield timeline(
            objective,
            "a busy hour counts for more than a quiet one",
            series(objective, phases),
            [
                is_exactly(
                    f"round(slo:sli_error:ratio_rate{window}, 0.0001)",
                    "2h",
                    labels | {"sloth_window": window},
                    Decimal("0.0455"),
                )
                for window in ("6h", "1d", "3d", period)
            ],
        )


def gone_tests(objective: Objective, period: str) -> Iterator[Test]:
    """Yield the test of what is observed no more, where that is not the same as no traffic."""
    labels = labels_of_series(objective)
    if isinstance(objective.indicator, ProbeIndicator):
        bad = share(objective, objective.budget / 2)
        yield timeline(
            objective,
            "while the prober is gone, nothing is good and nothing is bad",
            _ending(series(objective, [Phase(60, bad)])),
            [
                is_absent(f"slo:sli_error:ratio_rate1h{series_of(objective)}", "3h"),
                is_exactly(
                    f"slo:sli_error:ratio_rate{period}",
                    "3h",
                    labels | {"sloth_window": period},
                    bad,
                ),
                is_absent("ALERTS", "3h"),
            ],
        )
    if isinstance(objective.indicator, FreshnessIndicator):
        yield timeline(
            objective,
            "what a worker left behind grows old, and is forgotten after a day",
            _ending(series(objective, [Phase(60)])),
            [
                is_exactly("slo:stale_moments:count", "65m", labels, Decimal(0)),
                is_exactly("slo:stale_moments:count", "70m", labels, Decimal(TASKS)),
                counts(firing(objective, "1h"), "90m", 1),
                is_exactly("slo:stale_moments:count", "24h", labels, Decimal(TASKS)),
                is_absent(f"slo:stale_moments:count{series_of(objective)}", "26h"),
            ],
        )


def _ending(given: Series) -> Series:
    """Return the series of processes that then are gone, as Prometheus marks it."""
    return {name: f"{values} stale" for name, values in given.items()}

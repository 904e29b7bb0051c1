"""What a promtool test is made of: series over a time, and what is true at moments of it."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from app.observability.service_levels.objectives import Objective, plain
from monitoring.build.slo.series import Series, interval

Test = dict[str, Any]


def firing(objective: Objective, window: str) -> str:
    """Return a query for the alert of a window, while it fires."""
    return (
        f'ALERTS{{alertname=~"ErrorBudget.+",alertstate="firing",'
        f'sloth_slo="{objective.name}",sloth_window="{window}"}}'
    )


def timeline(objective: Objective, name: str, given: Series, checks: Iterable[Test]) -> Test:
    """Return a test: series, and what is checked along them."""
    return {
        "name": f"{objective.name}: {name}",
        "interval": interval(objective),
        "input_series": input_series(given),
        "promql_expr_test": list(checks),
    }


def input_series(given: Series) -> list[dict[str, str]]:
    """Return series as promtool reads them."""
    return [{"series": name, "values": values} for name, values in given.items()]


def is_exactly(record: str, moment: str, labels: Mapping[str, str], value: Decimal) -> Test:
    """Return the check that there is one series, with these labels, of this value.

    Floats carry some 15 digits; a relative difference beyond the ninth is theirs.
    """
    inner = ",".join(f'{label}="{text}"' for label, text in sorted(labels.items()))
    return {
        "expr": f"abs({record} - {plain(value)}) <= bool {max(abs(float(value)), 1):g} * 1e-9",
        "eval_time": moment,
        "exp_samples": [{"labels": f"{{{inner}}}", "value": 1}],
    }


def counts(expr: str, moment: str, number: int) -> Test:
    """Return the check that so many series answer a query."""
    return {
        "expr": f"count({expr}) or vector(0)",
        "eval_time": moment,
        "exp_samples": [{"labels": "{}", "value": number}],
    }


def is_absent(expr: str, moment: str) -> Test:
    """Return the check that nothing answers a query."""
    return {"expr": expr, "eval_time": moment, "exp_samples": []}

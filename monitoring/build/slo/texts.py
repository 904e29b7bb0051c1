"""What the templates of an objective's alerts become while a steady share of its events is bad."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from app.observability.service_levels.objectives import Objective
from monitoring.build.model import expected_text
from monitoring.build.promtool import EXTERNAL_LABELS

_QUERY: Final = re.compile(r"\{\{ with query `([^`]+)` \}\}.*?\{\{ end \}\}")


def filled_in(
    text: str, objective: Objective, *, labels: Mapping[str, str], bad: Decimal, period: str
) -> str:
    """Return an annotation as people see it, when `bad` of all events ever were bad."""
    left = 1 - bad / objective.budget

    def answer(found: re.Match[str]) -> str:
        query = found[1]
        if query.startswith("slo:period_error_budget_remaining"):
            return _percent(left)
        if query.startswith("1 - "):
            return _percent(1 - bad)
        return f"{bad / objective.budget:.1f}"

    value = left if labels["sloth_window"] == period else bad
    filled = _QUERY.sub(answer, text)
    return expected_text(filled, labels=labels, external=EXTERNAL_LABELS, value=_percent(value))


def _percent(ratio: Decimal) -> str:
    """Return what Prometheus' humanizePercentage says."""
    return f"{float(ratio * 100):.4g}%"

"""The guard of the number of series: an open set of label values becomes a bounded one.

Each value of a label is a series of its own, kept by this process and by Prometheus for as long as they
run: one label that a client can invent values for takes both down. A closed set (an enumeration, a
`Literal`) needs no guard. Where code or a library chooses the values, such as a table's name or a route,

    QUERIES.labels(table=fold("database_query_duration_seconds", "table", table))

lets the first `limit` values through and makes OTHER of the rest, as it does at once of a value that
redaction would change or that is too long to be a name.

Owns `metrics_label_values_folded_total`: when it rises, a label has more values than its metric was
made for. Must never raise, never forget a value that it let through (its series lives on), and cost no
more than a look into a set for a value that is known.
"""

import threading
from typing import Final

from prometheus_client import Counter

from app.observability.redaction import redact_text

OTHER: Final = "other"
"""What stands for every value that got no series of its own."""
LIMIT: Final = 200
"""Distinct values of one label of one metric, unless the caller knows better."""
MAX_LENGTH: Final = 120
"""Characters of a value; a longer one is data and no name."""

FOLDED = Counter(
    "metrics_label_values_folded_total",
    "Label values that were counted as `other`: too many, too long, or not fit to be shown.",
    ["metric", "label"],
)

_known: dict[tuple[str, str], set[str]] = {}
_admission = threading.Lock()


def fold(metric: str, label: str, value: str, *, limit: int = LIMIT) -> str:
    """Return `value` if it is, or can become, one of the `limit` values of this label, else OTHER.

    First come, first served: values that must not be crowded out are to be folded at start-up. OTHER
    itself takes no place. Safe to call from any thread.
    """
    known = _known.get((metric, label))
    if known is not None and value in known:
        return value
    if value == OTHER or _admit(metric, label, value, limit):
        return value
    FOLDED.labels(metric, label).inc()
    return OTHER


def _admit(metric: str, label: str, value: str, limit: int) -> bool:
    with _admission:
        known = _known.setdefault((metric, label), set())
        if value in known:  # another thread was quicker
            return True
        if len(known) >= limit or len(value) > MAX_LENGTH or redact_text(value) != value:
            return False
        known.add(value)
        return True

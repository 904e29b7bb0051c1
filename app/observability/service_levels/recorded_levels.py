"""What Prometheus has recorded about each objective: the series that `monitoring.build` made rules for.

Their names are Sloth's, so its dashboards work with them, and ours for the numbers of events. One
question gets all of them; which window a series is about stands in its name.

Must never take what is not there for zero.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from app.observability.service_levels.assessment import Measured
from app.observability.service_levels.objectives import Objective
from app.observability.service_levels.prometheus_api import Series

ERROR_RATIO: Final = "slo:sli_error:ratio_rate"
EVENTS: Final = "slo:events:increase"
BAD_EVENTS: Final = "slo:bad_events:increase"
"""Each is followed by its window, such as `slo:sli_error:ratio_rate5m`."""

ALL_LEVELS: Final = (
    f'{{__name__=~"({ERROR_RATIO}|{EVENTS}|{BAD_EVENTS})[0-9]+[smhdw]",sloth_id!=""}}'
)
"""The question: about twenty-five series for each objective."""

_NAME: Final = re.compile(rf"({ERROR_RATIO}|{EVENTS}|{BAD_EVENTS})([0-9]+[smhdw])")

Recorded = Mapping[tuple[str, str], Mapping[str, Measured]]


def read_levels(answer: Iterable[Series]) -> Recorded:
    """Return what is recorded by service and name of the objective, and by window."""
    values: dict[tuple[str, str], dict[str, dict[str, float | None]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for series in answer:
        name = _NAME.fullmatch(series.labels.get("__name__", ""))
        if name is None or not series.points:
            continue
        objective = series.labels.get("sloth_service", ""), series.labels.get("sloth_slo", "")
        value = series.value if math.isfinite(series.value) else None
        values[objective][name[2]][name[1]] = value
    return {
        objective: {
            window: Measured(
                error_ratio=found.get(ERROR_RATIO),
                events=found.get(EVENTS),
                bad_events=found.get(BAD_EVENTS),
            )
            for window, found in windows.items()
        }
        for objective, windows in values.items()
    }


def selector(objective: Objective) -> str:
    """Return the matchers of an objective's series, for a question about one record."""
    return f'sloth_service="{objective.service}",sloth_slo="{objective.name}"'

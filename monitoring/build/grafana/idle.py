"""What a panel shows while nothing happens: 0 where that is true, nothing where nobody is there to say so.

`or vector(0)` would say 0 also of a process that is gone.
"""

from monitoring.build.grafana.selectors import SHOWN
from monitoring.build.records.expressions import increase


def zero_while_up(expr: str, job: str) -> str:
    """Return an expression without labels, and 0 where it has no answer though a target of the job is up."""
    return f'(({expr}) or on () (0 * max(up{{job=~"{job}"}} == 1)))'


def counted_while_up(metric: str, job: str, *, where: str, window: str = SHOWN) -> str:
    """Return how much a counter has grown, which may not be there before its first event; 0 then."""
    return zero_while_up(increase(metric, where=where, window=window), job)

"""Recording rules: what dashboards and alerts read, computed once and named level:metric:operations.

The level says which labels a record has (`job_handler` has job and handler; `all` has none), the operations
what was done: `rate5m`, `ratio_rate5m`, `p95_5m`. A share is between 0 and 1, a duration in seconds.
"""

from collections.abc import Mapping
from typing import Final

from monitoring.build.model import Group
from monitoring.build.records import (
    business,
    database,
    dependencies,
    http,
    queue,
    runtime,
    servers,
)

TOPICS: Final[Mapping[str, tuple[Group, ...]]] = {
    "http": http.GROUPS,
    "database": database.GROUPS,
    "dependencies": dependencies.GROUPS,
    "queue": queue.GROUPS,
    "runtime": runtime.GROUPS,
    "business": business.GROUPS,
    "servers": servers.GROUPS,
}
"""A record may read those above it in its own group at the same moment, and no other's."""

"""Writes monitoring/prometheus/metrics_of_others.yml: `python -m tests.monitoring.metrics_of_others`.

The lint of rules accepts a metric if we emit it (docs/telemetry.md) or if it is in that file. What is in the
file is what the real programs exposed to a live stack with customers and a backup; the jobs of programs that
run in containers only are kept as they are written there. Run it after an upgrade, or when a rule needs
a metric that is missing; test_targets.py says when the file is not true.
"""

from pathlib import Path
from typing import Final

import yaml

from deploy.backup.metrics import Known, write_metrics
from tests.monitoring.stack import LiveStack
from tests.monitoring.stack_watcher import Watcher

FILE: Final = Path(__file__).parents[2] / "monitoring/prometheus/metrics_of_others.yml"
JOBS: Final = ("postgres", "redis", "node", "blackbox", "alertmanager", "prometheus")
"""What is not ours and runs here."""

OF_EACH_SCRAPE: Final = "up|scrape_.+|ALERTS|ALERTS_FOR_STATE"
"""Made by Prometheus itself."""


def leave_backup_metrics(stack: LiveStack) -> None:
    """Leave what a backup leaves for the node exporter."""
    known = Known().after_success(at=1.0, duration=1.0, size=1)
    write_metrics(stack.textfiles / "backup.prom", known)


def exposed(watcher: Watcher) -> dict[str, list[str]]:
    """Return the names of the series that others expose, by job."""
    found: dict[str, list[str]] = {job: [] for job in JOBS}
    jobs = "|".join(JOBS)
    by_name = f'count by (job, __name__) ({{job=~"{jobs}", __name__!~"{OF_EACH_SCRAPE}"}})'
    for labels, _ in watcher.query(by_name):
        # A rule's records keep the job's label; others' names have no colon.
        if ":" not in labels["__name__"]:
            found[labels["job"]].append(labels["__name__"])
    return {job: sorted(names) for job, names in found.items()}


def listed() -> dict[str, list[str]]:
    """Return what the file says."""
    content: dict[str, list[str]] = yaml.safe_load(FILE.read_text())
    return content


def main() -> None:
    """Write the file anew, below the comment that it begins with."""
    comment = "".join(
        line for line in FILE.read_text().splitlines(keepends=True) if line.startswith("#")
    )
    with LiveStack() as stack, stack.customers():
        leave_backup_metrics(stack)
        stack.wait_for_query("backup_size_bytes")
        stack.wait_for_query('probe_ssl_earliest_cert_expiry{probe="tls"}')
        stack.wait_for_query('count_over_time(up{job="prometheus"}[1m]) > 20')
        stack.wait_for_query("prometheus_rule_evaluations_total > 0")
        found = listed() | exposed(stack)
    FILE.write_text(comment + yaml.safe_dump(found, sort_keys=True))


if __name__ == "__main__":
    main()

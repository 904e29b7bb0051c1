"""Versions of monitoring/prometheus/prometheus.yml: time compressed, other addresses, an older Prometheus.

The file is written for production and for people. Everything that runs elsewhere (the demonstration, the
tests on loopback) is made from it here, so that what is tested is what is deployed. No function changes
what it is given.
"""

import re
from collections.abc import Collection, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import yaml

from monitoring.build.profile import Profile

Configuration = dict[str, Any]

FILE: Final = Path(__file__).parents[1] / "prometheus/prometheus.yml"

SHORTEST_SCRAPE_SECONDS: Final = 1.0
_TIMES: Final = ("scrape_interval", "scrape_timeout", "evaluation_interval")

UNKNOWN_TO_DEBIAN: Final = {
    "global.scrape_protocols": "since 2.49; 2.42 always asks for OpenMetrics first",
    "global.extra_scrape_metrics": "since 3.x; before it is --enable-feature=extra-scrape-metrics",
    "storage.tsdb.retention": "since 3.x; before it is --storage.tsdb.retention.time and .size",
}
"""What Prometheus 2.42 (Debian 12) refuses to read, and what stands in for it there."""

LIMITS_OF_JOBS: Final = (
    "body_size_limit",
    "label_limit",
    "label_name_length_limit",
    "label_value_length_limit",
)
"""Global since 2.45; Prometheus 2.42 knows them for each job only."""

_HOST_AND_PORT: Final = re.compile(r"(?<![\w.-])([A-Za-z][\w.-]*:\d+)(?!\w)")


def load_configuration(path: Path = FILE) -> Configuration:
    """Return what stands in the file."""
    content: Configuration = yaml.safe_load(path.read_text())
    return content


def scaled(config: Configuration, profile: Profile) -> Configuration:
    """Return it with the intervals of a profile: not below a second, and no time-out above its interval."""
    changed = deepcopy(config)
    for section in (changed["global"], *changed["scrape_configs"]):
        for name in _TIMES:
            if name in section:
                section[name] = profile.duration(section[name], floor=SHORTEST_SCRAPE_SECONDS)
    return changed


def for_hosts(config: Configuration, addresses: Mapping[str, str]) -> Configuration:
    """Return it with other addresses: of targets, in the addresses that blackbox probes, of Alertmanager.

    Args:
        config: With the host names of the containers.
        addresses: `host:port` as it stands in the file, and what it becomes.

    Raises:
        ValueError: Something would be asked that has no address here.
    """
    changed = deepcopy(config)

    def replace(found: re.Match[str]) -> str:
        if found[1] not in addresses:
            raise ValueError(f"{found[1]} has no address here; leave its job out, or name one")
        return addresses[found[1]]

    def replaced(text: str) -> str:
        return _HOST_AND_PORT.sub(replace, text)

    for section in (*changed["scrape_configs"], *changed["alerting"]["alertmanagers"]):
        for group in section.get("static_configs", ()):
            group["targets"] = [replaced(target) for target in group["targets"]]
        for rule in section.get("relabel_configs", ()):
            if "replacement" in rule:
                rule["replacement"] = replaced(rule["replacement"])
    return changed


def without_jobs(config: Configuration, names: Collection[str]) -> Configuration:
    """Return it without the jobs of components that do not run.

    Raises:
        ValueError: There is no such job.
    """
    there = {job["job_name"] for job in config["scrape_configs"]}
    if unknown := sorted(set(names) - there):
        raise ValueError(f"there is no job {', '.join(unknown)}")
    changed = deepcopy(config)
    changed["scrape_configs"] = [
        job for job in changed["scrape_configs"] if job["job_name"] not in names
    ]
    return changed


def for_debian(config: Configuration) -> Configuration:
    """Return it as Prometheus 2.42 reads it: nothing is changed but what it does not know."""
    changed = deepcopy(config)
    for path in UNKNOWN_TO_DEBIAN:
        *sections, name = path.split(".")
        section = changed
        for part in sections:
            section = section[part]
        del section[name]
    limits = {name: changed["global"].pop(name) for name in LIMITS_OF_JOBS}
    changed["scrape_configs"] = [limits | job for job in changed["scrape_configs"]]
    return changed


def write_configuration(config: Configuration, path: Path) -> None:
    """Write it where a Prometheus, or promtool, is to read it."""
    path.write_text(yaml.safe_dump(config, sort_keys=False, width=10_000))

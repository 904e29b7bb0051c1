"""The configuration of the live stack: the files of monitoring/, with loopback addresses in place of hosts.

Nothing is written by hand for the tests: what is proven here is what is deployed, except for addresses,
the profile, and what Debian's Prometheus 2.42 cannot read.
"""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from monitoring.build import alertmanager
from monitoring.build.profile import PRODUCTION, Profile
from monitoring.build.prometheus import (
    for_debian,
    for_hosts,
    load_configuration,
    scaled,
    without_jobs,
    write_configuration,
)
from tests.monitoring.stack_programs import is_prometheus_2

MONITORING: Final = Path(__file__).parents[2] / "monitoring"
NOT_HERE: Final = ("otel-collector", "span-metrics", "loki", "jaeger", "grafana")
"""Jobs of components that run in containers only."""


def write_prometheus(
    directory: Path,
    profile: Profile,
    addresses: Mapping[str, str],
    *,
    without: Collection[str],
    https: str,
) -> Path:
    """Write Prometheus' configuration and its targets, without rules as yet; return the file.

    Args:
        directory: Where; is made.
        profile: How fast time passes.
        addresses: What stands for each `host:port`; jobs of NOT_HERE that have no address are left out.
        without: Jobs of programs that do not run.
        https: The address whose certificate is watched.
    """
    directory.mkdir()
    config = load_configuration()
    gone = {
        job["job_name"]
        for job in config["scrape_configs"]
        if job["job_name"] in NOT_HERE and not _targets(job) <= addresses.keys()
    }
    config = without_jobs(config, {*gone, *without})
    config = for_hosts(scaled(config, profile), addresses)
    (directory / "targets").mkdir()
    (tls,) = yaml.safe_load((MONITORING / "prometheus/targets/tls.yml").read_text())
    (directory / "targets/tls.yml").write_text(yaml.safe_dump([tls | {"targets": [https]}]))
    path = directory / "prometheus.yml"
    write_configuration(for_debian(config) if is_prometheus_2() else config, path)
    return path


def add_rules(directory: Path, profile: Profile) -> None:
    """Put the rules where the configuration in this directory looks for them."""
    shutil.copytree(_rendered(profile) / "prometheus/rules", directory / "rules")


def write_alertmanager(path: Path, profile: Profile, addresses: Mapping[str, str]) -> Path:
    """Write Alertmanager's configuration; return the file."""
    config = alertmanager.for_hosts(
        alertmanager.scaled(alertmanager.load_alertmanager(), profile), addresses
    )
    path.write_text(yaml.safe_dump(config))
    return path


def _targets(job: dict[str, Any]) -> set[str]:
    return {target for group in job["static_configs"] for target in group["targets"]}


def _rendered(profile: Profile) -> Path:
    return MONITORING if profile is PRODUCTION else MONITORING / profile.name

"""monitoring/prometheus/prometheus.yml: what Prometheus 3 reads, and every version that is made from it.

promtool is Debian's 2.42 in CI: it checks the file less what it does not know (each such key is named in
monitoring/build/prometheus.py). A promtool of version 3 checks the file as it is.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.build.profile import DEMO, PRODUCTION, PROFILES, Profile
from monitoring.build.prometheus import (
    FILE,
    LIMITS_OF_JOBS,
    UNKNOWN_TO_DEBIAN,
    Configuration,
    for_debian,
    for_hosts,
    load_configuration,
    scaled,
    without_jobs,
    write_configuration,
)
from tests.monitoring.stack_programs import is_prometheus_2
from tests.tools import require_tool

JOBS = {
    "api": ("app:8000", "glasshouse"),
    "worker": ("worker:8002", "glasshouse-worker"),
    "payment-provider": ("payment-provider:8001", "glasshouse-payment-provider"),
    "synthetic": ("synthetic:8004", "glasshouse-synthetic"),
    "notifications": ("notifications:8003", "glasshouse-notifications"),
    "postgres": ("postgres-exporter:9187", "postgres"),
    "redis": ("redis-exporter:9121", "redis"),
    "node": ("node-exporter:9100", "node"),
    "otel-collector": ("otel-collector:8888", "otel-collector"),
    "span-metrics": ("otel-collector:8889", "otel-collector"),
    "loki": ("loki:3100", "loki"),
    "jaeger": ("jaeger:8888", "jaeger"),
    "grafana": ("grafana:3000", "grafana"),
    "alertmanager": ("alertmanager:9093", "alertmanager"),
    "prometheus": ("localhost:9090", "prometheus"),
}


def jobs(config: Configuration) -> dict[str, dict[str, Any]]:
    """Return the scrape jobs by name."""
    return {job["job_name"]: job for job in config["scrape_configs"]}


def in_seconds(duration: str) -> float:
    """Return the seconds of a duration of one unit."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", duration).groups()  # type: ignore[union-attr]
    return float(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_promtool_accepts_it(profile: Profile, tmp_path: Path) -> None:
    config = scaled(load_configuration(), profile)
    write_configuration(
        for_debian(config) if is_prometheus_2() else config, tmp_path / "prometheus.yml"
    )
    (tmp_path / "targets").symlink_to(FILE.parent / "targets")

    checked = subprocess.run(
        [
            require_tool("promtool"),
            "check",
            "config",
            "--lint=all",
            "--lint-fatal",
            "prometheus.yml",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "WARNING" not in checked.stdout


def test_every_job_asks_where_the_house_answers_under_the_name_of_its_service() -> None:
    config = jobs(load_configuration())

    assert {
        name: (
            job["static_configs"][0]["targets"][0],
            job["static_configs"][0]["labels"]["service"],
        )
        for name, job in config.items()
        if name != "blackbox"
    } == JOBS


def test_each_job_is_protected_from_an_explosion_of_series() -> None:
    config = load_configuration()

    assert all(job["sample_limit"] > 0 for job in config["scrape_configs"])
    assert config["global"]["body_size_limit"]


def test_scrapes_ask_for_the_formats_that_have_exemplars_first() -> None:
    asked = load_configuration()["global"]["scrape_protocols"]

    assert asked[0].startswith("OpenMetrics")
    assert asked[-1] == "PrometheusText0.0.4"


def test_data_is_kept_longer_than_service_levels_look_back_and_not_without_end() -> None:
    retention = load_configuration()["storage"]["tsdb"]["retention"]

    assert int(retention["time"].removesuffix("d")) > 30
    assert retention["size"].endswith("GB")


def test_a_probe_is_an_address_with_a_name_that_its_series_carry() -> None:
    blackbox = jobs(load_configuration())["blackbox"]

    probes = {group["labels"]["probe"]: group["targets"][0] for group in blackbox["static_configs"]}

    assert probes == {
        "home": "http://app:8000/",
        "live": "http://app:8000/health/live",
        "ready": "http://app:8000/health/ready",
        "health": "http://app:8000/health",
        "docs": "http://app:8000/docs",
    }
    (tls,) = yaml.safe_load((FILE.parent / "targets/tls.yml").read_text())
    assert tls["labels"] == {"probe": "tls"}


def test_the_blackbox_exporter_knows_every_probe() -> None:
    modules = yaml.safe_load((FILE.parents[1] / "blackbox/blackbox.yml").read_text())["modules"]
    probes = {
        group["labels"]["probe"]
        for group in jobs(load_configuration())["blackbox"]["static_configs"]
    }

    assert {*probes, "tls"} <= modules.keys()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_no_scrape_may_take_longer_than_its_interval(profile: Profile) -> None:
    config = scaled(load_configuration(), profile)

    for job in config["scrape_configs"]:
        timing = config["global"] | job
        assert in_seconds(timing["scrape_timeout"]) <= in_seconds(timing["scrape_interval"])


def test_the_demonstration_scrapes_and_evaluates_every_second() -> None:
    demo = scaled(load_configuration(), DEMO)["global"]

    assert {demo["scrape_interval"], demo["scrape_timeout"], demo["evaluation_interval"]} == {"1s"}


def test_the_interval_of_a_single_job_is_scaled_too() -> None:
    config = load_configuration()
    config["scrape_configs"][0] |= {"scrape_interval": "10m", "scrape_timeout": "2m"}

    job = scaled(config, DEMO)["scrape_configs"][0]

    assert (job["scrape_interval"], job["scrape_timeout"]) == ("10s", "2s")


def test_production_is_the_file_as_it_stands() -> None:
    assert scaled(load_configuration(), PRODUCTION) == load_configuration()


def test_other_hosts_stand_wherever_the_file_names_one() -> None:
    config = load_configuration()
    named = {target for target, _ in JOBS.values()} | {"blackbox-exporter:9115"}

    changed = for_hosts(config, {host: f"127.0.0.1:{n}" for n, host in enumerate(sorted(named), 1)})

    text = yaml.safe_dump(changed)
    assert not [host for host in named if host in text]
    probes = [group["targets"][0] for group in jobs(changed)["blackbox"]["static_configs"]]
    assert all(re.match(r"http://127\.0\.0\.1:\d+/", probe) for probe in probes)
    assert jobs(changed)["blackbox"]["relabel_configs"][-1]["replacement"].startswith("127.0.0.1:")
    alertmanager = changed["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert alertmanager == jobs(changed)["alertmanager"]["static_configs"][0]["targets"]


def test_a_host_without_an_address_is_named() -> None:
    with pytest.raises(ValueError, match=r"worker:8002 has no address"):
        for_hosts(load_configuration(), {"app:8000": "127.0.0.1:1"})


def test_jobs_of_what_does_not_run_are_left_out() -> None:
    left = jobs(without_jobs(load_configuration(), {"loki", "jaeger"}))

    assert JOBS.keys() - left.keys() == {"loki", "jaeger"}


def test_a_job_that_is_not_there_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="no job tempo"):
        without_jobs(load_configuration(), {"tempo"})


def test_for_debian_nothing_is_lost_but_what_is_named() -> None:
    config = load_configuration()

    changed = for_debian(config)

    assert config.keys() == changed.keys()
    gone = config["global"].keys() - changed["global"].keys()
    assert {f"global.{name}" for name in gone - set(LIMITS_OF_JOBS)} | {
        "storage.tsdb.retention"
    } == UNKNOWN_TO_DEBIAN.keys()
    for before, after in zip(config["scrape_configs"], changed["scrape_configs"], strict=True):
        assert before.items() <= after.items()
        assert {name: after[name] for name in LIMITS_OF_JOBS} == {
            name: config["global"][name] for name in LIMITS_OF_JOBS
        }


def test_nothing_changes_what_it_is_given() -> None:
    config = load_configuration()

    scaled(config, DEMO)
    for_debian(config)
    without_jobs(config, {"loki"})

    assert config == load_configuration()

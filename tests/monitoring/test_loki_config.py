"""The configuration of Loki, as far as a file can be judged; test_loki_live.py has the program."""

import re
from typing import Any

import pytest
import yaml

from app.observability.service_levels.objectives import seconds
from monitoring.build.alertmanager import load_alertmanager
from monitoring.build.artifacts import ROOT
from monitoring.build.conventions import load_conventions
from monitoring.build.prometheus import load_configuration
from tests.monitoring.log_contract import INDEX_LABELS, complaints
from tests.monitoring.loki import FILE


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return content


def test_alerts_carry_the_labels_of_this_house_as_those_of_prometheus_do(
    config: dict[str, Any],
) -> None:
    ours = load_configuration()["global"]["external_labels"]
    assert config["ruler"]["external_labels"] == ours
    groups = load_alertmanager()["route"]["group_by"]
    assert set(groups) <= {*ours, "service", "team"}


def test_alerts_go_to_the_same_alertmanager(config: dict[str, Any]) -> None:
    (manager,) = load_configuration()["alerting"]["alertmanagers"]
    (target,) = manager["static_configs"][0]["targets"]
    assert config["ruler"]["alertmanager_url"] == f"http://{target}"


def test_links_of_alerts_lead_to_the_grafana_of_the_house(config: dict[str, Any]) -> None:
    assert config["ruler"]["external_url"] == load_conventions().grafana_url
    assert config["ruler"]["datasource_uid"] == "loki"


def test_prometheus_scrapes_the_port_that_it_listens_on(config: dict[str, Any]) -> None:
    jobs = {job["job_name"]: job for job in load_configuration()["scrape_configs"]}
    port = config["server"]["http_listen_port"]
    assert jobs["loki"]["static_configs"][0]["targets"] == [f"loki:{port}"]


def test_streams_are_told_apart_by_the_labels_of_the_contract_alone(config: dict[str, Any]) -> None:
    otlp = config["limits_config"]["otlp_config"]
    assert otlp["resource_attributes"]["ignore_defaults"] is True
    (labels,) = otlp["resource_attributes"]["attributes_config"]
    assert labels["action"] == "index_label"
    assert {name.replace(".", "_") for name in labels["attributes"]} == INDEX_LABELS


def test_the_audit_log_is_kept_longest_and_can_be_asked_for(config: dict[str, Any]) -> None:
    limits = config["limits_config"]
    streams = {one["selector"]: one for one in limits["retention_stream"]}
    audit = streams.pop('{log_stream="audit"}')
    assert seconds(audit["period"]) == seconds("90d")
    assert seconds(limits["retention_period"]) == seconds("7d")
    # Of two that fit, the higher priority wins: the audit log's, whatever its service.
    assert all(one["priority"] < audit["priority"] for one in streams.values())
    assert all(seconds(one["period"]) >= seconds("24h") for one in streams.values())  # Loki's least
    assert seconds(limits["max_query_length"]) > seconds(audit["period"])


def test_retentions_are_of_streams_that_there_are(config: dict[str, Any]) -> None:
    for one in config["limits_config"]["retention_stream"]:
        assert complaints(one["selector"]) == []


def test_what_is_expired_is_removed_and_nothing_else_can_be(config: dict[str, Any]) -> None:
    assert config["compactor"]["retention_enabled"] is True
    assert config["compactor"]["delete_request_store"] == "filesystem"
    assert config["limits_config"]["deletion_mode"] == "disabled"


def test_everything_that_comes_in_or_is_asked_has_a_limit(config: dict[str, Any]) -> None:
    limits = config["limits_config"]
    for name in (
        *("ingestion_rate_mb", "ingestion_burst_size_mb", "max_global_streams_per_user"),
        *("max_line_size", "query_timeout", "max_query_bytes_read", "max_entries_limit_per_query"),
    ):
        assert limits[name], name
    assert limits["max_line_size_truncate"] is True


def test_nothing_is_reported_to_anybody_and_only_the_volume_is_written(
    config: dict[str, Any],
) -> None:
    assert config["analytics"]["reporting_enabled"] is False
    paths = re.findall(r"(?<![:\w/])/[a-z/-]+", yaml.safe_dump(config))
    assert {path for path in paths if not path.startswith("/loki")} == {"/etc/loki/rules"}


def test_every_window_of_a_rule_lies_within_what_is_kept(config: dict[str, Any]) -> None:
    kept = seconds(config["limits_config"]["retention_period"])
    for file in (ROOT / "monitoring/loki/rules/fake").glob("*.yml"):
        for window in re.findall(r"\[(\d+[smhd])\]", file.read_text()):
            assert seconds(window) < kept, (file.name, window)

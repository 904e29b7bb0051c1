"""monitoring/jaeger/jaeger.yml: as a file, and read by the real Jaeger where it is there.

2.20 is deployed; what the real program shows here is shown of the version that the machine has.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from monitoring.build.prometheus import load_configuration as load_prometheus
from tests.monitoring.collector import Collector, Jaeger, samples
from tests.monitoring.collector_config import (
    COLLECTOR,
    JAEGER,
    MONITORING,
    load_configuration,
    variables,
)
from tests.monitoring.collector_spans import SentSpan, new_trace, send
from tests.monitoring.stack_programs import Place, Program
from tests.programs import needs
from tests.tools import wait_until

SECONDS = 90.0
CONFIG = load_configuration(JAEGER)
EXTENSIONS = CONFIG["extensions"]
PIPELINE = CONFIG["service"]["pipelines"]["traces"]


def test_everything_that_is_named_is_defined_and_nothing_else_is() -> None:
    for kind in ("receivers", "processors", "exporters"):
        assert set(PIPELINE[kind]) == set(CONFIG[kind])
    assert set(CONFIG["service"]["extensions"]) == set(EXTENSIONS)
    stores = EXTENSIONS["jaeger_storage"]
    (kept_in,) = stores["backends"]
    (metrics_from,) = stores["metric_backends"]
    assert EXTENSIONS["jaeger_query"]["storage"] == {"traces": kept_in, "metrics": metrics_from}
    assert CONFIG["exporters"]["jaeger_storage_exporter"]["trace_storage"] == kept_in


def test_what_waits_is_bounded() -> None:
    exporter = CONFIG["exporters"]["jaeger_storage_exporter"]

    assert PIPELINE["processors"][0] == "memory_limiter"
    assert 0 < exporter["queue"]["queue_size"] <= 10_000
    assert exporter["retry_on_failure"]["max_elapsed_time"] == "30s"


def test_traces_are_kept_on_the_volume_and_not_without_end() -> None:
    badger = EXTENSIONS["jaeger_storage"]["backends"]["traces"]["badger"]
    services = yaml.safe_load((MONITORING.parent / "docker-compose.yml").read_text())["services"]

    assert badger["ephemeral"] is False
    assert badger["ttl"] == {"spans": "72h"}
    assert {path.rpartition("/")[0] for path in badger["directories"].values()} == {"/badger"}
    assert "/badger" in str(services["jaeger"]["volumes"])


def test_it_is_heard_where_others_look_for_it() -> None:
    jobs = {job["job_name"]: job for job in load_prometheus()["scrape_configs"]}
    own = CONFIG["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]
    collector = load_configuration(COLLECTOR)

    assert jobs["jaeger"]["static_configs"][0]["targets"] == [f"jaeger:{own['port']}"]
    assert own["host"] == "0.0.0.0"
    receiver = CONFIG["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    sent_to = collector["exporters"]["otlp_grpc/jaeger"]["endpoint"]
    assert receiver.partition(":")[2] == sent_to.partition(":")[2]
    assert EXTENSIONS["jaeger_query"]["http"]["endpoint"] == "0.0.0.0:16686"
    assert EXTENSIONS["healthcheckv2"]["http"]["endpoint"] == "0.0.0.0:13133"


def test_the_service_performance_view_asks_for_what_the_collector_makes() -> None:
    (asked,) = EXTENSIONS["jaeger_storage"]["metric_backends"].values()
    made = load_configuration(COLLECTOR)["connectors"]["span_metrics"]

    assert asked["prometheus"]["metric_namespace"] == made["namespace"]
    assert asked["prometheus"]["latency_unit"] == made["histogram"]["unit"]
    assert asked["prometheus"]["endpoint"] == "http://prometheus:9090"
    assert asked["prometheus"]["normalize_calls"] is True
    assert asked["prometheus"]["normalize_duration"] is True


def test_the_page_is_configured_by_the_file_beside_it() -> None:
    assert EXTENSIONS["jaeger_query"]["ui"]["config_file"] == "/etc/jaeger/ui.json"
    assert json.loads((JAEGER.parent / "ui.json").read_text())


def test_it_needs_no_variable() -> None:
    assert variables(JAEGER) == {}
    assert not re.search(r"(?i)password|token|secret", JAEGER.read_text())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@needs("OTELCOL_BIN", "JAEGER_BIN")
def test_traces_survive_a_restart(stack: ExitStack, tmp_path: Path) -> None:
    place = Place(os.getpid(), tmp_path)
    jaeger = Jaeger(place, storage=tmp_path / "badger")
    stack.callback(jaeger.stop)
    jaeger.start()
    collector = Collector(place, jaeger=jaeger.address)
    stack.callback(collector.stop)
    collector.start()
    trace = new_trace()
    send(collector.otlp_url, SentSpan(trace)).raise_for_status()
    wait_until(lambda: bool(jaeger.spans(trace)), "the trace is there", SECONDS)

    jaeger.stop()
    jaeger.start()

    assert len(jaeger.spans(trace)) == 1
    assert jaeger.ask("services") == ["glasshouse"]


@needs("OTELCOL_BIN", "JAEGER_BIN")
def test_the_service_performance_view_has_rates_errors_and_durations(
    stack: ExitStack, tmp_path: Path
) -> None:
    place = Place(os.getpid(), tmp_path)
    collector = Collector(place)
    stack.callback(collector.stop)
    collector.start()
    config = tmp_path / "prometheus.yml"
    scraped = {"targets": [collector.span_metrics_address]}
    job = {"job_name": "span-metrics", "static_configs": [scraped]}
    config.write_text(
        yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]})
    )
    prometheus = Program(
        name="prometheus",
        place=place,
        tool="prometheus",
        arguments=(
            f"--config.file={config}",
            "--storage.tsdb.path={directory}/data",
            "--web.listen-address=127.0.0.1:{port}",
        ),
        ready="/-/ready",
    )
    stack.callback(prometheus.stop)
    prometheus.start()
    jaeger = Jaeger(place, storage=tmp_path / "badger", prometheus=prometheus.url)
    stack.callback(jaeger.stop)
    jaeger.start()

    def has_values(kind: str, **more: str) -> bool:
        send(
            collector.otlp_url,
            SentSpan(new_trace(), seconds=0.3),
            SentSpan(new_trace(), failed=True),
        )
        asked = {
            "service": "glasshouse",
            "spanKind": "server",
            "lookback": 60_000,
            "step": 1_000,
            "ratePer": 15_000,
            "endTs": int(time.time() * 1000),
        }
        found = jaeger.metrics(kind, **asked, **more)
        points = [point for one in found for point in one["metricPoints"]]
        values = [point["gaugeValue"].get("doubleValue") for point in points]
        return any(isinstance(value, float | int) and value > 0 for value in values)

    wait_until(lambda: has_values("calls"), "there are rates", SECONDS)
    wait_until(lambda: has_values("errors"), "there are shares of errors", SECONDS)
    wait_until(lambda: has_values("latencies", quantile="0.95"), "there are durations", SECONDS)
    assert samples(jaeger.own_metrics(), "otelcol_process_uptime_seconds_total")

"""monitoring/collector/collector.yml as a file: what can be known of it without the collector.

Whether the collector understands it, and what it then does, is shown by test_collector_traces.py and
test_collector_logs.py, where the program is there.
"""

import re
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.build.prometheus import load_configuration as load_prometheus
from tests.monitoring.collector_config import (
    COLLECTOR,
    JAEGER,
    MONITORING,
    load_configuration,
    variables,
)
from tests.programs import given_program, needs

CONFIG = load_configuration(COLLECTOR)
PIPELINES: dict[str, dict[str, list[str]]] = CONFIG["service"]["pipelines"]
KINDS = ("receivers", "processors", "exporters")
FROM_OUTSIDE = {
    name for name, one in PIPELINES.items() if set(one["receivers"]) <= set(CONFIG["receivers"])
}
DURATION = re.compile(r"([0-9.]+)(ms|s)")


def used(kind: str) -> set[str]:
    """Return the components that pipelines name under a kind."""
    return set(chain.from_iterable(one.get(kind, ()) for one in PIPELINES.values()))


def seconds(duration: str) -> float:
    """Return the seconds of a duration such as 2500ms."""
    number, unit = DURATION.fullmatch(duration).groups()  # type: ignore[union-attr]
    return float(number) * {"ms": 0.001, "s": 1}[unit]


@needs("OTELCOL_BIN")
def test_the_collector_accepts_it() -> None:
    program = given_program("OTELCOL_BIN")

    checked = subprocess.run(
        [program, "validate", f"--config={COLLECTOR}"], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stderr
    assert "deprecated" not in checked.stderr


def test_everything_that_a_pipeline_names_is_defined_and_nothing_else_is() -> None:
    connectors = set(CONFIG["connectors"])

    assert used("receivers") - connectors == set(CONFIG["receivers"])
    assert used("exporters") - connectors == set(CONFIG["exporters"])
    assert used("processors") == set(CONFIG["processors"])
    assert set(CONFIG["service"]["extensions"]) == set(CONFIG["extensions"])


def test_a_connector_is_the_end_of_a_pipeline_and_the_beginning_of_another() -> None:
    for connector in CONFIG["connectors"]:
        assert connector in used("exporters"), connector
        assert connector in used("receivers"), connector


def test_what_comes_from_outside_is_limited_first_and_redacted_before_it_goes_anywhere() -> None:
    assert {"traces", "logs", "logs/otlp"} == FROM_OUTSIDE
    for name in FROM_OUTSIDE:
        assert PIPELINES[name]["processors"][0] == "memory_limiter"
        assert "redaction" in PIPELINES[name]["processors"]


def test_what_does_not_come_from_outside_comes_from_a_pipeline_that_redacts() -> None:
    for name in PIPELINES.keys() - FROM_OUTSIDE:
        for connector in PIPELINES[name]["receivers"]:
            before = [one for one in PIPELINES if connector in PIPELINES[one]["exporters"]]
            assert before == ["traces"]


def test_name_and_status_of_a_span_are_redacted_like_its_attributes() -> None:
    order = PIPELINES["traces"]["processors"]
    lent = "\n".join(CONFIG["processors"]["transform/lend"]["trace_statements"])
    taken = "\n".join(CONFIG["processors"]["transform/take_back"]["trace_statements"])

    assert order.index("transform/lend") + 1 == order.index("redaction")
    assert order.index("redaction") + 1 == order.index("transform/take_back")
    for key in re.findall(r'attributes\["(lent\.\w+)"\], span', lent):
        assert f'delete_key(span.attributes, "{key}")' in taken
    assert taken.count("delete_key") == lent.count("set(")


def test_spans_are_counted_before_traces_are_sampled() -> None:
    assert "tail_sampling" not in PIPELINES["traces"]["processors"]
    assert {"span_metrics", "service_graph"} < set(PIPELINES["traces"]["exporters"])
    (sampled,) = (one for one in PIPELINES.values() if "tail_sampling" in one["processors"])
    assert sampled["receivers"] == ["forward/sampling"]
    assert sampled["exporters"] == ["otlp_grpc/jaeger"]


def test_errors_and_what_is_slow_are_kept_and_of_the_rest_as_many_as_are_asked_for() -> None:
    errors, slow, share = CONFIG["processors"]["tail_sampling"]["policies"]

    assert errors["status_code"] == {"status_codes": ["ERROR"]}
    assert "> 1000000000" in slow["ottl_condition"]["span"][0]
    assert share["probabilistic"] == {"sampling_percentage": "100"}  # locally; see the variables
    assert "not" not in {errors["type"], slow["type"], share["type"]}


def test_what_waits_is_bounded_and_never_makes_others_wait() -> None:
    sampling = CONFIG["processors"]["tail_sampling"]

    assert 0 < sampling["num_traces"] <= 50_000
    assert set(sampling["decision_cache"]) == {"sampled_cache_size", "non_sampled_cache_size"}
    assert CONFIG["connectors"]["service_graph"]["store"]["max_items"] > 0
    assert CONFIG["connectors"]["span_metrics"]["aggregation_cardinality_limit"] > 0
    for name, exporter in CONFIG["exporters"].items():
        if name == "prometheus":  # is asked, and sends nothing
            continue
        queue, retry = exporter["sending_queue"], exporter["retry_on_failure"]
        assert queue["sizer"] == "items"
        assert 0 < queue["batch"]["max_size"] < queue["queue_size"] <= 100_000
        assert queue["block_on_overflow"] is False
        assert retry["enabled"] is True
        assert 0 < seconds(retry["max_elapsed_time"]) <= 600


def test_memory_is_limited_relative_to_the_container() -> None:
    limiter = CONFIG["processors"]["memory_limiter"]

    assert 0 < limiter["spike_limit_percentage"] < limiter["limit_percentage"] < 100


def test_who_connects_from_another_container_is_heard() -> None:
    listening = {
        CONFIG["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]: "otlp, gRPC",
        CONFIG["receivers"]["otlp"]["protocols"]["http"]["endpoint"]: "otlp, HTTP",
        CONFIG["receivers"]["fluent_forward"]["endpoint"]: "Docker's driver",
        CONFIG["exporters"]["prometheus"]["endpoint"]: "span metrics",
        CONFIG["extensions"]["health_check"]["endpoint"]: "health",
    }
    (own,) = CONFIG["service"]["telemetry"]["metrics"]["readers"]

    assert set(listening) == {f"0.0.0.0:{port}" for port in (4317, 4318, 24224, 8889, 13133)}
    shown = own["pull"]["exporter"]["prometheus"]
    assert (shown["host"], shown["port"]) == ("0.0.0.0", 8888)
    # Rules and dashboards count on the names that end in _total.
    assert shown["without_type_suffix"] is shown["without_units"] is False


def test_prometheus_asks_the_collector_where_it_answers() -> None:
    jobs = {job["job_name"]: job for job in load_prometheus()["scrape_configs"]}
    own = CONFIG["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]
    made_of_spans = CONFIG["exporters"]["prometheus"]["endpoint"].rpartition(":")[2]

    def ports(job: str) -> list[str]:
        return [target.rpartition(":")[2] for target in jobs[job]["static_configs"][0]["targets"]]

    assert ports("otel-collector") == [str(own["port"])]
    assert ports("span-metrics") == [made_of_spans]
    assert CONFIG["exporters"]["prometheus"]["enable_open_metrics"] is True


def hosts_of_the_stack() -> dict[str, Any]:
    """Return the services of the compose file."""
    path = MONITORING.parent / "docker-compose.yml"
    services: dict[str, Any] = yaml.safe_load(path.read_text())["services"]
    return services


def test_what_it_sends_to_is_in_the_stack() -> None:
    jaeger = CONFIG["exporters"]["otlp_grpc/jaeger"]["endpoint"].partition(":")[0]
    loki = re.match(
        r"http://([\w-]+):3100/otlp$", CONFIG["exporters"]["otlp_http/loki"]["endpoint"]
    )

    assert loki is not None
    assert {jaeger, loki[1], "otel-collector"} <= hosts_of_the_stack().keys()


def test_bounds_of_histograms_are_where_the_objectives_are() -> None:
    objectives = yaml.safe_load((MONITORING / "slo/objectives.yml").read_text())["objectives"]
    thresholds = {
        one["indicator"]["threshold_seconds"]
        for one in objectives
        if "threshold_seconds" in one["indicator"]
    }
    connectors = CONFIG["connectors"]
    buckets = connectors["span_metrics"]["histogram"]["explicit"]["buckets"]

    bounds = [seconds(one) for one in buckets]

    assert thresholds
    assert thresholds <= set(bounds)
    assert bounds == sorted(set(bounds))
    assert connectors["service_graph"]["latency_histogram_buckets"] == buckets
    assert connectors["span_metrics"]["histogram"]["unit"] == "s"


def test_no_label_of_a_span_metric_is_an_id_or_a_path() -> None:
    dimensions = {one["name"] for one in CONFIG["connectors"]["span_metrics"]["dimensions"]}

    assert dimensions == {
        "http.request.method",
        "http.route",
        "http.response.status_code",
        "error.type",
    }


def test_every_variable_has_a_default_and_none_is_a_secret() -> None:
    assert variables(COLLECTOR) == {
        "ENVIRONMENT": "development",
        "SERVICE_NAMESPACE": "glasshouse",
        "TRACES_KEPT_PERCENT": "100",
        "TRACES_DECISION_WAIT": "5s",
    }
    comment = COLLECTOR.read_text().partition("\nreceivers:")[0]
    assert all(name in comment for name in variables(COLLECTOR))


@pytest.mark.parametrize("path", [COLLECTOR, JAEGER], ids=lambda path: path.name)
def test_a_single_dollar_begins_a_variable(path: Path) -> None:
    values = "\n".join(
        line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")
    )

    assert not re.findall(r"(?<!\$)\$(?!\$|\{env:[A-Z_]+(?::-[^}]*)?\})", values.replace("$$", ""))

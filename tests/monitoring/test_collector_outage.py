"""Loki or Jaeger is away: who sends does not notice, what is lost is counted, and later it goes on."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.monitoring.collector import Collector, Jaeger, samples
from tests.monitoring.collector_fluent import FluentClient
from tests.monitoring.collector_loki import LokiReceiver
from tests.monitoring.collector_spans import SentSpan, new_trace, send
from tests.monitoring.stack_programs import Place
from tests.programs import needs
from tests.tools import wait_until

SECONDS = 90.0
QUEUE = 200
SHORT = {
    "retry_on_failure": {"initial_interval": "100ms", "max_interval": "300ms"},
    "sending_queue": {
        "queue_size": QUEUE,
        "num_consumers": 1,
        "batch": {"flush_timeout": "100ms", "min_size": 10, "max_size": 50},
    },
}
"""Queues that are full soon; nothing else differs from what is deployed."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def counter(collector: Collector, name: str, exporter: str) -> float:
    """Return one of the collector's counters of an exporter."""
    return collector.counted(f"otelcol_exporter_{name}_total", exporter=exporter)


@needs("OTELCOL_BIN")
def test_while_loki_is_away_lines_wait_then_are_dropped_and_counted_and_then_it_goes_on(
    stack: ExitStack, tmp_path: Path
) -> None:
    loki = stack.enter_context(LokiReceiver().running())
    overlay = {"exporters": {"otlp_http/loki": SHORT}}
    collector = Collector(Place(os.getpid(), tmp_path), loki=loki.otlp_url, overlay=overlay)
    stack.callback(collector.stop)
    collector.start()
    docker = stack.enter_context(FluentClient(collector.fluent_port, tag="app"))
    docker.say("before")
    wait_until(lambda: bool(loki.lines("before")), "a line arrives", SECONDS)

    loki.status = 503
    began = time.monotonic()
    for number in range(QUEUE * 10):
        docker.say(f"during {number} {'x' * 100}")
    assert time.monotonic() - began < 20, "who writes has to wait"
    wait_until(
        lambda: counter(collector, "enqueue_failed_log_records", "otlp_http/loki") > 0,
        "what does not fit is dropped and counted",
        SECONDS,
    )
    page = collector.own_metrics()
    (size,) = samples(page, "otelcol_exporter_queue_size", exporter="otlp_http/loki")
    (capacity,) = samples(page, "otelcol_exporter_queue_capacity", exporter="otlp_http/loki")
    assert 0 < size[1] <= capacity[1] == QUEUE

    loki.status = 200
    docker.say("after")

    wait_until(lambda: bool(loki.lines("after")), "lines arrive again", SECONDS)
    wait_until(
        lambda: (
            len(loki.lines("during"))
            + counter(collector, "enqueue_failed_log_records", "otlp_http/loki")
            == QUEUE * 10
        ),
        "each line has either waited or been counted as lost",
        SECONDS,
    )
    assert loki.lines("during")


@needs("OTELCOL_BIN")
def test_lines_that_loki_refuses_do_not_hold_up_others(stack: ExitStack, tmp_path: Path) -> None:
    loki = stack.enter_context(LokiReceiver().running())
    collector = Collector(
        Place(os.getpid(), tmp_path),
        loki=loki.otlp_url,
        overlay={"exporters": {"otlp_http/loki": SHORT}},
    )
    stack.callback(collector.stop)
    collector.start()
    docker = stack.enter_context(FluentClient(collector.fluent_port, tag="app"))

    loki.status = 400
    docker.say("refused")
    failed = "otelcol_exporter_send_failed_log_records_total"
    wait_until(
        lambda: collector.counted(failed, exporter="otlp_http/loki", error_permanent="true") == 1,
        "a line that Loki refuses is counted as lost for good",
        SECONDS,
    )
    loki.status = 200
    docker.say("welcome")

    wait_until(lambda: bool(loki.lines("welcome")), "the next line arrives", SECONDS)
    assert not loki.lines("refused")


@needs("OTELCOL_BIN", "JAEGER_BIN")
def test_while_jaeger_is_away_spans_are_taken_and_what_waited_arrives(
    stack: ExitStack, tmp_path: Path
) -> None:
    place = Place(os.getpid(), tmp_path)
    jaeger = Jaeger(place, storage=tmp_path / "badger")
    stack.callback(jaeger.stop)
    jaeger.start()
    overlay = {"exporters": {"otlp_grpc/jaeger": SHORT}}
    collector = Collector(place, jaeger=jaeger.address, overlay=overlay)
    stack.callback(collector.stop)
    collector.start()
    before, during, after = new_trace(), new_trace(), new_trace()
    send(collector.otlp_url, SentSpan(before)).raise_for_status()
    wait_until(lambda: bool(jaeger.spans(before)), "a span is in Jaeger", SECONDS)

    jaeger.stop()
    send(collector.otlp_url, SentSpan(during)).raise_for_status()
    decided = "otelcol_processor_tail_sampling_global_count_traces_sampled_total"
    wait_until(lambda: collector.counted(decided) == 2, "its trace was decided upon", SECONDS)
    for _ in range(20):
        began = time.monotonic()
        send(collector.otlp_url, *[SentSpan(new_trace()) for _ in range(50)]).raise_for_status()
        assert time.monotonic() - began < 5, "who sends has to wait"
    wait_until(
        lambda: counter(collector, "enqueue_failed_spans", "otlp_grpc/jaeger") > 0,
        "spans that do not fit are dropped and counted",
        SECONDS,
    )
    counted = "traces_span_metrics_calls_total"
    wait_until(
        lambda: sum(value for _, value in samples(collector.span_metrics(), counted)) == 1002,
        "the spans are counted all the same",
        SECONDS,
    )

    jaeger.start()

    wait_until(lambda: bool(jaeger.spans(during)), "what has waited is in Jaeger", SECONDS)
    send(collector.otlp_url, SentSpan(after)).raise_for_status()
    wait_until(lambda: bool(jaeger.spans(after)), "and so is what comes", SECONDS)
    assert jaeger.spans(before), "Jaeger has kept what it had"

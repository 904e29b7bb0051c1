"""The real collector and the real Jaeger as servers of the tests, with the deployed files on loopback."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.monitoring.collector_config import (
    COLLECTOR,
    JAEGER,
    MONITORING,
    merged,
    reader,
)
from tests.monitoring.stack_programs import Place, Program
from tests.programs import given_program
from tests.tools import free_port

Sample = tuple[dict[str, str], float]


class Collector(Program):
    """otelcol-contrib with monitoring/collector/collector.yml.

    Args:
        place: Where it lives.
        jaeger: The address of Jaeger's OTLP receiver (gRPC), host:port.
        loki: The URL of Loki's OTLP receiver.
        overlay: What else differs from the file, such as the length of a queue.
        environment: The variables that the file knows.
    """

    def __init__(
        self,
        place: Place,
        *,
        jaeger: str = "127.0.0.1:9",
        loki: str = "http://127.0.0.1:9/otlp",
        overlay: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.grpc_port, self.http_port, self.fluent_port = free_port(), free_port(), free_port()
        self._own_port, self._span_metrics_port = free_port(), free_port()
        path = place.directory / "collector-overlay.yml"
        super().__init__(
            name="collector",
            place=place,
            tool=given_program("OTELCOL_BIN"),
            arguments=(f"--config={COLLECTOR}", f"--config={path}"),
            ready="/",
            environment={"TRACES_DECISION_WAIT": "1s", **(environment or {})},
        )
        here = "127.0.0.1"
        changed = {
            "receivers": {
                "otlp": {
                    "protocols": {
                        "grpc": {"endpoint": f"{here}:{self.grpc_port}"},
                        "http": {"endpoint": f"{here}:{self.http_port}"},
                    }
                },
                "fluent_forward": {"endpoint": f"{here}:{self.fluent_port}"},
            },
            "exporters": {
                "otlp_grpc/jaeger": {"endpoint": jaeger},
                "otlp_http/loki": {"endpoint": loki},
                "prometheus": {"endpoint": f"{here}:{self._span_metrics_port}"},
            },
            "connectors": {
                "span_metrics": {"metrics_flush_interval": "500ms"},
                "service_graph": {"metrics_flush_interval": "500ms", "store": {"ttl": "6s"}},
            },
            "extensions": {"health_check": {"endpoint": f"{here}:{self.port}"}},
            "service": {"telemetry": {"metrics": {"readers": reader(COLLECTOR, self._own_port)}}},
        }
        path.write_text(yaml.safe_dump(merged(changed, overlay or {})))

    @property
    def otlp_url(self) -> str:
        """Where spans are sent."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def span_metrics_address(self) -> str:
        """What Prometheus scrapes as the job span-metrics."""
        return f"127.0.0.1:{self._span_metrics_port}"

    def log(self) -> str:
        """Return the end of what it said."""
        return self._log()

    def own_metrics(self) -> str:
        """Return the page about itself."""
        return _page(self._own_port)

    def span_metrics(self) -> str:
        """Return the page that is made of spans, with exemplars."""
        return _page(self._span_metrics_port)

    def counted(self, name: str, **labels: str) -> float:
        """Return the sum of one of its own metrics, over the samples that have these labels."""
        return sum(value for _, value in samples(self.own_metrics(), name, **labels))


class Jaeger(Program):
    """Jaeger with monitoring/jaeger/jaeger.yml, which keeps its traces in `storage`."""

    def __init__(
        self,
        place: Place,
        *,
        storage: Path,
        prometheus: str = "http://127.0.0.1:9",
        overlay: Mapping[str, Any] | None = None,
    ) -> None:
        self.grpc_port, self._query_port, self._own_port = free_port(), free_port(), free_port()
        path = place.directory / "jaeger-overlay.yml"
        super().__init__(
            name="jaeger",
            place=place,
            tool=given_program("JAEGER_BIN"),
            arguments=(f"--config={JAEGER}", f"--config={path}"),
            ready="/status",
        )
        here = "127.0.0.1"
        directories = {"keys": str(storage / "keys"), "values": str(storage / "values")}
        changed = {
            "extensions": {
                "healthcheckv2": {"http": {"endpoint": f"{here}:{self.port}"}},
                "jaeger_storage": {
                    "backends": {"traces": {"badger": {"directories": directories}}},
                    "metric_backends": {"span_metrics": {"prometheus": {"endpoint": prometheus}}},
                },
                "jaeger_query": {
                    "ui": {"config_file": str(MONITORING / "jaeger/ui.json")},
                    "http": {"endpoint": f"{here}:{self._query_port}"},
                    "grpc": {"endpoint": f"{here}:{free_port()}"},
                },
            },
            "receivers": {
                "otlp": {
                    "protocols": {
                        "grpc": {"endpoint": f"{here}:{self.grpc_port}"},
                        "http": {"endpoint": f"{here}:{free_port()}"},
                    }
                }
            },
            "service": {"telemetry": {"metrics": {"readers": reader(JAEGER, self._own_port)}}},
        }
        path.write_text(yaml.safe_dump(merged(changed, overlay or {})))

    @property
    def address(self) -> str:
        """Where the collector sends spans."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def query_url(self) -> str:
        """Where people and Grafana ask."""
        return f"http://127.0.0.1:{self._query_port}"

    def own_metrics(self) -> str:
        """Return the page about itself."""
        return _page(self._own_port)

    def ask(self, path: str, **parameters: Any) -> Any:
        """Return the `data` of an answer of the query API."""
        answer = httpx2.get(f"{self.query_url}/api/{path}", params=parameters, timeout=15)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def metrics(self, kind: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return what the service performance view shows: calls, errors or latencies."""
        answer = httpx2.get(f"{self.query_url}/api/metrics/{kind}", params=parameters, timeout=15)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["metrics"]
        return found

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the spans of a trace, none where there is no such trace; `service` is added to each."""
        answer = httpx2.get(f"{self.query_url}/api/traces/{trace_id}", timeout=15)
        if answer.status_code == 404:
            return []
        assert answer.status_code == 200, answer.text
        (trace,) = answer.json()["data"]
        services = {key: one["serviceName"] for key, one in trace["processes"].items()}
        return [span | {"service": services[span["processID"]]} for span in trace["spans"]]


_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*?)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def samples(page: str, name: str, **labels: str) -> list[Sample]:
    """Return labels and value of each sample of a metric that has these labels."""
    found = []
    for line in page.splitlines():
        if (match := _SAMPLE.match(line)) and match["name"] == name:
            has = dict(_LABEL.findall(match["labels"] or ""))
            if labels.items() <= has.items():
                found.append((has, float(match["value"])))
    return found


def _page(port: int) -> str:
    asked = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    return (
        httpx2.get(f"http://127.0.0.1:{port}/metrics", headers=asked, timeout=15)
        .raise_for_status()
        .text
    )

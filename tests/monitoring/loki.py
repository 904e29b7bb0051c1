"""A real Loki with our configuration, lines in the collector's shape, and who hears its alerts."""

import json
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Final

import httpx2
import yaml

from app.observability.service_levels.objectives import seconds
from monitoring.build.logs.model import Line
from tests.monitoring.stack_programs import Place, Program
from tests.programs import given_program
from tests.tools import free_port

FILE: Final = Path(__file__).parents[2] / "monitoring/loki/loki.yml"
ENVIRONMENT: Final = "test"
CLUSTER: Final = "here"


class Hearer:
    """Stands for Alertmanager: keeps what it is told."""

    def __init__(self) -> None:
        heard, lock = list[dict[str, Any]](), Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    heard.extend(json.loads(body) if self.path == "/api/v2/alerts" else [])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                del format, args

        self._heard, self._lock = heard, lock
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def listening(self) -> Iterator["Hearer"]:
        """Listen within."""
        thread = Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def firing(self) -> list[dict[str, Any]]:
        """Return the alerts heard so far."""
        with self._lock:
            return list(self._heard)


class Loki(Program):
    """Loki as in production, but for addresses, directories and the pace of its rules.

    Tenants keep what is sent apart, so that each case has a Loki of its own.
    """

    def __init__(self, place: Place, *, alertmanager: str) -> None:
        super().__init__(
            name="loki",
            place=place,
            tool=given_program("LOKI_BIN"),
            arguments=("-config.file={directory}/loki.yml", "-config.expand-env=true"),
            ready="/ready",
            environment={"ENVIRONMENT": ENVIRONMENT, "CLUSTER": CLUSTER},
        )
        self._alertmanager = alertmanager
        self.rules = place.directory / "loki-rules"

    def command(self, directory: Path) -> tuple[list[str], str]:
        """Write the configuration, and return the command line."""
        config = yaml.safe_load(FILE.read_text())
        config = _elsewhere(config, {"/loki": str(directory), "/etc/loki/rules": str(self.rules)})
        self.rules.mkdir(exist_ok=True)
        config["auth_enabled"] = True
        config["server"] |= {
            "http_listen_address": "127.0.0.1",
            "http_listen_port": self.port,
            "grpc_listen_address": "127.0.0.1",
            "grpc_listen_port": free_port(),
        }
        config["ruler"] |= {"alertmanager_url": self._alertmanager, "poll_interval": "1s"}
        (directory / "loki.yml").write_text(yaml.safe_dump(config))
        return super().command(directory)

    def add_rules(self, tenant: str, groups: dict[str, Any]) -> None:
        """Let Loki find rules of a tenant."""
        folder = self.rules / tenant
        folder.mkdir(parents=True)
        (folder / "rules.yml").write_text(yaml.safe_dump(groups))

    def say(self, tenant: str, lines: Iterable[Line]) -> None:
        """Send lines as the collector does, the oldest first."""
        now = time.time_ns()
        for line in sorted(lines, key=lambda line: -seconds(line.age)):
            response = httpx2.post(
                f"{self.url}/otlp/v1/logs",
                json=_otlp(line, now),
                headers={"X-Scope-OrgID": tenant},
                timeout=15,
            )
            assert response.status_code in {200, 204}, response.text

    def ask(self, tenant: str, path: str, **parameters: str) -> Any:
        """Return what its API answers."""
        response = httpx2.get(
            self.url + path, params=parameters, headers={"X-Scope-OrgID": tenant}, timeout=15
        )
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def rule(self, tenant: str) -> dict[str, Any] | None:
        """Return the only rule of a tenant as it was evaluated, or nothing before it was."""
        groups = self.ask(tenant, "/prometheus/api/v1/rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        if len(rules) != 1 or rules[0]["health"] == "unknown":
            return None
        found: dict[str, Any] = rules[0]
        return found


def _elsewhere(value: Any, paths: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _elsewhere(one, paths) for key, one in value.items()}
    if isinstance(value, list):
        return [_elsewhere(one, paths) for one in value]
    if isinstance(value, str):
        for path, other in paths.items():
            if re.match(rf"{path}(/|$)", value):
                return other + value.removeprefix(path)
    return value


def _otlp(line: Line, now: int) -> dict[str, Any]:
    """Return lines as one export: what tells streams apart is of the resource, all fields are attributes."""
    resource = {
        "service.name": line.service,
        "service.namespace": "glasshouse",
        "deployment.environment.name": ENVIRONMENT,
        "log_stream": "audit" if line.audit else "app",
        "container.name": f"{line.service}-1",
    }
    # The line itself arrives as it was written; what it says is beside it, to be found by.
    body = line.text or json.dumps({"service": line.service, **line.fields})
    said = now - int(seconds(line.age) * 1e9)
    record = {
        "body": {"stringValue": body},
        "attributes": _attributes(line.fields),
        "severityText": line.fields.get("level", ""),
    }
    records = [{"timeUnixNano": str(said + number), **record} for number in range(line.times)]
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeLogs": [{"logRecords": records}],
            }
        ]
    }


def _attributes(values: Any) -> list[dict[str, Any]]:
    kinds = {int: "intValue", float: "doubleValue"}
    return [
        {"key": key, "value": {kinds.get(type(value), "stringValue"): value}}
        for key, value in values.items()
    ]

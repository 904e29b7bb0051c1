"""Stand-ins for the backends of the stack: over real HTTP, with as much of each API as the doctor asks.

A `StackOfStandIns` is in good health; a test makes one thing ill. The forms of the answers are those of the
real programs (of Prometheus, Alertmanager, Bugsink and the page of notifications they were seen here).
"""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.listener import Asked

USER: Final = "admin"
PASSWORD: Final = "correct horse battery"
OPERATIONS_TOKEN: Final = "operations-token-of-the-test"
SYNTHETIC_TOKEN: Final = "synthetic-token-of-the-test"
KEY: Final = "0a" * 16
TRACE: Final = "0123456789abcdef0123456789abcdef"
SERVICES: Final = ("glasshouse", "glasshouse-payment-provider", "glasshouse-worker")
DASHBOARDS: Final = (
    "overview",
    "api",
    "database",
    "business",
    "infrastructure",
    "worker",
    "slo",
    "security",
    "telemetry-cost",
)

Route = Any | Callable[[Asked, dict[str, list[str]]], Any]


class Reply(NamedTuple):
    """What is answered where a document with status 200 is not enough."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = {}  # noqa: RUF012 - nobody changes it


class StandIn:
    """Answers each path with the document of `routes`, or with what a function there makes of the request.

    A path that ends with * stands for all that begin with what is before it.

    Attributes:
        asked: Every request, for who wants to see what was sent.
        login: Whether it asks for a login: "basic" says so, "silent" answers 401 without a word.
    """

    def __init__(self, routes: dict[str, Route], login: str = "") -> None:
        self.routes = routes
        self.login = login
        self.asked: list[Asked] = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                reply = stand_in.answer(Asked(self.command, self.path, self.headers, body))
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            do_POST = do_DELETE = do_GET  # noqa: N815 - the names are http.server's

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["StandIn"]:
        """Answer for the time of the block."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="stand-in")
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, asked: Asked) -> Reply:
        """Return the answer of the route."""
        self.asked.append(asked)
        address = urlsplit(asked.path)
        if self.login and address.path != "/api/health" and not _is_logged_in(asked):
            basic = {"WWW-Authenticate": 'Basic realm="stack"'} if self.login == "basic" else {}
            return Reply(401, headers=basic)
        route = self.routes.get(address.path)
        for path, found in self.routes.items():
            if path.endswith("*") and address.path.startswith(path[:-1]):
                route = found
        if route is None:
            return Reply(404, b'{"message": "not found"}')
        document = route(asked, parse_qs(address.query)) if callable(route) else route
        if isinstance(document, Reply):
            return document
        return Reply(200, json.dumps(document).encode())


def _is_logged_in(asked: Asked) -> bool:
    expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return asked.headers.get("Authorization") == f"Basic {expected}"


def _data(data: Any) -> dict[str, Any]:
    return {"status": "success", "data": data}


def _vector(*samples: tuple[dict[str, str], float]) -> dict[str, Any]:
    found = [{"metric": labels, "value": [time.time(), str(value)]} for labels, value in samples]
    return _data({"resultType": "vector", "result": found})


class StackOfStandIns:
    """Nine stand-ins; `environment` is what leads the doctor to them.

    Attributes:
        series: What Prometheus finds, by a part of the query; a series with a job only if the query asks for
            none or for that one.
        configured: When Prometheus read its configuration, in seconds since 1970.
        lines: What Loki finds: service and text.
        silence: Seconds since the newest line.
        spans: The services of the one trace that Jaeger has.
    """

    def __init__(self) -> None:
        self.series: dict[str, list[tuple[dict[str, str], float]]] = {
            'up{job="otel-collector"}': [({"job": "otel-collector"}, 1.0)],
            # Jaeger is built of the same parts.
            "otelcol_process_uptime": [
                ({"job": "jaeger"}, 600.0),
                ({"job": "otel-collector"}, 120.0),
            ],
            "traces_span_metrics_calls_total": [({"service_name": one}, 1.0) for one in SERVICES],
            "traces_service_graph_request_total": [
                ({"client": SERVICES[0], "server": SERVICES[1]}, 1.0)
            ],
            "min(pg_up)": [({}, 1.0)],
            "min(redis_up)": [({}, 1.0)],
            "http_requests_total": [({}, 2.5)],
            "node_filesystem": [({"device": "/dev/vda1"}, 0.4)],
            "alertmanagers_discovered": [({}, 1.0)],
        }
        self.targets = [self.target("api", "app:8000"), self.target("worker", "worker:8002")]
        self.rules = [self.rule("ApiDown"), self.rule("slo:x", kind="recording")]
        self.configured = time.time() - 3600
        self.silence = 0.0
        self.lines = [(one, f'{{"trace_id": "{TRACE}"}}') for one in SERVICES]
        self.lines.append(("grafana", "level=info msg=started"))
        self.spans = list(SERVICES)
        self.order_status = "fulfilled"
        self.payment_status = "captured"
        self.failed_checks: list[str] = []
        self.unhealthy_data_sources: list[str] = []
        self.features = "exemplar-storage"
        self.delivers = True
        self.told: list[dict[str, Any]] = []
        self.events: dict[str, dict[str, Any]] = {}
        self.dashboards = [f"glasshouse-{name}" for name in DASHBOARDS]
        self.servers = {
            "APP_URL": StandIn(self._app()),
            "PROMETHEUS_URL": StandIn(self._prometheus()),
            "ALERTMANAGER_URL": StandIn(self._alertmanager()),
            "NOTIFICATIONS_URL": StandIn(self._notifications()),
            "MAILPIT_URL": StandIn(self._mailpit()),
            "LOKI_URL": StandIn(self._loki()),
            "JAEGER_URL": StandIn(self._jaeger()),
            "BUGSINK_URL": StandIn(self._bugsink()),
            "GRAFANA_URL": StandIn(self._grafana(), login="silent"),
        }
        self.environment = {name: one.url for name, one in self.servers.items()} | {
            "STACK_USER": USER,
            "STACK_PASSWORD": PASSWORD,
            "OPERATIONS_TOKEN": OPERATIONS_TOKEN,
            "SYNTHETIC_TOKEN": SYNTHETIC_TOKEN,
            "BUGSINK_KEY": KEY,
        }

    @contextmanager
    def running(self) -> Iterator["StackOfStandIns"]:
        """Answer for the time of the block."""
        with ExitStack() as running:
            for server in self.servers.values():
                running.enter_context(server.running())
            yield self

    @staticmethod
    def target(job: str, instance: str, health: str = "up", error: str = "") -> dict[str, Any]:
        """Return a target as Prometheus tells of it."""
        labels = {"job": job, "instance": instance}
        return {"labels": labels, "health": health, "lastError": error}

    @staticmethod
    def rule(
        name: str, kind: str = "alerting", health: str = "ok", error: str = ""
    ) -> dict[str, Any]:
        """Return a rule as Prometheus tells of it."""
        return {"name": name, "type": kind, "health": health, "lastError": error}

    # The nine ------------------------------------------------------------------------------------------

    def _app(self) -> dict[str, Route]:
        def created(document: dict[str, Any]) -> Callable[..., Reply]:
            def answer(*_: Any) -> Reply:
                return Reply(201, json.dumps(document).encode())

            return answer

        def ready(*_: Any) -> Reply:
            body = {"status": "down" if self.failed_checks else "ok", "failed": self.failed_checks}
            return Reply(503 if self.failed_checks else 200, json.dumps(body).encode())

        def pay(*_: Any) -> Reply:
            body = json.dumps({"id": "p", "status": self.payment_status}).encode()
            return Reply(201, body, {"X-Trace-ID": TRACE})

        def detailed(asked: Asked, _: Any) -> Any:
            if asked.headers["Authorization"] != f"Bearer {OPERATIONS_TOKEN}":
                return Reply(401, b"{}")
            down = [
                {"name": name, "status": "down", "error": "Refused"} for name in self.failed_checks
            ]
            return {"checks": [{"name": "database", "status": "up"}, *down]}

        return {
            "/health/live": {"status": "ok"},
            "/health/ready": ready,
            "/health/detailed": detailed,
            "/v1/users": created({"id": "u"}),
            "/v1/auth/token": {"access_token": "a-token", "token_type": "bearer"},
            "/v1/orders": created({"id": "o"}),
            "/v1/orders/o": lambda *_: {"id": "o", "status": self.order_status},
            "/v1/payments": pay,
            "/v1/payments/p/refund": created({}),
            "/v1/users/me": {},
        }

    def _prometheus(self) -> dict[str, Route]:
        def query(_: Asked, parameters: dict[str, list[str]]) -> Any:
            expression = parameters["query"][0]
            jobs = set(re.findall(r'job="([^"]+)"', expression))
            found = [
                sample
                for part, samples in self.series.items()
                if part in expression
                for sample in samples
                if not jobs or sample[0].get("job", "") in {*jobs, ""}
            ]
            return _vector(*found)

        exemplar = {"labels": {"trace_id": TRACE}, "value": "1", "timestamp": 1.5}
        return {
            "/-/ready": "ready",
            "/api/v1/query": query,
            "/api/v1/targets": lambda *_: _data({"activeTargets": self.targets}),
            "/api/v1/rules": lambda *_: _data({"groups": [{"interval": 120, "rules": self.rules}]}),
            "/api/v1/status/runtimeinfo": lambda *_: _data(
                {
                    "lastConfigTime": time.strftime(
                        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.configured)
                    )
                }
            ),
            "/api/v1/status/flags": lambda *_: _data({"enable-feature": self.features}),
            "/api/v1/alertmanagers": _data({"activeAlertmanagers": [{"url": "http://a/"}]}),
            "/api/v1/query_exemplars": _data([{"seriesLabels": {}, "exemplars": [exemplar]}]),
        }

    def _alertmanager(self) -> dict[str, Route]:
        names = ("watchdog", "critical", "warning", "info")
        original = "receivers:\n" + "".join(f"- name: {name}\n" for name in names)
        watchdog = {"labels": {"alertname": "Watchdog"}, "receivers": [{"name": "watchdog"}]}

        def alerts(asked: Asked, _: Any) -> Any:
            if asked.method == "POST":
                self.told += json.loads(asked.body)
                return Reply(200)
            return [watchdog]

        return {
            "/-/ready": "OK",
            "/api/v2/status": {"config": {"original": original}},
            "/api/v2/alerts": alerts,
        }

    def _notifications(self) -> dict[str, Route]:
        def listed(*_: Any) -> Any:
            told = self.told if self.delivers else []
            return {"notifications": [{"payload": {"alerts": [alert]}} for alert in told]}

        return {"/health": {"status": "ok"}, "/v1/notifications": listed}

    def _mailpit(self) -> dict[str, Route]:
        return {"/readyz": "ok", "/api/v1/messages": {"total": 3, "messages": []}}

    def _loki(self) -> dict[str, Route]:
        def query_range(_: Asked, parameters: dict[str, list[str]]) -> Any:
            query = parameters["query"][0]
            words = re.findall(r'(?:\||\|=|\| trace_id=) ?"([^"]+)"', query)
            patterns = [
                one.replace('\\"', '"') for one in re.findall(r'\|~ "((?:[^"\\]|\\.)*)"', query)
            ]
            found = [
                {"stream": {"service_name": service}, "values": [["1", text]]}
                for service, text in self.lines
                if (f'"{service}"' in query or '=~".+"' in query)
                and all(word in text for word in words)
                and ("| level=~" not in query or "level=error" in text)
                and all(re.search(pattern, text) for pattern in patterns)
            ]
            return _data({"resultType": "streams", "result": found})

        def query(_: Asked, parameters: dict[str, list[str]]) -> Any:
            (minutes,) = re.findall(r"\[(\d+)m\]", parameters["query"][0])
            found = self.lines if self.silence < int(minutes) * 60 else []
            return _vector(*(({"service_name": service}, 5.0) for service, _ in found))

        return {
            "/ready": "ready",
            "/loki/api/v1/query": query,
            "/loki/api/v1/query_range": query_range,
            "/prometheus/api/v1/rules": _data({"groups": [{"rules": [self.rule("LogErrors")]}]}),
        }

    def _jaeger(self) -> dict[str, Route]:
        def trace(*_: Any) -> Any:
            if not self.spans:
                return Reply(404, b'{"errors": []}')
            spans = [
                {"traceID": TRACE, "spanID": name, "operationName": name, "processID": name}
                for name in self.spans
            ]
            processes = {name: {"serviceName": name} for name in self.spans}
            return {"data": [{"spans": spans, "processes": processes}]}

        return {"/api/services": {"data": list(SERVICES)}, f"/api/traces/{TRACE}": trace}

    def _bugsink(self) -> dict[str, Route]:
        def log_in(asked: Asked, _: Any) -> Any:
            if asked.method == "GET":
                return Reply(200, b'<input name="csrfmiddlewaretoken" value="t">')
            form = parse_qs(asked.body.decode())
            is_right = form["password"] == [PASSWORD] and form["username"] == [
                "admin@glasshouse.localhost"
            ]
            if not is_right:
                return Reply(200, b"<form>")
            return Reply(302, b"", {"Set-Cookie": "sessionid=s; Secure; HttpOnly; Path=/"})

        def envelope(asked: Asked, _: Any) -> Any:
            if f"sentry_key={KEY}" not in asked.headers["X-Sentry-Auth"]:
                return Reply(403, b"{}")
            event = json.loads(asked.body.splitlines()[2])
            self.events[event["event_id"]] = event
            return {"id": event["event_id"]}

        def by_id(asked: Asked, _: Any) -> Any:
            if "sessionid=s" not in (asked.headers["Cookie"] or ""):
                return Reply(302, b"", {"Location": "/accounts/login/"})
            number = asked.path.split("/")[3]
            if number.replace("-", "") not in self.events:
                return Reply(404)
            return Reply(302, b"", {"Location": f"/issues/issue/i/event/{number}/"})

        def raw(asked: Asked, _: Any) -> Any:
            return self.events[asked.path.split("/")[3].replace("-", "")]

        return {
            "/health/ready": "ok",
            "/issues/event/*": by_id,
            "/events/event/*": raw,
            "/projects/1/sdk-setup/python/": Reply(
                200, b'dsn="http://%s@bugsink/1"' % KEY.encode()
            ),
            "/accounts/login/": log_in,
            "/api/1/envelope/": envelope,
        }

    def _grafana(self) -> dict[str, Route]:
        def health(asked: Asked, _: Any) -> Any:
            uid = asked.path.split("/")[4]
            if uid in self.unhealthy_data_sources:
                body = {"status": "ERROR", "message": f"{uid} cannot be reached"}
                return Reply(400, json.dumps(body).encode())
            return {"status": "OK", "message": "works"}

        sources = ("prometheus", "loki", "jaeger", "alertmanager")
        return {
            "/api/health": {"database": "ok"},
            "/api/user": {"login": USER},
            "/api/datasources": [{"uid": uid} for uid in sources],
            **{f"/api/datasources/uid/{uid}/health": health for uid in sources[:3]},
            "/api/datasources/proxy/uid/alertmanager/api/v2/status": {},
            "/api/search": lambda *_: [{"uid": uid} for uid in self.dashboards],
        }

"""What a Sentry-compatible server (bugsink) has stored, and that it can be away without anybody noticing.

Real processes report to it. What fails in them is made to fail from outside: a trigger in the database
refuses a statement, as one that somebody forgot would.
"""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.observability.error_tracking import MAX_REPORTS_PER_MINUTE
from tests.bugsink import Issue, Project, Tracker
from tests.provider import RunningProvider
from tests.service import (
    PASSWORD,
    ROOT,
    RunningProcess,
    ServiceClient,
    migrate_database,
    start_process,
)
from tests.tools import free_port, wait_until

CARD = "4111 1111 1111 1111"
ADDRESS = "ada.canary@example.com"
MESSAGE = f"no room for the card {CARD} of {ADDRESS}, password=canary-in-message"
RELEASE = {"SERVICE_VERSION": "1.2.3", "GIT_COMMIT": "abc1234", "ENVIRONMENT": "staging"}
QUIET = {"DATABASE_SLOW_QUERY_MS": "600000"}
"""No warnings of slow statements: a slow machine must not add issues."""
EXIT_SECONDS = 60.0
"""The time to end is bounded by 5 s; the rest is for a busy machine."""


@dataclass
class Shop:
    """A service, its database, and where it reports to."""

    directory: Path
    provider_url: str
    database: Path = field(init=False)

    def __post_init__(self) -> None:
        self.database = self.directory / "service.db"
        migrate_database(self.database_url)

    @property
    def database_url(self) -> str:
        return f"sqlite+aiosqlite:///{self.database}"

    def start(self, command: str, environment: dict[str, str], **more: str) -> RunningProcess:
        """Start the API or a worker."""
        return start_process(
            command,
            self.directory,
            database_url=self.database_url,
            provider_url=self.provider_url,
            **(RELEASE | QUIET | environment | more),
        )

    def execute(self, statement: str) -> None:
        """Run one statement beside the service."""
        with closing(sqlite3.connect(self.database, timeout=60)) as connection, connection:
            connection.execute(statement)

    @contextmanager
    def refusing(self, operation: str, message: str = MESSAGE) -> Iterator[None]:
        """Let a trigger refuse `operation`, such as INSERT ON orders, for the time of the block."""
        self.execute(
            f"CREATE TRIGGER forgotten BEFORE {operation} "
            f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )
        try:
            yield
        finally:
            self.execute("DROP TRIGGER forgotten")


def client_of(api: RunningProcess) -> httpx2.AsyncClient:
    """A client of one process, patient as a busy machine needs it."""
    return httpx2.AsyncClient(base_url=api.url, timeout=60, trust_env=False)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, provider: RunningProvider) -> Shop:
    """A migrated database and a provider."""
    return Shop(tmp_path_factory.mktemp("shop"), provider.url)


@pytest.fixture(scope="module")
def project(bugsink: Tracker) -> Project:
    """Where the shared process reports to."""
    return bugsink.project()


@pytest.fixture(scope="module")
def api(shop: Shop, project: Project) -> Iterator[RunningProcess]:
    """The API as a process that reports to bugsink."""
    with shop.start("serve", project.environment) as running:
        yield running


@pytest.fixture
async def http(api: RunningProcess) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the API."""
    async with client_of(api) as client:
        yield client


@pytest.fixture
async def person(http: httpx2.AsyncClient) -> ServiceClient:
    """Somebody who is logged in."""
    return await logged_in(http)


async def logged_in(http: httpx2.AsyncClient) -> ServiceClient:
    person = ServiceClient(http)
    await person.register()
    assert (await person.log_in()).status_code == 200
    return person


def counted(process: RunningProcess, name: str, **labels: str) -> float:
    """Return the value of one series on /metrics, 0 where there is none."""
    page = httpx2.get(f"{process.url}/metrics", timeout=60, trust_env=False).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def with_request(issues: list[Issue], response: httpx2.Response) -> list[Issue]:
    """Return the issues that have an event of this request."""
    request_id = response.headers["X-Request-ID"]
    return [
        issue
        for issue in issues
        if any(event["tags"].get("request_id") == request_id for event in issue.events)
    ]


def wait_for(project: Project, response: httpx2.Response) -> Issue:
    """Wait until the failure of this request is an issue; return that."""
    found: list[Issue] = []

    def arrived() -> bool:
        found[:] = with_request(project.issues(), response)
        return bool(found)

    wait_until(arrived, "the failure arrives", seconds=120)
    assert len(found) == 1
    return found[0]


def of_request(issue: Issue, response: httpx2.Response) -> dict[str, Any]:
    """Return the first event of this request."""
    request_id = response.headers["X-Request-ID"]
    return next(event for event in issue.events if event["tags"].get("request_id") == request_id)


async def test_a_failure_of_a_request_is_an_issue_that_tells_what_where_and_who(
    shop: Shop, project: Project, person: ServiceClient
) -> None:
    order = await person.order()
    with shop.refusing("UPDATE OF body ON idempotency_keys"):
        response = await person.pay(order["id"], key="once")
    assert response.status_code == 500, response.text

    issue = wait_for(project, response)
    event = of_request(issue, response)
    assert (issue.type, issue.transaction) == ("IntegrityError", "/v1/payments")
    assert "no room for the card [redacted] of [redacted], password=[redacted]" in issue.value
    assert event["contexts"]["trace"]["trace_id"] == response.headers["X-Trace-ID"]
    assert event["release"] == "glasshouse@1.2.3+abc1234"
    assert event["environment"] == "staging"
    assert event["user"] == {"id": (await person.get("/v1/users/me")).json()["id"]}
    assert event["tags"] == {
        "service": "glasshouse",
        "where": "request",
        "route": "/v1/payments",
        "method": "POST",
        "request_id": response.headers["X-Request-ID"],
    }
    told = [(crumb["message"], crumb["data"]) for crumb in event["breadcrumbs"]["values"]]
    assert told == [
        ("payment begun", {"currency": "EUR"}),
        ("payment ended", {"status": "captured"}),
    ]


async def test_a_failure_in_a_library_is_grouped_by_the_function_of_ours_that_called_it(
    shop: Shop, project: Project, person: ServiceClient
) -> None:
    order = await person.order()
    with shop.refusing("UPDATE OF body ON idempotency_keys"):
        response = await person.pay(order["id"], key="once")

    event = of_request(wait_for(project, response), response)
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    ours = {frame["module"].split(".")[0] for frame in frames if frame.get("in_app")}
    assert ours == {"app"}
    assert event["fingerprint"] == [
        "sqlalchemy.exc.IntegrityError",
        "/v1/payments",
        "app.infrastructure.database.transaction",
    ]


async def test_a_failure_tells_the_statement_and_its_pool(
    shop: Shop, project: Project, person: ServiceClient
) -> None:
    with shop.refusing("INSERT ON order_lines"):
        response = await person.post("/v1/orders", order_of("TEA"))

    event = of_request(wait_for(project, response), response)
    database = event["contexts"]["database"]
    assert "INSERT INTO order_lines" in json.dumps(database)
    assert "TEA" not in json.dumps(database)


def order_of(sku: str) -> dict[str, Any]:
    return {"currency": "EUR", "lines": [{"sku": sku, "quantity": 1, "unit_amount": 2500}]}


async def test_nothing_that_a_client_sent_and_nothing_secret_is_stored(
    shop: Shop, project: Project, person: ServiceClient
) -> None:
    with shop.refusing("INSERT ON order_lines"):
        response = await person.http.post(
            "/v1/orders?coupon=canary-in-query&token=canary-token",
            json=order_of("CANARY-IN-BODY"),
            headers=person.headers | {"X-Canary": "canary-in-header", "Cookie": "c=canary-cookie"},
        )
    assert response.status_code == 500

    issue = wait_for(project, response)
    event = of_request(issue, response)
    stored = json.dumps([event, issue.value])
    secrets = ["canary", CARD, CARD.replace(" ", ""), ADDRESS, person.email, PASSWORD]
    assert [secret for secret in secrets if secret.lower() in stored.lower()] == []
    assert person.headers["Authorization"].removeprefix("Bearer ") not in stored
    frames = [f for e in event["exception"]["values"] for f in e["stacktrace"]["frames"]]
    assert frames
    assert [frame["vars"] for frame in frames if frame.get("vars")] == []
    assert not event.get("server_name")
    assert "request" not in event
    around = json.dumps({name: part for name, part in event.items() if name != "exception"})
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", around)


async def test_the_same_failure_is_one_issue_and_another_route_is_another(
    shop: Shop, project: Project, person: ServiceClient
) -> None:
    order = await person.order()
    with shop.refusing("UPDATE ON orders"):
        same = [await person.post(f"/v1/orders/{order['id']}/cancel") for _ in range(2)]
        other = await person.pay(order["id"])
    assert {response.status_code for response in [*same, other]} == {500}

    wait_until(
        lambda: all(with_request(project.issues(), response) for response in [*same, other]),
        "all three arrive",
        seconds=120,
    )
    issues = project.issues()
    first, second, third = ([*with_request(issues, response)] for response in [*same, other])
    assert first == second
    assert first[0].transaction == "/v1/orders/{order_id}/cancel"
    assert len(first[0].events) == 2
    assert third[0].transaction == "/v1/payments"
    assert third != first


async def test_what_is_an_answer_is_no_issue(
    shop: Shop, bugsink: Tracker, provider: RunningProvider
) -> None:
    project = bugsink.project()
    with shop.start("serve", project.environment, RATE_LIMIT_LOGIN="1/year") as api:
        async with client_of(api) as http:
            person = await logged_in(http)
            order, declined = await person.order(), await person.order()
            assert (await person.pay(order["id"])).json()["status"] == "captured"
            answers = [
                await person.pay(order["id"]),  # paid already
                await person.get(f"/v1/orders/{uuid.uuid4()}"),
                await person.get("/nowhere"),
                await ServiceClient(http).get("/v1/users/me"),
                await person.post("/v1/orders", {}),
                await person.post("/v1/users", {"email": ADDRESS, "password": "x", "name": ""}),
                await person.log_in(),
                await person.pay(declined["id"], "tok_declined"),
            ]
            assert [answer.status_code for answer in answers] == [
                409,
                404,
                404,
                401,
                422,
                422,
                429,
                201,
            ]
            # Reports leave in order: when this one is there, nothing was before it.
            with shop.refusing("INSERT ON orders"):
                last = await person.post("/v1/orders", order_of("TEA"))
            wait_for(project, last)
            assert len(project.events()) == 1
            assert counted(api, "unhandled_exceptions_total") == 1


async def test_a_failure_of_the_worker_belongs_to_the_request_that_caused_it(
    shop: Shop, bugsink: Tracker, person: ServiceClient
) -> None:
    order = await person.order()
    paid = await person.pay(order["id"])
    assert paid.json()["status"] == "captured"
    project = bugsink.project()
    with (
        shop.refusing("INSERT ON receipts"),
        shop.start("worker", project.environment),
    ):
        issue = wait_for(project, paid)

    event = of_request(issue, paid)
    assert (issue.type, issue.transaction) == ("IntegrityError", "write_receipt")
    assert "no room for the card [redacted] of [redacted]" in issue.value
    assert event["release"] == "glasshouse-worker@1.2.3+abc1234"
    assert event["contexts"]["trace"]["trace_id"] == paid.headers["X-Trace-ID"]
    assert event["tags"] == {
        "service": "glasshouse-worker",
        "where": "job",
        "task": "write_receipt",
        "route": "write_receipt",
        "request_id": paid.headers["X-Request-ID"],
    }
    assert CARD not in json.dumps(event)
    assert ADDRESS not in json.dumps(event)


async def test_an_outage_is_stored_ten_times_a_minute_and_the_rest_is_counted(
    shop: Shop, bugsink: Tracker
) -> None:
    project, failures = bugsink.project(), 300
    with shop.start("serve", project.environment) as api, ExitStack() as repaired:
        async with client_of(api) as http:
            person = await logged_in(http)
            began = time.monotonic()
            shop.execute("ALTER TABLE orders RENAME TO orders_away")
            repaired.callback(shop.execute, "ALTER TABLE orders_away RENAME TO orders")
            answers = [await person.get("/v1/orders") for _ in range(failures)]
            minutes = int((time.monotonic() - began) // 60) + 1
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.headers["Retry-After"] for answer in answers} == {"1"}

        suppressed = int(counted(api, "error_reports_suppressed_total"))
        events = project.wait_for(events=failures - suppressed)[0].events
        assert len(events) + suppressed == failures
        assert MAX_REPORTS_PER_MINUTE <= len(events) <= MAX_REPORTS_PER_MINUTE * minutes
        assert len(project.issues()) == 1
        assert counted(api, "telemetry_dropped_total", signal="errors") == 0


@contextmanager
def limiting_server() -> Iterator[tuple[str, list[str]]]:
    """A server that answers 429 and asks for an hour of silence; yields its DSN and what it was sent."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            self.send_response(429)
            self.send_header("Retry-After", "3600")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://key@127.0.0.1:{server.server_port}/1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def dead_server(kind: str) -> Iterator[str]:
    """The DSN of a server that refuses connections, or accepts them and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "hanging":
            listener.listen()
        yield f"http://key@127.0.0.1:{listener.getsockname()[1]}/1"


async def lose_reports(shop: Shop, dsn: str, failures: int) -> None:
    """Let requests fail in a process whose reports to `dsn` are all lost, and let it end with one pending.

    They are answered all the same, the reports are counted, and the end comes in time.
    """
    with shop.start("serve", {"SENTRY_DSN": dsn, "no_proxy": "127.0.0.1"}) as api:
        async with client_of(api) as http:
            person = await logged_in(http)
            with shop.refusing("INSERT ON orders"):
                broken = [await person.post("/v1/orders", order_of("TEA")) for _ in range(failures)]
            assert {response.status_code for response in broken} == {500}
            assert (await person.order())["status"] == "pending"
            wait_until(
                lambda: counted(api, "telemetry_dropped_total", signal="errors") == failures,
                f"{failures} lost reports are counted",
                seconds=120,
            )
            assert counted(api, "unhandled_exceptions_total", where="request") == failures
            assert counted(api, "error_reports_suppressed_total") == 0
            with shop.refusing("INSERT ON orders"):
                await person.post("/v1/orders", order_of("TEA"))
        api.send_signal(signal.SIGTERM)
        api.wait(EXIT_SECONDS)


async def test_a_wrong_key_loses_the_reports_and_counts_them(shop: Shop, bugsink: Tracker) -> None:
    project = bugsink.project()
    scheme, _, rest = project.dsn.partition("://")
    wrong = f"{scheme}://{'0' * 32}@{rest.partition('@')[2]}"
    await lose_reports(shop, wrong, failures=3)
    assert project.events() == []


async def test_a_server_that_asks_for_silence_is_left_alone_and_the_reports_are_counted(
    shop: Shop,
) -> None:
    with limiting_server() as (dsn, asked):
        await lose_reports(shop, dsn, failures=5)
    assert len(asked) == 1


@pytest.mark.parametrize(("kind", "failures"), [("refusing", 5), ("hanging", 1)])
async def test_a_dead_server_costs_the_reports_and_nothing_else(
    shop: Shop, kind: str, failures: int
) -> None:
    with dead_server(kind) as dsn:
        await lose_reports(shop, dsn, failures)


@pytest.fixture
def bare_app(tmp_path: Path) -> Path:
    """The app of docs/patterns/error-tracking.md, with the files that it names and nothing else."""
    page = (ROOT / "docs/patterns/error-tracking.md").read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    copied = re.search(r"^Copy into `(.*?)/`: (.*)\.$", page, re.MULTILINE)
    assert code is not None
    assert copied is not None
    observability = tmp_path / copied[1]
    observability.mkdir(parents=True)
    for name in re.findall(r"`(.*?)`", copied[2]):
        shutil.copy(ROOT / copied[1] / name, observability)
    (tmp_path / "app" / "main.py").write_text(code[1])
    return tmp_path


def test_the_documented_lines_make_a_bare_app_report(bugsink: Tracker, bare_app: Path) -> None:
    project, port = bugsink.project(), free_port()
    environment = {**os.environ, **project.environment, "PYTHONPATH": str(bare_app)}
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app.main:app", f"--port={port}", "--log-level=critical"],
        cwd=bare_app,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        with http:
            wait_until(lambda: is_answering(http), "the bare app answers", seconds=60)
            assert http.get("/shares/4").json() == {"each": 25.0}
            assert http.get("/shares/0").status_code == 500
        (issue,) = project.wait_for(events=1)
    finally:
        server.terminate()
        server.wait(60)
    assert (issue.type, issue.transaction) == ("ZeroDivisionError", "/shares/{people}")
    assert [c["message"] for c in issue.events[0]["breadcrumbs"]["values"]] == ["share asked for"]
    assert issue.events[0]["tags"]["request_id"]


def is_answering(http: httpx2.Client) -> bool:
    try:
        return http.get("/openapi.json").status_code == 200
    except httpx2.TransportError:
        return False

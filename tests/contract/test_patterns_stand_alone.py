"""Each file of the pattern library works in a bare application, with the files that it imports and no other.

What somebody does who copies one pattern into a service of his own: the file, what it imports from its
own directory, one set-up call.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "app" / "observability"

BARE = """
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import generate_latest
app = FastAPI()
def metrics():
    return generate_latest().decode()
@app.get("/items/{item_id}")
def read_item(item_id: int) -> int:
    return 100 // item_id
"""

USE = {
    "database": """
from sqlalchemy import create_engine, text
from sqlalchemy.pool import QueuePool
from app.observability.database import DatabaseInsightSettings, instrument_database
engine = create_engine("sqlite://", poolclass=QueuePool)
instrument_database(engine, DatabaseInsightSettings())
with engine.connect() as connection:
    connection.execute(text("CREATE TABLE items (id INTEGER)"))
    connection.execute(text("SELECT id FROM items"))
assert 'database_query_duration_seconds_count{operation="SELECT",table="items"} 1.0' in metrics()
assert 'database_connections_max{pool="main"}' in metrics()
""",
    "query_plans": """
from sqlalchemy.ext.asyncio import create_async_engine
from app.observability.query_plans import QueryPlans, QueryPlanSettings
plans = QueryPlans(
    create_async_engine("postgresql+asyncpg://u:p@127.0.0.1/x"), QueryPlanSettings(), on_finding=None
)
assert 'database_explains_total{result="failed"} 0.0' in metrics()
""",
    "logs": """
import json, sys
from app.observability.context import identify_requests
from app.observability.logs import LogSettings, flush_logs, instrument_access_log, setup_logs
setup_logs(LogSettings(log_format="json"), destination=open("log.txt", "w"))
instrument_access_log(app)
identify_requests(app)
TestClient(app).get("/items/1")
flush_logs(60)
lines = [json.loads(line) for line in open("log.txt")]
assert [line["route"] for line in lines if line["type"] == "http_request"] == ["/items/{item_id}"]
""",
    "metrics": """
from app.observability.metrics import MetricsSettings, instrument_metrics
instrument_metrics(app, MetricsSettings())
client = TestClient(app)
client.get("/items/1")
assert 'http_requests_total{handler="/items/{item_id}",method="GET",status="200"} 1.0' in (
    client.get("/metrics").text
)
""",
    "tracing": """
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from app.observability.tracing import TracingSettings, instrument_tracing, setup_tracing
exporter = InMemorySpanExporter()
tracing = setup_tracing(TracingSettings(otel_traces_sampler_arg=1.0), exporter=exporter)
instrument_tracing(app, tracing)
answer = TestClient(app).get("/items/1")
tracing.flush(60)
(span,) = exporter.get_finished_spans()
assert span.name == "GET /items/{item_id}"
assert f"{span.context.trace_id:032x}" == answer.headers["X-Trace-ID"]
tracing.shutdown()
""",
    "error_tracking": """
from sentry_sdk.transport import Transport
from app.observability.error_tracking import (
    ErrorTrackingSettings, report_exception, report_warning, setup_error_tracking,
)
sent = []
class Kept(Transport):
    def capture_envelope(self, envelope):
        sent.append(envelope.get_event())
settings = ErrorTrackingSettings(sentry_dsn="http://key@127.0.0.1:9/1")
setup_error_tracking(settings, transport=Kept)
report_exception(ValueError("boom"))
report_warning("slow", fingerprint=["slow", "1"])
assert [event["level"] for event in sent] == ["error", "warning"]
""",
    "exceptions": """
from app.observability.exceptions import instrument_exceptions
instrument_exceptions(app)
assert TestClient(app, raise_server_exceptions=False).get("/items/0").status_code == 500
assert 'unhandled_exceptions_total{where="request"} 1.0' in metrics()
""",
    "health": """
from app.observability.health import Health, HealthSettings, install_health_routes
health = Health([])
health.mark_started()
install_health_routes(app, health, HealthSettings())
assert TestClient(app).get("/health/ready").json() == {"status": "ok", "failed": []}
""",
    "slo": """
import json
from pathlib import Path
from prometheus_client import Counter
from app.observability.slo import ServiceLevelMonitor, SLOSettings, install_slo_route
served = Counter("served_total", "Cups.", ["result"])
objective = {
    "name": "tea", "service": "tea", "journey": "all", "description": "Tea is served.",
    "owner": "kitchen", "target": 99.9,
    "indicator": {
        "type": "ratio", "metric": "served_total", "job": "api", "bad": 'result="spilt"'
    },
}
Path("objectives.yml").write_text(json.dumps({"objectives": [objective]}))
monitor = ServiceLevelMonitor(SLOSettings(slo_objectives_file=Path("objectives.yml")))
install_slo_route(app, monitor)
app.router.lifespan_context = lambda _: monitor.running()
with TestClient(app) as client:
    served.labels("good").inc(3)
    while True:
        (found,) = client.get("/slo").json()["objectives"]
        if found["events"]:
            break
assert found["sli"] == 1.0
""",
    "service_levels.report_markdown": """
from datetime import UTC, datetime
from app.observability.service_levels.report_markdown import markdown
from app.observability.service_levels.report import Report
now = datetime.now(UTC)
report = Report(start=now, end=now, days=7, period="30d", objectives=[], alerts=[])
assert "None fired." in markdown(report)
""",
    "profiling": """
from app.observability.operations import OperationsSettings
from app.observability.profiling import install_profiling_routes
install_profiling_routes(app, OperationsSettings(operations_token="secret"))
headers = {"Authorization": "Bearer secret"}
client = TestClient(app)
assert client.get("/debug/tasks").status_code == 401
assert client.get("/debug/tasks", headers=headers).status_code == 200
""",
    "business": """
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from app.observability.business import after_commit
done = []
with Session(create_engine("sqlite://")) as session, session.begin():
    after_commit(session, lambda: done.append(1))
    assert not done
assert done
""",
    "jobs": """
import asyncio
from app.observability.jobs import run_job
async def job():
    async with run_job("tidy"):
        pass
asyncio.run(job())
assert 'jobs_processed_total{status="succeeded",task="tidy"} 1.0' in metrics()
""",
    "security": """
from app.observability.security import record_auth_attempt
record_auth_attempt("failure")
assert 'auth_attempts_total{result="failure"} 1.0' in metrics()
""",
    "runtime": """
import asyncio
from app.observability.runtime import monitor_event_loop
async def watch():
    async with monitor_event_loop():
        await asyncio.sleep(1)
asyncio.run(watch())
assert "event_loop_lag_seconds_count" in metrics()
""",
}  # fmt: skip


def imported_by(name: str) -> set[str]:
    """Return the modules of the library that `name` needs, itself and packages around it included."""
    needed: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one in needed:
            continue
        needed.add(one)
        package = one.rpartition(".")[0]
        waiting += [package] if package else []
        for node in ast.walk(ast.parse(file_of(one).read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module.startswith("app.observability."):
                    waiting.append(node.module.removeprefix("app.observability."))
                else:
                    assert not node.module.startswith("app"), node.module
    return needed


def file_of(name: str) -> Path:
    """Return the file of a module of the library, of a package its `__init__.py`."""
    path = LIBRARY.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize("name", USE)
def test_the_pattern_works_with_what_it_imports(name: str, tmp_path: Path) -> None:
    package = tmp_path / "app" / "observability"
    package.mkdir(parents=True)
    for needed in imported_by(name):
        file = file_of(needed)
        copy = package / file.relative_to(LIBRARY)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(file, copy)
    script = tmp_path / "bare.py"
    script.write_text(BARE + USE[name])
    run_alone(script, tmp_path)


def run_alone(script: Path, directory: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(script)],
        cwd=directory,
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")}
        | {"PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_slow_statement_is_told_by_its_caller_in_a_package_of_any_name(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    for needed in imported_by("database"):
        file = file_of(needed)
        text = file.read_text("utf-8").replace("app.observability", "shop")
        (package / file.name).write_text(text)
    (package / "stock.py").write_text(
        "from sqlalchemy import text\n"
        "def look(engine):\n"
        "    with engine.connect() as connection:\n"
        "        connection.execute(text('SELECT 1'))\n"
    )
    script = tmp_path / "run.py"
    script.write_text("""
from loguru import logger
from sqlalchemy import create_engine
from shop.database import DatabaseInsightSettings, instrument_database
from shop.stock import look
told = []
logger.add(lambda message: told.append(message.record["extra"].get("caller")))
engine = create_engine("sqlite://")
instrument_database(engine, DatabaseInsightSettings(database_slow_query_ms=0.000001), application="shop")
look(engine)
assert told == ["shop/stock.py:4 look"], told
""")
    run_alone(script, tmp_path)


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("database", {"query_plans"}),
        ("error-tracking", {"error_tracking", "exceptions"}),
        ("service-levels", {"slo"}),
    ],
)
def test_its_page_names_the_files_to_copy(page: str, names: set[str]) -> None:
    text = (ROOT / "docs" / "patterns" / f"{page}.md").read_text("utf-8")
    told = re.search(r"^Copy into .+?\.$", text, re.MULTILINE | re.DOTALL)
    assert told is not None
    needed = set().union(*(imported_by(name) for name in names))

    listed = re.sub(r"\([^)]*\)", "", told[0])  # without targets of links, and remarks
    files = set(re.findall(r"\b(\w+)\.py\b", listed)) - {"__init__"}
    directories = set(re.findall(r"`(\w+)/`", listed))

    assert files == {name for name in needed if file_of(name).parent == LIBRARY}
    assert directories == {name for name in needed if file_of(name).name == "__init__.py"}


def test_every_file_of_the_library_is_tried_or_imported_by_one_that_is() -> None:
    reached = set().union(*(imported_by(name) for name in USE))
    there = {path for path in LIBRARY.rglob("*.py") if path != LIBRARY / "__init__.py"}
    assert there == {file_of(name) for name in reached}

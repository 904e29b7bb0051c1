"""`/slo` of the real service: from its own counters, those of several workers, and a real Prometheus."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from app import cli
from app.observability.service_levels.assessment import WINDOWS, ServiceLevels
from tests.integration.conftest import OpenService
from tests.listener import Answer, Asked, Listener
from tests.service import ROOT, migrate_database, start_process
from tests.slo import PrometheusServer, StubPrometheus, declare, vector
from tests.tools import wait_until

LONG = 60.0


async def levels_when(
    http: httpx2.AsyncClient, holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Return the objectives by name, with all around them as "levels", as soon as something holds."""
    async with asyncio.timeout(LONG):
        while True:
            answer = await http.get("/slo")
            assert answer.status_code == 200, answer.text
            body = ServiceLevels.model_validate(answer.json()).model_dump(mode="json")
            found = {one["name"]: one for one in body["objectives"]} | {"levels": body}
            if holds(found):
                return found
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("service_database", ["sqlite"], indirect=True)
async def test_the_service_tells_exactly_what_it_has_served(open_here: OpenService) -> None:
    async with open_here(raise_app_exceptions=False) as service:

        @service.app.get("/explodes")
        async def explode() -> None:
            raise RuntimeError("on purpose")

        before = await levels_when(service.http, lambda _: True)
        assert before["levels"]["source"] == "process"
        assert before["api-errors"]["state"] == "no_data", "it has served nobody"
        for _ in range(7):
            assert (await service.http.get("/v1/users/me")).status_code == 401
        assert (await service.http.get("/explodes")).status_code == 500
        assert (await service.http.get("/nowhere")).status_code == 404
        assert (await service.http.get("/health/live")).status_code == 200
        found = await levels_when(service.http, lambda all_: all_["api-errors"]["events"] == 8)
        errors = found["api-errors"]
        assert (errors["sli"], errors["bad_events"]) == (0.875, 1)
        assert errors["error_budget_remaining"] == pytest.approx(1 - 0.125 / 0.001)
        assert errors["state"] == "ok", "one error is no verdict"
        assert errors["reason"] == "Of 8 events 1 bad, too few to judge by: 5 count."
        assert 0 < errors["covered_seconds"] < LONG
        assert {rate["burn_rate"] for rate in errors["burn_rates"]} == {125}
        assert found["api-latency"]["events"] == 7, "a fast error is no fast answer"
        for name, job in (
            ("worker-jobs", "worker"),
            ("job-freshness", "worker"),
            ("api-availability", "blackbox"),
            ("synthetic-journey", "synthetic"),
        ):
            assert found[name]["state"] == "no_data"
            assert f"comes from the job {job}" in found[name]["reason"]
        for _ in range(4):
            await service.http.get("/explodes")
        found = await levels_when(service.http, lambda all_: all_["api-errors"]["events"] == 12)
        assert found["api-errors"]["state"] == "exhausted"
        assert [one["long"] for one in found["api-errors"]["burning"]] == ["1h", "6h", "1d", "3d"]


def test_several_workers_tell_of_all_of_them(tmp_path: Path) -> None:
    database = f"sqlite+aiosqlite:///{tmp_path / 'service.db'}"
    migrate_database(database)

    def errors(url: str) -> tuple[str, float]:
        levels = httpx2.get(f"{url}/slo", timeout=LONG).raise_for_status().json()
        (one,) = (one for one in levels["objectives"] if one["name"] == "api-errors")
        return levels["since"], one["events"]

    with start_process(
        "serve",
        tmp_path,
        database_url=database,
        provider_url="http://127.0.0.1:9",
        WEB_CONCURRENCY="2",
    ) as running:
        known: dict[str, float] = {}

        def both_have_told() -> bool:
            known.update([errors(running.url)])
            return len(known) == 2

        wait_until(both_have_told, "both workers answer", LONG)
        before = dict(known)
        for _ in range(20):
            assert httpx2.get(f"{running.url}/v1/users/me", timeout=LONG).status_code == 401

        def both_have_seen_all() -> bool:
            known.update([errors(running.url)])
            return known == {since: events + 20 for since, events in before.items()}

        wait_until(both_have_seen_all, f"20 more than {before}, not {known}", LONG)
        assert 'handler="/slo"' not in httpx2.get(f"{running.url}/metrics", timeout=LONG).text
        shown = subprocess.run(
            [sys.executable, "-m", "app", "slo", "status", "--url", running.url],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "COLUMNS": "160"},
            capture_output=True,
            text=True,
            check=False,
            timeout=LONG,
        )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "the counters of one process" in shown.stdout
    assert "payment-success" in shown.stdout


def test_a_missing_file_of_objectives_keeps_the_service_from_starting(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "SLO_OBJECTIVES_FILE": "gone.yml"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG,
    )
    assert shown.returncode == 1
    assert shown.stderr.startswith("error: SLO_OBJECTIVES_FILE: ")
    assert shown.stderr.endswith("gone.yml: No such file or directory\n")
    assert shown.stderr.count("\n") == 1


# With a Prometheus ------------------------------------------------------------------------------------


class Exporter(Listener):
    """Has served 95 good cups and 5 cold ones more at each scrape."""

    def __init__(self) -> None:
        super().__init__()
        self._scrapes = 0

    def answer(self, asked: Asked) -> Answer:
        self._scrapes += 1
        return Answer(
            200,
            (
                "# TYPE tea_served_total counter\n"
                f'tea_served_total{{result="good"}} {95 * self._scrapes}\n'
                f'tea_served_total{{result="cold"}} {5 * self._scrapes}\n'
            ).encode(),
            "text/plain; version=0.0.4",
        )


def rules() -> str:
    """Return rules with the names of the generated ones."""
    labels = {
        "sloth_id": "tea-tea-errors",
        "sloth_service": "tea",
        "sloth_slo": "tea-errors",
    }
    records = []
    for window in (*WINDOWS, "30d"):
        served = f"increase(tea_served_total[{window}])"
        cold = f'increase(tea_served_total{{result="cold"}}[{window}])'
        for name, expression in (
            (f"slo:events:increase{window}", f"sum({served})"),
            (f"slo:bad_events:increase{window}", f"sum({cold})"),
            (f"slo:sli_error:ratio_rate{window}", f"sum({cold}) / (sum({served}) > 0)"),
        ):
            records.append({"record": name, "expr": expression, "labels": labels})
    return json.dumps({"groups": [{"name": "tea", "rules": records}]})


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[PrometheusServer]:
    with Exporter().running() as exporter:
        server = PrometheusServer(tmp_path, target=exporter.port, rules=rules())
        server.start()
        yield server
        server.stop()


@pytest.mark.parametrize("service_database", ["sqlite"], indirect=True)
async def test_the_service_tells_what_a_real_prometheus_has_recorded(
    open_here: OpenService, prometheus: PrometheusServer, tmp_path: Path
) -> None:
    def is_recorded() -> bool:
        asked = {"query": "slo:bad_events:increase30d >= 3"}
        answer = httpx2.get(f"{prometheus.url}/api/v1/query", params=asked, timeout=LONG)
        return bool(answer.json()["data"]["result"])

    await asyncio.to_thread(wait_until, is_recorded, "the rules have recorded enough", LONG)
    async with open_here(
        prometheus_url=SecretStr(prometheus.url),
        prometheus_timeout_seconds=30,
        slo_objectives_file=declare(tmp_path),
    ) as service:
        found = await levels_when(service.http, lambda _: True)
        assert (found["levels"]["source"], found["levels"]["degraded"]) == ("prometheus", False)
        tea = found["tea-errors"]
        assert tea["sli"] == pytest.approx(0.95)
        assert tea["error_budget_remaining"] == pytest.approx(-49)
        assert tea["bad_events"] == pytest.approx(tea["events"] / 20)
        assert [rate["window"] for rate in tea["burn_rates"]] == list(WINDOWS)
        assert all(rate["burn_rate"] == pytest.approx(50) for rate in tea["burn_rates"])
        assert tea["state"] == "exhausted"
        assert [one["severity"] for one in tea["burning"]] == ["page", "page", "ticket", "ticket"]


# The command ------------------------------------------------------------------------------------------


@pytest.fixture
def slo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Runs `python -m app slo ...` with these variables."""

    def run(*arguments: str, **environment: str) -> Any:
        for name, value in ({"COLUMNS": "160"} | environment).items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(cli.app, ["slo", *arguments])

    monkeypatch.setenv("SLO_OBJECTIVES_FILE", str(declare(tmp_path)))
    return run


def test_the_status_is_a_table(slo: Callable[..., Any]) -> None:
    records = [
        ("slo:sli_error:ratio_rate30d", 0.0004),
        ("slo:sli_error:ratio_rate1h", 0.0161),
        ("slo:sli_error:ratio_rate5m", 0.0161),
    ]
    with StubPrometheus(200, vector(records)).running() as stub:
        shown = slo("status", PROMETHEUS_URL=stub.url)
        as_json = slo("status", "--json", PROMETHEUS_URL=stub.url)
    assert shown.exit_code == 0, shown.output
    row = next(line for line in shown.output.splitlines() if "99.9 %" in line)
    assert row.split() == [
        "tea-errors",
        "99.9",
        "%",
        "99.960",
        "%",
        "60.0",
        "%",
        "16.1x",
        "-",
        "-",
        "burning",
    ]
    assert max(map(len, shown.output.splitlines()[:3])) <= 80
    assert "tea-errors: The budget burns more than 14.4 times too fast" in shown.output
    assert "SLI and budget of 30d; source: Prometheus; 0 s old." in shown.output
    assert ServiceLevels.model_validate_json(as_json.output).objectives[0].sli == 0.9996


OVERSPENT = [
    ("slo:sli_error:ratio_rate30d", 0.4),
    *((f"slo:sli_error:ratio_rate{window}", 0.5) for window in ("5m", "1h", "6h", "3d")),
]


def test_a_pipe_gets_the_whole_table_however_narrow_the_terminal(slo: Callable[..., Any]) -> None:
    with StubPrometheus(200, vector(OVERSPENT)).running() as stub:
        shown = slo("status", PROMETHEUS_URL=stub.url, COLUMNS="30")
    row = next(line for line in shown.output.splitlines() if "99.9 %" in line)
    assert " ".join(row.split()) == (
        "tea-errors 99.9 % 60.000 % -39900.0 % 500.0x 500.0x 500.0x exhausted"
    )
    assert "…" not in shown.output


@pytest.mark.parametrize("columns", ["20", "40", "60"])
def test_a_narrow_terminal_cuts_nothing(slo: Callable[..., Any], columns: str) -> None:
    with StubPrometheus(200, vector(OVERSPENT)).running() as stub:
        shown = slo("status", PROMETHEUS_URL=stub.url, COLUMNS=columns, FORCE_COLOR="1")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.output)
    assert plain.startswith(
        "tea-errors: exhausted, burn 1h 500.0x, 6h 500.0x, 3d 500.0x\n"
        "  target 99.9 %, SLI 60.000 %, budget -39900.0 %\n"
    )
    assert "…" not in plain


def test_who_cannot_be_asked_for_the_status_is_said_in_one_sentence(
    slo: Callable[..., Any],
) -> None:
    with StubPrometheus(500, b"").running() as stub:
        shown = slo("status", PROMETHEUS_URL=stub.url)
        assert (shown.exit_code, shown.stderr) == (
            1,
            "error: Prometheus answered with status 500\n",
        )
        shown = slo("status", "--url", stub.url)
        assert shown.exit_code == 1
        assert shown.stderr.startswith("error: the service answered with status 500; is it running")
    shown = slo("status", "--url", "http://127.0.0.1:9")
    assert shown.exit_code == 1
    assert shown.stderr.startswith("error: the service could not be asked (ConnectError); is it")


@pytest.mark.parametrize("command", ["status", "report"])
def test_wrong_objectives_are_said_in_one_sentence(
    slo: Callable[..., Any], command: str, tmp_path: Path
) -> None:
    (tmp_path / "objectives.yml").write_text("objectives: []")
    shown = slo(command, PROMETHEUS_URL="http://127.0.0.1:9")
    assert shown.exit_code == 1
    assert shown.stderr.startswith("error: SLO_OBJECTIVES_FILE: ")
    assert shown.stderr.count("\n") == 1

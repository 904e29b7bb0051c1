"""Service levels for tests: objectives to declare, and a Prometheus that answers as a test wants."""

import json
import math
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
from pydantic import SecretStr

from app.observability.slo import SLOSettings
from tests.listener import Answer, Asked, Listener
from tests.tools import Server, require_tool

ERRORS: dict[str, Any] = {
    "name": "tea-errors",
    "service": "tea",
    "journey": "all",
    "description": "Tea is served without an error.",
    "owner": "kitchen",
    "target": 99.9,
    "minimum_bad_events": 3,
    "indicator": {
        "type": "ratio",
        "metric": "tea_served_total",
        "job": "api",
        "where": 'kind!="iced"',
        "bad": 'result=~"cold|spilt"',
    },
}


def declare(directory: Path, *objectives: dict[str, Any], period: str = "30d") -> Path:
    """Write a file of objectives; JSON is YAML."""
    path = directory / "objectives.yml"
    path.write_text(json.dumps({"period": period, "objectives": list(objectives or [ERRORS])}))
    return path


def slo_settings(path: Path, *, url: str = "", timeout: float = 30.0) -> SLOSettings:
    """Return settings that are not of this machine's environment."""
    return SLOSettings(
        slo_objectives_file=path,
        prometheus_url=SecretStr(url) if url else None,
        prometheus_timeout_seconds=timeout,
    )


def vector(values: Iterable[tuple[str, float]], **labels: str) -> bytes:
    """Return Prometheus' answer with these records of the objective above."""
    of: dict[str, str] = {
        "sloth_id": "tea-tea-errors",
        "sloth_service": "tea",
        "sloth_slo": "tea-errors",
    }
    results = [
        {"metric": {"__name__": name} | of | labels, "value": [1_790_000_000.5, _text(value)]}
        for name, value in values
    ]
    data = {"resultType": "vector", "result": results}
    return json.dumps({"status": "success", "data": data}).encode()


def _text(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value)


class StubPrometheus(Listener):
    """Answers every question alike, and counts them."""

    def __init__(self, *answer: Any) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.may_answer = Event()
        self.may_answer.set()
        self.make_answer: Callable[[], Answer] = lambda: Answer(*answer)

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        self.may_answer.wait(120)
        return self.make_answer()


class PrometheusServer(Server):
    """Debian's Prometheus, with the rules of a test, and with a past where a test has made one."""

    def __init__(
        self,
        directory: Path,
        *,
        target: int | None = None,
        rules: str = "groups: []",
        history: str = "",
    ) -> None:
        """Scrape the port `target` each second; `history` is what it has known before, in OpenMetrics."""
        super().__init__(name="prometheus", owner=os.getpid(), directory=directory)
        self._target = target
        self._rules = rules
        self._history = history

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self, directory: Path) -> tuple[list[str], str]:
        data = directory / "data"
        if self._history:
            past = directory / "history.txt"
            past.write_text(self._history)
            # promtool reads all of the past once for each block, and makes one for each two hours.
            longest = "--max-block-duration=720h"
            make = ["tsdb", "create-blocks-from", "openmetrics", "--quiet", longest]
            promtool = [str(require_tool("promtool")), *make, str(past), str(data)]
            subprocess.run(promtool, check=True, capture_output=True)
        (directory / "rules.yml").write_text(self._rules)
        jobs = [] if self._target is None else [f"127.0.0.1:{self._target}"]
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "api", "static_configs": [{"targets": jobs}]}],
        }
        (directory / "prometheus.yml").write_text(json.dumps(configuration))
        arguments = (
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={data}",
            "--storage.tsdb.retention.time=60d",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        )
        return [str(require_tool("prometheus")), *arguments], "-"

    def is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/-/ready", timeout=2).status_code == 200
        except httpx2.TransportError:
            return False

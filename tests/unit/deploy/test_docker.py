"""The container image, as far as reading shows it: the rest is proven where images are built."""

import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import free_port

ROOT = Path(__file__).parents[3]
HEALTHCHECK = ROOT / "deploy" / "docker" / "healthcheck.py"
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text("utf-8")
INSTRUCTIONS = [
    (found[1], found[2].replace("\\\n", " "))
    for found in re.finditer(r"^([A-Z]+) ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
]


def last(instruction: str) -> str:
    return [text for name, text in INSTRUCTIONS if name == instruction][-1]


def test_the_base_image_is_pinned_to_a_patch_release_in_one_place() -> None:
    assert len(re.findall(r"python:\d", DOCKERFILE)) == 1
    assert re.search(r"^ARG BASE_IMAGE=python:3\.\d+\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert {text.split(" ")[0] for name, text in INSTRUCTIONS if name == "FROM"} == {
        "${BASE_IMAGE}"
    }


def test_it_runs_as_a_number_that_is_not_root() -> None:
    user, _, group = last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_signals_reach_the_process_itself() -> None:
    assert json.loads(last("CMD")) == ["python", "-m", "app", "serve"]
    assert last("STOPSIGNAL") == "SIGTERM"
    assert not [text for name, text in INSTRUCTIONS if name == "ENTRYPOINT"]


def test_packages_are_installed_with_hashes_and_without_building_them() -> None:
    install = [text for name, text in INSTRUCTIONS if name == "RUN" and "pip install" in text]
    assert len(install) == 1
    assert "--require-hashes" in install[0]
    assert "--only-binary=:all:" in install[0]


def test_one_lock_is_installed_and_it_is_the_services_unless_said_otherwise() -> None:
    assert ("ARG", "LOCK=requirements.lock") in INSTRUCTIONS
    assert ("COPY", "${LOCK} /build/requirements.lock") in INSTRUCTIONS


def test_it_builds_without_buildkit() -> None:
    assert "--mount=" not in DOCKERFILE
    assert "<<" not in DOCKERFILE


def test_the_build_sees_what_the_image_is_made_of_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    shown = {rule.removeprefix("!").rstrip("/") for rule in rules if rule.startswith("!")}
    assert all((ROOT / path).exists() for path in shown)
    assert shown == {
        "app",
        "sandbox",
        "migrations",
        "alembic.ini",
        "monitoring/slo/objectives.yml",
        "requirements.lock",
        "requirements-load.lock",
        "deploy/docker/healthcheck.py",
    }


class _Probe(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/health/live": 200, "/metrics": 200}.get(self.path, 503))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Probe) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def check(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run the check as the image does: the standard library only."""
    return subprocess.run(
        [sys.executable, "-I", "-S", HEALTHCHECK],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_health_check_asks_the_liveness_probe_on_port(port: int) -> None:
    # A proxy that the environment names must not be asked for an address on the same machine.
    healthy = check(PORT=str(port), http_proxy="http://127.0.0.1:9")
    assert (healthy.returncode, healthy.stderr) == (0, "")


def test_another_process_names_its_own_address(port: int) -> None:
    assert check(HEALTHCHECK_URL=f"http://127.0.0.1:{port}/metrics").returncode == 0


def test_the_health_check_fails_with_a_reason(port: int) -> None:
    unwell = check(HEALTHCHECK_URL=f"http://127.0.0.1:{port}/health/ready")
    assert (unwell.returncode, unwell.stderr.count("status 503")) == (1, 1)
    gone = check(PORT=str(free_port()))
    assert (gone.returncode, gone.stderr.count("Connection refused")) == (1, 1)

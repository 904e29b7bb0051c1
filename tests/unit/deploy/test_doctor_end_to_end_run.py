"""How a run of tests/e2e ends: it says what nobody looked at, and nothing checked is no success.

Each is a run of pytest of its own, with an environment of its own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from deploy.stack.backends.addresses import INSIDE
from tests.unit.deploy.stand_ins import StackOfStandIns

ROOT = Path(__file__).parents[3]


def run(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run pytest; return its exit code and all that it printed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in INSIDE and not name.startswith(("PYTEST_", "COV_", "COVERAGE_"))
    }
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *arguments,
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:cov",
        ],
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_where_no_backend_is_given_the_run_is_an_error() -> None:
    code, said = run("tests/e2e")
    assert code == 4
    assert "No backend is given" in said
    assert "make e2e" in said


def test_a_run_of_all_tests_leaves_them_out() -> None:
    # All of tests/, as `make test` means it, without what would only take its time here.
    code, said = run(
        "tests", "--collect-only", "--ignore-glob=tests/[icmu]*", APP_URL="http://127.0.0.1:9"
    )
    assert code == 5, said  # nothing was collected
    assert "tests/e2e/" not in said


def test_what_was_not_given_is_named_and_its_tests_are_skipped_with_the_reason() -> None:
    with StackOfStandIns().running() as stack:
        code, said = run(
            "tests/e2e/test_metrics.py::test_every_target_is_up",
            "tests/e2e/test_dashboards.py::test_no_other_data_source_is_there",
            PROMETHEUS_URL=stack.environment["PROMETHEUS_URL"],
            REQUIRE_TOOLS="1",
        )
    assert code == 0, said
    assert re.search(r"SKIPPED .*: not checked: GRAFANA_URL is not given", said)
    (line,) = re.findall(r"^not checked: (.+)$", said, re.MULTILINE)
    assert set(line.split(", ")) == set(INSIDE) - {"PROMETHEUS_URL"}
    assert "1 passed, 1 skipped" in said


def test_a_backend_that_does_not_answer_is_a_failure_and_not_a_skip() -> None:
    code, said = run(
        "tests/e2e/test_alerts.py::test_prometheus_tells_it", ALERTMANAGER_URL="http://127.0.0.1:9"
    )
    assert code == 1
    assert "NoAnswer: Alertmanager does not answer at http://127.0.0.1:9" in said

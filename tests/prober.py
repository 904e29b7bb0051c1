"""The synthetic journey for tests, as the two programs that a person would start."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.service import ROOT, RunningProcess
from tests.tools import free_port

TOKEN = "synthetic-token-of-the-tests"
ONCE_SECONDS = 120.0


def start_prober(directory: Path, *, api_url: str, **environment: str) -> RunningProcess:
    """Start the service that makes journeys, on a free port; its first journey begins at once."""
    port = free_port()
    variables = {
        "SYNTHETIC_PORT": str(port),
        "SYNTHETIC_JITTER_SECONDS": "0",
        **_journey(api_url, environment),
    }
    process = RunningProcess("synthetic_journey", directory, variables, port=port)
    process.program = ("sandbox.synthetic_journey",)
    process.start()
    return process


def make_one_journey(*, api_url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command that makes one journey and says how it went."""
    return subprocess.run(
        [sys.executable, "-m", "sandbox.synthetic_journey", "--once"],
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "ENVIRONMENT": "test",
            **_journey(api_url, environment),
        },
        capture_output=True,
        text=True,
        timeout=ONCE_SECONDS,
        check=False,  # a failure is what many tests are about
    )


def _journey(api_url: str, environment: Mapping[str, str]) -> dict[str, str]:
    # Limits that no busy machine reaches; tests of the limits give theirs.
    return {
        "SYNTHETIC_API_URL": api_url,
        "SYNTHETIC_TOKEN": TOKEN,
        "SYNTHETIC_STEP_TIMEOUT_SECONDS": "60",
        "SYNTHETIC_TIMEOUT_SECONDS": "120",
        **environment,
    }

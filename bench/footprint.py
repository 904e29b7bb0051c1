"""What each variant takes beside CPU: time to start, memory, threads; and the size of what is built."""

import json
import shutil
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.process import ServerProcess

IMAGES: Final = ("glasshouse:local", "glasshouse:latest")
"""As `make up` and `make image` name it."""
TEST_DURATION: Final = Path("var/test-duration.json")
"""Written by tests/conftest.py at the end of a run of all tests."""
_DOCKER_SECONDS: Final = 10


@dataclass(slots=True)
class Footprint:
    """Of one server."""

    start_seconds: float
    """From the start of the process until it accepts connections, imports included."""
    start_cpu_seconds: float
    rest_bytes: int
    """Resident memory before the first request."""
    after_bytes: int | None = None
    """The same after the run."""
    threads: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        told = asdict(self)
        told |= {name: round(told[name], 3) for name in ("start_seconds", "start_cpu_seconds")}
        return told


def at_rest(server: ServerProcess) -> Footprint:
    """Return what is known of a server that has just started."""
    return Footprint(server.start_seconds, server.start_cpu_seconds, server.resident_bytes())


def after_the_run(footprint: Footprint, server: ServerProcess) -> None:
    """Add what is known once requests were served."""
    footprint.after_bytes = server.resident_bytes()
    footprint.threads = server.threads()


def image_bytes() -> int | None:
    """Return the size of the container image, or None if Docker or the image is not here."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    for image in IMAGES:
        command = [docker, "image", "inspect", "--format", "{{.Size}}", image]
        with suppress(OSError, ValueError, subprocess.SubprocessError):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_DOCKER_SECONDS, check=True
            )
            return int(done.stdout)
    return None


def last_test_seconds(path: Path = TEST_DURATION) -> float | None:
    """Return how long the last run of all tests took, or None if none was seen."""
    try:
        return float(json.loads(path.read_text("utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

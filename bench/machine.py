"""The machine that was measured on, and whether others worked on it meanwhile."""

import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from bench.stalls import Stalls

OTHERS: Final = 0.10
"""The share of the machine that others may use while nothing of ours runs."""
BURST_STOLEN: Final = 0.05
"""The share of a burst that the host may give to other virtual machines for it to count: a hundredth of a
second, since the system counts in those."""
TURN_STOLEN: Final = 0.015
"""The same of a turn at a fixed rate, of the one processor that serves: little more than what makes its p99,
since a shorter turn would not even survive one hundredth of a second."""
_LOOK_SECONDS: Final = 0.7


@dataclass(frozen=True, slots=True)
class Machine:
    """What a reader needs to compare numbers with those of another machine."""

    python: str
    system: str
    processor: str
    cores: int
    memory_bytes: int
    others_before: float
    """The share of the machine that others used before anything of ours ran."""
    load_before: float
    """The load average of the last minute then. An earlier run is in it, so it decides nothing."""

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return asdict(self)


def look() -> Machine:
    """Describe the machine, after a moment in which nothing of ours runs."""
    busy = busy_share()
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cores=psutil.cpu_count() or 0,
        memory_bytes=psutil.virtual_memory().total,
        others_before=busy,
        load_before=round(os.getloadavg()[0], 2),
    )


def busy_share() -> float:
    """Return how much of the machine is in use, while we look on."""
    return round(float(psutil.cpu_percent(_LOOK_SECONDS)) / 100, 3)


class Steal:
    """Counts the time that the host has given to other virtual machines since it was made.

    What it tells of, and, with `stalls`, what was seen of it: whichever is more.
    """

    def __init__(self, stalls: Stalls | None = None) -> None:
        self._stalls = stalls
        self._stalled = stalls.seconds if stalls else 0.0
        self._began = time.monotonic()
        self._before = psutil.cpu_times()

    def share(self) -> float:
        """Return its share of all time, of all processors."""
        now = psutil.cpu_times()
        every = sum(now[:8]) - sum(self._before[:8])  # guests' time is in that of users
        return round(self._seconds(now) / every, 3) if every > 0 else 0.0

    def share_of_one(self) -> float:
        """Return the same if all of it was that of one processor: nobody knows which of them served less."""
        passed = time.monotonic() - self._began
        return round(self._seconds(psutil.cpu_times()) / passed, 4)

    def _seconds(self, now: Any) -> float:
        stolen = getattr(now, "steal", 0.0) - getattr(self._before, "steal", 0.0)
        stalled = self._stalls.seconds - self._stalled if self._stalls else 0.0
        return float(max(stolen, stalled))


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as told:  # noqa: PTH123 - not a file of ours
            for line in told:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor()

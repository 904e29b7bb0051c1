"""Counts what the service adds to a request: `python -m tests.cost.measure [--write]`.

Prints the counts; with --write they become what is expected (expected.toml). Takes some 15 s.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from json import loads
from pathlib import Path
from typing import Final

from tests.cost import table
from tests.cost.table import RATIOS, Table

ROOT: Final = Path(__file__).resolve().parents[2]
SECONDS: Final = 150.0
_INHERITED: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONHASHSEED",
)


class ProbeFailed(Exception):
    """Nothing was counted; the text is what the process said."""


def probe(application: str, ratio: float, *options: str) -> Table:
    """Return what probe.py counts, in a process that inherits no coverage and no setting."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "found.json"
        command = [sys.executable, "-m", "tests.cost.probe", application, str(ratio), str(output)]
        ended = subprocess.run(
            [*command, *options],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        if ended.returncode:
            raise ProbeFailed(f"{' '.join(command)}:\n{ended.stderr.decode()[-4_000:]}")
        found: Table = loads(output.read_text())
        return found


def measure() -> tuple[Table, dict[float, Table]]:
    """Return what the bare application and the service do at each sampling ratio."""
    with ThreadPoolExecutor(2) as pool:
        running = {ratio: pool.submit(probe, "service", ratio) for ratio in reversed(RATIOS)}
        bare = pool.submit(probe, "bare", 0.0)
        return bare.result(), {ratio: running[ratio].result() for ratio in RATIOS}


def _show(found: Table) -> None:
    columns = "{:22} {:>10} {:>11}  {:28} {:34} {}\n"
    out = sys.stdout.write
    out(columns.format("request", "10: bare", "10: added", "statements", "lines", "spans"))
    for section, counted in found.items():
        if "bare_calls" in counted:
            texts = (
                ", ".join(f"{n} {kind}" for kind, n in counted[what].items()) or "-"
                for what in ("statements", "lines", "spans")
            )
            out(columns.format(section, counted["bare_calls"], counted["added_calls"], *texts))
    for section in ("a new route", "more routes", "at rest"):
        out(f"{section}: {found[section]}\n")


def main() -> None:
    """Count, print, and write where that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="make it what is expected")
    write: bool = parser.parse_args().write
    bare, services = measure()
    found = table.tabulate(bare, services)
    _show(found)
    if write:
        table.write(found)
    elif differing := table.differences(table.load(), found, bare, services):
        sys.exit(table.explain(table.load(), differing))


if __name__ == "__main__":
    main()

"""The Makefile: every command explains itself, and `make lint` runs every check there is."""

import re
import subprocess
from pathlib import Path

from tests.tools import require_tool

ROOT = Path(__file__).parents[3]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.MULTILINE))


def make(*arguments: str) -> str:
    return subprocess.run(
        [require_tool("make"), *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_make_alone_lists_every_command_with_one_line() -> None:
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", make(), re.MULTILINE))
    assert set(listed) == TARGETS
    assert make() == make("help")


def test_every_command_runs_even_if_a_file_has_its_name() -> None:
    declared = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert declared is not None
    assert set(declared[1].replace("\\\n", " ").split()) == TARGETS


def test_lint_runs_every_check() -> None:
    prerequisites = re.search(r"^lint:([^#]*)", MAKEFILE, re.MULTILINE)
    assert prerequisites is not None
    assert set(prerequisites[1].split()) == {name for name in TARGETS if name.startswith("lint-")}


def test_nothing_is_used_that_the_make_of_macos_does_not_know() -> None:
    newer_than_3_81 = r"\.ONESHELL|!=|::=|\$\(file |undefine"
    assert re.findall(newer_than_3_81, MAKEFILE) == []

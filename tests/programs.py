"""Programs that Debian has not, or not as recent: tests of them run where a variable, or PATH, names one.

Without its program such a test is not collected, as those of a stack that is not up (tests/e2e), and the
end of the run names what was not shown. REQUIRE_TOOLS does not change that: it asks for what CI can install.
CONTRIBUTING.md says how to get them.
"""

import os
import shutil
from pathlib import Path
from typing import Final

import pytest

PROGRAMS: Final = {
    "OTELCOL_BIN": "otelcol-contrib",
    "JAEGER_BIN": "jaeger",
    "LOKI_BIN": "loki",
    "CADDY_BIN": "caddy",
}
"""The variable that says where a program is, and its name."""


def given_program(variable: str, beside: str = "") -> str:
    """Return the path of a program, or of another one that stands `beside` it.

    A variable that names no program fails the test: it was meant to run.
    """
    found = _find(variable)
    path = str(Path(found).parent / beside) if found and beside else found
    if path is None or not Path(path).exists():
        where = os.environ.get(variable, "PATH")
        pytest.fail(f"{variable}: there is no {beside or PROGRAMS[variable]} at {where}")
    return path


def needs(*variables: str) -> pytest.MarkDecorator:
    """Return the mark of a test that needs these programs."""
    return pytest.mark.needs_program(*variables)


def not_given() -> dict[str, str]:
    """Return the programs that are not here, by their variable."""
    return {
        variable: name
        for variable, name in PROGRAMS.items()
        if not os.environ.get(variable) and _find(variable) is None
    }


def without_what_is_not_here(
    items: list[pytest.Item],
) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests that can run here, and those that cannot."""
    missing = not_given().keys()
    can: list[pytest.Item] = []
    cannot: list[pytest.Item] = []
    for item in items:
        needed = {name for mark in item.iter_markers("needs_program") for name in mark.args}
        (cannot if needed & missing else can).append(item)
    return can, cannot


def _find(variable: str) -> str | None:
    return shutil.which(os.environ.get(variable) or PROGRAMS[variable])

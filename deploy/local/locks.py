"""`make lint-locks`: do the locks fit pyproject.toml, and can they be installed as they stand?

A lock is stale when a dependency was added or its range moved without `make lock`; it is unsafe without
hashes, and it works in one place only when it names an index. All of that can be seen without a network.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

RUNTIME = Path("requirements.lock")
LOAD = Path("requirements-load.lock")
DEVELOPMENT = Path("requirements-dev.lock")
BUGSINK = Path("tests/requirements-bugsink.lock")

_ADDRESS = re.compile(r"://|^\s*-(?:-index-url|-extra-index-url|-find-links|i\b|f\b)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pin:
    """One locked package: its exact requirement and how many files may be installed for it."""

    requirement: Requirement
    hashes: int

    @property
    def version(self) -> str:
        return next(iter(self.requirement.specifier)).version


def read_pins(lock: str) -> dict[str, list[Pin]]:
    """Return the pins of a lock by canonical name; several where the version depends on the platform."""
    pins: dict[str, list[Pin]] = {}
    for line in lock.replace("\\\n", " ").splitlines():
        text = line.split("#", 1)[0].strip()
        if text:
            requirement = Requirement(text.split(" --hash", 1)[0])
            pin = Pin(requirement, text.count("--hash=sha256:"))
            pins.setdefault(canonicalize_name(requirement.name), []).append(pin)
    return pins


def complaints_about_lock(name: str, lock: str, wanted: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with one lock, given the requirements it answers."""
    if _ADDRESS.search(lock):
        yield f"{name} names an index or an address"
        return
    pins = read_pins(lock)
    for package, found in pins.items():
        for pin in found:
            if [specifier.operator for specifier in pin.requirement.specifier] != ["=="]:
                yield f"{name}: {package} is not pinned to one version"
            if not pin.hashes:
                yield f"{name}: {package} has no hash"
    for text in wanted:
        requirement = Requirement(text)
        locked = pins.get(canonicalize_name(requirement.name), [])
        if not locked:
            yield f"{name} lacks {text}"
        for pin in locked:
            if not requirement.specifier.contains(pin.version, prereleases=True):
                yield f"{name} has {requirement.name} {pin.version}, pyproject.toml wants {text}"


def complaints_about_bugsink(lock: str, project: Mapping[str, object]) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with the lock of the tests' error tracker."""
    match project:
        case {"dependency-groups": {"bugsink": [*wanted]}}:
            yield from complaints_about_lock(str(BUGSINK), lock, wanted)
        case _:
            yield "pyproject.toml lacks dependency-groups.bugsink"


def complaints(
    runtime: str, load: str, development: str, project: Mapping[str, object]
) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with three locks of a parsed pyproject.toml."""
    match project:
        case {
            "project": {"dependencies": [*service]},
            "dependency-groups": {"dev": [*_], "load": [*_]},
        }:
            pass
        case _:
            yield "pyproject.toml lacks project.dependencies or dependency-groups.dev or .load"
            return
    yield from complaints_about_lock(RUNTIME.name, runtime, service)
    yield from complaints_about_lock(LOAD.name, load, [*service, *group("load", project)])
    yield from complaints_about_lock(
        DEVELOPMENT.name, development, [*service, *group("dev", project)]
    )
    tested = read_pins(development)
    for name, lock in ((RUNTIME.name, runtime), (LOAD.name, load)):
        for package, pins in read_pins(lock).items():
            if {str(pin.requirement) for pin in pins} != {
                str(pin.requirement) for pin in tested.get(package, [])
            }:
                yield (
                    f"{name} and {DEVELOPMENT.name} differ in {package}: "
                    "tests would run on other versions"
                )


def group(name: str, project: Mapping[str, Any]) -> Iterator[str]:
    """Yield the requirements of a dependency group, with those of the groups that it includes."""
    for entry in project["dependency-groups"][name]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from group(entry["include-group"], project)


def main() -> int:
    """Check the locks in the current directory; return the exit code."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    found = [
        *complaints(
            RUNTIME.read_text("utf-8"),
            LOAD.read_text("utf-8"),
            DEVELOPMENT.read_text("utf-8"),
            project,
        ),
        *complaints_about_bugsink(BUGSINK.read_text("utf-8"), project),
    ]
    for complaint in found:
        print(f"{complaint}; run `make lock`", file=sys.stderr)
    if found:
        return 1
    print("the locks fit pyproject.toml")
    return 0


if __name__ == "__main__":
    sys.exit(main())

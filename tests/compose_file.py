"""docker-compose.yml as tests read it: with the defaults in place of the variables, as Compose would."""

import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
FILE: Final = ROOT / "docker-compose.yml"
_VARIABLE: Final = re.compile(r"\$\{([A-Z_]+)(:[-+])([^}]*)\}")
OURS: Final = ("glasshouse:local", "glasshouse-customers:local")
"""The images that are built here."""
ONE_SHOTS: Final = {"setup", "migrations", "bugsink-setup", "doctor"}


def variables() -> dict[str, str]:
    """Return the variables that the file reads, each with its default."""
    found: dict[str, str] = {}
    for name, operator, value in _VARIABLE.findall(FILE.read_text("utf-8")):
        default = value if operator == ":-" else ""
        assert found.setdefault(name, default) == default, f"{name} has two defaults"
    return found


@cache
def compose(**environment: str) -> dict[str, Any]:
    """Return the file's content in this environment."""

    def expand(found: re.Match[str]) -> str:
        name, operator, value = found.groups()
        given = environment.get(name, "")
        return (given or value) if operator == ":-" else (value if given else "")

    text = _VARIABLE.sub(expand, FILE.read_text("utf-8"))
    assert not re.search(r"(?<!\$)\$\{", text), "a variable without a default"
    loaded: dict[str, Any] = yaml.safe_load(text.replace("$$", "$"))
    return loaded


def services(**environment: str) -> dict[str, dict[str, Any]]:
    """Return the services by name."""
    found: dict[str, dict[str, Any]] = compose(**environment)["services"]
    return found


def mounts(service: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what a service mounts: source, target, and "ro" or "rw"."""
    found = []
    for mount in service.get("volumes", []):
        if isinstance(mount, dict):
            found.append((mount["source"], mount["target"], "rw"))
        else:
            source, target, *mode = mount.split(":")
            found.append((source, target, mode[0] if mode else "rw"))
    return found


def networks(service: dict[str, Any]) -> set[str]:
    """Return the networks that a service is on."""
    return set(service.get("networks", ()))


def mebibytes(limit: str) -> int:
    """Return what a mem_limit comes to."""
    number, unit = int(limit[:-1]), limit[-1]
    return number * {"m": 1, "g": 1024}[unit]

"""The files of the collector and of Jaeger for tests: as files, and for the real programs.

The programs read the deployed file as it is, and after it an overlay with what differs on loopback:
addresses, and how long a test wants to wait. An overlay replaces values; nothing is added to a pipeline
or taken out of it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

Configuration = dict[str, Any]

MONITORING: Final = Path(__file__).parents[2] / "monitoring"
COLLECTOR: Final = MONITORING / "collector/collector.yml"
JAEGER: Final = MONITORING / "jaeger/jaeger.yml"

_VARIABLE: Final = re.compile(r"\$\{env:(?P<name>[A-Z_]+)(?::-(?P<default>[^}]*))?\}")


def load_configuration(path: Path) -> Configuration:
    """Return what stands in the file, with the defaults of its variables and each `$$` a `$`."""
    content: Configuration = _resolved(yaml.safe_load(path.read_text()))
    return content


def variables(path: Path) -> dict[str, str | None]:
    """Return the variables that the file knows, with their defaults."""
    return {found["name"]: found["default"] for found in _VARIABLE.finditer(path.read_text())}


def _resolved(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_resolved(one) for one in value]
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(lambda found: found["default"] or "", value).replace("$$", "$")


def merged(base: Configuration, over: Mapping[str, Any]) -> Configuration:
    """Return `base` with the values of `over`, merged as the collector merges two files."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def reader(path: Path, port: int) -> list[Configuration]:
    """Return how a program shows its own metrics, on another port."""
    (shown,) = load_configuration(path)["service"]["telemetry"]["metrics"]["readers"]
    exporter = shown["pull"]["exporter"]["prometheus"] | {"host": "127.0.0.1", "port": port}
    return [{"pull": {"exporter": {"prometheus": exporter}}}]

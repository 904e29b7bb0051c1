"""The configuration of Alertmanager in another profile, or for programs that run on this machine.

monitoring/alertmanager/alertmanager.yml is written by hand, with production's intervals and the host names
of the containers. Both functions take it as it was loaded and return a changed copy.
"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import yaml

from monitoring.build.profile import Profile

FOLDER: Final = Path(__file__).parents[1] / "alertmanager"
FILE: Final = FOLDER / "alertmanager.yml"
FOLDER_IN_CONTAINER: Final = "/etc/alertmanager/"

FLOORS: Final = {"group_wait": 5.0, "group_interval": 1.0, "repeat_interval": 5.0}
"""Seconds. A cause needs as long as `group_wait` to arrive after its symptoms and silence them, however
fast time passes; Alertmanager accepts no interval of zero."""


def load_alertmanager(path: Path = FILE) -> dict[str, Any]:
    """Return the configuration as it is written by hand."""
    config: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return config


def scaled(config: Mapping[str, Any], profile: Profile) -> dict[str, Any]:
    """Return the configuration with the intervals of its routes as long as they are in `profile`.

    Times of day stay what they are: there is no business minute.
    """
    changed = deepcopy(dict(config))
    _scale_route(changed["route"], profile)
    return changed


def _scale_route(route: dict[str, Any], profile: Profile) -> None:
    for name, floor in FLOORS.items():
        if name in route:
            route[name] = profile.duration(route[name], floor=floor)
    for child in route.get("routes", ()):
        _scale_route(child, profile)


def for_hosts(config: Mapping[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """Return the configuration for another place than the containers'.

    `mapping` says what stands for which host: {"notifications:8003": "127.0.0.1:41234", ...}. Files are
    named by their path here, and the address in the file of Slack's is written into the configuration,
    since it is in that file that the host would have to be replaced.
    """
    changed = deepcopy(dict(config))
    slack = changed["global"].pop("slack_api_url_file")
    changed["global"]["slack_api_url"] = Path(_here(slack)).read_text("utf-8").strip()
    changed["templates"] = [str(FOLDER / path) for path in changed["templates"]]
    replaced: dict[str, Any] = _replace(changed, mapping)
    return replaced


def _here(path: str) -> str:
    if path.startswith(FOLDER_IN_CONTAINER):
        return str(FOLDER / path.removeprefix(FOLDER_IN_CONTAINER))
    return path


def _replace(content: Any, mapping: Mapping[str, str]) -> Any:
    if isinstance(content, Mapping):
        return {key: _replace(value, mapping) for key, value in content.items()}
    if isinstance(content, list):
        return [_replace(value, mapping) for value in content]
    if isinstance(content, str):
        for host, address in mapping.items():
            content = content.replace(host, address)
        return _here(content)
    return content

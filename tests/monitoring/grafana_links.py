"""Links between tools, taken apart: what Grafana makes of `$` in its files, what a link to Explore asks."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import yaml

ROOT: Final = Path(__file__).parents[2]
DATASOURCES: Final = ROOT / "monitoring/grafana/provisioning/datasources/glasshouse.yml"
HERE: Final = {"STACK_SCHEME": "http", "BUGSINK_PORT": "8010"}
"""What docker-compose.yml says to Grafana of other pages, unless somebody chose otherwise."""
_ENVIRONMENT: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def compose() -> dict[str, Any]:
    """Return docker-compose.yml, its variables not filled in."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def expanded(value: Any, environment: dict[str, str]) -> Any:
    """Return `value` as Grafana provisions it: variables filled in, and `$$` a dollar sign.

    Raises:
        KeyError: A variable is not in the environment, and would vanish.
    """
    if isinstance(value, dict):
        return {key: expanded(one, environment) for key, one in value.items()}
    if isinstance(value, list):
        return [expanded(one, environment) for one in value]
    if not isinstance(value, str):
        return value
    return "$".join(
        _ENVIRONMENT.sub(lambda found: environment[found[1] or found[2]], part)
        for part in value.split("$$")
    )


def sources(environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the data sources by uid, as Grafana sees them."""
    listed = yaml.safe_load(DATASOURCES.read_text())["datasources"]
    return {source["uid"]: expanded(source, environment) for source in listed}


@dataclass(frozen=True, slots=True)
class Exploration:
    """What a link to Explore asks, and whom."""

    base: str
    datasource: str
    expression: str


def exploration(url: str) -> Exploration:
    """Take a link to Explore apart.

    Raises:
        ValueError: It is none, or its panes are no JSON.
    """
    parts = urlsplit(url)
    given = parse_qs(parts.query, strict_parsing=True)
    if parts.path != "/explore" or given["schemaVersion"] != ["1"]:
        raise ValueError(f"no link to Explore: {url}")
    (pane,) = json.loads(given["panes"][0]).values()
    (query,) = pane["queries"]
    assert pane["range"].keys() == {"from", "to"}
    base = f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
    return Exploration(base, pane["datasource"], query["expr"])

"""The dashboards as Grafana reads them: the committed JSON, its panels and what they ask."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from monitoring.build.artifacts import ROOT

FOLDER: Final = ROOT / "monitoring/grafana/dashboards"
_STAND_INS: Final = {
    "$__rate_interval": "1m",
    "$__interval": "1m",
    "$__range": "1h",
    "${__rate_interval}": "1m",
    "${__range}": "1h",
}
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard, by the name of its file."""

    name: str
    content: dict[str, Any]

    def __str__(self) -> str:
        return self.name

    @property
    def panels(self) -> list[dict[str, Any]]:
        """All panels but rows, those inside collapsed rows, too."""
        return [panel for panel in self.placed if panel["type"] != "row"]

    @property
    def placed(self) -> list[dict[str, Any]]:
        """All that has a place, rows included."""
        return [
            one for panel in self.content["panels"] for one in (panel, *panel.get("panels", ()))
        ]

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        """The variables by name."""
        return {variable["name"]: variable for variable in self.content["templating"]["list"]}

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """The annotation queries."""
        found: list[dict[str, Any]] = self.content["annotations"]["list"]
        return found

    def targets(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the queries to data sources of a kind, each with the title of its panel."""
        for panel in self.panels:
            for target in panel.get("targets", ()):
                if target["datasource"]["type"] == kind:
                    yield panel["title"], target

    def promql(self) -> Iterator[tuple[str, str]]:
        """Yield all PromQL with where it stands, annotations' included, variables not filled in."""
        yield from ((title, target["expr"]) for title, target in self.targets("prometheus"))
        yield from ((f"annotation {one['name']}", one["expr"]) for one in self.annotations)


@cache
def dashboards() -> tuple[Dashboard, ...]:
    """Return all dashboards."""
    return tuple(
        Dashboard(file.stem, json.loads(file.read_text())) for file in sorted(FOLDER.glob("*.json"))
    )


def filled_in(query: str) -> str:
    """Return a query that a parser takes: with something in the place of each variable."""
    for variable, stand_in in _STAND_INS.items():
        query = query.replace(variable, stand_in)
    return _VARIABLE.sub(".+", query)


def variables_in(text: str) -> set[str]:
    """Return the names of the variables that a text names, Grafana's own (`__...`) left out."""
    names = {braced or bare for braced, bare in _VARIABLE.findall(text)}
    return {name for name in names if not name.startswith("__") and not name.isdigit()}

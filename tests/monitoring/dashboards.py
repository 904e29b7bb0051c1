"""The dashboards as Grafana reads them: the committed JSON, its panels and its variables.

What they ask is in tests/monitoring/queries.py.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from monitoring.build.artifacts import ROOT

FOLDER: Final = ROOT / "monitoring/grafana/dashboards"
VARIABLE: Final = re.compile(r"\$(?:\{(?P<braced>\w+)(?::(?P<format>\w+))?\}|(?P<bare>\w+))")
"""A variable in a text: `$name`, `${name}`, `${name:format}`."""
_STAND_INS: Final = {"__rate_interval": "1m", "__interval": "1m", "__range": "1h"}


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


@cache
def dashboards() -> tuple[Dashboard, ...]:
    """Return all dashboards."""
    return tuple(
        Dashboard(file.stem, json.loads(file.read_text())) for file in sorted(FOLDER.glob("*.json"))
    )


def filled_in(query: str) -> str:
    """Return a query that a parser takes: with something in the place of each variable."""
    return VARIABLE.sub(lambda found: _STAND_INS.get(name_of(found), ".+"), query)


def name_of(variable: re.Match[str]) -> str:
    """Return the name in what VARIABLE has found."""
    return variable["braced"] or variable["bare"]


def asked_by(variable: dict[str, Any]) -> str:
    """Return the query that finds the values of a variable; nothing for one that asks nobody."""
    query = variable.get("query", "")
    return str(query["query"] if isinstance(query, dict) else query)


def variables_in(text: str) -> set[str]:
    """Return the names of the variables that a text names, Grafana's own (`__...`) left out."""
    names = {name_of(found) for found in VARIABLE.finditer(text)}
    return {name for name in names if not name.startswith("__") and not name.isdigit()}

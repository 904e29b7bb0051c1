"""Every query of every dashboard and of every rule, with where it stands.

Dashboards are read as Grafana reads them, from the committed JSON: panels (those in rows, too), annotations
and variables; in PromQL, in LogQL, and searches of Jaeger.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from monitoring.build.dashboards import quiet_panels
from tests.monitoring import rulebook
from tests.monitoring.dashboards import Dashboard, dashboards
from tests.monitoring.promql import Selector

Language = Literal["promql", "logql", "jaeger"]
Place = Literal["panel", "annotation", "variable"]

_LANGUAGES: dict[str, Language] = {"prometheus": "promql", "loki": "logql", "jaeger": "jaeger"}


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a dashboard, its variables not filled in.

    Attributes:
        name: Of the panel, the annotation or the variable.
        part: Which of the panel's queries.
        is_instant: Whether it asks for the end of the shown time only.
        quiet: Why it may have no answer while all is well.
    """

    board: Dashboard
    place: Place
    name: str
    part: str
    language: Language
    text: str
    is_instant: bool = False
    quiet: str = ""

    def __str__(self) -> str:
        return f"{self.board} / {self.name}" + (f" {self.part}" if self.part else "")


def dashboard_queries() -> list[Query]:
    """Return all queries of all dashboards."""
    return [query for board in dashboards() for query in _of_board(board)]


def _of_board(board: Dashboard) -> Iterator[Query]:
    quiet = quiet_panels()
    for panel in board.panels:
        why = quiet.get((board.content["uid"], panel["title"]), "")
        for target in panel.get("targets", ()):
            language = _LANGUAGES[target["datasource"]["type"]]
            yield Query(
                board,
                "panel",
                panel["title"],
                target["refId"],
                language,
                _search(target) if language == "jaeger" else target["expr"],
                is_instant=bool(target.get("instant")) and not target.get("range"),
                quiet=why,
            )
    for one in board.annotations:
        language = _LANGUAGES[one["datasource"]["type"]]
        yield Query(board, "annotation", f"annotation {one['name']}", "", language, one["expr"])
    for name, variable in board.variables.items():
        if variable["type"] == "query":
            language = _LANGUAGES[variable["datasource"]["type"]]
            text = variable["query"]
            asked = text["query"] if isinstance(text, dict) else text
            yield Query(board, "variable", f"${name}", "", language, asked)


def _search(target: dict[str, Any]) -> str:
    return " ".join(
        f"{name}={target[name]}" for name in ("service", "tags", "minDuration") if name in target
    )


def alert_selectors() -> list[tuple[str, Selector]]:
    """Return what alerts read, each with the alert's name."""
    alerts = {alert.name for alert in rulebook.alerts()}
    return [(rule.rule.name, one) for rule, one in rulebook.reads() if rule.rule.name in alerts]


def selector_text(selector: Selector) -> str:
    """Return a selector as PromQL, without its range."""
    matchers = ",".join(
        f"{name}{operator}{_quoted(value)}" for name, operator, value in selector.matchers
    )
    return f"{selector.metric}{{{matchers}}}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

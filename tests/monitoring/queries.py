"""Every query of every dashboard and of every rule, with where it stands.

Dashboards are read as Grafana reads them, from the committed JSON: panels (those in rows, too), annotations
and variables; in PromQL, in LogQL, and searches of Jaeger.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from monitoring.build.dashboards import quiet_panels
from tests.monitoring import rulebook
from tests.monitoring.dashboards import Dashboard, asked_by, dashboards
from tests.monitoring.promql import Selector

Language = Literal["promql", "logql", "jaeger"]
Place = Literal["panel", "annotation", "variable"]

_LANGUAGES: Final[dict[str, Language]] = {
    "prometheus": "promql",
    "loki": "logql",
    "jaeger": "jaeger",
}


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a dashboard, its variables not filled in.

    Attributes:
        name: Of the panel, the annotation or the variable.
        part: Which of the panel's queries.
        text: What is asked; of a search for traces, the tags that it wants.
        service: Whose traces are searched for.
        is_instant: Whether it asks for the end of the shown time only.
        quiet: Why it may have no answer while all is well.
    """

    board: Dashboard
    place: Place
    name: str
    part: str
    language: Language
    text: str
    service: str = ""
    is_instant: bool = False
    quiet: str = ""

    def __str__(self) -> str:
        return f"{self.board} / {self.name}" + (f" {self.part}" if self.part else "")


def dashboard_queries() -> list[Query]:
    """Return all queries of all dashboards."""
    return [query for board in dashboards() for query in queries(board)]


def shown(board: Dashboard, language: Language) -> list[Query]:
    """Return what a dashboard asks to draw something: panels' and annotations' queries in a language."""
    return [
        query
        for query in queries(board)
        if query.language == language and query.place != "variable"
    ]


def queries(board: Dashboard) -> Iterator[Query]:
    """Yield all queries of a dashboard."""
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
                target.get("tags", "") if language == "jaeger" else target["expr"],
                service=target.get("service", ""),
                is_instant=bool(target.get("instant")) and not target.get("range"),
                quiet=why,
            )
    for one in board.annotations:
        language = _LANGUAGES[one["datasource"]["type"]]
        yield Query(board, "annotation", f"annotation {one['name']}", "", language, one["expr"])
    for name, variable in board.variables.items():
        if variable["type"] == "query":
            language = _LANGUAGES[variable["datasource"]["type"]]
            yield Query(board, "variable", f"${name}", "", language, asked_by(variable))


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

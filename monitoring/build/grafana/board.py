"""A dashboard, its layout and its JSON.

Rows go from symptom to cause: is it healthy, what changed, why. In a row, panels stand from left to right
and go on below when 24 columns are full; those that stand beside each other are equally high, and together as
wide as the screen, so that nothing is ragged: what does not fit is an error when the JSON is made.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink, Row, TimePicker
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, GridPos

from monitoring.build.grafana import annotations, links
from monitoring.build.grafana.figures import question
from monitoring.build.grafana.panel import Panel
from monitoring.build.grafana.variables import Variable

COLUMNS: Final = 24


@dataclass(frozen=True, slots=True)
class Section:
    """A row: its title, a question in a few words, and what answers it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `name` is that of its file, and of `dashboard=` in alerts."""

    name: str
    title: str
    asks: str
    reading: str
    sections: tuple[Section, ...]
    variables: tuple[Variable, ...]
    neighbours: tuple[tuple[str, str], ...]
    explore: tuple[DashboardLink, ...] = ()
    time_from: str = "now-1h"
    refresh: str = "30s"

    @property
    def panels(self) -> Iterator[Panel]:
        """All panels below the head."""
        return (panel for section in self.sections for panel in section.panels)


@dataclass(frozen=True, slots=True)
class _Placed(Builder[dashboard.Panel]):
    """A panel with its number and its place."""

    panel: Panel
    number: int
    place: GridPos

    def build(self) -> dashboard.Panel:
        built = self.panel.content.build()
        built.id_val = self.number
        built.grid_pos = self.place
        if self.panel.quiet:
            built.description = f"{built.description}\n\n**Empty:** {self.panel.quiet}."
        return built


def to_json(board: Board, alerts: Sequence[str]) -> str:
    """Return the JSON of a dashboard, with the alerts that lead to it as annotations."""
    made = (
        Dashboard(f"Glasshouse / {board.title}")
        .uid(links.uid(board.name))
        .description(board.asks)
        .tags(["glasshouse", board.name])
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time(board.time_from, "now")
        .timepicker(TimePicker().refresh_intervals(["10s", "30s", "1m", "5m", "15m"]))
        .refresh(board.refresh)
        .variables(list(board.variables))
        .annotations([annotations.alerts(alerts), annotations.deployments()])
        .links(
            [
                *(links.neighbour(name, title) for name, title in board.neighbours),
                *board.explore,
                links.all_dashboards(),
            ]
        )
    )
    for placed in _placed(board):
        made = made.with_row(placed) if isinstance(placed, Row) else made.with_panel(placed)
    content: dict[str, Any] = json.loads(JSONEncoder().encode(made.build()))
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _placed(board: Board) -> Iterator[_Placed | Row]:
    head = question(board.asks, board.reading)
    yield _Placed(head, 1, GridPos(h=head.height, w=COLUMNS, x=0, y=0))
    number, top = 2, head.height
    for section in board.sections:
        place = GridPos(h=1, w=COLUMNS, x=0, y=top)
        yield Row(section.title).id(number).grid_pos(place)
        number, top = number + 1, top + 1
        for line in _lines(board.name, section):
            left = 0
            for panel in line:
                spot = GridPos(h=panel.height, w=panel.width, x=left, y=top)
                yield _Placed(panel, number, spot)
                number, left = number + 1, left + panel.width
            top += line[0].height


def _lines(name: str, section: Section) -> Iterator[list[Panel]]:
    """Yield the panels that stand beside each other; ValueError when they do not fill the screen."""
    line: list[Panel] = []
    for panel in section.panels:
        line.append(panel)
        width = sum(one.width for one in line)
        if width > COLUMNS or panel.height != line[0].height:
            raise ValueError(
                f"dashboard {name}, row {section.title!r}: {panel.title!r} does not fit its line"
            )
        if width == COLUMNS:
            yield line
            line = []
    if line:
        raise ValueError(
            f"dashboard {name}, row {section.title!r}: the line of {line[-1].title!r} is not full"
        )

"""What every panel has: a title, three sentences behind its (i), queries, a unit, thresholds.

The sentences say what it `shows`, what is `normal`, and what to do (`act`) when it is not. `width` is of 24
columns, `height` in units of 38 pixels. A panel that is rightly empty while all is well says why (`quiet`):
tests then expect data of it only with something broken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    heatmap,
    logs,
    nodegraph,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders.dashboard import DashboardLink, FieldColor
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.common import DataSourceRef

from monitoring.build.grafana.colours import CRITICAL, GOOD, Colours, Steps, thresholds
from monitoring.build.grafana.queries import PROMETHEUS, Query

Links = Sequence[DashboardLink]
Texts = Mapping[str, tuple[str, str]]
"""What values mean: a text and a colour by the value, as Prometheus writes it ("0", "1")."""
DOWN_OR_UP: Final[Texts] = {"0": ("down", CRITICAL), "1": ("up", GOOD)}

Drawn = TypeVar(
    "Drawn",
    timeseries.Panel,
    stat.Panel,
    bargauge.Panel,
    heatmap.Panel,
    statetimeline.Panel,
    table.Panel,
    logs.Panel,
    nodegraph.Panel,
)
Measured = TypeVar(
    "Measured", timeseries.Panel, stat.Panel, bargauge.Panel, statetimeline.Panel, table.Panel
)


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel without its place, which the layout gives it."""

    title: str
    content: Builder[dashboard.Panel]
    width: int
    height: int
    quiet: str = ""


@dataclass(frozen=True, slots=True)
class _Named(Builder[Dataquery]):
    """A query with its letter."""

    query: Query
    letter: str

    def build(self) -> Dataquery:
        built = self.query.build()
        built.ref_id = self.letter  # type: ignore[attr-defined] # each kind of query has one
        return built


def dressed(
    panel: Drawn,
    title: str,
    queries: Sequence[Query],
    sentences: tuple[str, str, str],
    *,
    source: DataSourceRef = PROMETHEUS,
) -> Drawn:
    """Return the panel with what all have; ValueError when a sentence or all queries are missing."""
    if not queries or not all(sentences):
        raise ValueError(f"{title}: a panel asks something, and says what it shows, normal and act")
    shows, normal, act = sentences
    return (
        panel.title(title)
        .description(f"{shows}\n\n**Normal:** {normal}\n\n**If not:** {act}")
        .datasource(source)
        .targets([_Named(query, ascii_uppercase[place]) for place, query in enumerate(queries)])
        .links([])
    )


def measured(panel: Measured, unit: str, decimals: int | None, steps: Steps) -> Measured:
    """Return the panel with unit and thresholds."""
    panel = panel.unit(unit).thresholds(thresholds(steps))
    return panel if decimals is None else panel.decimals(decimals)


def coloured(panel: Measured, colours: Colours) -> Measured:
    """Return the panel with fixed colours for the series whose names these expressions find."""
    for pattern, colour in colours.items():
        value = {"mode": "fixed", "fixedColor": colour}
        # Between slashes it is searched for; without, Grafana asks the whole name to match.
        panel = panel.override_by_regexp(
            f"/{pattern}/", [dashboard.DynamicConfigValue(id_val="color", value=value)]
        )
    return panel


def told(panel: Measured, texts: Texts) -> Measured:
    """Return the panel with words for values."""
    options = {
        value: dashboard.ValueMappingResult(text=text, color=colour, index=place)
        for place, (value, (text, colour)) in enumerate(texts.items())
    }
    return panel.mappings([dashboard.ValueMap(options=options)]) if texts else panel


def colour_mode(mode: dashboard.FieldColorModeId) -> FieldColor:
    """Return how series get their colours."""
    return FieldColor().mode(mode)

"""Panels for one figure each, or one a series: what a person reads first."""

from grafana_foundation_sdk.builders import bargauge, common, stat, text
from grafana_foundation_sdk.models import common as model
from grafana_foundation_sdk.models.dashboard import FieldColorModeId
from grafana_foundation_sdk.models.text import TextMode

from monitoring.build.grafana.colours import Steps, plain
from monitoring.build.grafana.panel import (
    Links,
    Panel,
    Texts,
    colour_mode,
    dressed,
    measured,
    told,
)
from monitoring.build.grafana.queries import Query


def figure(
    title: str,
    *queries: Query,
    shows: str,
    normal: str,
    act: str,
    unit: str,
    steps: Steps | None = None,
    texts: Texts | None = None,
    width: int = 4,
    height: int = 5,
    decimals: int | None = None,
    sparkline: bool = True,
    links: Links = (),
    quiet: str = "",
    empty: str = "No data",
) -> Panel:
    """Return the newest value, large, over a small graph of the shown time.

    Ask with `over_time` for the small graph, with `now` without (`sparkline=False`). `links`: where a click
    leads.
    """
    panel = dressed(stat.Panel(), title, queries, (shows, normal, act))
    panel = told(measured(panel, unit, decimals, steps or plain()), texts or {})
    graph_mode = model.BigValueGraphMode.AREA if sparkline else model.BigValueGraphMode.NONE
    panel = (
        panel.color_scheme(colour_mode(FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(graph_mode)
        .color_mode(model.BigValueColorMode.VALUE)
        .text_mode(model.BigValueTextMode.VALUE)
        .orientation(model.VizOrientation.AUTO)
        .data_links(list(links))
        .no_value(empty)
    )
    return Panel(title, panel, width, height, quiet)


def bars(
    title: str,
    *queries: Query,
    shows: str,
    normal: str,
    act: str,
    unit: str,
    steps: Steps | None = None,
    maximum: float | None = None,
    width: int = 8,
    height: int = 8,
    decimals: int | None = None,
    links: Links = (),
    quiet: str = "",
    empty: str = "No data",
) -> Panel:
    """Return a bar a series, name to its left, longest scale common to all: ask with `now`, sorted."""
    panel = dressed(bargauge.Panel(), title, queries, (shows, normal, act))
    panel = measured(panel, unit, decimals, steps or plain())
    panel = (
        panel.color_scheme(colour_mode(FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .orientation(model.VizOrientation.HORIZONTAL)
        .display_mode(model.BarGaugeDisplayMode.BASIC)
        .name_placement(model.BarGaugeNamePlacement.LEFT)
        .value_mode(model.BarGaugeValueMode.TEXT)
        .sizing(model.BarGaugeSizing.AUTO)
        # Few bars are high ones; letters as high as these would leave no room for the name.
        .text(common.VizTextDisplayOptions().title_size(12).value_size(14))
        .show_unfilled(True)
        .min(0)
        .data_links(list(links))
        .no_value(empty)
    )
    return Panel(title, panel if maximum is None else panel.max(maximum), width, height, quiet)


def question(asked: str, reading: str) -> Panel:
    """Return the head of a dashboard: what it answers, and how to read it."""
    content = f"### {asked}\n{reading}"
    panel = text.Panel().title("").transparent(True).mode(TextMode.MARKDOWN).content(content)
    return Panel("", panel, 24, 3)

"""Panels with time on the x axis: lines, heatmaps, states."""

from collections.abc import Sequence
from typing import Final, Literal

from grafana_foundation_sdk.builders import common, heatmap, statetimeline, timeseries
from grafana_foundation_sdk.builders.heatmap import HeatmapColorOptions, HeatmapTooltip, YAxisConfig
from grafana_foundation_sdk.models import common as model
from grafana_foundation_sdk.models.dashboard import FieldColorModeId
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode

from monitoring.build.grafana.colours import LIMIT, Colours, plain
from monitoring.build.grafana.panel import (
    Links,
    Panel,
    Texts,
    colour_mode,
    coloured,
    dressed,
    measured,
    told,
)
from monitoring.build.grafana.queries import Query

Legend = Literal["list", "table", "none"]
Limit = float | Sequence[tuple[float, str]]
"""A line that must not be crossed, or several with their colours, the lowest first."""

_CALCULATIONS: Final = ["lastNotNull", "mean", "max"]


def graph(
    title: str,
    *queries: Query,
    shows: str,
    normal: str,
    act: str,
    unit: str,
    width: int = 8,
    height: int = 8,
    colours: Colours | None = None,
    stacked: bool = False,
    legend: Legend = "list",
    limit: Limit | None = None,
    minimum: float | None = 0,
    maximum: float | None = None,
    decimals: int | None = None,
    links: Links = (),
    quiet: str = "",
) -> Panel:
    """Return lines over time, or areas on top of each other when they add up to something (`stacked`).

    `limit` is drawn as a dashed red line: the service level, or what there is of it; where alerts have
    several thresholds, as lines in their colours. `links` are data links: where a point of a line leads.
    """
    panel = dressed(timeseries.Panel(), title, queries, (shows, normal, act))
    limits = _limits(limit)
    steps = [*plain("transparent"), *limits]
    panel = coloured(measured(panel, unit, decimals, steps), colours or {})
    panel = (
        panel.color_scheme(colour_mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .draw_style(model.GraphDrawStyle.LINE)
        .line_interpolation(model.LineInterpolation.LINEAR)
        .line_width(1 if stacked else 2)
        .fill_opacity(60 if stacked else 8)
        .show_points(model.VisibilityMode.NEVER)
        # A target that was away leaves a gap; two scrapes missed do not.
        .span_nulls(60_000)
        .thresholds_style(_threshold_style(drawn=bool(limits)))
        .legend(_legend(legend))
        .tooltip(_tooltip())
        .data_links(list(links))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(model.StackingMode.NORMAL))
    if minimum is not None:
        panel = panel.min(minimum)
    if maximum is not None:
        panel = panel.max(maximum)
    elif limits:
        panel = panel.axis_soft_max(limits[0][0])  # the line is seen also while all is far below it
    return Panel(title, panel, width, height, quiet)


def heat(
    title: str,
    query: Query,
    *,
    shows: str,
    normal: str,
    act: str,
    unit: str,
    width: int = 12,
    height: int = 8,
    quiet: str = "",
) -> Panel:
    """Return a heatmap of a histogram: how many observations fell into which bucket, and when."""
    panel = dressed(heatmap.Panel(), title, [query], (shows, normal, act))
    panel = (
        panel.calculate(False)
        .y_axis(YAxisConfig().unit(unit).axis_placement(model.AxisPlacement.LEFT))
        .color(HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
        .cell_gap(1)
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .exemplars_color("rgba(51,162,229,0.9)")
        .tooltip(HeatmapTooltip().mode(model.TooltipDisplayMode.SINGLE).y_histogram(True))
        .show_legend()
    )
    return Panel(title, panel, width, height, quiet)


def states(
    title: str,
    *queries: Query,
    shows: str,
    normal: str,
    act: str,
    texts: Texts,
    width: int = 8,
    height: int = 6,
    quiet: str = "",
) -> Panel:
    """Return a band a series, coloured by its value: up and down, open and closed."""
    panel = dressed(statetimeline.Panel(), title, queries, (shows, normal, act))
    panel = told(measured(panel, "none", None, plain()), texts)
    panel = (
        panel.color_scheme(colour_mode(FieldColorModeId.THRESHOLDS))
        .merge_values(True)
        .show_value(model.VisibilityMode.NEVER)
        .row_height(0.8)
        .line_width(0)
        .fill_opacity(75)
        .legend(_legend("list"))
        .tooltip(_tooltip())
    )
    return Panel(title, panel, width, height, quiet)


def _legend(legend: Legend) -> common.VizLegendOptions:
    options = common.VizLegendOptions().placement(model.LegendPlacement.BOTTOM)
    match legend:
        case "none":
            return options.display_mode(model.LegendDisplayMode.LIST).show_legend(False)
        case "list":
            return options.display_mode(model.LegendDisplayMode.LIST).show_legend(True)
        case "table":
            options = options.display_mode(model.LegendDisplayMode.TABLE).show_legend(True)
            options = options.placement(model.LegendPlacement.RIGHT).width(280)
            return options.calcs(_CALCULATIONS).sort_by("Max").sort_desc(True)


def _tooltip() -> common.VizTooltipOptions:
    options = common.VizTooltipOptions().mode(model.TooltipDisplayMode.MULTI)
    return options.sort(model.SortOrder.DESCENDING)


def _limits(limit: Limit | None) -> Sequence[tuple[float, str]]:
    if limit is None:
        return ()
    return [(limit, LIMIT)] if isinstance(limit, int | float) else limit


def _threshold_style(*, drawn: bool) -> common.GraphThresholdsStyleConfig:
    mode = model.GraphThresholdsStyleMode
    return common.GraphThresholdsStyleConfig().mode(mode.DASHED if drawn else mode.OFF)

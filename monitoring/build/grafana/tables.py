"""Panels with rows: tables, log lines, traces, and the map of services."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import common, logs, nodegraph, table
from grafana_foundation_sdk.models import common as model
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
)

from monitoring.build.grafana.colours import Steps, plain, thresholds
from monitoring.build.grafana.panel import Links, Panel, dressed, measured
from monitoring.build.grafana.queries import JAEGER, LOKI, Query


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: the figure of one query, in the order of the queries."""

    name: str
    unit: str
    steps: Steps | None = None
    decimals: int | None = None
    width: int = 95
    """Text gets what is left: a column without a width is 150 pixels at least, and pushes others out."""


def grid(
    title: str,
    *queries: Query,
    shows: str,
    normal: str,
    act: str,
    labels: Mapping[str, str],
    columns: Sequence[Column],
    sorted_by: str,
    ascending: bool = False,
    widths: Mapping[str, int] | None = None,
    width: int = 12,
    height: int = 8,
    links: Links = (),
    quiet: str = "",
) -> Panel:
    """Return a table: a row for each set of labels, joined over queries made with `rows`.

    `labels` are the columns of text, in order: the label, and its heading. All queries must have exactly
    these labels (`sum by (...)`). `widths`, in pixels by heading, are of columns of text that are shorter
    than the rest. `links` lead from the first column; ${__data.fields.HEADING} is the value
    of another one.
    """
    if len(columns) != len(queries):
        raise ValueError(f"{title}: {len(queries)} queries, {len(columns)} columns")
    panel = dressed(table.Panel(), title, queries, (shows, normal, act))
    panel = measured(panel, "none", None, plain())
    values = (
        ["Value"] if len(queries) == 1 else [f"Value #{chr(65 + n)}" for n in range(len(queries))]
    )
    names = [*labels, *values]
    headings = [*labels.values(), *(column.name for column in columns)]
    panel = (
        panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: place for place, name in enumerate(names)},
                    "renameByName": dict(zip(names, headings, strict=True)),
                },
            )
        )
        .sort_by([common.TableSortByFieldState().display_name(sorted_by).desc(not ascending)])
        .cell_height(model.TableCellHeight.SM)
        .filterable(False)
    )
    for column in columns:
        panel = panel.override_by_name(column.name, _looks(column))
    for heading, pixels in (widths or {}).items():
        size = DynamicConfigValue(id_val="custom.width", value=pixels)
        panel = panel.override_by_name(heading, [size])
    if links:
        first = next(iter(labels.values()))
        to = [{"title": made.title, "url": made.url} for made in (link.build() for link in links)]
        panel = panel.override_by_name(first, [DynamicConfigValue(id_val="links", value=to)])
    return Panel(title, panel, width, height, quiet)


def _looks(column: Column) -> list[DynamicConfigValue]:
    looks: dict[str, Any] = {
        "unit": column.unit,
        "custom.align": "right",
        "custom.width": column.width,
    }
    if column.decimals is not None:
        looks["decimals"] = column.decimals
    if column.steps is not None:
        looks["thresholds"] = thresholds(column.steps).build()
        looks["custom.cellOptions"] = {"type": "color-text"}
        looks["color"] = {"mode": "thresholds"}
    return [DynamicConfigValue(id_val=name, value=value) for name, value in looks.items()]


def log_lines(
    title: str,
    query: Query,
    *,
    shows: str,
    normal: str,
    act: str,
    width: int = 24,
    height: int = 9,
    quiet: str = "",
) -> Panel:
    """Return log lines, newest first; a click on one shows its fields, and the link to its trace."""
    panel = dressed(logs.Panel(), title, [query], (shows, normal, act), source=LOKI)
    panel = (
        panel.show_time(True)
        .show_labels(False)
        .show_common_labels(False)
        .wrap_log_message(True)
        .prettify_log_message(False)
        .enable_log_details(True)
        .sort_order(model.LogsSortOrder.DESCENDING)
        .dedup_strategy(model.LogsDedupStrategy.NONE)
    )
    return Panel(title, panel, width, height, quiet)


def trace_list(
    title: str,
    query: Query,
    *,
    shows: str,
    normal: str,
    act: str,
    width: int = 24,
    height: int = 8,
    quiet: str = "",
) -> Panel:
    """Return a list of traces; a click on an id opens the trace beside its logs and metrics."""
    panel = dressed(table.Panel(), title, [query], (shows, normal, act), source=JAEGER)
    panel = measured(panel, "none", None, plain()).cell_height(model.TableCellHeight.SM)
    return Panel(title, panel, width, height, quiet)


_EDGE_ORDER: Final = {"id": 0, "source": 1, "target": 2, "mainstat": 3}


def service_map(
    title: str,
    nodes: Query,
    edges: Query,
    *,
    shows: str,
    normal: str,
    act: str,
    width: int = 12,
    height: int = 10,
    quiet: str = "",
) -> Panel:
    """Return who calls whom: queries made with `rows`, nodes with id, title and subtitle, edges with id,
    source and target; the value of each is its figure."""
    panel = dressed(nodegraph.Panel(), title, [nodes, edges], (shows, normal, act))
    renamed = {"Value #A": "mainstat", "Value #B": "mainstat", "Value": "mainstat"}
    panel = panel.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": dict(_EDGE_ORDER),
                "renameByName": renamed,
            },
        )
    )
    panel = panel.nodes(nodegraph.NodeOptions().main_stat_unit("reqps"))
    panel = panel.edges(nodegraph.EdgeOptions().main_stat_unit("reqps"))
    return Panel(title, panel, width, height, quiet)

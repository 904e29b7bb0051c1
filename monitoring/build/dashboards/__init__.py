"""The dashboards: one file each with a `BOARD`, found by being here.

How they look, and what panels there are, is in monitoring/build/grafana.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from pkgutil import iter_modules

from monitoring.build.grafana.board import Board, to_json
from monitoring.build.grafana.links import uid
from monitoring.build.model import Alert, Group


def boards() -> tuple[Board, ...]:
    """Return all dashboards, by name."""
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    return tuple(sorted((module.BOARD for module in modules), key=lambda board: board.name))


def quiet_panels() -> Mapping[tuple[str, str], str]:
    """Return why a panel is empty while all is well, by the uid of its dashboard and its title."""
    return {
        (uid(board.name), panel.title): panel.quiet
        for board in boards()
        for panel in board.panels
        if panel.quiet
    }


def dashboards(groups: Iterable[Group]) -> dict[str, str]:
    """Return the JSON of all dashboards by file name; each knows the alerts that lead to it."""
    alerts = [rule for group in groups for rule in group.rules if isinstance(rule, Alert)]
    return {
        f"{board.name}.json": to_json(
            board, sorted({rule.name for rule in alerts if rule.dashboard == board.name})
        )
        for board in boards()
    }

"""Fills in the variables of a query as Grafana does before it asks Prometheus.

The values of a dashboard's variables are those that its own definitions find, and All is chosen, as a person
finds it on opening. A value is escaped for a regular expression inside of a PromQL string, and several are
joined as alternatives (Grafana's Prometheus data source: `interpolateQueryExpr`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.monitoring.dashboards import VARIABLE, Dashboard, asked_by, name_of, variables_in

AskValues = Callable[[str, str], list[str]]
"""Returns the values of a label (the second) in the series of a selector (the first, may be empty)."""

SHORTEST_RATE_SECONDS: Final = 5.0
"""Four scrapes a second apart, and one to spare: the machine is busy."""
_ALL: Final = "$__all"
_LABEL_VALUES: Final = re.compile(
    r"^label_values\((?:(?P<series>.+),\s*)?(?P<label>\w+)\)$", re.DOTALL
)
_REGEX_SIGNS: Final = re.compile(r"[$^*{}\[\]'+?.()|]")
_OFFSET: Final = re.compile(r"\boffset\s+\d+[smhdwy]")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_PIXELS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Times:
    """What Grafana makes of the time that is shown, and of the data source's scrape interval."""

    shown_seconds: float
    scrape_seconds: float

    @property
    def interval(self) -> float:
        """Seconds between two points that are drawn, never less than a scrape apart."""
        return max(self.shown_seconds / _PIXELS, self.scrape_seconds)

    @property
    def rate_interval(self) -> float:
        """Seconds that hold four scrapes at least, and no gap between two points."""
        found = max(self.interval + self.scrape_seconds, 4 * self.scrape_seconds)
        return max(found, SHORTEST_RATE_SECONDS)

    def values(self) -> dict[str, str]:
        """Return Grafana's own variables."""
        shown = round(self.shown_seconds)
        return {
            "__interval": _duration(self.interval),
            "__interval_ms": str(round(self.interval * 1_000)),
            "__rate_interval": _duration(self.rate_interval),
            "__range": _duration(self.shown_seconds),
            "__range_s": str(shown),
            "__range_ms": str(shown * 1_000),
        }


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1_000)}ms"


def shown_seconds(board: Dashboard) -> float:
    """Return how long a time a dashboard shows when it is opened (`now-1h`)."""
    found = re.fullmatch(r"now-(\d+)([smhd])", board.content["time"]["from"])
    assert found is not None, f"{board}: {board.content['time']}"
    return float(found[1]) * _UNITS[found[2]]


class NoValues(Exception):
    """A variable found nothing to choose from."""


@dataclass(frozen=True, slots=True)
class Filling:
    """What stands for each variable of a dashboard."""

    values: Mapping[str, list[str]]
    several: frozenset[str]
    """Variables of which more than one value may be chosen."""
    own: Mapping[str, str]
    """What is put in as it is: Grafana's own variables, and an All that is written out."""

    def fill(self, text: str) -> str:
        """Return the query that Prometheus is asked.

        An offset becomes a few seconds: what a day ago was is not known of a house that is a minute old.
        """
        return _OFFSET.sub("offset 5s", VARIABLE.sub(self._value, text))

    def _value(self, found: re.Match[str]) -> str:
        name = name_of(found)
        if name in self.own:
            return self.own[name]
        if name not in self.values:
            return found[0]
        values = self.values[name]
        if found["format"] is None and name in self.several:
            escaped = [_escaped(value) for value in values]
            return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"
        formats: dict[str | None, Callable[[], str]] = {
            None: lambda: values[0],
            "raw": lambda: values[0],
            "regex": lambda: "|".join(re.escape(value) for value in values),
            "pipe": lambda: "|".join(values),
            "csv": lambda: ",".join(values),
        }
        return formats[found["format"]]()


def _escaped(value: str) -> str:
    return _REGEX_SIGNS.sub(r"\\\\\g<0>", value.replace("\\", "\\\\\\\\"))


def filling(board: Dashboard, times: Times, ask: AskValues) -> Filling:
    """Return what stands for a dashboard's variables, in an order in which each is known when it is needed.

    Raises:
        NoValues: One of them has nothing to choose from.
    """
    definitions = board.variables
    known = Filling({}, frozenset(), times.values())
    waiting = dict(definitions)
    while waiting:
        ready = [
            name
            for name, one in waiting.items()
            if not variables_in(asked_by(one)) & (waiting.keys() - {name})
        ]
        assert ready, f"{board}: the variables {sorted(waiting)} wait for each other"
        for name in ready:
            definition = waiting.pop(name)
            everything = definition.get("allValue")
            if everything and _is_all(definition):
                # Grafana takes it as it is written, and escapes nothing in it.
                known = Filling(known.values, known.several, {**known.own, name: everything})
                continue
            values = _chosen(definition, known, ask)
            if not values:
                raise NoValues(f"{board} / ${name}: nothing to choose from: {asked_by(definition)}")
            has_several = bool(definition.get("multi") or definition.get("includeAll"))
            known = Filling(
                {**known.values, name: values},
                known.several | ({name} if has_several else frozenset()),
                known.own,
            )
    return known


def _current(definition: dict[str, Any]) -> list[str]:
    current = definition.get("current", {}).get("value", [])
    return [current] if isinstance(current, str) else list(current)


def _is_all(definition: dict[str, Any]) -> bool:
    return _ALL in _current(definition)


def _chosen(definition: dict[str, Any], known: Filling, ask: AskValues) -> list[str]:
    if _current(definition) and not _is_all(definition):
        return _current(definition)
    if definition["type"] != "query":
        options = [str(one["value"]) for one in definition.get("options", ())]
        return [one for one in options if one != _ALL]
    found = _LABEL_VALUES.match(known.fill(asked_by(definition)))
    assert found is not None, f"only label_values(...) is known here: {asked_by(definition)}"
    values = ask(found["series"] or "", found["label"])
    narrowed = definition.get("regex")
    if narrowed:
        pattern = re.compile(narrowed.strip("/"))
        matched = [pattern.search(value) for value in values]
        values = [one[1] if one.re.groups else one[0] for one in matched if one is not None]
    return values

"""Reads docs/telemetry.md, so that a test can hold it against what the system emits.

The page is for people. What makes it readable by a program, too: names stand in backticks, one table has
one kind of row, and a few signs mean something everywhere (`=`: the only values there are; `≤`: the most
there may be; `?` behind a name: not always there). Anything else is prose and passed over.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PAGE = Path(__file__).resolve().parent.parent / "docs" / "telemetry.md"
ANY = "any"
"""The message of a type whose sentences are not ours."""

_NAME = re.compile(r"`([^`]+)`(\?)?")
_LINK = re.compile(r"\[[^\]]*\]\(([^)]+)\)")


_NUMBER = r"-?\d+(\.\d+)?(e[+-]?\d+)?"
_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_FORMS = {
    **dict.fromkeys(("milliseconds", "seconds", "number", "minor units", "above 0"), _NUMBER),
    "HTTP status": r"\d{3}|\w+",  # of `error.type` a class as well
    "UUID, or empty": _UUID,
    "UUID, ": "[^@]+",  # or something else, which is no address
    "UUID": _UUID,
    "16 hexadecimal": "[0-9a-f]{16}",
    "32 hexadecimal": "[0-9a-f]{32}",
    "64 hexadecimal": "[0-9a-f]{64}",
    "UTC, ISO 8601, milliseconds": r"[-\d]{10}T[:\d]{8}\.\d{3}Z",
    "UTC, ISO 8601, microseconds": r"[-\d]{10}T[:\d]{8}\.\d{6}\+00:00",
    "true or false": "True|False",
    "network": r"[\d.]+\.0|[0-9a-f:]+::",
    "name of a class": r"\w+",
    "list": r"\[.*\]",
    "object": r"(?s)\{.*\}",
}
"""Beginnings of the words under "Values, unit", and how such a value looks."""


@dataclass(frozen=True, slots=True)
class Values:
    """What a label, field or attribute may be: one of a closed set, so many different ones, a form."""

    closed: frozenset[str] = frozenset()
    at_most: int | None = None
    form: str = ""

    def fits(self, value: object) -> bool:
        """Whether a value has the form, where the page gives one that a program knows."""
        if value is None or value == "":
            return True  # not known, or not yet
        for words, pattern in _FORMS.items():
            if self.form.startswith(words):
                return re.fullmatch(pattern, str(value)) is not None
        return True


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the tables of metrics."""

    name: str
    type: str
    unit: str
    labels: dict[str, Values]
    processes: frozenset[str]
    source: Path | None
    """None for what prometheus_client emits."""


@dataclass(frozen=True, slots=True)
class Message:
    """A sentence of one type of log line; `fields` says of each whether it is always there."""

    sentence: str
    levels: frozenset[str]
    processes: frozenset[str]
    fields: dict[str, bool]
    source: Path


@dataclass(slots=True)
class LogType:
    """A type of log line: its sentences, and what its fields may be."""

    messages: dict[str, Message] = field(default_factory=dict)
    fields: dict[str, Values] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpanRow:
    """A pattern of span names; `attributes` and `events` say of each whether it is always there."""

    name: str
    kind: str
    tracer: str
    processes: frozenset[str]
    attributes: dict[str, bool]
    events: dict[str, bool]
    source: Path

    def matches(self, name: str) -> bool:
        """Whether a span may be called that: what stands in angle brackets stands for one word."""
        parts = re.split(r"<\w+>", self.name)
        return re.fullmatch(r"\S+".join(map(re.escape, parts)), name) is not None


@dataclass(slots=True)
class Catalogue:
    """All of the page."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    common_fields: dict[str, bool] = field(default_factory=dict)
    common_values: dict[str, Values] = field(default_factory=dict)
    types: dict[str, LogType] = field(default_factory=dict)
    spans: list[SpanRow] = field(default_factory=list)
    attributes: dict[str, Values] = field(default_factory=dict)
    resource: dict[str, Values] = field(default_factory=dict)
    parts: dict[str, bool] = field(default_factory=dict)
    tags: dict[str, Values] = field(default_factory=dict)
    contexts: dict[str, dict[str, bool]] = field(default_factory=dict)
    fingerprints: set[str] = field(default_factory=set)
    breadcrumbs: dict[str, set[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    """Where each header is, in the words of the page."""
    unseen: set[str] = field(default_factory=set)
    """What the test need not see, such as `metric cache_evictions_total`."""
    linked: set[Path] = field(default_factory=set)
    """The files that the page leads to."""


def read_catalogue(page: Path = PAGE) -> Catalogue:
    """Return what the page says.

    Raises:
        KeyError: A table has a first column that is not known here.
        ValueError: A name stands there twice, or a row has too few or too many cells.
    """
    text = page.read_text("utf-8")
    links = (link for link in _LINK.findall(text) if not link.startswith("#"))
    catalogue = Catalogue(linked={(page.parent / link).resolve() for link in links})
    for heading, columns, rows in _tables(text):
        for cells in rows:
            row = dict(zip(columns, cells, strict=True))
            if columns[0] not in _FOR_PEOPLE:
                _READERS[columns[0]](catalogue, heading, row, page)
    return catalogue


def _tables(text: str) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield the heading above each table, its columns and the cells of its rows."""
    heading, table = "", list[list[str]]()
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif table:
            yield heading, table[0], table[2:]
            table = []
        if line.startswith("#"):
            heading = line.lstrip("#").strip()


def _names(cell: str) -> dict[str, bool]:
    """Return the names in a cell, and of each whether it is always there."""
    return {name: not optional for name, optional in _NAME.findall(cell)}


def _name(cell: str) -> str:
    (name,) = _names(cell)
    return name


def _values(cell: str) -> Values:
    if cell.startswith("="):
        return Values(closed=frozenset(_names(cell)))
    bound = re.match(r"≤ (\d+)", cell)
    return Values(at_most=int(bound[1]) if bound else None, form=cell)


def _labels(cell: str) -> dict[str, Values]:
    labels = {}
    for part in cell.split("<br>"):
        if part != "none":
            match = re.match(r"`(\w+)` *(.*)", part)
            if match is None:
                raise ValueError(f"no label can be read from {part!r}")
            labels[match[1]] = _values(match[2])
    return labels


def _source(cell: str, page: Path) -> Path | None:
    link = _LINK.search(cell)
    return (page.parent / link[1]).resolve() if link else None


def _words(cell: str) -> frozenset[str]:
    return frozenset(cell.split())


def _add(found: dict[str, T], name: str, item: T) -> None:
    if name in found:
        raise ValueError(f"{name} stands there twice")
    found[name] = item


# The tables, by their first column --------------------------------------------------------------------

Row = dict[str, str]


def _read_metric(catalogue: Catalogue, _heading: str, row: Row, page: Path) -> None:
    name = _name(row["Metric"])
    kind, _, unit = row["Type, unit"].partition(", ")
    metric = Metric(
        name,
        kind,
        unit,
        _labels(row["Labels"]),
        _words(row["From"]),
        _source(row["Source"], page),
    )
    _add(catalogue.metrics, name, metric)


def _read_message(catalogue: Catalogue, heading: str, row: Row, page: Path) -> None:
    source = _source(row["Source"], page)
    assert source is not None, row
    message = Message(
        row["Message"],
        _words(row["Level"]),
        _words(row["From"]),
        _names(row["Fields"]),
        source,
    )
    _add(catalogue.types.setdefault(heading, LogType()).messages, message.sentence, message)


def _read_field(catalogue: Catalogue, heading: str, row: Row, _page: Path) -> None:
    ((name, is_always_there),) = _names(row["Field"]).items()
    values = _values(row["Values, unit"])
    if heading == "Every line":
        _add(catalogue.common_fields, name, is_always_there)
        catalogue.common_values[name] = values
    else:
        _add(catalogue.types.setdefault(heading, LogType()).fields, name, values)


def _read_span(catalogue: Catalogue, _heading: str, row: Row, page: Path) -> None:
    source = _source(row["Source"], page)
    assert source is not None, row
    catalogue.spans.append(
        SpanRow(
            _name(row["Span"]),
            row["Kind"],
            row["Tracer"].strip("`"),
            _words(row["From"]),
            _names(row["Attributes"]),
            _names(row["Event"]),
            source,
        )
    )


def _read_attribute(catalogue: Catalogue, heading: str, row: Row, _page: Path) -> None:
    found = catalogue.resource if heading == "Resource" else catalogue.attributes
    _add(found, _name(row["Attribute"]), _values(row["Values, unit"]))


def _read_part(catalogue: Catalogue, _heading: str, row: Row, _page: Path) -> None:
    ((name, is_always_there),) = _names(row["Part"]).items()
    _add(catalogue.parts, name, is_always_there)


def _read_tag(catalogue: Catalogue, _heading: str, row: Row, _page: Path) -> None:
    _add(catalogue.tags, _name(row["Tag"]), _values(row["Values"]))


def _read_context(catalogue: Catalogue, _heading: str, row: Row, _page: Path) -> None:
    _add(catalogue.contexts, _name(row["Context"]), _names(row["Fields"]))


def _read_fingerprint(catalogue: Catalogue, _heading: str, row: Row, _page: Path) -> None:
    catalogue.fingerprints |= _names(row["Fingerprint of"]).keys()


def _read_breadcrumb(catalogue: Catalogue, _heading: str, row: Row, _page: Path) -> None:
    _add(catalogue.breadcrumbs, row["Breadcrumb"], set(_names(row["Data"])))


def _read_header(catalogue: Catalogue, _heading: str, row: Row, _page: Path) -> None:
    _add(catalogue.headers, _name(row["Header"]), row["Where"])


def _read_unseen(catalogue: Catalogue, _heading: str, row: Row, _page: Path) -> None:
    catalogue.unseen |= _names(row["What"]).keys()


_READERS: dict[str, Callable[[Catalogue, str, Row, Path], None]] = {
    "Metric": _read_metric,
    "Message": _read_message,
    "Field": _read_field,
    "Span": _read_span,
    "Attribute": _read_attribute,
    "Part": _read_part,
    "Tag": _read_tag,
    "Context": _read_context,
    "Fingerprint of": _read_fingerprint,
    "Breadcrumb": _read_breadcrumb,
    "Header": _read_header,
    "What": _read_unseen,
}
_FOR_PEOPLE = {"You look for", "Id", "Signal", "Promised: a change is in CHANGELOG.md"}
"""The first columns of tables that no program compares with anything."""

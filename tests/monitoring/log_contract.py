"""What LogQL may ask for: the labels of streams and the fields of docs/telemetry.md.

The collector makes both: `service` of a line, or the container's name, becomes `service_name`; every field of
our lines is structured metadata under its own name.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import Final

from tests.catalogue import ANY, Catalogue, read_catalogue
from tests.monitoring.logql import Matcher, Query, read

INDEX_LABELS: Final = frozenset(
    {"service_name", "service_namespace", "deployment_environment_name", "log_stream"}
)
STREAMS: Final = frozenset({"app", "audit"})
OF_THE_WAY: Final = frozenset(
    {
        *("container_name", "log_iostream", "redaction_masked_count"),
        *("severity_text", "severity_number", "detected_level", "__error__"),
    }
)
"""What a line gets on its way: from Docker, the collector, Loki; the last where a parser cannot read it."""
CONTAINERS: Final = frozenset(
    {
        *(
            "setup",
            "customers",
            "postgres",
            "valkey",
            "prometheus",
            "alertmanager",
            "jaeger",
            "grafana",
        ),
        *("gateway", "blackbox-exporter", "node-exporter", "postgres-exporter", "redis-exporter"),
        *("mailpit", "bugsink", "bugsink-setup"),
    }
)
"""Services of the stack that are not ours and whose output goes to Loki."""


@cache
def catalogue() -> Catalogue:
    """Return the page, read once."""
    return read_catalogue()


@cache
def services() -> frozenset[str]:
    """Return what `service_name` can be."""
    ours = catalogue().common_values["service"].closed | {"glasshouse-notifications"}
    return ours | CONTAINERS


def complaints(expression: str) -> list[str]:
    """Return what an expression asks for that there is not; nothing is found where one of these stands."""
    try:
        query = read(expression)
    except (ValueError, re.error) as error:
        return [str(error)]
    return [*_of_selectors(query), *_of_fields(query), *_of_lines(query)]


def _of_selectors(query: Query) -> Iterable[str]:
    known = {"service_name": services(), "log_stream": STREAMS}
    for matcher in (one for selector in query.selectors for one in selector):
        if matcher.name not in INDEX_LABELS:
            yield f"{matcher.name} is no label of streams: filter by it behind the selector"
        elif not _is_one_of(matcher, known.get(matcher.name, frozenset())):
            yield f"{matcher.name} is never {matcher.value!r}"


def _of_fields(query: Query) -> Iterable[str]:
    types = _types(query)
    there = {*INDEX_LABELS, *OF_THE_WAY, *catalogue().common_fields, *query.made}
    for name in types:
        there |= catalogue().types[name].fields.keys()
        for message in catalogue().types[name].messages.values():
            there |= message.fields.keys()
    where = "any type" if len(types) == len(catalogue().types) else "/".join(sorted(types))
    asked = query.named | {condition.name for condition in query.conditions}
    for name in sorted(asked - there):
        yield f"no line of {where} has the field {name}"
    for condition in query.conditions:
        if condition.name in query.made or condition.name not in there:
            continue
        if not _is_one_of(condition, _values(condition.name, types)):
            yield f"{condition.name} is never {condition.value!r} on lines of {where}"


def _of_lines(query: Query) -> Iterable[str]:
    for matcher in query.lines:
        if matcher.operator in {"|~", "!~"}:
            try:
                re.compile(matcher.value)
            except re.error as error:
                yield f"{matcher.value!r} is no regular expression: {error}"


def _types(query: Query) -> set[str]:
    """Return the types of lines that an expression can find."""
    every = set(catalogue().types)
    for condition in query.conditions:
        if condition.name == "type" and condition.operator in {"=", "=~"}:
            every = {one for one in every if _fits(condition, one)}
    return every


def _values(name: str, types: set[str]) -> frozenset[str]:
    """Return all that a field can be, or nothing where it can be anything."""
    if name == "type":
        return frozenset(catalogue().types)
    found = catalogue().types
    if name == "message":
        sentences = {sentence for one in types for sentence in found[one].messages}
        return frozenset() if ANY in sentences else frozenset(sentences)
    defined = [found[one].fields[name] for one in types if name in found[one].fields]
    if not defined and name in catalogue().common_values:
        defined = [catalogue().common_values[name]]
    if not defined or not all(values.closed for values in defined):
        return frozenset()
    return frozenset[str]().union(*(values.closed for values in defined))


def _is_one_of(matcher: Matcher, values: frozenset[str]) -> bool:
    """Whether some value fits; what is refused (`!=`) has to exist as well, but for nothing at all."""
    if not values or matcher.is_open or matcher.value == "":
        return True
    return any(_fits(matcher, value) for value in values)


def _fits(matcher: Matcher, value: str) -> bool:
    if matcher.operator in {"=~", "!~"}:
        return re.fullmatch(matcher.value, value) is not None
    return matcher.value == value

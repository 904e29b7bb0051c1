"""What a request may cost, as a table that people review, and how it differs from what was counted.

The table is expected.toml. `python -m tests.cost.measure --write` makes it anew.
"""

import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

Table = dict[str, Any]
"""A section for each request and sampling ratio, such as "ping at 0.0", and four that are about all."""

FILE: Final = Path(__file__).with_name("expected.toml")
AGAIN: Final = "python -m tests.cost.measure --write"
RATIOS: Final = (0.0, 1.0)
TOLERANCE: Final = 0.15
"""For another minor version of Python than the table's, each of which calls a little differently: so much
more is let pass. What is added was the same with 3.11.2 and 3.11.7."""

_HEADER: Final = f"""\
# What one request costs, counted exactly. Made by `{AGAIN}`, never edited.
# Read by: tests/cost/test_cost.py, which fails when anything here changes, for better or worse: make the
# table again, and say in the commit why it changed. What the numbers mean is in tests/cost/table.py.
"""
_COUNTS: Final = ("spans", "lines", "statements", "series")
_CALLS: Final = {"bare_calls", "added_calls", "added"}
_LIBRARIES: Final = (
    "fastapi", "loguru", "opentelemetry-sdk", "opentelemetry-instrumentation-asgi", "prometheus-client",
    "prometheus-fastapi-instrumentator", "pydantic", "sentry-sdk", "sqlalchemy", "starlette",
)  # fmt: skip
_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as expected; `kind` is what was counted."""

    kind: str
    text: str


def made_with() -> Table:
    """Return the versions on which calls depend."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python, **{name: version(name) for name in _LIBRARIES}}


def tabulate(bare: Table, services: Mapping[float, Table]) -> Table:
    """Return the table of what was counted, from the findings of probe.py.

    A request's section has its spans by kind, log lines by type, statements (BEGIN, COMMIT and the like
    are `control`), series that were added once it is known, blocks of memory that stay behind, and the
    calls of functions, in Python and C, of ten such requests in a row: of the bare application, and what is
    added to them, by module.
    """
    most = services[max(services)]
    spans = {"spans_of_no_request": most["spans_of_no_request"]}
    table: Table = {"made with": made_with(), "at rest": most["at_rest"] | spans}
    table["a new route"] = most["new_route"]
    table["more routes"] = {
        f"{name} at {ratio}": _added(
            found["calls_with_more_routes"], bare["calls_with_more_routes"], name
        )
        - _added(found["calls"], bare["calls"], name)
        for ratio, found in services.items()
        for name in found.get("calls_with_more_routes", ())
    }
    for name in most["counts"]:
        for ratio, found in services.items():
            where = by_module(added_calls(bare, found, name))
            table[f"{name} at {ratio}"] = {
                **{kind: found["counts"][name][kind] for kind in _COUNTS},
                **({"memory": found["growth"][name]} if name in found["growth"] else {}),
                "bare_calls": sum(bare["calls"][name].values()),
                "added_calls": sum(where.values()),
                "added": where,
            }
    return table


def added_calls(bare: Table, service: Table, name: str) -> Counter[str]:
    """Return the calls that a request makes more in the service, by function."""
    added = Counter(service["calls"][name])
    added.subtract(bare["calls"][name])
    return Counter({function: number for function, number in added.items() if number})


def _added(service: Table, bare: Table, name: str) -> int:
    return sum(Counter[str](service[name]).values()) - sum(Counter[str](bare[name]).values())


def by_module(calls: Counter[str]) -> dict[str, int]:
    """Return calls by module of ours, or by library, most of them first."""
    found = Counter[str]()
    for function, number in calls.items():
        found[_module(function)] += number
    return {
        name: found[name] for name in sorted(found, key=lambda n: (-found[n], n)) if found[name]
    }


def _module(function: str) -> str:
    module = function.partition(":")[0]
    return module if module.startswith(("app.", "tests.")) else module.partition(".")[0]


# Comparing --------------------------------------------------------------------------------------------


def differences(
    expected: Table, found: Table, bare: Table, services: Mapping[float, Table]
) -> list[Difference]:
    """Return how what was `found` differs from the table; it may have less than all sections.

    With another version of Python than the table was made with, only TOLERANCE more calls are too many.
    """
    exactly = expected["made with"]["python"] == found["made with"]["python"]
    differing: list[Difference] = []
    for section, now in found.items():
        wanted = expected.get(section, {})
        if section == "more routes":
            wanted = {name: number for name, number in wanted.items() if name in now}
        if section != "made with":
            differing += _of_counts(section, wanted, now)
        if "added" in now:
            name, _, ratio = section.partition(" at ")
            functions = added_calls(bare, services[float(ratio)], name)
            text = "\n".join(_of_calls(wanted, now, functions, exactly=exactly))
            differing += [Difference("calls", f"{section}: {text}")] if text else []
    return differing


def _of_counts(section: str, wanted: Table, now: Table) -> Iterator[Difference]:
    is_request = "added" in now
    for kind in {**wanted, **now}:
        if kind not in _CALLS and wanted.get(kind) != now.get(kind):
            text = f"{section}: {kind}: expected {wanted.get(kind)}, counted {now.get(kind)}"
            yield Difference(kind if is_request else section, text)


def _of_calls(
    wanted: Table, now: Table, functions: Counter[str], *, exactly: bool
) -> Iterator[str]:
    before, after = wanted.get("added_calls", 0), now["added_calls"]
    known = wanted.get("added", {})
    if known == now["added"] or (not exactly and after <= before * (1 + TOLERANCE)):
        return
    pairs = {name: (known.get(name, 0), now["added"].get(name, 0)) for name in known | now["added"]}
    changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    yield f"calls that ten requests add to the bare application's: expected {before}, counted {after}"
    for module, (was, has) in sorted(changed.items(), key=lambda one: -abs(one[1][1] - one[1][0])):
        yield f"    {module}: expected {was}, counted {has} ({has - was:+}); among them now:"
        inside = Counter({key: n for key, n in functions.items() if _module(key) == module})
        for function, number in inside.most_common(_SHOWN):
            yield f"        {number:+5} {function}"


def explain(expected: Table, differing: list[Difference]) -> str:
    """Return one message about all of it: what, where, and what to do."""
    others = [
        f"{name} {wanted} -> {made_with()[name]}"
        for name, wanted in expected["made with"].items()
        if made_with()[name] != wanted
    ]
    versions = f"Versions that differ from the table's: {', '.join(others)}.\n" if others else ""
    return (
        "What a request costs has changed:\n\n"
        + "\n".join(one.text for one in differing)
        + f"\n\n{versions}If it is meant, `{AGAIN}` makes {FILE.name} anew; its diff is for the review."
    )


# The file ---------------------------------------------------------------------------------------------


def load() -> Table:
    """Return the table that is expected."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def write(table: Table) -> None:
    """Make `table` what is expected."""
    FILE.write_text(_HEADER + "".join(_section(*one) for one in table.items()), encoding="utf-8")


def _section(name: str, values: Table) -> str:
    lines = [f'["{name}"]']
    lines += [f"{_key(key)} = {_value(value)}" for key, value in values.items() if key != "added"]
    if "added" in values:
        lines += [f'["{name}".added]']
        lines += [f"{_key(key)} = {_value(value)}" for key, value in values["added"].items()]
    return "\n" + "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else f'"{key}"'


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{_key(key)} = {_value(value[key])}" for key in sorted(value))
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)

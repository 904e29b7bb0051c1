"""What the source code can emit, read from its syntax: metrics, sentences of log lines, breadcrumbs.

So that nothing is forgotten that is emitted in rare moments only.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_METRICS = {
    name: name.lower() for name in ("Counter", "Gauge", "Histogram", "Summary", "Info", "Enum")
}
_METRICS |= {"KpiCounter": "counter", "KpiHistogram": "histogram"}  # observability/business.py
_LEVELS = {"trace", "debug", "info", "success", "warning", "error", "critical", "exception"}


@dataclass(slots=True)
class Emitters:
    """What was found, with the file that it stands in."""

    metrics: dict[str, tuple[str, tuple[str, ...], Path]] = field(default_factory=dict)
    """Type, labels and file by the name that is exposed."""
    sentences: set[tuple[str, Path]] = field(default_factory=set)
    breadcrumbs: set[tuple[str, frozenset[str]]] = field(default_factory=set)
    """The message and the names of its data."""
    words: set[str] = field(default_factory=set)
    """Every string in the code that could be the value of a label."""


@lru_cache(maxsize=1)
def read_emitters() -> Emitters:
    """Read every file of app/ and sandbox/."""
    found = Emitters()
    for part in ("app", "sandbox"):
        for path in sorted((ROOT / part).rglob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.words.add(node.value)
                elif isinstance(node, ast.Call):
                    _read_call(found, node, path)
    return found


def _read_call(found: Emitters, call: ast.Call, path: Path) -> None:
    name = _name_of(call.func)
    texts = list(_texts(call.args))
    if name in _METRICS and call.args:
        if not texts:
            raise ValueError(f"{path}:{call.lineno}: a metric whose name is not written out")
        kind = _METRICS[name]
        exposed = texts[0] if kind != "counter" else f"{texts[0].removesuffix('_total')}_total"
        found.metrics[exposed] = kind, _label_names(call), path
    elif name == "add_breadcrumb":
        data = frozenset(str(keyword.arg) for keyword in call.keywords)
        if len(texts) > 1:  # else its caller has the words
            found.breadcrumbs.add((texts[1], data))
    elif isinstance(call.func, ast.Attribute) and _is_logger(call.func.value):
        said = texts[-1:] if name in _LEVELS | {"log"} else []
        found.sentences |= {(sentence, path) for sentence in said}


def _name_of(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_logger(value: ast.expr) -> bool:
    """Whether it is loguru's logger, or what we call one with values bound to it: a `line`."""
    while isinstance(value, ast.Call | ast.Attribute | ast.IfExp):
        if isinstance(value, ast.IfExp):
            value = value.body
        else:
            value = value.func if isinstance(value, ast.Call) else value.value
    return isinstance(value, ast.Name) and value.id in {"logger", "line", "origin"}


def _texts(arguments: list[ast.expr]) -> Iterator[str]:
    for argument in arguments:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def _label_names(call: ast.Call) -> tuple[str, ...]:
    given = [k.value for k in call.keywords if k.arg == "labelnames"] or call.args[2:3]
    return tuple(_texts(given[0].elts)) if given and isinstance(given[0], ast.List) else ()

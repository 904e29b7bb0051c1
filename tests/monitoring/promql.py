"""What a PromQL expression is made of, so that rules, dashboards and runbooks can be checked as code is."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import promql_parser as parser

_OPERATORS: Final = {
    str(parser.MatchOp.Equal): "=",
    str(parser.MatchOp.NotEqual): "!=",
    str(parser.MatchOp.Re): "=~",
    str(parser.MatchOp.NotRe): "!~",
}
_SCALARS: Final = (parser.NumberLiteral, parser.StringLiteral)
_SCALAR_FUNCTIONS: Final = frozenset({"time", "scalar", "pi"})


@dataclass(frozen=True, slots=True)
class Selector:
    """Series that an expression reads. `range_seconds` is None where it reads their latest value."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]
    range_seconds: float | None
    functions: tuple[str, ...] = field(default=())
    """The functions and aggregations around it, the innermost first."""

    def values(self, label: str) -> list[tuple[str, str]]:
        """Return the conditions on a label: operator and value."""
        return [(operator, value) for name, operator, value in self.matchers if name == label]


@dataclass(frozen=True, slots=True)
class Join:
    """Two vectors combined by an operator, and how their series find each other."""

    operator: str
    explicit: bool
    """Whether `on` or `ignoring` says it."""
    aggregated: bool
    """Whether both sides have exactly the labels that an aggregation gave them."""
    text: str


def selectors(expression: str) -> list[Selector]:
    """Return all that an expression reads.

    Raises:
        ValueError: It is no PromQL.
    """
    return list(_selectors(parser.parse(expression), ()))


def joins(expression: str) -> list[Join]:
    """Return where an expression combines two vectors."""
    return list(_joins(parser.parse(expression)))


def aggregations(expression: str) -> Iterator[tuple[str, frozenset[str], bool]]:
    """Yield the aggregations: the operator, the labels, and whether it is `by` (not `without`)."""
    for node in _nodes(parser.parse(expression)):
        if isinstance(node, parser.AggregateExpr):
            modifier: Any = node.modifier
            labels = frozenset(modifier.labels) if modifier is not None else frozenset()
            by = modifier is None or str(modifier.type) == str(parser.AggModifierType.By)
            yield str(node.op), labels, by


def quantiles(expression: str) -> Iterator[bool]:
    """Yield for each histogram_quantile whether its buckets are aggregated by `le`."""
    for node in _nodes(parser.parse(expression)):
        if isinstance(node, parser.Call) and node.func.name == "histogram_quantile":
            labels = _labels(node.args[1])
            yield labels is not None and "le" in labels


def denominators(expression: str) -> Iterator[str]:
    """Yield the vectors that something is divided by."""
    for node in _nodes(parser.parse(expression)):
        if isinstance(node, parser.BinaryExpr) and str(node.op) == "/" and _is_vector(node.rhs):
            yield node.rhs.prettify()


def _children(node: Any) -> list[Any]:
    if isinstance(node, parser.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, parser.Call):
        return list(node.args)
    if isinstance(node, parser.AggregateExpr):
        return [node.expr, *([node.param] if node.param is not None else [])]
    if isinstance(node, parser.ParenExpr | parser.UnaryExpr | parser.SubqueryExpr):
        return [node.expr]
    return []


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in _children(node):
        yield from _nodes(child)


def _selectors(node: Any, functions: tuple[str, ...]) -> Iterator[Selector]:
    if isinstance(node, parser.MatrixSelector):
        yield _selector(node.vector_selector, node.range.total_seconds(), functions)
        return
    if isinstance(node, parser.VectorSelector):
        yield _selector(node, None, functions)
        return
    if isinstance(node, parser.Call):
        functions = (node.func.name, *functions)
    elif isinstance(node, parser.AggregateExpr):
        functions = (str(node.op), *functions)
    for child in _children(node):
        yield from _selectors(child, functions)


def _selector(node: Any, range_seconds: float | None, functions: tuple[str, ...]) -> Selector:
    matchers = tuple(
        (matcher.name, _OPERATORS[str(matcher.op)], matcher.value)
        for matcher in node.matchers.matchers
    )
    named = [value for name, operator, value in matchers if name == "__name__" and operator == "="]
    metric = node.name or (named[0] if named else "")
    return Selector(metric, matchers, range_seconds, functions)


def _joins(root: Any) -> Iterator[Join]:
    for node in _nodes(root):
        if isinstance(node, parser.BinaryExpr) and _is_vector(node.lhs) and _is_vector(node.rhs):
            modifier: Any = node.modifier
            left, right = _labels(node.lhs), _labels(node.rhs)
            yield Join(
                str(node.op),
                explicit=modifier is not None and modifier.matching is not None,
                aggregated=left is not None and left == right,
                text=node.prettify(),
            )


def _is_vector(node: Any) -> bool:
    if isinstance(node, parser.ParenExpr | parser.UnaryExpr):
        return _is_vector(node.expr)
    if isinstance(node, parser.BinaryExpr):
        return _is_vector(node.lhs) or _is_vector(node.rhs)
    if isinstance(node, parser.Call) and node.func.name in _SCALAR_FUNCTIONS:
        return False
    return not isinstance(node, _SCALARS)


def _labels(node: Any) -> frozenset[str] | None:  # noqa: PLR0911 - a case for each kind of node
    """Return the labels of a result where an aggregation decides them, None where series do."""
    if isinstance(node, parser.ParenExpr | parser.UnaryExpr | parser.SubqueryExpr):
        return _labels(node.expr)
    if isinstance(node, parser.AggregateExpr):
        modifier: Any = node.modifier
        if modifier is None:
            return frozenset()
        return (
            frozenset(modifier.labels)
            if str(modifier.type) == str(parser.AggModifierType.By)
            else None
        )
    if isinstance(node, parser.BinaryExpr):
        return _labels_of_operator(node)
    if isinstance(node, parser.Call):
        if node.func.name == "vector":
            return frozenset()
        labels = next((found for arg in node.args if (found := _labels(arg)) is not None), None)
        if node.func.name == "histogram_quantile" and labels is not None:
            return labels - {"le"}
        return None if node.func.name.startswith("absent") else labels
    if isinstance(node, parser.VectorSelector) and node.name and ":" in node.name:
        # A record: its name begins with the labels that it kept.
        return frozenset({node.name.partition(":")[0]})
    return None


def _labels_of_operator(node: Any) -> frozenset[str] | None:
    if not _is_vector(node.rhs):
        return _labels(node.lhs)
    if not _is_vector(node.lhs):
        return _labels(node.rhs)
    left, right = _labels(node.lhs), _labels(node.rhs)
    if str(node.op).startswith(("and", "unless")):
        return left
    return left if left == right else None

"""What a LogQL expression is made of, so that rules, dashboards and links can be checked as code is.

Reads what this repository uses: selectors, line filters, label filters, the usual parsers, `unwrap`, and
groupings. Variables of Grafana may stand where a value or a range does. What it cannot read is a
ValueError: an expression that is passed over would not be checked.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<string>"(?:[^"\\]|\\.)*"|`[^`]*`)
    |(?P<number>\d[\w.]*)
    |(?P<name>\$?\{\w+(?::\w+)?\}|\$\w+|[A-Za-z_]\w*)
    |(?P<flag>--[a-z-]+)
    |(?P<sign>=~|!~|!=|==|>=|<=|\|=|\|~|\|>|!>|[{}()\[\],|=<>+\-*/%^.:])
    """,
    re.VERBOSE,
)
_VARIABLE: Final = re.compile(r"\$\{?\w+")
_LINE_FILTERS: Final = {"|=", "|~", "|>", "!=", "!~", "!>"}
_OPERATORS: Final = {"=", "=~", "!=", "!~", "==", ">", ">=", "<", "<="}
_GROUPINGS: Final = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_OF_TEMPLATE: Final = re.compile(r"\.(\w+)")


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition: of a selector, or of a filter behind it."""

    name: str
    operator: str
    value: str

    @property
    def is_open(self) -> bool:
        """Whether a variable decides what the value is."""
        return _VARIABLE.search(self.value) is not None


@dataclass(slots=True)
class Query:
    """All that an expression reads."""

    selectors: list[tuple[Matcher, ...]] = field(default_factory=list)
    conditions: list[Matcher] = field(default_factory=list)
    lines: list[Matcher] = field(default_factory=list)
    """The line filters, without a name."""
    named: set[str] = field(default_factory=set)
    """What is grouped by, unwrapped, kept or printed."""
    made: set[str] = field(default_factory=set)
    """What a parser or label_format of the expression itself makes."""


def read(expression: str) -> Query:
    """Return what an expression reads.

    Raises:
        ValueError: It is no LogQL, or of a kind that is not known here.
    """
    return _Reader(expression).read()


def selectors(expression: str) -> set[str]:
    """Return the labels that streams are selected by."""
    return {matcher.name for selector in read(expression).selectors for matcher in selector}


def fields(expression: str) -> set[str]:
    """Return what is filtered or grouped by, or unwrapped, and not made by the expression itself."""
    query = read(expression)
    return ({condition.name for condition in query.conditions} | query.named) - query.made


def text_of(literal: str) -> str:
    """Return what a string of LogQL means; in double quotes it is one of Go, between backquotes as it stands.

    Raises:
        ValueError: A backslash before a character that it means nothing with: Loki refuses the whole file.
    """
    if literal[0] == "`":
        return literal[1:-1]
    meaning = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}

    def character(found: re.Match[str]) -> str:
        if found[1] not in meaning:
            raise ValueError(f"{literal}: {found[0]} is no escape, use backquotes")
        return meaning[found[1]]

    return re.sub(r"\\(.)", character, literal[1:-1])


class _Reader:
    """One expression, from its first sign to its last."""

    def __init__(self, expression: str) -> None:
        self._text = expression
        self._tokens = list(_tokens(expression))
        self._at = 0
        self._query = Query()

    def read(self) -> Query:
        depth = 0
        while (kind := self._peek()[0]) != "end":
            _, text = token = self._peek()
            if text == "{":
                self._selector()
                self._pipeline()
                continue
            if text in _GROUPINGS and kind == "name":
                self._next()
                self._query.named |= set(self._names()) if self._peek()[1] == "(" else set()
                continue
            if text in {"|", "}", "|=", "|~"}:
                raise self._error(token)
            depth += (text in {"(", "["}) - (text in {")", "]"})
            if depth < 0:
                raise self._error(token)
            self._next()
        if depth or not self._query.selectors:
            raise ValueError(f"{self._text!r} ends too early, or selects no stream")
        return self._query

    # Tokens -------------------------------------------------------------------------------------------

    def _peek(self, ahead: int = 0) -> tuple[str, str]:
        index = self._at + ahead
        return self._tokens[index] if index < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        if token[0] == "end":
            raise self._error(token)
        self._at += 1
        return token

    def _take(self, wanted: str) -> str:
        """Return the next token, which must be of a kind, or be that sign."""
        kind, text = token = self._next()
        if wanted not in {kind, text}:
            raise self._error(token)
        return text

    def _error(self, token: tuple[str, str]) -> ValueError:
        return ValueError(f"{token[1] or 'its end'!r} is not expected in {self._text!r}")

    # Parts --------------------------------------------------------------------------------------------

    def _selector(self) -> None:
        self._take("{")
        matchers = [self._matcher()]
        while self._peek()[1] == ",":
            self._next()
            matchers.append(self._matcher())
        self._take("}")
        self._query.selectors.append(tuple(matchers))

    def _matcher(self) -> Matcher:
        name, operator = self._take("name"), self._take("sign")
        if operator not in _OPERATORS:
            raise self._error(("sign", operator))
        kind, text = token = self._next()
        if kind not in {"string", "number", "name"}:
            raise self._error(token)
        return Matcher(name, operator, text_of(text) if kind == "string" else text)

    def _pipeline(self) -> None:
        while True:
            _, text = self._peek()
            if text in _LINE_FILTERS and self._peek(1)[0] == "string":
                operator = self._next()[1]
                self._query.lines.append(Matcher("", operator, text_of(self._next()[1])))
                while self._peek()[1] == "or" and self._peek(1)[0] == "string":
                    self._next()
                    self._query.lines.append(Matcher("", operator, text_of(self._next()[1])))
            elif text == "|":
                self._next()
                self._stage()
            else:
                return

    def _stage(self) -> None:
        kind, text = self._peek()
        if kind == "name" and self._peek(1)[1] not in _OPERATORS:
            stage = getattr(self, f"_stage_{text}", None)
            if stage is None:
                raise self._error(("name", text))
            self._next()
            stage()
        else:
            self._filter()

    def _filter(self) -> None:
        """Read conditions, joined by and, or, a comma, or nothing."""
        while True:
            if self._peek()[1] == "(":
                self._next()
                self._filter()
                self._take(")")
            else:
                self._query.conditions.append(self._matcher())
            if self._peek()[1] in {"and", "or", ","}:
                self._next()
            elif self._peek()[0] != "name" or self._peek(1)[1] not in _OPERATORS:
                return

    def _stage_json(self) -> None:
        while self._peek()[0] == "flag":
            self._next()
        while self._peek()[0] == "name" and self._peek()[1] not in _GROUPINGS:
            self._query.made.add(self._take("name"))
            if self._peek()[1] == "=":
                self._next()
                self._take("string")
            if self._peek()[1] != ",":
                return
            self._next()

    _stage_logfmt = _stage_json

    def _stage_regexp(self) -> None:
        self._query.made |= set(re.compile(text_of(self._take("string"))).groupindex)

    def _stage_pattern(self) -> None:
        names = re.findall(r"<(\w+)>", text_of(self._take("string")))
        self._query.made |= {name for name in names if name != "_"}

    def _stage_decolorize(self) -> None:
        """It has no parameters."""

    def _stage_line_format(self) -> None:
        self._template(self._take("string"))

    def _stage_label_format(self) -> None:
        while True:
            self._query.made.add(self._take("name"))
            self._take("=")
            kind, text = self._next()
            if kind == "string":
                self._template(text)
            else:
                self._query.named.add(text)
            if self._peek()[1] != ",":
                return
            self._next()

    def _template(self, literal: str) -> None:
        for action in re.findall(r"\{\{(.*?)\}\}", text_of(literal)):
            bare = re.sub(r'"[^"]*"', "", action)
            self._query.named |= set(_OF_TEMPLATE.findall(bare))

    def _stage_unwrap(self) -> None:
        name = self._take("name")
        if self._peek()[1] == "(":
            self._next()
            name = self._take("name")
            self._take(")")
        self._query.named.add(name)

    def _stage_keep(self) -> None:
        while True:
            if self._peek(1)[1] in _OPERATORS:
                self._query.conditions.append(self._matcher())
            else:
                self._query.named.add(self._take("name"))
            if self._peek()[1] != ",":
                return
            self._next()

    _stage_drop = _stage_keep

    def _names(self) -> Iterator[str]:
        self._take("(")
        while self._peek()[1] != ")":
            yield self._take("name")
            if self._peek()[1] == ",":
                self._next()
        self._take(")")


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(expression):
        found = _TOKEN.match(expression, at)
        if found is None or found.lastgroup is None:
            raise ValueError(f"{expression[at : at + 10]!r} is not expected in {expression!r}")
        at = found.end()
        if found.lastgroup != "space":
            yield found.lastgroup, found[0]

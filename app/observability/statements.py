"""What a SQL statement does, read from its text: operation, table, fingerprint and how heavy it looks.

A tokenizer and a look at the main clause, not a parser: enough for labels, span names and grouping, for
every dialect, and for statements that no parser accepts. Each text is read once and remembered, since a
program has few distinct statements and executes them for ever.

Must never raise, whatever the text, and never let a literal through: a value in the text of a statement
is a customer's.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple

Operation = Literal["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "TRANSACTION", "DDL", "OTHER"]
Kind = Literal["lookup", "scan", "sort", "aggregate", "join", "write", "other"]
Complexity = Literal["low", "medium", "high"]

MAX_TEXT: Final = 20_000
"""Characters of a statement that are read: what follows are rows of a bulk insert."""
MAX_REMEMBERED_TEXT: Final = 4_000
MAX_FINGERPRINT: Final = 2_000


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement; equal for all its executions.

    `table` is the first table of the main clause, `schema.table` where the text says so, or empty.
    `fingerprint` is the text without comments and literals and with lists folded, and
    `fingerprint_id` a name for it that is short and stable across processes.
    """

    verb: str
    operation: Operation
    table: str
    fingerprint: str
    fingerprint_id: str
    kind: Kind
    complexity: Complexity

    @property
    def name(self) -> str:
        """Verb and table, such as `SELECT orders`."""
        return f"{self.verb} {self.table}".rstrip()


def read_statement(text: str) -> Statement:
    """Return what `text` does."""
    # A long text holds its values itself: it hardly comes again, and would fill the memory.
    return _remembered(text) if len(text) <= MAX_REMEMBERED_TEXT else _read(text)


@lru_cache(maxsize=2048)
def _remembered(text: str) -> Statement:
    return _read(text)


def _read(text: str) -> Statement:
    cut = text[:MAX_TEXT]
    tokens = _tokens(cut)
    ctes, main = _without_ctes(tokens)
    verb = main[0].word if main else ""
    operation = _OPERATIONS.get(verb, "OTHER")
    fingerprint = fingerprint_of(cut)
    digest = hashlib.blake2b(fingerprint.encode("utf-8", "replace"), digest_size=8)
    kind, complexity = _analysis(operation, [token.word for token in tokens])
    return Statement(
        verb=verb[:32] or "SQL",
        operation=operation,
        table=_table(operation, main, ctes)[:128],
        fingerprint=fingerprint[:MAX_FINGERPRINT],
        fingerprint_id=digest.hexdigest(),
        kind=kind,
        complexity=complexity,
    )


# Text -------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*|/\*)               # where a comment ends, _scan finds out
    | (?P<literal>
          [eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)             # only here a backslash escapes (PostgreSQL)
        | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|\Z)    # what is not closed is a literal to the end
        | \$(?P<tag>[A-Za-z_]\w*|)\$.*?(?:\$(?P=tag)\$|\Z)
        | \.?\d(?:[eE][+-]?\d|[\w.])*               # a number in any notation
      )
    | (?P<bound>
        (?:\$\d+|\?\d*|%s|%\(\w+\)s|(?<!:):[A-Za-z_]\w*)
        (?:::(?:TIMESTAMP\ WITH(?:OUT)?\ TIME\ ZONE|\w+(?:\(\d+(?:,\ *\d+)?\))?)(?:\[\])?)?
      )
    | (?P<quoted>"(?:[^"]|"")*(?:"|\Z)|`[^`]*(?:`|\Z))
    | (?P<word>[^\W\d]\w*)
    | (?P<sign>::|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_LIST = re.compile(r"\?(?: ?, ?\?)+")
_ROWS = re.compile(r"\( ?\? ?\)(?: ?, ?(?:\( ?\? ?\)|\(?[ ?,]*\Z))+")  # the last one may be cut off


_COMMENT_SIGN = re.compile(r"/\*|\*/")
_DOT: Final = ("sign", ".")
_AFTER_VALUES: Final = frozenset({"ON", "RETURNING", "SELECT", ";"})
_AFTER_LIST: Final = frozenset({")", "SELECT"})
_OPERATORS: Final = frozenset("=<>|~+-*/%") | {
    "LIKE",
    "ILIKE",
    "GLOB",
    "REGEXP",
    "MATCH",
    "THEN",
    "ELSE",
}


def _scan(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of each piece."""
    at = 0
    while match := _TOKEN.match(text, at):
        at = match.end()
        if match[0] == "/*":
            at = _end_of_comment(text, at)
        yield match.lastgroup or "", match[0]


def _end_of_comment(text: str, at: int) -> int:
    depth = 1  # PostgreSQL nests them; where they do not nest, this hides too much
    while depth:
        sign = _COMMENT_SIGN.search(text, at)
        if sign is None:
            return len(text)
        depth += 1 if sign[0] == "/*" else -1
        at = sign.end()
    return at


def fingerprint_of(text: str) -> str:
    """Return `text` with `?` for every literal and parameter, without comments, in one line.

    SQLite takes "double quotes" for a literal where they name no column, so those that stand where a
    value does become `?` as well.
    """
    parts: list[str] = []
    pieces = list(_scan(text))
    before, values_end = "", frozenset[str]()
    for at, (kind, said) in enumerate(pieces):
        if kind == "space":
            parts.append(" ")
            continue
        word = said.upper() if kind in {"word", "sign"} else ""
        if word == "VALUES":
            values_end = _AFTER_VALUES
        elif word == "(" and before == "IN":
            values_end = _AFTER_LIST
        elif word in values_end:
            values_end = frozenset()
        is_name = kind == "quoted" and (said[0] == "`" or pieces[at + 1 : at + 2] == [_DOT])
        is_value = kind == "quoted" and (values_end or before in _OPERATORS) and not is_name
        parts.append("?" if kind in {"literal", "bound"} or is_value else said)
        before = word
    plain = re.sub(r" {2,}", " ", "".join(parts)).strip()
    return _ROWS.sub("(?)", _LIST.sub("?", plain))


class _Token(NamedTuple):
    word: str
    """A word in capitals, a sign, or empty for anything else."""
    name: str
    """The name that this may be: quotes removed, or in lower case as databases read it."""


def _tokens(text: str) -> list[_Token]:
    found = []
    for kind, said in _scan(text):
        if kind == "space":
            continue
        if kind == "word":
            found.append(_Token(said.upper(), said.lower()))
        elif kind == "quoted":
            found.append(_Token("", said[1:-1].replace('""', '"')))
        else:
            found.append(_Token(said if kind == "sign" else "", ""))
    return found


# Operation and table ----------------------------------------------------------------------------------

_OPERATIONS: Final[dict[str, Operation]] = {
    "SELECT": "SELECT", "INSERT": "INSERT", "REPLACE": "INSERT", "UPDATE": "UPDATE", "DELETE": "DELETE",
    "MERGE": "MERGE", "BEGIN": "TRANSACTION", "START": "TRANSACTION", "COMMIT": "TRANSACTION",
    "ROLLBACK": "TRANSACTION", "SAVEPOINT": "TRANSACTION", "RELEASE": "TRANSACTION", "CREATE": "DDL",
    "ALTER": "DDL", "DROP": "DDL", "TRUNCATE": "DDL",
}  # fmt: skip
_BEFORE_TABLE: Final[Mapping[Operation, frozenset[str]]] = {
    "SELECT": frozenset({"FROM", "JOIN"}),
    "DELETE": frozenset({"FROM"}),
    "INSERT": frozenset({"INTO"}),
    "MERGE": frozenset({"INTO"}),
    "UPDATE": frozenset({"UPDATE"}),
    "DDL": frozenset({"TABLE"}),
}
_MODIFIERS: Final = frozenset(
    {"ONLY", "LATERAL", "OR", "IGNORE", "REPLACE", "ROLLBACK", "ABORT", "IF", "NOT", "EXISTS"}
)
_BEFORE_COLUMNS: Final = frozenset({"INTO", "TABLE", "EXISTS"})

_MAX_DEPTH: Final = 16

_Tokens = Sequence[_Token]


def _without_ctes(tokens: _Tokens) -> tuple[dict[str, _Tokens], _Tokens]:
    """Return the bodies of the common table expressions by name, and what follows them."""
    start = 0
    while start < len(tokens) and tokens[start].word == "(":  # (SELECT ...) UNION ...
        start += 1
    if start >= len(tokens) or tokens[start].word != "WITH":
        return {}, tokens[start:]
    ctes: dict[str, _Tokens] = {}
    at = start + 1
    if at < len(tokens) and tokens[at].word == "RECURSIVE":
        at += 1
    while at < len(tokens):
        name = tokens[at].name
        while at < len(tokens) and tokens[at].word != "AS":
            at += 1
        while at < len(tokens) and tokens[at].word != "(":
            at += 1
        end = _closing(tokens, at)
        ctes[name] = tokens[at + 1 : end]
        at = end + 1
        if at >= len(tokens) or tokens[at].word != ",":
            break
        at += 1
    return ctes, tokens[at:]


def _closing(tokens: _Tokens, opening: int) -> int:
    depth = 0
    for at in range(opening, len(tokens)):
        if tokens[at].word == "(":
            depth += 1
        elif tokens[at].word == ")":
            depth -= 1
            if depth == 0:
                return at
    return len(tokens)


def _table(
    operation: Operation, tokens: _Tokens, ctes: Mapping[str, _Tokens], depth: int = 0
) -> str:
    before = _BEFORE_TABLE.get(operation) if depth < _MAX_DEPTH else None
    at = 0
    while before and at < len(tokens):
        word = tokens[at].word
        if word == "(":
            at = _closing(tokens, at) + 1
            continue
        # IS DISTINCT FROM compares; it names no table.
        if word in before and not (word == "FROM" and at and tokens[at - 1].word == "DISTINCT"):
            found = _named(tokens, at + 1, ctes, depth)
            if found:
                return found
        at += 1
    return ""


def _named(tokens: _Tokens, at: int, ctes: Mapping[str, _Tokens], depth: int) -> str:
    """Return the table that begins at `at`, looking into subqueries and common table expressions."""
    opening = at
    while at < len(tokens) and (tokens[at].word == "(" or tokens[at].word in _MODIFIERS):
        opening, at = at, at + 1
    if at >= len(tokens):
        return ""
    if tokens[at].word in {"SELECT", "WITH"}:
        inner, main = _without_ctes(tokens[at : _closing(tokens, opening)])
        return _table("SELECT", main, {**ctes, **inner}, depth + 1)
    has_columns = tokens[at - 1].word in _BEFORE_COLUMNS
    names = [tokens[at].name]
    while at + 2 < len(tokens) and tokens[at + 1].word == "." and tokens[at + 2].name:
        at += 2
        names.append(tokens[at].name)
    if at + 1 < len(tokens) and tokens[at + 1].word == "(" and not has_columns:
        return ""  # a function that returns rows, not a table with its columns
    if len(names) == 1 and names[0] in ctes:
        inner, main = _without_ctes(ctes[names[0]])
        operation = _OPERATIONS.get(main[0].word, "OTHER") if main else "OTHER"
        # Without its own body: a recursive one begins with itself.
        return _table(operation, main, {**ctes, **inner, names[0]: ()}, depth + 1)
    return ".".join(names)


# Analysis ---------------------------------------------------------------------------------------------

_AGGREGATES: Final = frozenset({"COUNT", "SUM", "AVG", "MIN", "MAX", "ARRAY_AGG", "STRING_AGG"})
_SETS: Final = frozenset({"UNION", "INTERSECT", "EXCEPT"})
_MEDIUM, _HIGH = 3, 7


def _analysis(operation: Operation, words: list[str]) -> tuple[Kind, Complexity]:
    """Say what the statement makes the database do, and how much of it; a guess, as the text is all."""
    present = set(words)
    joins = words.count("JOIN")
    aggregates = bool(present & _AGGREGATES) or "GROUP" in present
    score = (
        2 * joins
        + 2 * max(words.count("SELECT") - 1, 0)
        + 2 * sum(words.count(word) for word in _SETS)
        + 2 * words.count("OVER")
        + aggregates
        + ("DISTINCT" in present)
        + ("ORDER" in present)
    )
    complexity: Complexity = "low" if score < _MEDIUM else "medium" if score < _HIGH else "high"
    return _kind(operation, present, joins=joins > 0, aggregates=aggregates), complexity


def _kind(operation: Operation, present: set[str], *, joins: bool, aggregates: bool) -> Kind:
    if operation in {"INSERT", "UPDATE", "DELETE", "MERGE"}:
        return "write"
    reads = operation == "SELECT" and "FROM" in present
    found: list[tuple[bool, Kind]] = [
        (not reads, "other"),
        (joins, "join"),
        (aggregates, "aggregate"),
        ("ORDER" in present, "sort"),
        ("WHERE" in present, "lookup"),
    ]
    return next((kind for is_it, kind in found if is_it), "scan")

"""What is read from the text of a statement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.observability import statements
from app.observability.statements import fingerprint_of, read_statement

TABLES = [
    ("SELECT id FROM orders WHERE id = $1::UUID", "SELECT", "orders"),
    ("select id from Orders", "SELECT", "orders"),
    ('SELECT 1 FROM "Order Items" oi', "SELECT", "Order Items"),
    ('SELECT 1 FROM "sales"."Orders"', "SELECT", "sales.Orders"),
    ("SELECT 1 FROM sales . orders", "SELECT", "sales.orders"),
    ("SELECT 1 FROM db.sales.orders", "SELECT", "db.sales.orders"),
    ("SELECT 1 FROM `orders`", "SELECT", "orders"),
    ('SELECT 1 FROM "say ""hi"""', "SELECT", 'say "hi"'),
    ("SELECT a.x FROM a JOIN b ON a.id = b.a_id", "SELECT", "a"),
    ("SELECT 1 FROM (SELECT 1 FROM inner_table) AS q JOIN b ON true", "SELECT", "inner_table"),
    ("SELECT count(*) FROM (((a JOIN b ON true)))", "SELECT", "a"),
    ("SELECT (SELECT max(x) FROM scalar_subquery) FROM outer_table", "SELECT", "outer_table"),
    ("SELECT 1 WHERE EXISTS (SELECT 1 FROM hidden)", "SELECT", ""),
    ("SELECT extract(year FROM placed_at) FROM orders", "SELECT", "orders"),
    ("SELECT a IS DISTINCT FROM b FROM orders", "SELECT", "orders"),
    ("SELECT 1 FROM ONLY orders", "SELECT", "orders"),
    ("SELECT 1 FROM generate_series(1, 9) g JOIN orders ON true", "SELECT", "orders"),
    ("SELECT * FROM a WHERE x = 'FROM b'", "SELECT", "a"),
    ("SELECT 'it''s FROM b' FROM a", "SELECT", "a"),
    ("SELECT $tag$ FROM b $tag$ FROM a", "SELECT", "a"),
    ("-- FROM b\nSELECT 1 /* FROM c */ FROM a", "SELECT", "a"),
    ("(SELECT 1 FROM a) UNION (SELECT 2 FROM b)", "SELECT", "a"),
    ("WITH r AS (SELECT 1 FROM orders) SELECT * FROM r", "SELECT", "orders"),
    ("WITH r (a, b) AS MATERIALIZED (SELECT 1 FROM orders) SELECT * FROM r", "SELECT", "orders"),
    ("WITH a AS (SELECT 1 FROM x), b AS (SELECT 1 FROM a) SELECT * FROM b", "SELECT", "x"),
    ("WITH a AS (SELECT 1 FROM x) SELECT * FROM y", "SELECT", "y"),
    (
        "WITH RECURSIVE r AS (SELECT 1 FROM r UNION SELECT 2 FROM tree) SELECT * FROM r",
        "SELECT",
        "tree",
    ),
    ("WITH gone AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM gone", "INSERT", "b"),
    ("WITH gone AS (DELETE FROM a RETURNING *) SELECT * FROM gone", "SELECT", "a"),
    ("INSERT INTO orders (id) VALUES ($1)", "INSERT", "orders"),
    ("INSERT INTO sales.orders(id) VALUES (1)", "INSERT", "sales.orders"),
    ("INSERT OR IGNORE INTO orders VALUES (?)", "INSERT", "orders"),
    ("REPLACE INTO orders VALUES (?)", "INSERT", "orders"),
    ("UPDATE orders SET x = (SELECT 1 FROM b)", "UPDATE", "orders"),
    ("UPDATE OR ROLLBACK orders SET x = 1", "UPDATE", "orders"),
    ("UPDATE ONLY sales.orders SET x = 1", "UPDATE", "sales.orders"),
    ("DELETE FROM orders WHERE id = 1", "DELETE", "orders"),
    ("MERGE INTO orders USING new ON true WHEN MATCHED THEN DELETE", "MERGE", "orders"),
    ("BEGIN IMMEDIATE", "TRANSACTION", ""),
    ("SAVEPOINT sa_savepoint_1", "TRANSACTION", ""),
    ("CREATE TABLE IF NOT EXISTS orders (id INTEGER)", "DDL", "orders"),
    ("PRAGMA journal_mode=WAL", "OTHER", ""),
    ("EXPLAIN SELECT 1 FROM orders", "OTHER", ""),
    ("", "OTHER", ""),
    (" ; ", "OTHER", ""),
    ("WITH", "OTHER", ""),
    ("SELECT 1 FROM", "SELECT", ""),
    ("SELECT 1 FROM (", "SELECT", ""),
]


@pytest.mark.parametrize(("text", "operation", "table"), TABLES, ids=[text for text, *_ in TABLES])
def test_operation_and_table(text: str, operation: str, table: str) -> None:
    statement = read_statement(text)
    assert (statement.operation, statement.table) == (operation, table)


FINGERPRINTS = [
    ("SELECT *\n  FROM a  WHERE x = 'secret'", "SELECT * FROM a WHERE x = ?"),
    ("SELECT 1.5e3, 0x1F, .5, 7 FROM a1", "SELECT ? FROM a1"),
    ("SELECT x FROM a WHERE n = -1", "SELECT x FROM a WHERE n = -?"),
    ("SELECT * FROM a WHERE id IN ($1, $2::UUID,$3)", "SELECT * FROM a WHERE id IN (?)"),
    ("INSERT INTO a VALUES (1, 'x'), (2, 'y')", "INSERT INTO a VALUES (?)"),
    ("SELECT x::text FROM a WHERE b = $1::VARCHAR(20)", "SELECT x::text FROM a WHERE b = ?"),
    ("WHERE t > $1::TIMESTAMP WITH TIME ZONE AND u", "WHERE t > ? AND u"),
    ("SELECT %s, %(name)s, :name, ?", "SELECT ?"),
    ("SELECT E'it\\'s secret', b", "SELECT ?, b"),
    (r"SELECT 'C:\', b, 'secret'", "SELECT ?, b, ?"),
    ("SELECT $$secret$$, $a$ $$secret$$ $a$", "SELECT ?"),
    ("SELECT 'never closed secret", "SELECT ?"),
    ("SELECT $$never closed secret", "SELECT ?"),
    ("SELECT U&'secret', N'secret', x'ABCD'", "SELECT ?"),
    ("SELECT 1 -- secret\n, /* secret */ a", "SELECT ? , a"),
    ('SELECT "a""b" FROM "T"', 'SELECT "a""b" FROM "T"'),
    ('SELECT 1 FROM a WHERE b = "secret one"', "SELECT ? FROM a WHERE b = ?"),
    ('SELECT 1 FROM a WHERE "b" LIKE "%secret%"', 'SELECT ? FROM a WHERE "b" LIKE ?'),
    ('SELECT 1 FROM a WHERE b IN ("secret", "other")', "SELECT ? FROM a WHERE b IN (?)"),
    (
        'INSERT INTO "a" ("b", "c") VALUES ("x", "y"), ("z", 1) ON CONFLICT ("b") DO NOTHING',
        'INSERT INTO "a" ("b", "c") VALUES (?) ON CONFLICT ("b") DO NOTHING',
    ),
    ('SELECT 1 FROM a JOIN b ON "a"."x" = "b"."y"', 'SELECT ? FROM a JOIN b ON "a"."x" = "b"."y"'),
    ("SELECT 1 /* a /* b */ secret */ FROM a", "SELECT ? FROM a"),
    ("SELECT 1 /* never closed secret", "SELECT ?"),
    ("SELECT 0b1011, 0o17, 1_000_111, 1e-5, 1.5E+3 FROM a", "SELECT ? FROM a"),
]


@pytest.mark.parametrize(("text", "expected"), FINGERPRINTS, ids=[t for t, _ in FINGERPRINTS])
def test_a_fingerprint_has_no_literal(text: str, expected: str) -> None:
    assert fingerprint_of(text) == expected


def test_a_long_text_is_read_and_not_remembered() -> None:
    remembered = statements._remembered.cache_info().currsize
    statement = read_statement(
        "INSERT INTO a VALUES " + ", ".join(f"({n}, 'x')" for n in range(9999))
    )
    assert (statement.name, statement.fingerprint) == ("INSERT a", "INSERT INTO a VALUES (?)")
    assert statements._remembered.cache_info().currsize == remembered


def test_statements_that_differ_in_values_have_one_fingerprint() -> None:
    one = read_statement("SELECT * FROM a WHERE x = 'one' AND y IN (1, 2)")
    other = read_statement("SELECT * FROM a WHERE x = 'other' AND y IN (1, 2, 3)")
    third = read_statement("SELECT * FROM b WHERE x = 'one' AND y IN (1, 2)")
    assert one.fingerprint_id == other.fingerprint_id
    assert one.fingerprint_id != third.fingerprint_id


@given(st.text(alphabet="abc'\"`$\\-/*;() \n%?:", max_size=60), st.text(max_size=20))
def test_any_text_can_be_read(text: str, tail: str) -> None:
    statement = read_statement(text + tail)
    assert len(statement.table) <= 128


@given(st.text(alphabet='xyz \\"$-/*\n;', max_size=30))
def test_a_quoted_literal_never_gets_through(inside: str) -> None:
    fingerprint = fingerprint_of(f"SELECT a FROM b WHERE c = '{inside}Q' AND d = 1")
    assert fingerprint == "SELECT a FROM b WHERE c = ? AND d = ?"


ANALYSES = [
    ("SELECT x FROM a WHERE id = 1", "lookup", "low"),
    ("SELECT x FROM a", "scan", "low"),
    ("SELECT x FROM a WHERE b = 1 ORDER BY c", "sort", "low"),
    ("SELECT count(*) FROM a WHERE b = 1", "aggregate", "low"),
    ("SELECT b, sum(x) FROM a GROUP BY b ORDER BY 2", "aggregate", "low"),
    ("SELECT 1 FROM a JOIN b ON true ORDER BY c", "join", "medium"),
    (
        "SELECT 1 FROM a JOIN b ON true JOIN c ON true WHERE x IN (SELECT y FROM d) ORDER BY z",
        "join",
        "high",
    ),
    ("INSERT INTO a VALUES (1)", "write", "low"),
    ("COMMIT", "other", "low"),
    ("SELECT 1", "other", "low"),
]


@pytest.mark.parametrize(("text", "kind", "complexity"), ANALYSES, ids=[a[0] for a in ANALYSES])
def test_the_analysis_says_what_the_database_has_to_do(
    text: str, kind: str, complexity: str
) -> None:
    statement = read_statement(text)
    assert (statement.kind, statement.complexity) == (kind, complexity)


HOSTILE = [
    "(" * 30_000,
    "SELECT x FROM " + "(" * 30_000,
    "SELECT x FROM " + "(SELECT 1 FROM " * 2_000,
    "SELECT " + "a ('x" * 6_000,
    "WITH " * 6_000,
    "'" * 30_001,
    "/*" * 15_000,
    "$a" * 15_000,
    "WITH a AS (SELECT 1 FROM a) SELECT * FROM " + "a JOIN " * 4_000,
    "WITH a AS (SELECT 1 FROM b), b AS (SELECT 1 FROM a) SELECT * FROM a",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_is_read_to_the_limit(text: str) -> None:
    assert len(read_statement(text).fingerprint) <= 2_000

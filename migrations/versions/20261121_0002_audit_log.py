"""The audit log: its entries, the head of their chain, and the triggers that make it append-only.

The triggers stop mistakes: of people at a prompt, of a careless clean-up, of this program. They do not
stop who may drop triggers; the chain is for that.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_CONTENT = (
    "id", "occurred_at", "action", "actor", "record_type", "record_id", "outcome", "request_id",
    "trace_id", "client_network",
)  # fmt: skip

# What may be done, said as what may not. An entry is inserted unsealed, is sealed once, and is deleted
# when the head says that it is archived: archiving moves that mark first, in the same transaction.
_INSERT_FORBIDDEN = (
    "NEW.position IS NOT NULL OR NEW.hash IS NOT NULL"
    " OR EXISTS (SELECT 1 FROM audit_entries WHERE id = NEW.id)"  # SQLite's INSERT OR REPLACE
)
_DELETE_FORBIDDEN = (
    "OLD.position IS NULL"
    " OR OLD.position > COALESCE((SELECT archived_position FROM audit_head WHERE id = 1), 0)"
)
_HEAD_FORBIDDEN = "NEW.position < OLD.position OR NEW.archived_position < OLD.archived_position"


def _update_forbidden(differs: str, details: str) -> str:
    changes = " OR ".join(f"NEW.{name} {differs} OLD.{name}" for name in _CONTENT)
    return (
        "OLD.position IS NOT NULL OR NEW.position IS NULL OR NEW.hash IS NULL"
        f" OR {changes} OR NEW.{details} {differs} OLD.{details}"
    )


_RULES = (
    ("audit_entries", "insert", "audit entries are inserted unsealed"),
    ("audit_entries", "update", "audit entries are never changed"),
    ("audit_entries", "delete", "audit entries are deleted by archiving only"),
    ("audit_head", "update", "the head of the audit log never goes back"),
    ("audit_head", "delete", "the head of the audit log stays"),
)


def _condition(table: str, event: str, differs: str, details: str) -> str:
    return {
        ("audit_entries", "insert"): _INSERT_FORBIDDEN,
        ("audit_entries", "update"): _update_forbidden(differs, details),
        ("audit_entries", "delete"): _DELETE_FORBIDDEN,
        ("audit_head", "update"): _HEAD_FORBIDDEN,
        ("audit_head", "delete"): "1 = 1",
    }[table, event]


def _protect_on_sqlite() -> None:
    for table, event, sentence in _RULES:
        condition = _condition(table, event, "IS NOT", "details")
        op.execute(
            f"CREATE TRIGGER {table}_{event} BEFORE {event} ON {table} WHEN {condition}"
            f" BEGIN SELECT RAISE(ABORT, '{sentence}'); END"
        )


def _protect_on_postgresql() -> None:
    for table, event, sentence in _RULES:
        condition = _condition(table, event, "IS DISTINCT FROM", "details::text")
        answer = "OLD" if event == "delete" else "NEW"
        op.execute(
            f"CREATE FUNCTION {table}_{event}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF {condition} THEN"
            f" RAISE EXCEPTION '{sentence}' USING ERRCODE = 'integrity_constraint_violation';"
            f" END IF; RETURN {answer}; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_{event} BEFORE {event} ON {table}"
            f" FOR EACH ROW EXECUTE FUNCTION {table}_{event}()"
        )
    op.execute(
        "CREATE FUNCTION audit_truncate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'the audit log is never truncated'"
        " USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    for table in ("audit_entries", "audit_head"):
        op.execute(
            f"CREATE TRIGGER {table}_truncate BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION audit_truncate()"
        )


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("record_type", sa.String(length=32), nullable=False),
        sa.Column("record_id", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("trace_id", sa.String(length=32), nullable=False),
        sa.Column("client_network", sa.String(length=45), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("previous_hash", sa.String(length=64), nullable=True),
        sa.Column("key_id", sa.String(length=16), nullable=True),
        sa.Column("hash", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
        sa.UniqueConstraint("position", name=op.f("uq_audit_entries_position")),
    )
    op.create_index(
        "ix_audit_entries_record",
        "audit_entries",
        ["record_type", "record_id", "occurred_at"],
        unique=False,
    )
    op.create_index(
        "ix_audit_entries_unsealed",
        "audit_entries",
        ["occurred_at"],
        unique=False,
        postgresql_where=sa.text("position IS NULL"),
        sqlite_where=sa.text("position IS NULL"),
    )
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("archived_position", sa.BigInteger(), nullable=False),
        sa.Column("archived_hash", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("seal", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    nothing = "0" * 64
    op.bulk_insert(
        head,
        [
            {
                "id": 1,
                "position": 0,
                "hash": nothing,
                "archived_position": 0,
                "archived_hash": nothing,
                "key_id": "",
                "seal": "",
            }
        ],
    )
    if op.get_context().dialect.name == "postgresql":
        _protect_on_postgresql()
    else:
        _protect_on_sqlite()


def downgrade() -> None:
    """Take back. The entries are lost: archive them first."""
    op.drop_table("audit_head")
    op.drop_index(
        "ix_audit_entries_unsealed",
        table_name="audit_entries",
        postgresql_where=sa.text("position IS NULL"),
        sqlite_where=sa.text("position IS NULL"),
    )
    op.drop_index("ix_audit_entries_record", table_name="audit_entries")
    op.drop_table("audit_entries")
    if op.get_context().dialect.name == "postgresql":
        for table, event, _ in _RULES:
            op.execute(f"DROP FUNCTION {table}_{event}()")
        op.execute("DROP FUNCTION audit_truncate()")

"""Indexes for what the worker asks of tables that grow: dead letters, and what is old enough to go.

Built beside the running service: on PostgreSQL CONCURRENTLY, so that nobody's writes wait. That cannot be
part of a transaction; one that failed half-way leaves an invalid index, which the next try removes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INDEXES = (
    ("ix_outbox_deliveries_dead", "outbox_deliveries", "finished_at", "state = 'dead'"),
    (
        "ix_outbox_messages_published",
        "outbox_messages",
        "published_at",
        "published_at IS NOT NULL",
    ),
)


def upgrade() -> None:
    """Apply."""
    with op.get_context().autocommit_block():
        for name, table, column, condition in _INDEXES:
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                table,
                [column],
                unique=False,
                postgresql_concurrently=True,
                postgresql_where=sa.text(condition),
                sqlite_where=sa.text(condition),
            )


def downgrade() -> None:
    """Take back."""
    with op.get_context().autocommit_block():
        for name, table, _, _ in _INDEXES:
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)

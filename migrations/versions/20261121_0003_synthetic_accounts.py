"""Accounts of the synthetic monitoring are told from those of customers.

The server's default serves a version of the program that does not know the column yet: both run side by
side during a deployment.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "users", sa.Column("synthetic", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.create_index(
        "ix_users_synthetic",
        "users",
        ["id"],
        unique=False,
        postgresql_where=sa.text("synthetic"),
        sqlite_where=sa.text("synthetic"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index(
        "ix_users_synthetic",
        table_name="users",
        postgresql_where=sa.text("synthetic"),
        sqlite_where=sa.text("synthetic"),
    )
    op.drop_column("users", "synthetic")

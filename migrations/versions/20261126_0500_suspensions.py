"""Accounts and teams that an operator suspended; a trace's way through the outbox. Columns that may be empty: no table is scanned or rewritten."""

import sqlalchemy as sa
from alembic import op

revision = "5da733c6be99"
down_revision = "5da7033c6be9"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("outbox", sa.Column("traceparent", sa.String(length=55), nullable=True))
    op.add_column("teams", sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("teams", "suspended_at")
    op.drop_column("outbox", "traceparent")
    op.drop_column("users", "suspended_at")

"""Invoices outlive their team: a copy of each final one, made as the team is purged."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5da7033c6be9"
down_revision = "4c96f22b5ad8"
branch_labels = None
depends_on = None

REFUSE = """
CREATE FUNCTION refuse_change_of_archive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'an archived invoice never changes' USING ERRCODE = 'insufficient_privilege';
END
$$
"""
IMMUTABLE = """
CREATE TRIGGER immutable BEFORE UPDATE ON archived_invoices FOR EACH ROW EXECUTE FUNCTION refuse_change_of_archive()
"""


def upgrade() -> None:
    op.create_table(
        "archived_invoices",
        sa.Column("number", sa.String(length=50), nullable=False),
        sa.Column("purged_team_id", sa.Uuid(), nullable=False),
        sa.Column("team_name", sa.String(length=255), nullable=False),
        sa.Column("finalized_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_archived_invoices")),
    )
    op.execute(REFUSE)
    op.execute(IMMUTABLE)


def downgrade() -> None:
    op.drop_table("archived_invoices")
    op.execute("DROP FUNCTION refuse_change_of_archive()")

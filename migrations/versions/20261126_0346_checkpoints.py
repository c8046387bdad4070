"""Signed checkpoints of the activity log, which are append-only too, and the public keys that signed them."""

import sqlalchemy as sa
from alembic import op

revision = "c41e7a9d2b60"
down_revision = "b3d1c0a94f27"
branch_labels = None
depends_on = None

# A team's checkpoints go with the team: when its row is gone, this is the cascade.
REFUSE = """
CREATE FUNCTION refuse_checkpoint_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND NOT EXISTS (SELECT FROM teams t WHERE t.id = OLD.team_id) THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'checkpoints are append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON checkpoints
FOR EACH ROW EXECUTE FUNCTION refuse_checkpoint_change();
CREATE TRIGGER no_truncation BEFORE TRUNCATE ON checkpoints
FOR EACH STATEMENT EXECUTE FUNCTION refuse_checkpoint_change();
"""


def upgrade() -> None:
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "checkpoints",
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["key_id"], ["signing_keys.id"], name=op.f("fk_checkpoints_key_id_signing_keys")
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_checkpoints_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "seq", name=op.f("pk_checkpoints")),
    )
    op.get_bind().connection.driver_connection.execute(REFUSE.encode())  # type: ignore[union-attr]


def downgrade() -> None:
    op.drop_table("checkpoints")
    op.drop_table("signing_keys")
    op.execute("DROP FUNCTION refuse_checkpoint_change()")

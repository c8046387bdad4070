"""Usage by whose it is and of what, corrections, hard limits; price books, plan periods, invoices and periodic jobs."""

import hashlib

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "1963cfe27ab5"
down_revision = "0852bed16fa4"
branch_labels = None
depends_on = None

# models/price_book.json of this day, as the compact JSON whose SHA-256 names it.
PRICE_BOOK = """{"version":1,"currency":"USD","plans":[{"name":"free","retention":{"days":30,"longest_days":30},\
"seats":5,"base":"0","metrics":{"tasks_created":{"included":1000,"limit":"soft"},\
"tasks_completed":{"included":1000,"limit":"soft"},\
"llm_tokens_used":{"included":1000000,"limit":"soft"},\
"api_calls":{"included":100000,"limit":"soft"},\
"storage_bytes":{"included":1,"limit":"soft"}}},\
{"name":"pro","retention":{"days":365,"longest_days":1095},\
"seats":50,"base":"4900","metrics":{"tasks_created":{"included":20000,"limit":"soft"},\
"tasks_completed":{"included":20000,"limit":"soft","price":{"model":"package","size":1000,"amount":"200"}},\
"llm_tokens_used":{"included":50000000,"limit":"soft","price":{"model":"graduated","tiers":[{"up_to":450000000,"unit_amount":"0.00004"},{"up_to":null,"unit_amount":"0.00003"}]}},\
"api_calls":{"included":5000000,"limit":"soft","price":{"model":"graduated","tiers":[{"up_to":45000000,"unit_amount":"0.00006"},{"up_to":null,"unit_amount":"0.00004"}]}},\
"storage_bytes":{"included":50,"limit":"soft","price":{"model":"graduated","tiers":[{"up_to":null,"unit_amount":"10"}]}}}},\
{"name":"enterprise","retention":{"days":1095,"longest_days":3650},\
"seats":100000,"base":"99000","metrics":{"tasks_created":{"included":1000000,"limit":"soft"},\
"tasks_completed":{"included":1000000,"limit":"soft","price":{"model":"package","size":1000,"amount":"100"}},\
"llm_tokens_used":{"included":2000000000,"limit":"soft","price":{"model":"volume","tiers":[{"up_to":10000000000,"unit_amount":"0.00002"},{"up_to":null,"unit_amount":"0.000015"}]}},\
"api_calls":{"included":200000000,"limit":"soft","price":{"model":"volume","tiers":[{"up_to":null,"unit_amount":"0.00002"}]}},\
"storage_bytes":{"included":1000,"limit":"soft","price":{"model":"graduated","tiers":[{"up_to":null,"unit_amount":"5"}]}}}}]}"""
# The ledger only grows, and a price book or a finalized invoice never changes; they go with their team, and no other way.
REFUSE = """
CREATE FUNCTION refuse_change_of_record() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  of_team uuid;
  final boolean := true;
BEGIN
  IF TG_TABLE_NAME <> 'price_books' THEN
    of_team := CASE WHEN TG_OP = 'INSERT' THEN NEW.team_id ELSE OLD.team_id END;
    IF TG_OP = 'DELETE' AND NOT EXISTS (SELECT FROM teams t WHERE t.id = of_team AND t.deleted_at IS NULL) THEN
      RETURN OLD;
    END IF;
    IF TG_TABLE_NAME = 'invoices' THEN
      final := OLD.state = 'final';
    ELSIF TG_TABLE_NAME = 'invoice_lines' THEN
      final := EXISTS (SELECT FROM invoices i WHERE i.state = 'final'
                       AND i.id = CASE WHEN TG_OP = 'INSERT' THEN NEW.invoice_id ELSE OLD.invoice_id END);
    END IF;
  END IF;
  IF final THEN
    RAISE EXCEPTION '% is a record that never changes', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END
$$;
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON price_books FOR EACH ROW EXECUTE FUNCTION refuse_change_of_record();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON usage_ledger FOR EACH ROW EXECUTE FUNCTION refuse_change_of_record();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON invoices FOR EACH ROW EXECUTE FUNCTION refuse_change_of_record();
CREATE TRIGGER immutable BEFORE INSERT OR UPDATE OR DELETE ON invoice_lines
FOR EACH ROW EXECUTE FUNCTION refuse_change_of_record();
"""
# What was folded before is of known people, and of nothing else that is known.
BREAK_DOWN_THE_PAST = """
UPDATE usage_pending p SET user_id = l.user_id FROM usage_ledger l WHERE l.id = p.ledger_id;
INSERT INTO usage_breakdowns (team_id, date, metric, user_id, quantity)
SELECT team_id, (occurred_at AT TIME ZONE 'UTC')::date, metric, user_id, sum(quantity) FROM usage_ledger l
WHERE NOT EXISTS (SELECT FROM usage_pending p WHERE p.ledger_id = l.id) GROUP BY 1, 2, 3, 4;
"""


def run(statements: str) -> None:
    """Several statements in one, which the driver's extended protocol refuses."""
    op.get_bind().connection.driver_connection.execute(statements.encode())  # type: ignore[union-attr]


def upgrade() -> None:
    op.create_table(
        "invoice_numbers",
        sa.Column("year", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("year", name=op.f("pk_invoice_numbers")),
    )
    op.create_table(
        "job_runs",
        sa.Column("job", sa.String(length=100), nullable=False),
        sa.Column("period", sa.String(length=100), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("job", "period", name=op.f("pk_job_runs")),
    )
    op.create_table(
        "price_books",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("loaded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_price_books")),
        sa.UniqueConstraint("sha256", name=op.f("uq_price_books_sha256")),
    )
    op.create_table(
        "invoices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=20), server_default="invoice", nullable=False),
        sa.Column("state", sa.String(length=20), server_default="draft", nullable=False),
        sa.Column("number", sa.String(length=50), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("period_start", sa.Date(), nullable=False),
        sa.Column("period_end", sa.Date(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("credits", sa.Uuid(), nullable=True),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finalized_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "(kind = 'credit_note') = (credits IS NOT NULL)", name=op.f("ck_invoices_credits")
        ),
        sa.CheckConstraint(
            "(state = 'final') = (number IS NOT NULL AND finalized_at IS NOT NULL)",
            name=op.f("ck_invoices_number"),
        ),
        sa.CheckConstraint("kind IN ('invoice', 'credit_note')", name=op.f("ck_invoices_kind")),
        sa.CheckConstraint("state IN ('draft', 'final')", name=op.f("ck_invoices_state")),
        sa.CheckConstraint("period_end > period_start", name=op.f("ck_invoices_period")),
        sa.ForeignKeyConstraint(["credits"], ["invoices.id"], name=op.f("fk_invoices_credits_invoices")),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_invoices_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoices")),
        sa.UniqueConstraint("credits", name=op.f("uq_invoices_credits")),
        sa.UniqueConstraint("number", name=op.f("uq_invoices_number")),
        sa.UniqueConstraint(
            "team_id",
            "kind",
            "period_start",
            "revision",
            name=op.f("uq_invoices_team_id_kind_period_start_revision"),
        ),
    )
    op.create_table(
        "plan_periods",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("plan", sa.String(length=50), nullable=False),
        sa.Column("price_book", sa.Integer(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("ends_at IS NULL OR ends_at >= starts_at", name=op.f("ck_plan_periods_ends_at")),
        sa.ForeignKeyConstraint(
            ["price_book"], ["price_books.version"], name=op.f("fk_plan_periods_price_book_price_books")
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_plan_periods_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan_periods")),
    )
    op.create_index("ix_plan_periods_team_id", "plan_periods", ["team_id", "starts_at"], unique=False)
    op.create_index(
        "uq_plan_periods_current",
        "plan_periods",
        ["team_id"],
        unique=True,
        postgresql_where=sa.text("ends_at IS NULL"),
    )
    op.create_table(
        "usage_breakdowns",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("metric", sa.String(length=50), nullable=False),
        sa.Column("quantity", sa.Numeric(asdecimal=False), server_default="0", nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("workspace_id", sa.Uuid(), nullable=True),
        sa.Column("model", sa.String(length=200), nullable=True),
        sa.Column("part", sa.String(length=20), nullable=True),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_usage_breakdowns_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_breakdowns")),
        sa.UniqueConstraint(
            "team_id",
            "date",
            "metric",
            "user_id",
            "agent_id",
            "api_key_id",
            "workspace_id",
            "model",
            "part",
            name="uq_usage_breakdowns_whose",
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_table(
        "usage_quotas",
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("metric", sa.String(length=50), nullable=False),
        sa.Column("maximum", sa.Numeric(asdecimal=False), server_default="0", nullable=False),
        sa.Column("period", sa.Date(), nullable=False),
        sa.Column("used", sa.Numeric(asdecimal=False), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_usage_quotas_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "metric", name=op.f("pk_usage_quotas")),
    )
    op.create_table(
        "invoice_lines",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("description", sa.String(length=500), nullable=False),
        sa.Column("plan", sa.String(length=50), nullable=False),
        sa.Column("metric", sa.String(length=50), nullable=True),
        sa.Column("quantity", sa.Numeric(), nullable=False),
        sa.Column("unit", sa.String(length=50), nullable=False),
        sa.Column("starts_on", sa.Date(), nullable=False),
        sa.Column("ends_on", sa.Date(), nullable=False),
        sa.Column("unrounded", sa.Numeric(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("details", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('base', 'seats', 'usage', 'adjustment', 'credit')", name=op.f("ck_invoice_lines_kind")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"],
            ["invoices.id"],
            name=op.f("fk_invoice_lines_invoice_id_invoices"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_invoice_lines_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoice_lines")),
        sa.UniqueConstraint("invoice_id", "position", name=op.f("uq_invoice_lines_invoice_id_position")),
    )
    op.create_index("ix_invoice_lines_team_id", "invoice_lines", ["team_id"], unique=False)
    op.add_column("usage_ledger", sa.Column("reverses", sa.Uuid(), nullable=True))
    op.add_column("usage_ledger", sa.Column("reason", sa.String(length=500), nullable=True))
    op.add_column("usage_ledger", sa.Column("set_id", sa.Uuid(), nullable=True))
    op.add_column("usage_ledger", sa.Column("agent_id", sa.Uuid(), nullable=True))
    op.add_column("usage_ledger", sa.Column("api_key_id", sa.Uuid(), nullable=True))
    op.add_column("usage_ledger", sa.Column("workspace_id", sa.Uuid(), nullable=True))
    op.add_column("usage_ledger", sa.Column("model", sa.String(length=200), nullable=True))
    op.add_column("usage_ledger", sa.Column("part", sa.String(length=20), nullable=True))
    op.create_index("ix_usage_ledger_recorded_at", "usage_ledger", ["team_id", "recorded_at"], unique=False)
    op.create_index(
        "ix_usage_ledger_set",
        "usage_ledger",
        ["team_id", "set_id"],
        unique=False,
        postgresql_where=sa.text("set_id IS NOT NULL"),
    )
    op.create_unique_constraint(op.f("uq_usage_ledger_reverses"), "usage_ledger", ["reverses"])
    op.create_foreign_key(
        op.f("fk_usage_ledger_reverses_usage_ledger"),
        "usage_ledger",
        "usage_ledger",
        ["reverses"],
        ["id"],
        ondelete="CASCADE",
    )
    op.add_column("usage_pending", sa.Column("user_id", sa.Uuid(), nullable=True))
    op.add_column("usage_pending", sa.Column("agent_id", sa.Uuid(), nullable=True))
    op.add_column("usage_pending", sa.Column("api_key_id", sa.Uuid(), nullable=True))
    op.add_column("usage_pending", sa.Column("workspace_id", sa.Uuid(), nullable=True))
    op.add_column("usage_pending", sa.Column("model", sa.String(length=200), nullable=True))
    op.add_column("usage_pending", sa.Column("part", sa.String(length=20), nullable=True))
    op.drop_constraint(op.f("ck_usage_ledger_quantity"), "usage_ledger", type_="check")
    op.create_check_constraint(
        op.f("ck_usage_ledger_quantity"),
        "usage_ledger",
        "quantity > 0 OR (quantity <> 0 AND (metric = 'storage_bytes' OR reverses IS NOT NULL))",
    )
    op.create_check_constraint(
        op.f("ck_usage_ledger_part"),
        "usage_ledger",
        "part IS NULL OR (metric = 'llm_tokens_used' AND part IN ('input', 'cached_input', 'output', 'reasoning'))",
    )
    op.create_check_constraint(
        op.f("ck_usage_ledger_model"), "usage_ledger", "model IS NULL OR metric = 'llm_tokens_used'"
    )
    op.create_check_constraint(
        op.f("ck_usage_ledger_reason"), "usage_ledger", "(reverses IS NULL) OR (reason IS NOT NULL)"
    )
    run(BREAK_DOWN_THE_PAST)
    op.execute(
        sa.text(
            "INSERT INTO price_books (version, body, sha256) VALUES (1, CAST(:body AS jsonb), :sha256)"
        ).bindparams(body=PRICE_BOOK, sha256=hashlib.sha256(PRICE_BOOK.encode()).hexdigest())
    )
    op.execute(
        "INSERT INTO plan_periods (team_id, plan, price_book, starts_at) SELECT id, plan, 1, created_at FROM teams"
    )
    run(REFUSE)


def downgrade() -> None:
    op.execute("DROP FUNCTION refuse_change_of_record() CASCADE")  # its triggers with it
    op.execute("DELETE FROM usage_ledger WHERE reverses IS NOT NULL")
    for name in ("reason", "model", "part", "quantity"):
        op.drop_constraint(op.f(f"ck_usage_ledger_{name}"), "usage_ledger", type_="check")
    op.create_check_constraint(
        op.f("ck_usage_ledger_quantity"),
        "usage_ledger",
        "quantity > 0 OR (metric = 'storage_bytes' AND quantity <> 0)",
    )
    op.drop_column("usage_pending", "part")
    op.drop_column("usage_pending", "model")
    op.drop_column("usage_pending", "workspace_id")
    op.drop_column("usage_pending", "api_key_id")
    op.drop_column("usage_pending", "agent_id")
    op.drop_column("usage_pending", "user_id")
    op.drop_constraint(op.f("fk_usage_ledger_reverses_usage_ledger"), "usage_ledger", type_="foreignkey")
    op.drop_constraint(op.f("uq_usage_ledger_reverses"), "usage_ledger", type_="unique")
    op.drop_index(
        "ix_usage_ledger_set", table_name="usage_ledger", postgresql_where=sa.text("set_id IS NOT NULL")
    )
    op.drop_index("ix_usage_ledger_recorded_at", table_name="usage_ledger")
    op.drop_column("usage_ledger", "part")
    op.drop_column("usage_ledger", "model")
    op.drop_column("usage_ledger", "workspace_id")
    op.drop_column("usage_ledger", "api_key_id")
    op.drop_column("usage_ledger", "agent_id")
    op.drop_column("usage_ledger", "set_id")
    op.drop_column("usage_ledger", "reason")
    op.drop_column("usage_ledger", "reverses")
    op.drop_index("ix_invoice_lines_team_id", table_name="invoice_lines")
    op.drop_table("invoice_lines")
    op.drop_table("usage_quotas")
    op.drop_table("usage_breakdowns")
    op.drop_index(
        "uq_plan_periods_current", table_name="plan_periods", postgresql_where=sa.text("ends_at IS NULL")
    )
    op.drop_index("ix_plan_periods_team_id", table_name="plan_periods")
    op.drop_table("plan_periods")
    op.drop_table("invoices")
    op.drop_table("price_books")
    op.drop_table("job_runs")
    op.drop_table("invoice_numbers")

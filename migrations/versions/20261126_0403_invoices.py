"""The close of months: what each was charged, its recounts and estimates; who invoices are made out to; payment."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "4c96f22b5ad8"
down_revision = "3b85e11a49c7"
branch_labels = None
depends_on = None

# Nobody was charged for a month before this one, and nobody is. Whoever left is charged until then.
BEGIN_TO_CHARGE = """
UPDATE plan_periods SET starts_at = date_trunc('month', now(), 'UTC')
WHERE ends_at IS NULL AND starts_at < date_trunc('month', now(), 'UTC');
UPDATE plan_periods p SET ends_at = greatest(t.deleted_at, p.starts_at)
FROM teams t WHERE t.id = p.team_id AND t.deleted_at IS NOT NULL AND p.ends_at IS NULL;
"""
APPEND_ONLY = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON charges FOR EACH ROW EXECUTE FUNCTION refuse_change_of_record()
"""


def run(statements: str) -> None:
    """Several statements in one, which the driver's extended protocol refuses."""
    op.get_bind().connection.driver_connection.execute(statements.encode())  # type: ignore[union-attr]


def upgrade() -> None:
    op.create_table(
        "payment_notices",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=100), nullable=False),
        sa.Column("reference", sa.String(length=255), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_notices")),
    )
    op.create_index(
        "ix_payment_notices_due",
        "payment_notices",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("handled_at IS NULL"),
    )
    op.create_table(
        "billing_details",
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("address", sa.String(length=1000), nullable=False),
        sa.Column("tax_id", sa.String(length=100), nullable=True),
        sa.Column("email", sa.String(length=320), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_billing_details_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", name=op.f("pk_billing_details")),
    )
    op.create_table(
        "charge_estimates",
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("lines", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_charge_estimates_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "month", name=op.f("pk_charge_estimates")),
    )
    op.create_index(op.f("ix_charge_estimates_as_of"), "charge_estimates", ["as_of"], unique=False)
    op.create_table(
        "payment_customers",
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.String(length=20), nullable=False),
        sa.Column("reference", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_payment_customers_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "provider", name=op.f("pk_payment_customers")),
    )
    op.create_table(
        "usage_differences",
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("metric", sa.String(length=50), nullable=False),
        sa.Column("ledger", sa.Numeric(), nullable=False),
        sa.Column("daily", sa.Numeric(), nullable=False),
        sa.Column("broken_down", sa.Numeric(), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_usage_differences_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "date", "metric", name=op.f("pk_usage_differences")),
    )
    op.create_table(
        "charges",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("plan", sa.String(length=50), nullable=False),
        sa.Column("metric", sa.String(length=50), nullable=True),
        sa.Column("quantity", sa.Numeric(), nullable=False),
        sa.Column("unrounded", sa.Numeric(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name=op.f("fk_charges_invoice_id_invoices")),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_charges_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_charges")),
    )
    op.create_index("ix_charges_team_id", "charges", ["team_id", "month"], unique=False)
    op.create_table(
        "month_closes",
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("state", sa.String(length=20), server_default="draft", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=True),
        sa.Column("basis", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("recheck", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(state = 'mismatch') = (problem IS NOT NULL)", name=op.f("ck_month_closes_problem")
        ),
        sa.CheckConstraint("state IN ('draft', 'mismatch', 'final')", name=op.f("ck_month_closes_state")),
        sa.ForeignKeyConstraint(
            ["invoice_id"],
            ["invoices.id"],
            name=op.f("fk_month_closes_invoice_id_invoices"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_month_closes_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "month", name=op.f("pk_month_closes")),
    )
    op.create_index(
        "ix_month_closes_due",
        "month_closes",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state <> 'final'"),
    )
    op.create_table(
        "payment_orders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(length=20), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("action IN ('charge', 'cancel')", name=op.f("ck_payment_orders_action")),
        sa.ForeignKeyConstraint(
            ["invoice_id"],
            ["invoices.id"],
            name=op.f("fk_payment_orders_invoice_id_invoices"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_payment_orders_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_orders")),
        sa.UniqueConstraint("invoice_id", "action", name=op.f("uq_payment_orders_invoice_id_action")),
    )
    op.create_index(
        "ix_payment_orders_due",
        "payment_orders",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("failed_at IS NULL"),
    )
    op.create_index("ix_payment_orders_team_id", "payment_orders", ["team_id"], unique=False)
    op.create_table(
        "payments",
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=20), server_default="open", nullable=False),
        sa.Column("provider", sa.String(length=20), nullable=False),
        sa.Column("reference", sa.String(length=255), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "state IN ('open', 'paid', 'failed', 'uncollectible', 'void')", name=op.f("ck_payments_state")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_payments_invoice_id_invoices"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_payments_team_id_teams"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("invoice_id", name=op.f("pk_payments")),
        sa.UniqueConstraint("provider", "reference", name=op.f("uq_payments_provider_reference")),
    )
    op.create_index("ix_payments_team_id", "payments", ["team_id"], unique=False)
    op.add_column(
        "invoices",
        sa.Column("seller", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    )
    op.add_column(
        "invoices",
        sa.Column("buyer", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    )
    op.add_column("invoices", sa.Column("reason", sa.String(length=500), nullable=True))
    op.create_check_constraint(
        op.f("ck_invoices_parties"),
        "invoices",
        "state = 'draft' OR (seller IS NOT NULL AND buyer IS NOT NULL)",
    )
    op.execute(APPEND_ONLY)
    run(BEGIN_TO_CHARGE)


def downgrade() -> None:
    op.drop_constraint(op.f("ck_invoices_parties"), "invoices", type_="check")
    op.drop_column("invoices", "reason")
    op.drop_column("invoices", "buyer")
    op.drop_column("invoices", "seller")
    op.drop_index("ix_payments_team_id", table_name="payments")
    op.drop_table("payments")
    op.drop_index("ix_payment_orders_team_id", table_name="payment_orders")
    op.drop_index(
        "ix_payment_orders_due", table_name="payment_orders", postgresql_where=sa.text("failed_at IS NULL")
    )
    op.drop_table("payment_orders")
    op.drop_index(
        "ix_month_closes_due", table_name="month_closes", postgresql_where=sa.text("state <> 'final'")
    )
    op.drop_table("month_closes")
    op.drop_index("ix_charges_team_id", table_name="charges")
    op.drop_table("charges")
    op.drop_table("usage_differences")
    op.drop_table("payment_customers")
    op.drop_index(op.f("ix_charge_estimates_as_of"), table_name="charge_estimates")
    op.drop_table("charge_estimates")
    op.drop_table("billing_details")
    op.drop_index(
        "ix_payment_notices_due", table_name="payment_notices", postgresql_where=sa.text("handled_at IS NULL")
    )
    op.drop_table("payment_notices")

"""What is charged: price books, which plan a team was on and when, invoices, and the periodic jobs that make them."""

import datetime as dt
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Numeric, String, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Count, Created, Json, TeamOwned, Updated, UUIDv7

DRAFT, FINAL, VOID = "draft", "final", "void"
MISMATCH = "mismatch"
INVOICE, CREDIT_NOTE = "invoice", "credit_note"


class PriceBook(Base):
    """A version of what the plans include and cost (models/price_book.py has the schema); never changed once it is loaded."""

    __tablename__ = "price_books"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    body: Mapped[Json]
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    loaded_at: Mapped[Created]


class PlanPeriod(TeamOwned, Base):
    """The plan that a team was on from `starts_at` until `ends_at` (None: still), at the prices of a book."""

    __tablename__ = "plan_periods"
    __table_args__ = (
        CheckConstraint("ends_at IS NULL OR ends_at >= starts_at", name="ends_at"),
        Index("uq_plan_periods_current", "team_id", unique=True, postgresql_where=text("ends_at IS NULL")),
        Index("ix_plan_periods_team_id", "team_id", "starts_at"),
    )

    id: Mapped[UUIDv7] = mapped_column(server_default=text("uuid7()"))
    plan: Mapped[str] = mapped_column(String(50))
    price_book: Mapped[int] = mapped_column(ForeignKey("price_books.version"))
    starts_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ends_at: Mapped[datetime | None]


class Invoice(TeamOwned, Base):
    """
    What a team owes for a period [`period_start`, `period_end`), both days at 00:00 UTC; a draft until it is finalized, and from
    then on never changed (a trigger refuses it). Voiding it makes a credit note, which `credits` it.
    """

    __tablename__ = "invoices"
    __table_args__ = (
        CheckConstraint("state IN ('draft', 'final')", name="state"),
        CheckConstraint("kind IN ('invoice', 'credit_note')", name="kind"),
        CheckConstraint("(kind = 'credit_note') = (credits IS NOT NULL)", name="credits"),
        CheckConstraint(
            "(state = 'final') = (number IS NOT NULL AND finalized_at IS NOT NULL)", name="number"
        ),
        CheckConstraint("period_end > period_start", name="period"),
        CheckConstraint("state = 'draft' OR (seller IS NOT NULL AND buyer IS NOT NULL)", name="parties"),
        UniqueConstraint("number"),
        UniqueConstraint("credits"),
        UniqueConstraint("team_id", "kind", "period_start", "revision"),
    )

    id: Mapped[UUIDv7]
    kind: Mapped[str] = mapped_column(String(20), server_default=INVOICE)
    state: Mapped[str] = mapped_column(String(20), server_default=DRAFT)
    number: Mapped[str | None] = mapped_column(String(50))
    """Without gaps, in the order of finalizing."""
    revision: Mapped[int] = mapped_column(server_default="1")
    """Counts up when a period is invoiced anew after a credit note."""
    period_start: Mapped[dt.date]
    period_end: Mapped[dt.date]
    currency: Mapped[str] = mapped_column(String(3))
    total: Mapped[Count]
    """Minor units; the sum of the lines' amounts."""
    credits: Mapped[UUID | None] = mapped_column(ForeignKey("invoices.id"))
    counted_at: Mapped[datetime]
    """The ledger as of this time: what is recorded later lands on a later invoice, as an adjustment."""
    created_at: Mapped[Created]
    finalized_at: Mapped[datetime | None]
    seller: Mapped[Json | None]
    """Name, address, tax_id and the note on tax, as they were when it was finalized."""
    buyer: Mapped[Json | None]
    """Name, address, tax_id and e-mail address, likewise."""
    reason: Mapped[str | None] = mapped_column(String(500))
    """Of a credit note: why the invoice that it credits was voided."""


class InvoiceLine(TeamOwned, Base):
    """One charge of an invoice: its unrounded price, and that price in minor units, rounded half up once."""

    __tablename__ = "invoice_lines"
    __table_args__ = (
        UniqueConstraint("invoice_id", "position"),
        Index("ix_invoice_lines_team_id", "team_id"),
        CheckConstraint("kind IN ('base', 'seats', 'usage', 'adjustment', 'credit')", name="kind"),
    )

    id: Mapped[UUIDv7] = mapped_column(server_default=text("uuid7()"))
    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoices.id", ondelete="CASCADE"))
    position: Mapped[int]
    kind: Mapped[str] = mapped_column(String(20))
    description: Mapped[str] = mapped_column(String(500))
    plan: Mapped[str] = mapped_column(String(50))
    metric: Mapped[str | None] = mapped_column(String(50))
    quantity: Mapped[Decimal] = mapped_column(Numeric)
    unit: Mapped[str] = mapped_column(String(50))
    starts_on: Mapped[dt.date]
    """The days that it is for: [`starts_on`, `ends_on`). Of an adjustment, the month that it belongs to."""
    ends_on: Mapped[dt.date]
    unrounded: Mapped[Decimal] = mapped_column(Numeric)
    amount: Mapped[Count]
    details: Mapped[Json]
    """How the amount came about: included, tiers, share of the month."""


class ArchivedInvoice(Base):
    """A final invoice of a team that was purged, whole: the law asks for it longer than anybody may keep the rest."""

    __tablename__ = "archived_invoices"

    number: Mapped[str] = mapped_column(String(50), primary_key=True)
    purged_team_id: Mapped[UUID]
    team_name: Mapped[str] = mapped_column(String(255))
    finalized_at: Mapped[datetime]
    document: Mapped[Json]
    """Its row as an object, with its `lines`, and the `payment` (None if nothing was noted of one)."""
    archived_at: Mapped[Created]


class InvoiceNumber(Base):
    """The last number given in a year; its row is the lock under which the next one is taken."""

    __tablename__ = "invoice_numbers"

    year: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[int]


class JobRun(Base):
    """A periodic job's work of one period, claimed once, by whoever comes first; any number of beats is one too many for none."""

    __tablename__ = "job_runs"

    job: Mapped[str] = mapped_column(String(100), primary_key=True)
    period: Mapped[str] = mapped_column(String(100), primary_key=True)
    done_at: Mapped[Created]


class MonthClose(TeamOwned, Base):
    """
    The close of a team's month: made once, by whoever comes first, when the month (or the team) has ended, and final when
    its usage was recounted after the grace.
    """

    __tablename__ = "month_closes"
    __table_args__ = (
        CheckConstraint("state IN ('draft', 'mismatch', 'final')", name="state"),
        CheckConstraint("(state = 'mismatch') = (problem IS NOT NULL)", name="problem"),
        Index("ix_month_closes_due", "due_at", postgresql_where=text("state <> 'final'")),
    )

    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    month: Mapped[dt.date] = mapped_column(primary_key=True)
    """Its first day (UTC)."""
    state: Mapped[str] = mapped_column(String(20), server_default=DRAFT)
    due_at: Mapped[datetime]
    """When it can be finalized: the grace is over; of a mismatch, when it is tried again."""
    invoice_id: Mapped[UUID | None] = mapped_column(ForeignKey("invoices.id", ondelete="SET NULL"))
    """None where nothing is charged: then there is no invoice."""
    basis: Mapped[Json | None]
    """What the draft was counted from; as long as it is the same, the draft's lines have to be."""
    counted_at: Mapped[datetime | None]
    problem: Mapped[Json | None]
    """Why it can't be finalized: sums that have to agree and don't, by what differs."""
    recheck: Mapped[bool] = mapped_column(server_default="false")
    """What was charged for it may differ from what it costs; the team's next close looks."""
    created_at: Mapped[Created]


class Charge(TeamOwned, Base):
    """
    What a month was charged, by plan and metric, append-only: the sum of its rows is what the month's invoices and credit
    notes say together. A month that costs something else by now is adjusted by the difference.
    """

    __tablename__ = "charges"
    __table_args__ = (Index("ix_charges_team_id", "team_id", "month"),)

    id: Mapped[UUIDv7] = mapped_column(server_default=text("uuid7()"))
    month: Mapped[dt.date]
    kind: Mapped[str] = mapped_column(String(20))
    plan: Mapped[str] = mapped_column(String(50))
    metric: Mapped[str | None] = mapped_column(String(50))
    quantity: Mapped[Decimal] = mapped_column(Numeric)
    unrounded: Mapped[Decimal] = mapped_column(Numeric)
    amount: Mapped[Count]
    invoice_id: Mapped[UUID | None] = mapped_column(ForeignKey("invoices.id"))
    """None where nothing was charged, and no invoice issued."""
    created_at: Mapped[Created]


class ChargeEstimate(TeamOwned, Base):
    """What a month has cost a team so far, each hour anew, with the base of the whole month: for reports over all teams."""

    __tablename__ = "charge_estimates"

    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    month: Mapped[dt.date] = mapped_column(primary_key=True)
    as_of: Mapped[datetime] = mapped_column(index=True)
    """The hour that it was made for."""
    currency: Mapped[str] = mapped_column(String(3))
    total: Mapped[Count]
    lines: Mapped[Json]


class UsageDifference(TeamOwned, Base):
    """A day on which a recount found the ledger to say something else than what was folded from it; gone when one finds them to agree."""

    __tablename__ = "usage_differences"

    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    date: Mapped[dt.date] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(String(50), primary_key=True)
    ledger: Mapped[Decimal] = mapped_column(Numeric)
    daily: Mapped[Decimal] = mapped_column(Numeric)
    broken_down: Mapped[Decimal] = mapped_column(Numeric)
    found_at: Mapped[Created]


class BillingDetails(TeamOwned, Base):
    """Who an invoice is made out to; without them, to the team by its name."""

    __tablename__ = "billing_details"

    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    address: Mapped[str] = mapped_column(String(1000))
    """Line by line."""
    tax_id: Mapped[str | None] = mapped_column(String(100))
    email: Mapped[str | None] = mapped_column(String(320))
    updated_at: Mapped[Updated]

"""What a payment provider has to do with invoices: who a team is to it, what it was asked, what it said, and what came of it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, TeamOwned, Updated, UUIDv7

OPEN, PAID, PAYMENT_FAILED, UNCOLLECTIBLE, VOIDED = "open", "paid", "failed", "uncollectible", "void"
CHARGE, CANCEL = "charge", "cancel"


class Payment(TeamOwned, Base):
    """How far a finalized invoice is paid; a row of its own, as the invoice never changes."""

    __tablename__ = "payments"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'paid', 'failed', 'uncollectible', 'void')", name="state"),
        UniqueConstraint("provider", "reference"),
        Index("ix_payments_team_id", "team_id"),
    )

    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoices.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[str] = mapped_column(String(20), server_default=OPEN)
    provider: Mapped[str] = mapped_column(String(20))
    """`null`: paid by other ways, and noted by an operator."""
    reference: Mapped[str | None] = mapped_column(String(255))
    """The provider's id of its invoice."""
    updated_at: Mapped[Updated]


class PaymentCustomer(TeamOwned, Base):
    """Who a team is to a payment provider."""

    __tablename__ = "payment_customers"

    team_id: Mapped[UUID] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    provider: Mapped[str] = mapped_column(String(20), primary_key=True)
    reference: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[Created]


class PaymentOrder(TeamOwned, Base):
    """
    The outbox to the provider: an invoice to charge, or one to cancel. Written in the transaction that finalizes or voids the
    invoice; done, it is gone.
    """

    __tablename__ = "payment_orders"
    __table_args__ = (
        CheckConstraint("action IN ('charge', 'cancel')", name="action"),
        UniqueConstraint("invoice_id", "action"),
        Index("ix_payment_orders_due", "due_at", postgresql_where=text("failed_at IS NULL")),
        Index("ix_payment_orders_team_id", "team_id"),
    )

    id: Mapped[UUIDv7]
    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoices.id", ondelete="CASCADE"))
    action: Mapped[str] = mapped_column(String(20))
    due_at: Mapped[Created]
    attempts: Mapped[int] = mapped_column(server_default="0")
    error: Mapped[str | None] = mapped_column(String(500))
    failed_at: Mapped[datetime | None]
    """When it was given up; an operator looks at it."""
    created_at: Mapped[Created]


class PaymentNotice(Base):
    """The inbox from the provider: an event that it sent, known by its id for ever, and what came of it."""

    __tablename__ = "payment_notices"
    __table_args__ = (Index("ix_payment_notices_due", "due_at", postgresql_where=text("handled_at IS NULL")),)

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    """The provider's."""
    type: Mapped[str] = mapped_column(String(100))
    reference: Mapped[str | None] = mapped_column(String(255))
    """The provider's invoice that it is about; its state is asked anew, as the order of events is not promised."""
    received_at: Mapped[Created]
    due_at: Mapped[Created]
    attempts: Mapped[int] = mapped_column(server_default="0")
    handled_at: Mapped[datetime | None]

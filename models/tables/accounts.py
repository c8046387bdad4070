"""What belongs to a person's account besides the person: proofs by mail, the second factor, and the person's own stream."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Address, Base, Created, Json, UUIDv7

VERIFY_EMAIL, RESET_PASSWORD = "verify_email", "reset_password"


class MailedToken(Base):
    """A single-use token that was mailed, known by its SHA-256 alone; using it deletes the row."""

    __tablename__ = "mailed_tokens"
    __table_args__ = (CheckConstraint("purpose IN ('verify_email', 'reset_password')", name="purpose"),)

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    purpose: Mapped[str] = mapped_column(String(50))
    expires_at: Mapped[datetime] = mapped_column(index=True)
    created_at: Mapped[Created]


class SecondFactor(Base):
    """A person's TOTP secret (RFC 6238). It counts once `confirmed_at` says that the person's device shows its codes."""

    __tablename__ = "second_factors"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    secret: Mapped[str] = mapped_column(String(200))
    """Encrypted (models/encryption.py), where there is a key."""
    confirmed_at: Mapped[datetime | None]
    last_step: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """The time step of the last code that was taken: none is taken twice."""
    failures: Mapped[int] = mapped_column(server_default="0")
    """Wrong codes since the last right one."""
    locked_until: Mapped[datetime | None]
    created_at: Mapped[Created]


class RecoveryCode(Base):
    """Stands in for a TOTP code once; known by its SHA-256 alone, and gone when it was used."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("second_factors.user_id", ondelete="CASCADE"), primary_key=True
    )
    code_hash: Mapped[bytes] = mapped_column(primary_key=True)


class Erasure(Base):
    """
    A person whose account is gone, and how far their traces in the teams' logs are (models/operations/erasures.py). A pass
    goes through all teams in the order of their ids, and commits where it is after each part.
    """

    __tablename__ = "erasures"
    __table_args__ = (Index("ix_erasures_due", "due_at", postgresql_where=text("finished_at IS NULL")),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    requested_at: Mapped[Created]
    due_at: Mapped[Created]
    pass_began_at: Mapped[datetime | None]
    after_team_id: Mapped[UUID | None]
    """The teams up to this one are done."""
    at_team_id: Mapped[UUID | None]
    """The team that is just being done, and `after_seq` its last row that is."""
    after_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    held: Mapped[bool] = mapped_column(server_default="false")
    """Whether this pass left out a team under a legal hold."""
    finished_at: Mapped[datetime | None]


class AccountEvent(Base):
    """
    Something that happened to a person's account: a sign-in, a failed one, a changed password. It belongs to the person
    and to no team; repeats of a failure are summed in `count`.
    """

    __tablename__ = "account_events"
    __table_args__ = (Index("ix_account_events_user_id", "user_id", "id"),)

    id: Mapped[UUIDv7]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    action: Mapped[str] = mapped_column(String(100))
    details: Mapped[Json]
    count: Mapped[int] = mapped_column(server_default="1")
    ip_address: Mapped[Address | None]
    user_agent: Mapped[str | None]
    request_id: Mapped[str | None]
    created_at: Mapped[Created] = mapped_column(index=True)

from uuid import UUID

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created


class IdempotencyKey(Base):
    """
    The answer that a POST with an Idempotency-Key got, committed with the change that it made.

    `body` is absent when the answer carried a secret; `resource_id` then says what was made.
    """

    __tablename__ = "idempotency_keys"

    scope: Mapped[bytes] = mapped_column(primary_key=True)
    """SHA-256 of the credential, or of the client's address where there is none."""
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[bytes]
    status: Mapped[int]
    body: Mapped[bytes | None]
    etag: Mapped[str | None]
    resource_id: Mapped[UUID | None]
    created_at: Mapped[Created] = mapped_column(index=True)

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, TeamOwned


class SigningKey(Base):
    """A public key that has signed checkpoints: a record. Which keys count is configuration (models/signing.py)."""

    __tablename__ = "signing_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    """The first 16 hexadecimal digits of the SHA-256 of `public_key`."""
    public_key: Mapped[bytes]
    """The 32 bytes of RFC 8032."""
    created_at: Mapped[Created]


class Checkpoint(TeamOwned, Base):
    """
    A signature over a team's chain up to a row: rewriting what came before takes our key, and customers can keep a copy.
    Append-only: a trigger refuses all but the cascade from a purged team.
    """

    __tablename__ = "checkpoints"
    __table_args__ = (PrimaryKeyConstraint("team_id", "seq"),)

    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[bytes]
    """That of the row `seq`."""
    key_id: Mapped[str] = mapped_column(ForeignKey("signing_keys.id"))
    signature: Mapped[bytes]
    """Ed25519, 64 bytes, over `models.signing.checkpoint_bytes`."""
    created_at: Mapped[datetime]

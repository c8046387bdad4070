"""Session tokens: how they are made, kept and presented. A token is random and opaque; the database knows its hash alone."""

import hashlib
import secrets
from dataclasses import dataclass, field

from models.access.actor import Origin
from models.errors import Unauthenticated

TOKEN_PREFIX = "ahq_"  # noqa: S105  recognisable by secret scanners
MAXIMUM_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Credential:
    """What a caller presented, before anything is known about it. Its secret never appears in a repr, so in no log."""

    secret: str = field(repr=False)
    origin: Origin = field(default_factory=Origin)

    @property
    def hash(self) -> bytes:
        """SHA-256 of the secret, as stored; Unauthenticated if it can't be a token at all."""
        if not self.secret or len(self.secret) > MAXIMUM_LENGTH or not self.secret.isascii():
            raise Unauthenticated("The credential is not a token of this service.")
        return hash_secret(self.secret)


def new_token() -> str:
    """A fresh secret of 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> bytes:
    """
    SHA-256, unsalted and fast on purpose: the secret has 256 random bits, so there is nothing to guess, and the look-up
    needs an indexable value. Passwords, which people choose, get argon2id instead (models/access/passwords.py).
    """
    return hashlib.sha256(secret.encode()).digest()

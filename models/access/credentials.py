"""
Session tokens and API keys: how they are made, kept and presented. Each is random and opaque; the database knows its
hash alone. The prefix tells which it is, and secret scanners whose.
"""

import hashlib
import secrets
from dataclasses import dataclass, field

from models.access.actor import Origin
from models.errors import Unauthenticated

TOKEN_PREFIX = "ahq_"  # noqa: S105  what each begins with  # nosec B105
KEY_PREFIX = "ahk_"
VISIBLE_LENGTH = 12
"""As much of an API key is kept in clear, for people to tell keys apart; 208 bits stay unknown."""
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

    @property
    def is_api_key(self) -> bool:
        return self.secret.startswith(KEY_PREFIX)


def new_token(prefix: str = TOKEN_PREFIX) -> str:
    """A fresh secret of 256 random bits."""
    return prefix + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> bytes:
    """
    SHA-256, unsalted and fast on purpose: the secret has 256 random bits, so there is nothing to guess, and the look-up
    needs an indexable value. Passwords, which people choose, get argon2id instead (models/access/passwords.py).
    """
    return hashlib.sha256(secret.encode()).digest()

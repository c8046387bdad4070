"""
argon2id with the low-memory parameters of RFC 9106 (argon2-cffi's default: 3 passes, 64 MiB, 4 lanes).

It burns tens of milliseconds of CPU outside Python; web processes call it on a thread, never on the event loop.
"""

from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MINIMUM_LENGTH = 8
MAXIMUM_LENGTH = 200

_hasher = PasswordHasher()


def hash_password(password: str) -> str:
    return _hasher.hash(password)


def verify_password(stored: str | None, password: str) -> bool:
    """Whether the password is the one stored. Without a stored hash it takes as long and says no."""
    try:
        return _hasher.verify(stored or _nobodys_hash(), password) and bool(stored)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _nobodys_hash() -> str:
    """What an unknown address is verified against, so that the answer's timing does not tell which addresses exist."""
    return _hasher.hash("nobody has this password")

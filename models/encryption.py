"""
Secrets that we must be able to read again, kept encrypted: AES-256-GCM (NIST SP 800-38D) under the keys of ENCRYPTION_KEY.

The first key encrypts, every key decrypts. What is kept begins with a version, the key's id and the nonce; `context` says
what the secret is of, and is authenticated, so that no ciphertext does in another row's place.
"""

import base64
import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from models.errors import Unavailable
from models.settings import settings

VERSION = b"\x01"
KEY_ID_LENGTH, NONCE_LENGTH = 4, 12
NONCE_AT = len(VERSION) + KEY_ID_LENGTH
CIPHERTEXT_AT = NONCE_AT + NONCE_LENGTH
TEXT_PREFIX = "enc1:"
"""Of a secret that is kept as text, with the key's id in hex; what lacks it was kept before there was a key."""


def available() -> bool:
    return bool(settings().encryption_keys)


def encrypt(plain: bytes, *, context: str) -> bytes:
    """Raises Unavailable where no key is set."""
    if not available():
        raise Unavailable("This installation has no ENCRYPTION_KEY, so it can keep no such secret.")
    key = settings().encryption_keys[0]
    nonce = os.urandom(NONCE_LENGTH)
    return VERSION + key_id(key) + nonce + AESGCM(key).encrypt(nonce, plain, context.encode())


def decrypt(kept: bytes, *, context: str) -> bytes:
    """Raises Unavailable where the key that encrypted it is not set any more, or it is not what was kept."""
    for key in settings().encryption_keys:
        if kept[:NONCE_AT] == VERSION + key_id(key):
            try:
                return AESGCM(key).decrypt(
                    kept[NONCE_AT:CIPHERTEXT_AT], kept[CIPHERTEXT_AT:], context.encode()
                )
            except (InvalidTag, ValueError) as error:  # or too short to hold a nonce
                raise Unavailable("A secret that is kept encrypted was changed.") from error
    raise Unavailable("No key in ENCRYPTION_KEY decrypts a secret that is kept.")


def encrypt_text(plain: str, *, context: str) -> str:
    """As text, for a column that holds some; as it is where no key is set."""
    if not available():
        return plain
    return current_prefix() + base64.b64encode(encrypt(plain.encode(), context=context)).decode()


def decrypt_text(kept: str, *, context: str) -> str:
    """What `encrypt_text` kept, or what was kept before there was a key. Raises Unavailable as `decrypt` does."""
    if not kept.startswith(TEXT_PREFIX):
        return kept
    return decrypt(base64.b64decode(kept.rpartition(":")[2]), context=context).decode()


def current_prefix() -> str:
    """What a text begins with that the first key encrypted; nothing, where no key is set."""
    return f"{TEXT_PREFIX}{key_id(settings().encryption_keys[0]).hex()}:" if available() else ""


def is_stale(kept: bytes) -> bool:
    """Whether another of the keys than the first encrypted it."""
    return any(kept[:NONCE_AT] == VERSION + key_id(key) for key in settings().encryption_keys[1:])


def key_id(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:KEY_ID_LENGTH]

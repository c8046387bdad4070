"""
Ed25519 (RFC 8032) over checkpoints of the activity log: our key, those that we trust besides, and the bytes that are signed.

Which keys are ours is configuration, never what stands in the database: whoever can rewrite the log could add a key there.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from models.settings import settings
from models.tables import Checkpoint

FORMAT = b"agenthq.checkpoint.1"
BYTEA = 17
"""PostgreSQL's number of the type, which its binary arrays name."""
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""What PostgreSQL counts times from."""


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that signs now."""

    seed: bytes = field(repr=False)

    @property
    def public_key(self) -> bytes:
        return self._private_key.public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        return key_id(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._private_key.sign(message)

    @property
    def _private_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


@dataclass(frozen=True, slots=True)
class Keyring:
    """The key that signs, if there is one, and every key whose signatures count, by id."""

    signer: Signer | None
    public_keys: Mapping[str, bytes]

    def vouches_for(self, checkpoint: Checkpoint) -> bool:
        """Whether the signature is that of one of our keys over just this."""
        public_key = self.public_keys.get(checkpoint.key_id)
        if public_key is None:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(
                checkpoint.signature, signed_bytes(checkpoint)
            )
        except InvalidSignature:
            return False
        return True

    def vouches_for_each(self, checkpoints: Sequence[Checkpoint]) -> list[bool]:
        """Of each in turn; a tenth of a millisecond of computing each."""
        return [self.vouches_for(checkpoint) for checkpoint in checkpoints]


def keyring() -> Keyring:
    """The keys of this process's settings."""
    seed = settings().signing_key
    signer = Signer(base64.b64decode(seed)) if seed else None
    public_keys = [base64.b64decode(key) for key in settings().retired_signing_keys]
    if signer:
        public_keys.append(signer.public_key)
    return Keyring(signer, {key_id(each): each for each in public_keys})


def key_id(public_key: bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the 32 bytes of a public key."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def signed_bytes(checkpoint: Checkpoint) -> bytes:
    """What is signed: each field as PostgreSQL's binary protocol has it, length-prefixed as the rows' are (docs/audit.md)."""
    microseconds = (checkpoint.created_at - EPOCH) // timedelta(microseconds=1)
    return array_bytes(
        [
            FORMAT,
            checkpoint.team_id.bytes,
            checkpoint.seq.to_bytes(8, "big", signed=True),
            checkpoint.hash,
            microseconds.to_bytes(8, "big", signed=True),
            checkpoint.key_id.encode(),
        ]
    )


def array_bytes(fields: Sequence[bytes]) -> bytes:
    """What PostgreSQL's `array_send` makes of a one-dimensional array of bytea without NULL."""
    head = [
        1,
        0,
        BYTEA,
        len(fields),
        1,
    ]  # dimensions, whether any is NULL, the type; the length, the first index
    parts = [number.to_bytes(4, "big") for number in head]
    for each in fields:
        parts += [len(each).to_bytes(4, "big"), each]
    return b"".join(parts)

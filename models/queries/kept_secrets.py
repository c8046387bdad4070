"""Under which keys the secrets are kept that the product must be able to read: counts, never the secrets."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from models import encryption, signing
from models.settings import settings

CHECKPOINT = "checkpoint"
"""A kind of what is kept: a signature."""
CLEAR = "none"
"""In place of a key's id: kept as it is."""
# The layout is models/encryption.py's: a version, then the key's id; as text, after a prefix and in hex.
KEPT = text(f"""
SELECT secret, key_id, count(*) FROM (
  SELECT 'webhook secret' AS secret, encode(substring(secret FROM 2 FOR {encryption.KEY_ID_LENGTH}), 'hex') AS key_id FROM webhooks
  UNION ALL
  SELECT 'webhook secret before a rotation', encode(substring(previous_secret FROM 2 FOR {encryption.KEY_ID_LENGTH}), 'hex')
  FROM webhooks WHERE previous_secret IS NOT NULL
  UNION ALL
  SELECT 'second factor',
         CASE WHEN starts_with(secret, '{encryption.TEXT_PREFIX}') THEN split_part(secret, ':', 2) ELSE '{CLEAR}' END
  FROM second_factors
) AS kept GROUP BY 1, 2 ORDER BY 1, 2
""")  # noqa: S608  made of constants alone
SIGNED = text("SELECT key_id, count(*) FROM checkpoints GROUP BY 1 ORDER BY 1")


@dataclass(frozen=True, slots=True)
class Kept:
    """So many secrets or signatures under one key, and what the settings have of it: `first`, `known` or `missing`."""

    kind: str
    key_id: str
    count: int
    standing: str


def kept(session: Session) -> list[Kept]:
    ids = [encryption.key_id(key).hex() for key in settings().encryption_keys]
    keys = {each: "first" if each == ids[0] else "known" for each in ids}
    keys[CLEAR] = "known"
    ring = signing.keyring()
    signing_keys = dict.fromkeys(ring.public_keys, "known")
    if ring.signer:
        signing_keys[ring.signer.key_id] = "first"
    rows = [Kept(row[0], row[1], row[2], keys.get(row[1], "missing")) for row in session.execute(KEPT)]
    signed = session.execute(SIGNED)
    return rows + [Kept(CHECKPOINT, row[0], row[1], signing_keys.get(row[0], "missing")) for row in signed]

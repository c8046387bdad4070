"""
Checkpoints: signatures over a team's chain as far as it has been checked. They are no events: they are about the log, and an
event of their own would make the next one due.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from models.queries import chain
from models.queries.chain import Head
from models.signing import Keyring, Signer, keyring, signed_bytes
from models.tables import Checkpoint, SigningKey

HOURLY = "55 minutes"
"""How old a team's newest checkpoint is before the next one: an hour, less what beat may be late."""
# From team to team by the key of the heads, so that a call costs as much for the first team as for the millionth.
DUE = text("""
SELECT h.team_id FROM activity_heads h LEFT JOIN LATERAL (
  SELECT c.seq, c.created_at FROM checkpoints c WHERE c.team_id = h.team_id ORDER BY c.seq DESC LIMIT 1
) AS last ON true
WHERE (CAST(:after AS uuid) IS NULL OR h.team_id > :after) AND h.seq > coalesce(last.seq, 0)
  AND (last.created_at IS NULL OR last.created_at < now() - CAST(:age AS interval))
ORDER BY h.team_id LIMIT :limit
""")


class Unverifiable(Exception):
    """The log is not what was signed or chained before, at row `seq`: it must not be signed."""

    def __init__(self, team_id: UUID, seq: int, problem: str) -> None:
        super().__init__(f"The log of team {team_id} does not verify at {seq}: {problem}")
        self.team_id = team_id
        self.seq = seq
        self.problem = problem


def due(session: Session, *, after: UUID | None, limit: int) -> Sequence[UUID]:
    """The next teams by id whose log went on since their last checkpoint, an hour ago or longer."""
    return list(session.scalars(DUE, {"after": after, "age": HOURLY, "limit": limit}))


def sign(session: Session, team_id: UUID, *, at_most: int | None = None) -> Checkpoint | None:
    """
    Checks what the team's log gained since its last checkpoint, or since it was purged, and signs its head. `at_most` bounds
    the rows: a longer log is signed that far, and a further call goes on from there. Keeps the head's lock till the commit.

    None when there is nothing new, or no key. Raises Unverifiable for a log that does not chain up: nothing is signed then.
    """
    keys = keyring()
    head = chain.head(session, team_id, for_update=True)
    if keys.signer is None or head is None or head.seq == 0:
        return None
    last = newest(session, team_id)
    if last is not None:
        _refuse_what_was_not_signed(keys, last, head)
        if last.seq == head.seq:
            return None
    seq, hash_ = _checked(session, team_id, head, last, at_most)
    return _made(
        session, keys.signer, Checkpoint(team_id=team_id, seq=seq, hash=hash_, created_at=head.read_at)
    )


def newest(session: Session, team_id: UUID) -> Checkpoint | None:
    """The team's last checkpoint."""
    statement = (
        select(Checkpoint).where(Checkpoint.team_id == team_id).order_by(Checkpoint.seq.desc()).limit(1)
    )
    return session.scalar(statement)


def register_key(session: Session) -> None:
    """Notes the public key that signs, if there is one, where checkpoints refer to it."""
    if signer := keyring().signer:
        statement = insert(SigningKey).values(id=signer.key_id, public_key=signer.public_key)
        session.execute(statement.on_conflict_do_nothing())


def _refuse_what_was_not_signed(keys: Keyring, last: Checkpoint, head: Head) -> None:
    def refuse(problem: str) -> Unverifiable:
        return Unverifiable(last.team_id, last.seq, problem)

    if last.key_id not in keys.public_keys:
        raise refuse(f"its checkpoint is of the key {last.key_id}; is it one of RETIRED_SIGNING_KEYS?")
    if not keys.vouches_for(last):
        raise refuse("its checkpoint's signature is wrong")
    if last.seq > head.seq:
        raise refuse(f"it is signed, and the log ends at {head.seq}")
    if last.seq == head.seq and last.hash != head.hash:
        raise refuse("the head's hash is another than the signed one")


def _checked(
    session: Session, team_id: UUID, head: Head, last: Checkpoint | None, at_most: int | None
) -> tuple[int, bytes]:
    """The row up to which the log verifies, and its hash: the head, or `at_most` rows further on."""
    seq, hash_ = (head.purged_seq, head.purged_hash)
    if last is not None and last.seq >= head.purged_seq:
        seq, hash_ = last.seq, last.hash
    up_to = head.seq if at_most is None else min(head.seq, seq + at_most)
    while seq < up_to:
        stretch = chain.check(session, team_id, seq=seq, hash_=hash_, up_to=up_to)
        if stretch is None or stretch.seq == seq:
            raise Unverifiable(team_id, seq + 1, "it is missing")
        for found, problem in (
            (stretch.unchained, "it does not follow from the row before it"),
            (stretch.unproven, "its origin is not the one committed to"),
        ):
            if found:
                raise Unverifiable(team_id, found[0], problem)
        seq, hash_ = stretch.seq, stretch.hash
    if seq == head.seq and hash_ != head.hash:
        raise Unverifiable(team_id, seq, "the head's hash is another")
    return seq, hash_


def _made(session: Session, signer: Signer, checkpoint: Checkpoint) -> Checkpoint:
    register_key(session)
    checkpoint.key_id = signer.key_id
    checkpoint.signature = signer.sign(signed_bytes(checkpoint))
    session.add(checkpoint)
    session.flush()
    return checkpoint

"""
Whether a team's log is what was logged: every row checked against the one before it, the ends against the head, the whole
against the signed checkpoints; and what is wrong, named where it is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from itertools import combinations
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from models.access.entry import Access
from models.errors import Invalid, NotFound
from models.queries import chain
from models.queries.chain import DIGEST, SUSPECTS, Head, Stretch, digest_of
from models.queries.paging import Page, Slice, keyset
from models.signing import Keyring
from models.tables import Checkpoint, SigningKey

MOST_PROBLEMS = 100
"""What an answer names; past it, to look further says nothing new."""
MOST_SWAPPED = 40
"""Changed rows among which exchanged ones are looked for: each is tried in the place of every other."""
CHECKPOINTS_AT_ONCE = 200

ROWS = text(f"""
SELECT l.seq, l.hash, {DIGEST} AS digest FROM activity_logs l
WHERE l.team_id = :team_id AND l.seq = ANY(:seqs) ORDER BY l.seq, l.created_at
""")  # noqa: S608  made of constants alone
BEFORE = text("SELECT max(seq) FROM activity_logs WHERE team_id = :team_id AND seq < :seq")
EXCHANGED = text(f"""
SELECT a.seq AS lower, b.seq AS upper, {digest_of("b", "a.seq")} AS upper_as_lower, {digest_of("a", "b.seq")} AS lower_as_upper
FROM activity_logs a JOIN activity_logs b ON b.team_id = a.team_id AND b.seq > a.seq
WHERE a.team_id = :team_id AND a.seq = ANY(:seqs) AND b.seq = ANY(:seqs)
""")  # noqa: S608  made of constants alone
# What no stretch covers: rows before the log's beginning and past its end, as the head has them.
OUTSIDE = text(f"""
SELECT ARRAY(SELECT l.seq FROM activity_logs l WHERE l.team_id = h.team_id AND l.seq <= h.purged_seq
             ORDER BY l.seq LIMIT {MOST_PROBLEMS}) AS before,
       ARRAY(SELECT l.seq FROM activity_logs l WHERE l.team_id = h.team_id AND l.seq > h.seq
             ORDER BY l.seq LIMIT {MOST_PROBLEMS}) AS beyond
FROM activity_heads h WHERE h.team_id = :team_id
""")  # noqa: S608  made of constants alone
# Each with the hash that its row has now; NULL where the row is missing, which is another problem.
SIGNED = text("""
SELECT c.seq, c.seq > h.seq AS beyond,
       CASE WHEN c.seq = h.purged_seq THEN h.purged_hash = c.hash
            ELSE (SELECT bool_or(l.hash = c.hash) FROM activity_logs l WHERE l.team_id = c.team_id AND l.seq = c.seq) END AS holds
FROM checkpoints c JOIN activity_heads h ON h.team_id = c.team_id
WHERE c.team_id = :team_id AND c.seq > :after AND c.seq >= h.purged_seq AND c.seq <= :up_to ORDER BY c.seq LIMIT :limit
""")


class Kind(StrEnum):
    """What is wrong with a row, or with what stands for the whole."""

    changed = "changed"
    missing = "missing"
    inserted = "inserted"
    swapped = "swapped"
    origin = "origin"
    head = "head"
    checkpoint = "checkpoint"


@dataclass(frozen=True, slots=True)
class Problem:
    seq: int
    problem: Kind
    detail: str
    until_seq: int | None = None
    """The last one of several in a row."""


@dataclass(slots=True)
class Verification:
    """What was checked, and what was found."""

    first_seq: int | None
    last_seq: int | None
    """None, both, where there is no row."""
    head: bytes
    checkpoint: Checkpoint | None = None
    """The newest one that holds: the log up to its row is what our key signed."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        return not self.problems


class Link(NamedTuple):
    """A row as the chain sees it."""

    seq: int
    hash: bytes
    digest: bytes


Vouching = Callable[[Sequence[Checkpoint]], Sequence[bool]]


def verify(
    session: Session,
    access: Access,
    keys: Keyring,
    *,
    since_seq: int | None = None,
    until_seq: int | None = None,
    vouching: Vouching | None = None,
) -> Verification:
    """
    Checks the team's rows from `since_seq` to `until_seq`, or all. Nothing of their contents is told, so whoever may read the
    log may verify all of it. `vouching` computes signatures, if not `keys` here and now; raises Invalid for an empty range.
    """
    if since_seq is not None and until_seq is not None and since_seq > until_seq:
        raise Invalid({"until_seq": ["It must not be less than since_seq."]})
    return verify_team(
        session, access.team_id, keys, since_seq=since_seq, until_seq=until_seq, vouching=vouching
    )


def verify_team(
    session: Session,
    team_id: UUID,
    keys: Keyring,
    *,
    since_seq: int | None = None,
    until_seq: int | None = None,
    vouching: Vouching | None = None,
) -> Verification:
    """`verify`, of any team, for operators."""
    head = chain.head(session, team_id)
    if head is None:
        raise NotFound("activity log")
    reading = _Reading(session, team_id, head)
    up_to = head.seq if until_seq is None else min(head.seq, until_seq)
    reading.read(since_seq or 0, up_to)
    problems = reading.problems()
    if until_seq is None or until_seq >= head.seq:
        problems += reading.problems_of_the_end()
    first_seq, last_seq = (
        (reading.first_seq, reading.seq) if reading.seq >= reading.first_seq else (None, None)
    )
    found = Verification(first_seq, last_seq, head.hash)
    limit = until_seq if until_seq is not None else 2**63 - 1
    signed = _Signed(session, team_id, keys, vouching or keys.vouches_for_each)
    found.checkpoint = signed.newest(reading.first_seq - 1, limit)
    problems += signed.problems
    found.problems = sorted(problems, key=lambda each: each.seq)[:MOST_PROBLEMS]
    return found


def checkpoints(session: Session, access: Access, page: Page) -> Slice[Checkpoint]:
    """The team's checkpoints, newest first."""
    statement = select(Checkpoint).where(Checkpoint.team_id == access.team_id)
    return keyset(session, statement, page, Checkpoint.seq, descending=True)


def signing_keys(session: Session, keys: Keyring, page: Page) -> Slice[SigningKey]:
    """The public keys that count, as far as any has signed: those of the configuration, whatever else the table holds. Oldest first."""
    statement = select(SigningKey).where(
        SigningKey.id.in_(list(keys.public_keys)), SigningKey.public_key.in_(list(keys.public_keys.values()))
    )
    return keyset(session, statement, page, SigningKey.created_at, SigningKey.id)


class _Reading:
    """One pass over the rows: it only notes which are suspect, and these few are then looked at together."""

    def __init__(self, session: Session, team_id: UUID, head: Head) -> None:
        self.session = session
        self.team_id = team_id
        self.head = head
        self.anchors: dict[int, bytes] = {}
        """The hash that a beginning stands on, by its number."""
        self.unchained: list[int] = []
        self.unproven: list[int] = []
        self.found: list[Problem] = []
        self.accepted: dict[int, set[bytes]] = {}
        """The hashes that the row after a suspect one may stand on: the stored one, and the one that it ought to have."""
        self.first_seq = self.seq = 0
        self.last_hash = b""

    def read(self, since: int, up_to: int) -> None:
        begun = self._begin(min(max(since - 1, 0), self.head.seq))
        self.first_seq, (self.seq, hash_) = begun[0] + 1, begun
        while self.seq < up_to and len(self.unchained) + len(self.unproven) < SUSPECTS:
            stretch = chain.check(self.session, self.team_id, seq=self.seq, hash_=hash_, up_to=up_to)
            if stretch is None:
                raise NotFound("activity log")
            self._note(stretch)
            if stretch.seq == stretch.begun_after:
                if stretch.seq < up_to:
                    self._note_missing(stretch.seq + 1, up_to)
                break
            self.seq, hash_ = stretch.seq, stretch.hash
        self.last_hash = hash_

    def problems(self) -> list[Problem]:
        changed = self._walk()
        swapped = _exchanged(self, changed) if len(changed) > 1 else []
        return [
            *self.found,
            *swapped,
            *(
                Problem(
                    seq, Kind.changed, "It is not what the chain says: its contents or its hash were changed."
                )
                for seq in changed
            ),
            *(
                Problem(seq, Kind.origin, "Its address or user agent is not the one committed to.")
                for seq in self.unproven
            ),
        ]

    def problems_of_the_end(self) -> list[Problem]:
        row = self.session.execute(OUTSIDE, {"team_id": self.team_id}).one_or_none()
        if row is None:
            raise NotFound("activity log")
        found = [Problem(seq, Kind.inserted, "It lies before the log's beginning.") for seq in row.before]
        found += [Problem(seq, Kind.inserted, "It lies past the log's end.") for seq in row.beyond]
        right = self.accepted.get(self.seq, {self.last_hash})
        if self.seq == self.head.seq and self.head.hash not in right:
            found.append(Problem(self.seq, Kind.head, "The head's hash is not that of the last row."))
        return found

    def _begin(self, seq: int) -> tuple[int, bytes]:
        """The number and hash that the first row stands on."""
        if seq <= self.head.purged_seq:
            begun = (self.head.purged_seq, self.head.purged_hash)
        else:
            rows = self.links([seq])
            if not rows:
                self._note_missing(seq, seq)
            begun = (seq, rows[-1].hash if rows else b"")
        self.anchors[begun[0]] = begun[1]
        return begun

    def _note(self, stretch: Stretch) -> None:
        if stretch.begun_after > self.seq:  # purged meanwhile
            self.first_seq, self.seq = stretch.begun_after + 1, stretch.begun_after
        self.anchors.setdefault(stretch.begun_after, stretch.begun_with)
        self.unchained += stretch.unchained
        self.unproven += stretch.unproven

    def _note_missing(self, first: int, last: int) -> None:
        one = first == last
        detail = "There is no such row." if one else "There are no such rows."
        self.found.append(Problem(first, Kind.missing, detail, None if one else last))

    def links(self, seqs: Sequence[int]) -> list[Link]:
        rows = self.session.execute(ROWS, {"team_id": self.team_id, "seqs": list(seqs)})
        return [Link(*row) for row in rows]

    def _walk(self) -> dict[int, Link]:
        """Looks at the suspects in order; those that were changed. Notes what is missing, and what was inserted."""
        suspects = sorted(set(self.unchained))
        rows: dict[int, list[Link]] = {}
        for link in self.links([*suspects, *(seq - 1 for seq in suspects)]):
            rows.setdefault(link.seq, []).append(link)
        changed: dict[int, Link] = {}
        for seq in suspects:
            previous = self.previous(seq, rows)
            if previous is None and seq - 1 not in self.anchors:
                self._note_missing(self._last_before(seq) + 1, seq - 1)
            group = rows[seq]
            fitting = [link for link in group if previous is None or follows(link, previous)]
            others = [link for link in group if link not in fitting]
            ought = {sha256(hash_ + link.digest).digest() for link in others for hash_ in previous or ()}
            self.accepted[seq] = {link.hash for link in fitting or group} | ought
            if len(group) > 1:
                self.found.append(
                    Problem(
                        seq, Kind.inserted, f"{len(group)} rows have this number; one of them was inserted."
                    )
                )
            elif others:
                changed[seq] = others[0]
        return changed

    def previous(self, seq: int, rows: Mapping[int, Sequence[Link]]) -> set[bytes] | None:
        """The hashes that the row `seq` may stand on; None where the row before it is missing."""
        if seq - 1 in self.accepted:
            return self.accepted[seq - 1]
        if seq - 1 in self.anchors:
            return {self.anchors[seq - 1]} - {b""} or None
        return {link.hash for link in rows.get(seq - 1, ())} or None

    def _last_before(self, seq: int) -> int:
        found = self.session.scalar(BEFORE, {"team_id": self.team_id, "seq": seq}) or 0
        return max(found, self.first_seq - 1)


def follows(link: Link, previous: set[bytes]) -> bool:
    return any(sha256(hash_ + link.digest).digest() == link.hash for hash_ in previous)


def _exchanged(reading: _Reading, changed: dict[int, Link]) -> list[Problem]:
    """
    Pairs of changed rows that are right in each other's place, which leave `changed`; as do the rows after them, which looked
    changed only because they stand on the hash that moved away.
    """
    seqs = sorted(changed)[:MOST_SWAPPED]
    tried = {
        (row.lower, row.upper): (row.upper_as_lower, row.lower_as_upper)
        for row in reading.session.execute(EXCHANGED, {"team_id": reading.team_id, "seqs": seqs})
    }
    rows: dict[int, list[Link]] = {}
    for link in reading.links([seq - 1 for seq in seqs]):
        rows.setdefault(link.seq, []).append(link)
    found: list[Problem] = []
    for lower, upper in combinations(seqs, 2):
        if lower not in changed or upper not in changed:
            continue
        digests = tried[lower, upper]
        stored = {changed[lower].hash, changed[upper].hash}
        at_lower = _fitting(digests[0], reading.previous(lower, rows), stored)
        beneath = at_lower if upper == lower + 1 else reading.previous(upper, rows)
        at_upper = _fitting(digests[1], beneath, stored)
        if not (at_lower and at_upper):
            continue
        for seq, other, hashes in ((lower, upper, at_lower), (upper, lower, at_upper)):
            found.append(Problem(seq, Kind.swapped, f"It was exchanged with row {other}."))
            del changed[seq]
            reading.accepted[seq] = hashes
        for seq in (lower, upper):
            after = changed.get(seq + 1)
            if after is not None and follows(after, reading.accepted[seq]):
                del changed[seq + 1]
    return found


def _fitting(digest: bytes, previous: set[bytes] | None, stored: set[bytes]) -> set[bytes]:
    return {sha256(hash_ + digest).digest() for hash_ in previous or ()} & stored


class _Signed:
    """The team's checkpoints against its rows, some at a time."""

    def __init__(self, session: Session, team_id: UUID, keys: Keyring, vouching: Vouching) -> None:
        self.session = session
        self.team_id = team_id
        self.keys = keys
        self.vouching = vouching
        self.problems: list[Problem] = []

    def newest(self, after: int, up_to: int) -> Checkpoint | None:
        """The newest one up to a number that holds; notes those that don't. Without keys of ours no signature counts."""
        newest = None
        after = max(after - 1, -1)
        while len(self.problems) < MOST_PROBLEMS:
            parameters = {
                "team_id": self.team_id, "after": after, "up_to": up_to, "limit": CHECKPOINTS_AT_ONCE,
            }  # fmt: skip
            rows = self.session.execute(SIGNED, parameters).all()
            newest = self._last_that_holds(rows) or newest
            if len(rows) < CHECKPOINTS_AT_ONCE:
                break
            after = rows[-1].seq
        return newest

    def _last_that_holds(self, rows: Sequence[Any]) -> Checkpoint | None:
        seqs = [row.seq for row in rows]
        statement = select(Checkpoint).where(Checkpoint.team_id == self.team_id, Checkpoint.seq.in_(seqs))
        made = list(self.session.scalars(statement.order_by(Checkpoint.seq)))
        vouched = dict(zip((each.seq for each in made), self.vouching(made), strict=True))
        holding = None
        for row, checkpoint in zip(rows, made, strict=True):
            if problem := self._problem(row, checkpoint, vouched=vouched[row.seq]):
                self.problems.append(problem)
            elif row.holds and vouched[row.seq]:
                holding = checkpoint
        return holding

    def _problem(self, row: Any, checkpoint: Checkpoint, *, vouched: bool) -> Problem | None:
        if self.keys.public_keys and not vouched:
            known = checkpoint.key_id in self.keys.public_keys
            detail = (
                "Its checkpoint has a wrong signature."
                if known
                else "Its checkpoint is signed with a key that is not ours."
            )
            return Problem(row.seq, Kind.checkpoint, detail)
        if row.beyond:
            return Problem(row.seq, Kind.checkpoint, "It is signed, and the log ends before it.")
        if row.holds is False:
            return Problem(
                row.seq, Kind.checkpoint, "Its hash is not the one that was signed: the log was rewritten."
            )
        return None

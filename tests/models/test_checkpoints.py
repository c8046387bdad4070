"""Checkpoints: what is signed and with which key, what is never signed, and that nobody changes what was."""

import base64
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from models.database import transaction
from models.operations import activity, checkpoints
from models.operations.checkpoints import Unverifiable
from models.queries import chain
from models.settings import settings
from models.signing import keyring, signed_bytes
from tests.audit import make_log, rechain, sign, tamper
from tests.factories import TeamSetting, drain, execute, fetch
from tests.models.concurrency import raised, together

OTHER_SEED = base64.b64encode(b"x" * 32).decode()


@pytest.fixture
def logged(bare_team: TeamSetting) -> TeamSetting:
    """A team with 13 rows."""
    make_log(bare_team, 10)
    return bare_team


@pytest.fixture
def set_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def change(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()

    yield change
    monkeypatch.undo()
    settings.cache_clear()


def signed(team_id: UUID) -> list[Any]:
    return fetch("SELECT * FROM checkpoints WHERE team_id = :id ORDER BY seq", id=team_id)


def test_the_head_is_signed_so_that_a_stranger_can_verify_it(logged: TeamSetting) -> None:
    made = sign(logged.id)
    ((head,),) = [fetch("SELECT seq, hash FROM activity_heads WHERE team_id = :id", id=logged.id)]
    assert made is not None
    assert (made.seq, made.hash) == (head.seq, head.hash)
    ((message,),) = fetch(
        """SELECT array_send(ARRAY['agenthq.checkpoint.1'::bytea, uuid_send(c.team_id), int8send(c.seq), c.hash,
                                   timestamptz_send(c.created_at), convert_to(c.key_id, 'UTF8')])
           FROM checkpoints c WHERE c.team_id = :id""",
        id=logged.id,
    )
    ((public_key,),) = fetch("SELECT public_key FROM signing_keys WHERE id = :id", id=made.key_id)
    Ed25519PublicKey.from_public_bytes(public_key).verify(made.signature, message)  # raises if it is not
    assert signed_bytes(made) == message


def test_nothing_new_is_not_signed_again(logged: TeamSetting) -> None:
    assert sign(logged.id)
    assert sign(logged.id) is None
    last = make_log(logged, 1)
    made = sign(logged.id)
    assert made is not None
    assert made.seq == last
    assert len(signed(logged.id)) == 2


def test_without_a_key_nothing_is_signed(logged: TeamSetting, set_keys: Any) -> None:
    set_keys(SIGNING_KEY="")
    assert sign(logged.id) is None
    assert signed(logged.id) == []


def test_an_empty_log_is_not_signed(app: Any, bare_team: TeamSetting) -> None:
    execute("UPDATE activity_heads SET seq = 0, hash = NULL WHERE team_id = :id", id=bare_team.id)
    assert sign(bare_team.id) is None


def test_a_long_log_is_signed_in_stretches(logged: TeamSetting) -> None:
    last = make_log(logged, 3)
    found = []
    while True:
        with transaction() as session:
            made = checkpoints.sign(session, logged.id, at_most=5)
        if made is None:
            break
        found.append(made.seq)
    assert found == [*range(5, last, 5), last]
    rows = fetch("SELECT seq, hash FROM activity_logs WHERE team_id = :id", id=logged.id)
    stored = {row.seq: row.hash for row in rows}
    assert all(each.hash == stored[each.seq] for each in signed(logged.id))


def test_signers_at_once_sign_once(logged: TeamSetting) -> None:
    outcomes = together(*[lambda: sign(logged.id)] * 6)
    assert raised(outcomes) == []
    assert len([made for made in outcomes if made]) == len(signed(logged.id)) == 1


TAMPERED = {
    "changed": ("UPDATE activity_logs SET resource_name = 'else' WHERE team_id = :id AND seq = 5", 5),
    "missing": ("DELETE FROM activity_logs WHERE team_id = :id AND seq = 5", 6),
    "last missing": ("DELETE FROM activity_logs WHERE team_id = :id AND seq = :last", 13),
    "another hash": ("UPDATE activity_logs SET hash = sha256('x') WHERE team_id = :id AND seq = 5", 5),
    "another head": ("UPDATE activity_heads SET hash = sha256('x') WHERE team_id = :id", 13),
    "another origin": ("UPDATE activity_logs SET user_agent = 'x' WHERE team_id = :id AND seq = 5", 5),
    "a made-up origin": (
        "UPDATE activity_logs SET origin_salt = NULL WHERE team_id = :id AND seq = 5",
        5,
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_log_that_does_not_verify_is_never_signed(logged: TeamSetting, how: str) -> None:
    ((last,),) = fetch("SELECT seq FROM activity_heads WHERE team_id = :id", id=logged.id)
    assert last == 13
    statement, seq = TAMPERED[how]
    tamper(statement, id=logged.id, **({"last": last} if ":last" in statement else {}))
    with pytest.raises(Unverifiable) as refused:
        sign(logged.id)
    assert (refused.value.team_id, refused.value.seq) == (logged.id, seq)
    assert signed(logged.id) == []


def test_a_rewritten_past_is_not_signed_over(logged: TeamSetting) -> None:
    made = sign(logged.id)
    assert made is not None
    tamper("UPDATE activity_logs SET resource_name = 'else' WHERE team_id = :id AND seq = 5", id=logged.id)
    rechain(logged.id, 5)
    with pytest.raises(Unverifiable, match="another than the signed one"):
        sign(logged.id)
    make_log(logged, 1)
    with pytest.raises(Unverifiable, match="does not follow") as refused:
        sign(logged.id)
    assert refused.value.seq == made.seq + 1


def test_a_log_cut_behind_its_checkpoint_is_not_signed(logged: TeamSetting) -> None:
    made = sign(logged.id)
    assert made is not None
    tamper("DELETE FROM activity_logs WHERE team_id = :id AND seq > 8", id=logged.id)
    rechain(logged.id, 2)
    with pytest.raises(Unverifiable, match="the log ends at 8"):
        sign(logged.id)


def test_a_forged_checkpoint_is_not_built_on(logged: TeamSetting) -> None:
    assert sign(logged.id)
    tamper("UPDATE checkpoints SET signature = sha256('x') || sha256('y') WHERE team_id = :id", id=logged.id)
    with pytest.raises(Unverifiable, match="signature is wrong"):
        sign(logged.id)


def test_a_retired_key_still_counts_and_an_unknown_one_does_not(logged: TeamSetting, set_keys: Any) -> None:
    first = sign(logged.id)
    assert first is not None
    public_key = base64.b64encode(keyring().public_keys[first.key_id]).decode()
    make_log(logged, 1)
    set_keys(SIGNING_KEY=OTHER_SEED)
    with pytest.raises(Unverifiable, match="RETIRED_SIGNING_KEYS"):
        sign(logged.id)
    set_keys(RETIRED_SIGNING_KEYS=public_key)
    second = sign(logged.id)
    assert second is not None
    assert second.key_id != first.key_id
    assert len(fetch("SELECT FROM signing_keys WHERE id = ANY(:ids)", ids=[first.key_id, second.key_id])) == 2


def test_a_purged_beginning_is_signed_from_where_it_begins(logged: TeamSetting) -> None:
    with transaction() as session:
        assert activity.purge(session, logged.id, up_to=7, at_most=100) == 7
    made = sign(logged.id)
    assert made is not None
    with transaction() as session:
        assert activity.purge(session, logged.id, up_to=made.seq, at_most=100)
    assert sign(logged.id) is None
    last = make_log(logged, 2)
    again = sign(logged.id)
    assert again is not None
    assert again.seq == last


def test_a_number_given_twice_is_not_cut_in_two(logged: TeamSetting) -> None:
    tamper(
        "INSERT INTO activity_logs SELECT (jsonb_populate_record(l, jsonb_build_object("
        "'created_at', l.created_at + interval '1 second'))).* FROM activity_logs l"
        " WHERE team_id = :id AND seq = 5",
        id=logged.id,
    )
    with transaction() as session:
        head = chain.head(session, logged.id)
        assert head is not None
        stretch = chain.check(session, logged.id, seq=0, hash_=head.purged_hash, up_to=5)
    assert stretch is not None
    assert 5 in stretch.unchained


REFUSED = [
    "UPDATE checkpoints SET signature = signature WHERE team_id = :id",
    "DELETE FROM checkpoints WHERE team_id = :id",
    "TRUNCATE checkpoints",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_checkpoints_are_append_only(logged: TeamSetting, statement: str) -> None:
    assert sign(logged.id)

    def change() -> None:
        with transaction() as session:
            session.execute(text(statement), {"id": logged.id} if ":id" in statement else {})

    with pytest.raises(ProgrammingError, match="append-only") as refused:
        change()
    assert isinstance(refused.value.orig, psycopg.errors.InsufficientPrivilege)
    assert len(signed(logged.id)) == 1


@pytest.mark.parametrize(
    ("age", "is_due"), [("54 minutes 50 seconds", False), ("55 minutes 10 seconds", True), (None, True)]
)
def test_a_team_is_due_an_hour_after_its_last_checkpoint(
    logged: TeamSetting, age: str | None, is_due: bool
) -> None:
    def due() -> bool:
        after: UUID | None = None
        found: list[UUID] = []
        while True:
            with transaction() as session:
                page = checkpoints.due(session, after=after, limit=7)
            if not page:
                return logged.id in found
            found += page
            after = page[-1]

    if age is not None:
        assert sign(logged.id)
        assert not due()  # nothing new
        tamper(
            "UPDATE checkpoints SET created_at = now() - CAST(:age AS interval) WHERE team_id = :id",
            age=age,
            id=logged.id,
        )
        assert not due()
        make_log(logged, 1)
    assert due() is is_due
    drain()

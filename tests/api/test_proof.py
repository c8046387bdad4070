"""Verifying the log over the interface: whatever was done to it is found and named, and what is allowed stays valid."""

import base64
import threading
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flask import Flask
from sqlalchemy import text

from api import proof as proof_api
from models.database import transaction
from models.operations import activity
from models.queries import chain, proof
from models.settings import settings
from models.tables import Checkpoint
from tests.audit import COPY_ROW, LAST, SCENARIOS, SWAP, Named, make_log, rechain, sign, tamper
from tests.factories import TeamSetting, drain, execute, fetch, make_person, make_team

VALID: dict[str, Any] = {"valid": True, "first_seq": 1, "last_seq": LAST, "problems": []}


@pytest.fixture
def logged(app: Flask) -> TeamSetting:
    """A team whose log ends at LAST."""
    team = make_team(app, roles=())
    drain()
    (head,) = fetch("SELECT seq FROM activity_heads WHERE team_id = :id", id=team.id)
    assert make_log(team, LAST - head.seq) == LAST
    return team


@pytest.fixture(params=[chain.STRETCH, 5], ids=["one stretch", "many stretches"])
def _stretches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many statements it takes must make no difference."""
    statement = str(chain.CHECK.text).replace(f"FIRST {chain.STRETCH} ROWS", f"FIRST {request.param} ROWS")
    monkeypatch.setattr(chain, "CHECK", text(statement))


def verified(team: TeamSetting, **query: Any) -> dict[str, Any]:
    answer = team.owner.get(f"{team.path}/activity/verify", query_string=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    assert found["valid"] is (found["problems"] == [])
    return found


def named(found: dict[str, Any]) -> Named:
    return {(each["seq"], each["problem"]) for each in found["problems"]}


def head_of(team: TeamSetting) -> str:
    (row,) = fetch("SELECT encode(hash, 'hex') AS hash FROM activity_heads WHERE team_id = :id", id=team.id)
    return str(row.hash)


@pytest.mark.usefixtures("_stretches")
def test_an_untouched_log_is_valid(logged: TeamSetting) -> None:
    assert verified(logged) == {**VALID, "head": head_of(logged), "checkpoint": None}


@pytest.mark.usefixtures("_stretches")
@pytest.mark.parametrize("how", SCENARIOS)
def test_whatever_is_done_to_the_log_is_named(logged: TeamSetting, how: str) -> None:
    statements, expected = SCENARIOS[how]
    for statement in statements:
        tamper(statement, id=logged.id)
    assert named(verified(logged)) == expected


def test_missing_rows_are_named_by_their_range(logged: TeamSetting) -> None:
    tamper(
        "DELETE FROM activity_logs WHERE team_id = :id AND seq IN (9, 10, 11, 15, :last)",
        id=logged.id,
        last=LAST,
    )
    found = [(each["seq"], each["until_seq"]) for each in verified(logged)["problems"]]
    assert found == [(9, 11), (15, None), (LAST, None)]


def test_a_row_past_the_end_and_a_head_turned_back_are_named(logged: TeamSetting) -> None:
    tamper(COPY_ROW.format(of=9, to=LAST + 1, later="1 second"), id=logged.id)
    assert named(verified(logged)) == {(LAST + 1, "inserted")}
    tamper("DELETE FROM activity_logs WHERE team_id = :id AND seq = :seq", id=logged.id, seq=LAST + 1)
    execute(
        "UPDATE activity_heads h SET seq = l.seq, hash = l.hash FROM activity_logs l"
        " WHERE h.team_id = :id AND l.team_id = :id AND l.seq = :seq",
        id=logged.id,
        seq=LAST - 2,
    )
    assert named(verified(logged)) == {(LAST - 1, "inserted"), (LAST, "inserted")}


def test_another_head_is_named(logged: TeamSetting) -> None:
    execute("UPDATE activity_heads SET hash = sha256('x') WHERE team_id = :id", id=logged.id)
    assert named(verified(logged)) == {(LAST, "head")}
    execute("UPDATE activity_heads SET seq = :seq WHERE team_id = :id", id=logged.id, seq=LAST + 4)
    (found,) = verified(logged)["problems"]
    assert (found["seq"], found["until_seq"], found["problem"]) == (LAST + 1, LAST + 4, "missing")


def test_a_head_far_out_does_not_take_long(logged: TeamSetting) -> None:
    execute("UPDATE activity_heads SET seq = :seq WHERE team_id = :id", id=logged.id, seq=2**62)
    (found,) = verified(logged)["problems"]
    assert (found["seq"], found["until_seq"]) == (LAST + 1, 2**62)


@pytest.mark.usefixtures("_stretches")
def test_a_rewritten_chain_is_found_by_its_checkpoint(logged: TeamSetting) -> None:
    """By one who knows how it is done and recomputes every hash, the head's too."""
    assert sign(logged.id)
    made = verified(logged)["checkpoint"]
    assert made["seq"] == LAST
    tamper("UPDATE activity_logs SET resource_name = 'else' WHERE team_id = :id AND seq = 9", id=logged.id)
    rechain(logged.id, 9)
    found = verified(logged)
    assert named(found) == {(LAST, "checkpoint")}
    assert found["checkpoint"] is None
    with pytest.raises(AssertionError):  # a checkpoint that a customer kept
        assert found["head"] == made["hash"]


def test_a_log_that_was_rewritten_before_its_first_checkpoint_tells_nothing(logged: TeamSetting) -> None:
    """What no chain can prove, and docs/audit.md says so."""
    tamper("UPDATE activity_logs SET resource_name = 'else' WHERE team_id = :id AND seq = 9", id=logged.id)
    rechain(logged.id, 9)
    assert verified(logged)["valid"]


def test_a_log_cut_short_is_found_by_its_checkpoint(logged: TeamSetting) -> None:
    assert sign(logged.id)
    tamper("DELETE FROM activity_logs WHERE team_id = :id AND seq > 20", id=logged.id)
    rechain(logged.id, 20)
    assert named(verified(logged)) == {(LAST, "checkpoint")}


def test_the_newest_checkpoint_that_holds_is_shown(logged: TeamSetting) -> None:
    first = sign(logged.id)
    last = make_log(logged, 3)
    second = sign(logged.id)
    assert first is not None
    assert second is not None
    make_log(logged, 1)
    assert verified(logged)["checkpoint"]["seq"] == last
    assert verified(logged, until_seq=last - 1)["checkpoint"]["seq"] == first.seq
    tamper(
        "UPDATE checkpoints SET signature = sha256('x') WHERE team_id = :id AND seq = :seq",
        id=logged.id,
        seq=last,
    )
    found = verified(logged)
    assert (named(found), found["checkpoint"]["seq"]) == ({(last, "checkpoint")}, first.seq)


def test_a_key_that_is_not_ours_counts_for_nothing(
    logged: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write to the database can put a key of their own into it, and sign with that."""
    assert sign(logged.id)
    try:
        monkeypatch.setenv("SIGNING_KEY", base64.b64encode(b"y" * 32).decode())
        settings.cache_clear()
        found = verified(logged)
        assert named(found) == {(LAST, "checkpoint")}
        assert "not ours" in found["problems"][0]["detail"]
        monkeypatch.setenv("SIGNING_KEY", "")
        settings.cache_clear()
        assert (verified(logged)["valid"], verified(logged)["checkpoint"]) == (True, None)
    finally:
        monkeypatch.undo()
        settings.cache_clear()


@pytest.mark.usefixtures("_stretches")
def test_an_erased_origin_is_valid(logged: TeamSetting) -> None:
    execute("SELECT erase_activity_origin(:id, :person)", id=logged.id, person=logged.owner.id)
    assert not fetch("SELECT FROM activity_logs WHERE team_id = :id AND ip_address IS NOT NULL", id=logged.id)
    assert verified(logged)["valid"]


@pytest.mark.usefixtures("_stretches")
def test_a_purged_beginning_is_valid(logged: TeamSetting) -> None:
    assert sign(logged.id)
    with transaction() as session:
        assert activity.purge(session, logged.id, up_to=7, at_most=100) == 7
    found = verified(logged)
    assert (found["valid"], found["first_seq"], found["last_seq"]) == (True, 8, LAST)
    assert found["checkpoint"]["seq"] == LAST
    tamper("DELETE FROM activity_logs WHERE team_id = :id AND seq = 8", id=logged.id)
    assert named(verified(logged)) == {(8, "missing")}


def test_a_beginning_that_is_only_said_to_be_purged_is_named(logged: TeamSetting) -> None:
    execute(
        "UPDATE activity_heads h SET purged_seq = 3, purged_hash = l.hash FROM activity_logs l"
        " WHERE h.team_id = :id AND l.team_id = :id AND l.seq = 3",
        id=logged.id,
    )
    assert named(verified(logged)) == {(1, "inserted"), (2, "inserted"), (3, "inserted")}


def test_a_log_that_is_purged_whole_is_valid(logged: TeamSetting) -> None:
    assert sign(logged.id)
    head = head_of(logged)
    with transaction() as session:
        assert activity.purge(session, logged.id, at_most=100) == LAST
    found = verified(logged)
    assert (found["valid"], found["first_seq"], found["last_seq"], found["head"]) == (True, None, None, head)
    assert found["checkpoint"]["seq"] == LAST
    last = make_log(logged, 2)
    found = verified(logged)
    assert (found["valid"], found["first_seq"], found["last_seq"]) == (True, LAST + 1, last)


def test_a_log_without_rows_is_valid(app: Flask) -> None:
    team = make_team(app, roles=())
    execute("DELETE FROM outbox WHERE team_id = :id", id=team.id)
    execute("UPDATE activity_heads SET seq = 0, hash = NULL WHERE team_id = :id", id=team.id)
    found = verified(team)
    (genesis,) = fetch("SELECT encode(activity_genesis(:id), 'hex') AS hash", id=team.id)
    assert found == {
        "valid": True, "first_seq": None, "last_seq": None, "head": genesis.hash, "checkpoint": None, "problems": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ({"since_seq": 5}, 5, LAST),
        ({"until_seq": 5}, 1, 5),
        ({"since_seq": 5, "until_seq": 5}, 5, 5),
        ({"since_seq": 1, "until_seq": LAST}, 1, LAST),
        ({"since_seq": LAST, "until_seq": 10**9}, LAST, LAST),
        ({"since_seq": LAST + 1}, None, None),
        ({"since_seq": LAST + 9}, None, None),
    ],
)
def test_a_range_is_verified_alone(
    logged: TeamSetting, query: dict[str, int], first: int | None, last: int | None
) -> None:
    found = verified(logged, **query)
    assert (found["valid"], found["first_seq"], found["last_seq"]) == (True, first, last)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"since_seq": 9, "until_seq": 9}, {(9, "changed")}),
        ({"since_seq": 10}, set()),
        ({"until_seq": 8}, set()),
        ({"until_seq": 9}, {(9, "changed")}),
    ],
)
def test_a_range_tells_nothing_of_other_rows(
    logged: TeamSetting, query: dict[str, int], found: Named
) -> None:
    tamper("UPDATE activity_logs SET resource_name = 'else' WHERE team_id = :id AND seq = 9", id=logged.id)
    assert named(verified(logged, **query)) == found


def test_a_range_that_begins_after_a_missing_row_names_it(logged: TeamSetting) -> None:
    tamper("DELETE FROM activity_logs WHERE team_id = :id AND seq = 9", id=logged.id)
    assert named(verified(logged, since_seq=10)) == {(9, "missing")}


@pytest.mark.parametrize(
    "query", [{"since_seq": 0}, {"until_seq": 0}, {"since_seq": "x"}, {"since_seq": 6, "until_seq": 5}]
)
def test_a_range_that_is_none_is_refused(shared: TeamSetting, query: dict[str, Any]) -> None:
    answer = shared.owner.get(f"{shared.path}/activity/verify", query_string=query)
    assert answer.status_code == 422
    assert set(answer.json["errors"]) <= set(query)


def test_many_problems_are_named_up_to_a_hundred(logged: TeamSetting) -> None:
    make_log(logged, 130)
    tamper(
        "UPDATE activity_logs SET resource_name = 'else' WHERE team_id = :id AND seq BETWEEN 11 AND 110",
        id=logged.id,
    )
    found = verified(logged)["problems"]
    assert [each["seq"] for each in found] == list(range(11, 111))
    tamper("UPDATE activity_logs SET resource_name = 'else' WHERE team_id = :id AND seq = 10", id=logged.id)
    found = verified(logged)["problems"]
    assert [each["seq"] for each in found] == list(range(10, 110))
    assert len(found) == proof.MOST_PROBLEMS


@pytest.mark.usefixtures("_stretches")
def test_a_swap_is_found_across_stretches(logged: TeamSetting) -> None:
    last = make_log(logged, 40)
    tamper(SWAP.format(a=2, b=last), id=logged.id)
    assert named(verified(logged)) == {(2, "swapped"), (last, "swapped")}


def test_a_member_who_sees_no_private_workspace_verifies_all_of_it(app: Flask) -> None:
    team = make_team(app)
    secret = {"name": "Vault", "visibility": "private"}
    assert team.admin.post(f"{team.path}/workspaces", json=secret).status_code == 201
    drain()
    answer = team.viewer.get(f"{team.path}/activity/verify")
    assert (answer.status_code, answer.json["valid"]) == (200, True)
    shown = team.viewer.get(f"{team.path}/activity?limit=200").json["items"]
    assert len(shown) == answer.json["last_seq"] - 1
    assert "Vault" not in answer.text


def test_another_teams_log_is_not_there(logged: TeamSetting, app: Flask) -> None:
    stranger = make_person(app)
    for path in ("verify", "checkpoints"):
        assert stranger.get(f"{logged.path}/activity/{path}").status_code == 404


def test_a_log_that_grows_and_is_purged_meanwhile_stays_valid(
    logged: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = str(chain.CHECK.text).replace(f"FIRST {chain.STRETCH} ROWS", "FIRST 5 ROWS")
    monkeypatch.setattr(chain, "CHECK", text(statement))
    check, calls = chain.check, []

    def disturbed(*arguments: Any, **named: Any) -> Any:
        found = check(*arguments, **named)
        calls.append(found)
        if len(calls) == 1:
            make_log(logged, 3)
            assert sign(logged.id)
            with transaction() as session:
                assert activity.purge(session, logged.id, up_to=12, at_most=100) == 12
        return found

    monkeypatch.setattr(chain, "check", disturbed)
    found = verified(logged)
    assert (found["valid"], found["first_seq"], found["last_seq"]) == (True, 13, LAST)
    assert len(calls) > 3


def test_verifications_at_once_are_bounded(logged: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_api, "_free", threading.BoundedSemaphore(1))
    inside: list[int] = []
    verify = proof.verify

    def nested(*arguments: Any, **named: Any) -> Any:
        if not inside:
            answer = logged.owner.get(f"{logged.path}/activity/verify")
            inside.append(answer.status_code)
            assert answer.headers["Retry-After"]
        return verify(*arguments, **named)

    monkeypatch.setattr(proof, "verify", nested)
    assert verified(logged)["valid"]
    assert inside == [503]
    assert verified(logged)["valid"]


def test_checkpoints_are_listed_newest_first_and_verify(logged: TeamSetting, client: Any) -> None:
    made = []
    for _ in range(3):
        made.append(sign(logged.id))
        make_log(logged, 1)
    first = logged.owner.get(f"{logged.path}/activity/checkpoints?limit=2").json
    second = logged.owner.get(
        f"{logged.path}/activity/checkpoints", query_string={"limit": 2, "cursor": first["next_cursor"]}
    ).json
    items = first["items"] + second["items"]
    assert [item["seq"] for item in items] == [each.seq for each in reversed(made) if each]
    assert second["next_cursor"] is None
    keys = {key["id"]: key["public_key"] for key in client.get("/api/v1/signing-keys").json["items"]}
    for item, each in zip(items, reversed(made), strict=True):
        assert isinstance(each, Checkpoint)
        assert set(item) == {"team_id", "seq", "hash", "key_id", "signature", "created_at"}
        assert (item["hash"], item["key_id"]) == (each.hash.hex(), each.key_id)
        public_key = Ed25519PublicKey.from_public_bytes(base64.b64decode(keys[item["key_id"]]))
        (message,) = fetch(
            """SELECT array_send(ARRAY['agenthq.checkpoint.1'::bytea, uuid_send(CAST(:team AS uuid)),
                 int8send(CAST(:seq AS bigint)), decode(:hash, 'hex'), timestamptz_send(CAST(:at AS timestamptz)),
                 convert_to(:key, 'UTF8')]) AS bytes""",
            team=item["team_id"],
            seq=item["seq"],
            hash=item["hash"],
            at=item["created_at"],
            key=item["key_id"],
        )
        public_key.verify(base64.b64decode(item["signature"]), message.bytes)


def test_a_key_that_someone_put_into_the_database_is_not_shown(client: Any) -> None:
    execute(
        "INSERT INTO signing_keys (id, public_key) VALUES ('0123456789abcdef', sha256('x')) ON CONFLICT DO NOTHING"
    )
    assert "0123456789abcdef" not in client.get("/api/v1/signing-keys").text

"""The log is append-only: what its triggers refuse, and the functions that alone may pass."""

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from models.database import transaction
from models.operations import activity
from tests.audit import make_log
from tests.factories import TeamSetting, drain, execute, fetch, make_team

CHANGES = {
    "update": "UPDATE {table} SET resource_name = 'else' WHERE team_id = :id",
    "update nothing": "UPDATE {table} SET resource_name = resource_name WHERE team_id = :id",
    "erase by hand": "UPDATE {table} SET ip_address = NULL, user_agent = NULL, origin_salt = NULL WHERE team_id = :id",
    "renumber": "UPDATE {table} SET seq = seq + 100 WHERE team_id = :id",
    "delete": "DELETE FROM {table} WHERE team_id = :id",
    "delete one": "DELETE FROM {table} WHERE team_id = :id AND seq = 1",
    "truncate": "TRUNCATE {table}",
}


@pytest.fixture
def logged(bare_team: TeamSetting) -> TeamSetting:
    make_log(bare_team, 8)
    return bare_team


def rows(team: TeamSetting) -> list[tuple[object, ...]]:
    return [
        tuple(row)
        for row in fetch("SELECT * FROM activity_logs WHERE team_id = :id ORDER BY seq", id=team.id)
    ]


def seqs(team: TeamSetting) -> list[int]:
    return [
        row.seq for row in fetch("SELECT seq FROM activity_logs WHERE team_id = :id ORDER BY 1", id=team.id)
    ]


def refuse(team: TeamSetting, *statements: str) -> None:
    """The last of the statements is refused."""

    def change() -> None:
        with transaction() as session:
            for statement in statements:
                session.execute(text(statement), {"id": team.id} if ":id" in statement else {})

    with pytest.raises(ProgrammingError, match="append-only") as refused:
        change()
    assert isinstance(refused.value.orig, psycopg.errors.InsufficientPrivilege)


def partition_of(team: TeamSetting) -> str:
    (row,) = fetch(
        "SELECT DISTINCT tableoid::regclass::text AS name FROM activity_logs WHERE team_id = :id", id=team.id
    )
    return str(row.name)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("of_partition", [False, True], ids=["the table", "a partition"])
def test_changes_are_refused(logged: TeamSetting, change: str, of_partition: bool) -> None:
    before = rows(logged)
    table = partition_of(logged) if of_partition else "activity_logs"
    refuse(logged, CHANGES[change].format(table=table))
    assert rows(logged) == before


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_a_partition_that_was_made_later_are_refused(logged: TeamSetting, change: str) -> None:
    execute("SELECT ensure_activity_partitions('2160-05-01', 1)")
    assert logged.owner.patch(logged.path, json={"name": "Tides"}).status_code == 200
    execute("UPDATE outbox SET created_at = '2160-05-05' WHERE team_id = :id", id=logged.id)
    drain()
    assert fetch("SELECT FROM activity_logs_y2160m05 WHERE team_id = :id", id=logged.id)
    if change == "delete one":
        change = "delete"
    refuse(logged, CHANGES[change].format(table="activity_logs_y2160m05"))


def test_an_upsert_is_refused(logged: TeamSetting) -> None:
    refuse(
        logged,
        "INSERT INTO activity_logs SELECT * FROM activity_logs WHERE team_id = :id AND seq = 1"
        " ON CONFLICT (team_id, seq, created_at) DO UPDATE SET resource_name = 'else'",
    )


ERASING = "SELECT set_config('agenthq.activity_change', 'erase', true)"


@pytest.mark.parametrize(
    "change",
    [
        "ip_address = NULL, user_agent = NULL, origin_salt = NULL, resource_name = 'else'",
        "ip_address = NULL, user_agent = NULL, origin_salt = NULL, hash = sha256('x')",
        "ip_address = NULL, user_agent = NULL, origin_salt = NULL, origin_hash = NULL",
        "ip_address = NULL, user_agent = NULL",
        "ip_address = '192.0.2.1'",
        "resource_name = 'else'",
    ],
)
def test_erasing_lets_through_nothing_else(logged: TeamSetting, change: str) -> None:
    refuse(logged, ERASING, f"UPDATE activity_logs SET {change} WHERE team_id = :id")
    refuse(logged, ERASING, "DELETE FROM activity_logs WHERE team_id = :id")
    refuse(logged, ERASING, "TRUNCATE activity_logs")


@pytest.mark.parametrize("doing", ["purge", "move", "", "anything"])
def test_purging_and_moving_change_no_row(logged: TeamSetting, doing: str) -> None:
    saying = f"SELECT set_config('agenthq.activity_change', '{doing}', true)"
    refuse(logged, saying, "UPDATE activity_logs SET resource_name = 'else' WHERE team_id = :id")
    refuse(logged, saying, "TRUNCATE activity_logs")


@pytest.mark.parametrize(
    "function",
    [
        "SELECT purge_activity(:id, 2, 10)",
        "SELECT erase_activity_origin(:id, (SELECT owner_id FROM teams WHERE id = :id))",
        "SELECT ensure_activity_partitions('2161-01-01', 1)",
    ],
)
def test_a_function_that_may_opens_no_door_for_what_follows(logged: TeamSetting, function: str) -> None:
    for change in ("delete", "erase by hand", "update"):
        refuse(logged, function, CHANGES[change].format(table="activity_logs"))


@pytest.mark.parametrize(
    ("up_to", "at_most", "purged"),
    [(3, 100, 3), (0, 100, 0), (-1, 100, 0), (100, 4, 4), (100, 100, 11), (11, 11, 11), (5, 0, 0)],
)
def test_a_purge_erases_from_the_beginning_within_its_bounds(
    logged: TeamSetting, up_to: int, at_most: int, purged: int
) -> None:
    last = seqs(logged)[-1]
    assert last == 11
    hashes = {
        row.seq: row.hash
        for row in fetch("SELECT seq, hash FROM activity_logs WHERE team_id = :id", id=logged.id)
    }
    with transaction() as session:
        assert activity.purge(session, logged.id, up_to=up_to, at_most=at_most) == purged
    assert seqs(logged) == list(range(purged + 1, last + 1))
    (head,) = fetch(
        "SELECT purged_seq, purged_hash, seq FROM activity_heads WHERE team_id = :id", id=logged.id
    )
    assert (head.purged_seq, head.purged_hash, head.seq) == (purged, hashes.get(purged), last)


def test_a_purge_goes_on_where_it_ended(logged: TeamSetting) -> None:
    counts = []
    while True:
        with transaction() as session:
            counts.append(activity.purge(session, logged.id, up_to=9, at_most=4))
        if not counts[-1]:
            break
    assert counts == [4, 4, 1, 0]
    assert seqs(logged) == [10, 11]


def test_a_purge_and_an_erasure_touch_their_own_team_alone(app: Flask, logged: TeamSetting) -> None:
    other = make_team(app, owner=logged.owner, roles=())
    make_log(other, 3)
    before = rows(other)
    execute("SELECT erase_activity_origin(:id, :person)", id=logged.id, person=logged.owner.id)
    with transaction() as session:
        assert activity.purge(session, logged.id, at_most=100)
    assert rows(other) == before


def test_an_erasure_forgets_one_persons_origins_and_keeps_the_rest(app: Flask) -> None:
    team = make_team(app)
    for person in (team.owner, team.admin):
        assert person.post(f"{team.path}/workspaces", json={"name": "A"}).status_code == 201
    drain()
    kept = "SELECT seq, hash, origin_hash, metadata FROM activity_logs WHERE team_id = :id ORDER BY 1"
    before = fetch(kept, id=team.id)
    with_origin = (
        "SELECT user_id, count(*) AS rows FROM activity_logs"
        " WHERE team_id = :id AND ip_address IS NOT NULL AND user_agent IS NOT NULL AND origin_salt IS NOT NULL GROUP BY 1"
    )
    counts = {row.user_id: row.rows for row in fetch(with_origin, id=team.id)}
    theirs = "SELECT max(seq) AS seq FROM activity_logs WHERE team_id = :id AND user_id = :person"
    (last,) = fetch(theirs, id=team.id, person=team.admin.id)
    (erased,) = fetch("SELECT erase_activity_origin(:id, :person) AS seq", id=team.id, person=team.admin.id)
    assert erased.seq == last.seq
    assert counts.pop(team.admin.id) == 1
    assert {row.user_id: row.rows for row in fetch(with_origin, id=team.id)} == counts
    assert fetch(kept, id=team.id) == before
    (again,) = fetch("SELECT erase_activity_origin(:id, :person) AS seq", id=team.id, person=team.admin.id)
    assert again.seq is None

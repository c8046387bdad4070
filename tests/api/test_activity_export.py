"""The export of the log, streamed: what it holds, for whom, and what it takes."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from api import streams
from api.schemas.activity import ActivitySchema
from models.database import engine, transaction
from models.queries import activity_exports, export_formats
from models.queries.export_formats import Encoder
from tests.api.exports import (
    TEXTS,
    Rows,
    csv_cells,
    csv_rows,
    export,
    happen,
    happen_often,
    json_rows,
    listed,
    undone,
)
from tests.factories import Answer, TeamSetting, drain, execute, fetch, make_agent, make_key, make_team

PATH = "/activity/export"


@pytest.fixture(scope="module")
def full(app: Flask) -> TeamSetting:
    """A log with difficult text, from several people, in which every reader has been noted."""
    setting = make_team(app)
    happen(setting, *TEXTS)
    happen(setting, "mine", by=setting.member)
    setting.task(title="+1 'more'")
    for person in (setting.owner, setting.viewer, setting.member):
        listed(person, setting)
    drain()
    return setting


def seqs(rows: Rows) -> list[int]:
    return [row["seq"] for row in rows]


def filters(setting: TeamSetting) -> st.SearchStrategy[dict[str, str]]:
    rows = listed(setting.owner, setting)
    times = sorted({row["created_at"] for row in rows})

    def some(name: str) -> st.SearchStrategy[str]:
        return st.sampled_from(sorted({row[name] for row in rows if row[name]}))

    return st.fixed_dictionaries(
        {},
        optional={
            **{
                name: some(name)
                for name in ("user_id", "resource_type", "resource_id", "ip_address", "action")
            },
            "outcome": st.sampled_from(["success", "denied"]),
            "since": st.sampled_from(times),
            "until": st.sampled_from(times),
            "q": st.sampled_from(["=", "'", "ärg", "owner", "line\nb", "%", "no such thing", "ENT"]),
        },
    )


def test_it_is_what_the_list_shows_whatever_the_filters(full: TeamSetting) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(filters(full), st.sampled_from(["ndjson", "csv"]), st.sampled_from([None, "asc", "desc"]))
    def same(query: dict[str, str], format_: str, order: str | None) -> None:
        expected = listed(full.owner, full, query)
        more = {"format": format_, **({"order": order} if order else {})}
        answer = export(full.owner, full, {**query, **more})
        rows = csv_rows(answer) if format_ == "csv" else json_rows(answer)
        assert rows == (expected[::-1] if order == "asc" else expected)

    same()


def test_several_actions(full: TeamSetting) -> None:
    answer = full.owner.get(f"{full.path}{PATH}?action=task_created&action=member_added&order=asc")
    assert {row["action"] for row in json_rows(answer)} == {"task_created", "member_added"}


def test_it_has_the_lists_fields_in_both_formats(full: TeamSetting) -> None:
    assert set(export_formats.FIELDS) == set(ActivitySchema().fields)
    assert {tuple(row) for row in json_rows(export(full.owner, full))} == {export_formats.FIELDS}
    header = export(full.owner, full, {"format": "csv"}).data.split(b"\r\n")[0]
    assert header.decode().split(",") == list(export_formats.FIELDS)


def test_newest_first_unless_told(full: TeamSetting) -> None:
    numbers = seqs(json_rows(export(full.owner, full)))
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) > len(TEXTS)
    assert seqs(json_rows(export(full.owner, full, {"order": "desc"}))) == numbers
    assert seqs(json_rows(export(full.owner, full, {"order": "asc"}))) == numbers[::-1]


def test_text_is_not_escaped(full: TeamSetting) -> None:
    for format_ in ("ndjson", "csv"):
        assert "Ärger 🌊".encode() in export(full.owner, full, {"format": format_}).data


def test_a_cell_that_begins_like_a_formula_is_guarded_and_no_other(full: TeamSetting) -> None:
    cells = [
        row["resource_name"]
        for row in csv_cells(export(full.owner, full, {"format": "csv", "order": "asc"}).data)
        if row["action"] == "workspace_created"
    ]
    guarded = {"=1+1", "+1", "-1", "@sum", "\tx", "\rx", "'", "'=1", "''"}
    assert cells == ["Research", *(f"'{each}" if each in guarded else each for each in TEXTS), "mine"]
    assert [undone(cell) for cell in cells] == ["Research", *TEXTS, "mine"]
    everything = csv_cells(export(full.owner, full, {"format": "csv"}).data)
    found = [cell for row in everything for cell in row.values()]
    assert not [cell for cell in found if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert [cell for cell in found if cell.startswith("'=cmd")]  # a user agent


def test_an_empty_log_is_an_empty_file(full: TeamSetting) -> None:
    nothing = {"action": "no_such_action"}
    assert export(full.owner, full, nothing).data == b""
    assert export(full.owner, full, {**nothing, "format": "csv"}).data.count(b"\r\n") == 1
    zipped = export(full.owner, full, nothing, headers={"Accept-Encoding": "gzip"})
    assert gzip.decompress(zipped.data) == b""


def test_its_headers(full: TeamSetting) -> None:
    for format_, content_type in (
        ("ndjson", "application/x-ndjson; charset=utf-8"),
        ("csv", "text/csv; charset=utf-8"),
    ):
        answer = export(full.owner, full, {"format": format_})
        assert answer.headers["Content-Type"] == content_type
        disposition = answer.headers["Content-Disposition"]
        assert disposition.startswith(f'attachment; filename="activity-{full.id}-2')
        assert disposition.endswith(f'.{format_}"')
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert "Content-Length" not in answer.headers


@pytest.mark.parametrize(
    ("accepts", "zipped"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("*", True), ("gzip;q=0", False), ("br", False), ("", False)],
)
def test_it_is_gzip_for_who_takes_that(full: TeamSetting, accepts: str, zipped: bool) -> None:
    plain = export(full.owner, full)
    answer = export(full.owner, full, headers={"Accept-Encoding": accepts})
    assert answer.headers.get("Content-Encoding") == ("gzip" if zipped else None)
    assert (gzip.decompress(answer.data) if zipped else answer.data) == plain.data


def test_head_tells_the_headers_and_runs_nothing(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    drain()
    monkeypatch.setattr(activity_exports.Export, "__init__", None)
    answer = team.owner.call("HEAD", team.path + PATH, query_string={"format": "csv"})
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert fetch("SELECT 1 FROM outbox WHERE team_id = :id", id=team.id) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"format": "xml"}, "format"),
        ({"format": ""}, "format"),
        ({"order": "up"}, "order"),
        ({"proof": "1"}, "proof"),
        ({"proof": "TRUE"}, "proof"),
        ({"limit": "1"}, "limit"),
        ({"since": "yesterday"}, "since"),
        ({"proof": "true", "order": "desc"}, "proof"),
        *(({"proof": "true", name: value}, "proof") for name, value in {
            "action": "task_created", "q": "x", "outcome": "success", "resource_type": "task",
            "ip_address": "192.0.2.1", "workspace_id": "0198c5f0-0000-7000-8000-000000000000",
        }.items()),
    ],
)  # fmt: skip
def test_a_bad_wish_is_422(full: TeamSetting, query: dict[str, str], field: str) -> None:
    before = fetch("SELECT count(*) FROM outbox")
    answer = full.owner.get(full.path + PATH, query_string=query)
    assert (answer.status_code, list(answer.json["errors"])) == (422, [field])
    assert fetch("SELECT count(*) FROM outbox") == before


# --- who sees what


@pytest.fixture
def secretive(team: TeamSetting) -> TeamSetting:
    """With a task in a private workspace of the owner's, and one in a private workspace that is gone."""
    for name in ("Vault", "Burnt"):
        room = team.owner.post(f"{team.path}/workspaces", json={"name": name, "visibility": "private"}).json[
            "id"
        ]
        made = team.owner.post(f"{team.path}/workspaces/{room}/tasks", json={"title": f"in {name}"})
        assert made.status_code == 201
    assert team.owner.delete(f"{team.path}/workspaces/{room}").status_code == 204
    team.task(title="open")
    for person in (team.owner, team.viewer):
        listed(person, team)
    drain()
    return team


def test_private_workspaces_are_for_who_is_in_them(secretive: TeamSetting) -> None:
    for person, shown in ((secretive.owner, True), (secretive.viewer, False), (secretive.admin, False)):
        for format_ in ("ndjson", "csv"):
            data = export(person, secretive, {"format": format_}).data
            assert (b"Vault" in data, b"Burnt" in data, b"open" in data) == (shown, shown, True)


def test_a_key_and_an_agent_may_export(secretive: TeamSetting) -> None:
    agent = make_agent(secretive, "viewer")
    key = make_key(secretive, secretive.owner, "activity:read", agent_id=agent["id"])
    other = make_key(secretive, secretive.admin, "activity:read")
    blind = make_key(secretive, secretive.owner, "tasks:read")
    assert b"Vault" in export(key, secretive).data  # it acts for the owner
    assert b"Vault" not in export(other, secretive).data
    assert blind.get(secretive.path + PATH).json["missing"] == "activity:read"
    drain()
    rows = [
        row
        for row in listed(secretive.owner, secretive, {"action": "activity_exported"})
        if row["api_key_id"]
    ]
    assert [(row["agent_id"], row["api_key_id"]) for row in rows] == [
        (None, other.key_id),
        (agent["id"], key.key_id),
    ]


# --- proof


def hexed(value: bytes | None) -> str | None:
    return None if value is None else bytes(value).hex()


def assert_proves(rows: Rows, setting: TeamSetting, *, of: Callable[[dict[str, Any]], bool]) -> None:
    """Each row chains to the one before, and says what the database does, or its digest where `of` says it is hidden."""
    kept = {
        row.seq: row
        for row in fetch(
            "SELECT seq, hash, origin_hash, origin_salt, metadata::text AS metadata, activity_digest(team_id, seq, id,"
            " created_at, user_id, agent_id, api_key_id, action, schema_version, outcome, resource_type, resource_id,"
            " resource_name, workspace_id, metadata, request_id, origin_hash) AS digest, activity_genesis(team_id) AS genesis"
            " FROM activity_logs WHERE team_id = :id",
            id=setting.id,
        )
    }
    for number, row in enumerate(rows):
        stored = kept[row["seq"]]
        before = kept[row["seq"] - 1].hash if row["seq"] > 1 else stored.genesis
        assert row["previous_hash"] == hexed(before)
        assert number == 0 or row["previous_hash"] == rows[number - 1]["hash"]
        assert row["hash"] == hexed(stored.hash)
        (link,) = fetch("SELECT sha256(:a || :b) AS hash", a=before, b=stored.digest)
        assert link.hash == stored.hash
        if of(row):
            assert set(row) == {"seq", "digest", "previous_hash", "hash"}
            assert row["digest"] == hexed(stored.digest)
        else:
            assert (row["origin_hash"], row["origin_salt"]) == (
                hexed(stored.origin_hash),
                hexed(stored.origin_salt),
            )
            assert tuple(row) == (*export_formats.FIELDS, *export_formats.PROOF)


def test_a_proof_has_each_row_with_its_place_in_the_chain(full: TeamSetting) -> None:
    answer = export(full.owner, full, {"proof": "true"})
    rows = json_rows(answer)
    assert seqs(rows) == list(range(1, len(rows) + 1))
    assert_proves(rows, full, of=lambda row: False)
    assert [row for row in rows if row["origin_salt"]]
    plain = json_rows(export(full.owner, full, {"order": "asc"}))
    mapped = {"::ffff:192.0.2.7": "::ffff:c000:207"}  # which the database writes, and hashes, in its own way
    assert set(mapped) <= {row["ip_address"] for row in rows}
    shown = [{**row, "ip_address": mapped.get(row["ip_address"], row["ip_address"])} for row in rows]
    assert [{name: row[name] for name in plain[0]} for row in shown] == plain[: len(rows)]
    metadata = fetch("SELECT metadata::text AS metadata FROM activity_logs WHERE team_id = :id", id=full.id)
    assert all(row.metadata in answer.data.decode() for row in metadata)  # to the letter


def test_a_proof_hides_what_its_reader_may_not_see_and_stays_whole(secretive: TeamSetting) -> None:
    answer = export(secretive.viewer, secretive, {"proof": "true"})
    rows = json_rows(answer)
    assert b"Vault" not in answer.data
    assert b"Burnt" not in answer.data
    assert seqs(rows) == list(range(1, len(rows) + 1))
    hidden = {row["seq"] for row in rows if "id" not in row}
    assert len(hidden) == 5  # two workspaces, two tasks and a deletion
    assert_proves(rows, secretive, of=lambda row: row["seq"] in hidden)
    everything = json_rows(export(secretive.owner, secretive, {"proof": "true"}))
    assert_proves(everything, secretive, of=lambda row: False)


def test_a_proof_as_csv(secretive: TeamSetting) -> None:
    for person in (secretive.viewer, secretive.owner):
        rows = json_rows(export(person, secretive, {"proof": "true"}))
        answer = export(person, secretive, {"proof": "true", "format": "csv"})
        columns = (*export_formats.FIELDS, *export_formats.PROOF, "digest")
        assert answer.data.split(b"\r\n")[0].decode() == ",".join(columns)
        assert csv_rows(answer)[: len(rows)] == [{name: row.get(name) for name in columns} for row in rows]


def test_a_proof_of_a_time_has_every_row_from_the_first_to_the_last(team: TeamSetting) -> None:
    happen(team, *"abcdef")
    rows = listed(team.owner, team)[::-1]
    chosen = rows[2:5]
    execute(  # as of a long transaction, which is numbered when it ends
        "ALTER TABLE activity_logs DISABLE TRIGGER append_only"
    )
    try:
        execute(
            "UPDATE activity_logs SET created_at = created_at - interval '2 seconds' WHERE team_id = :id AND seq = :seq",
            id=team.id,
            seq=chosen[1]["seq"],
        )
    finally:
        execute("ALTER TABLE activity_logs ENABLE TRIGGER append_only")
    query = {"proof": "true", "since": chosen[0]["created_at"], "until": rows[5]["created_at"]}
    found = json_rows(export(team.owner, team, query))
    inside = [row["seq"] for row in rows if query["since"] <= row["created_at"] < query["until"]]
    assert seqs(found) == list(range(min(inside), max(inside) + 1))
    assert set(inside) <= set(seqs(found))
    nothing = {"proof": "true", "since": "2099-01-01T00:00:00Z"}
    assert export(team.owner, team, nothing).data == b""


def test_a_proof_after_a_purge_begins_where_the_log_does(team: TeamSetting) -> None:
    happen(team, *"abc")
    before = json_rows(export(team.owner, team, {"proof": "true"}))
    with transaction() as session:
        assert session.scalar(text("SELECT purge_activity(:id, 3, 100)"), {"id": team.id}) == 3
    rows = json_rows(export(team.owner, team, {"proof": "true"}))
    assert rows == before[3:]
    assert rows[0]["previous_hash"] == before[2]["hash"]


# --- what it takes


@pytest.fixture(scope="module")
def long(app: Flask) -> TeamSetting:
    setting = make_team(app, roles=())
    happen_often(setting.id, setting.owner.id, 3_000)
    return setting


def opened(setting: TeamSetting, **query: str) -> Answer:
    """An export of which nothing but the beginning has been read."""
    return setting.owner.get(setting.path + PATH, query_string=query, buffered=False)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each part had that was made into bytes."""
    parts: list[int] = []
    encode = Encoder.encode

    def noting(encoder: Encoder, rows: Any) -> bytes:
        parts.append(len(rows))
        return encode(encoder, rows)

    monkeypatch.setattr(Encoder, "encode", noting)
    return parts


def test_the_first_bytes_leave_before_the_last_row_is_read(long: TeamSetting, encoded: list[int]) -> None:
    answer = opened(long)
    first = next(answer.response)
    assert first.count(b"\n") == 500
    assert sum(encoded) <= 1_000
    rest = b"".join(answer.response)
    assert (first + rest).count(b"\n") == sum(encoded) > 3_000
    assert max(encoded) == 500


def test_a_client_that_goes_away_gives_everything_back(long: TeamSetting, encoded: list[int]) -> None:
    held = engine().pool.checkedout()  # type: ignore[attr-defined]  # of a QueuePool
    answer = opened(long)
    next(answer.response)
    assert engine().pool.checkedout() == held + 1  # type: ignore[attr-defined]
    answer.close()
    assert engine().pool.checkedout() == held  # type: ignore[attr-defined]
    assert sum(encoded) < 3_000
    assert export(long.owner, long).data


def test_only_so_many_at_once(long: TeamSetting) -> None:
    answers = [opened(long) for _ in range(streams.AT_ONCE)]
    assert [answer.status_code for answer in answers] == [200] * streams.AT_ONCE
    recorded = len(
        fetch("SELECT 1 FROM outbox WHERE team_id = :id AND action = 'activity_exported'", id=long.id)
    )
    refused = opened(long)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")
    assert json.loads(refused.get_data())["code"] == "unavailable"
    assert (
        len(fetch("SELECT 1 FROM outbox WHERE team_id = :id AND action = 'activity_exported'", id=long.id))
        == recorded
    )
    assert long.owner.get(long.path).status_code == 200
    answers.pop().close()
    answers.append(opened(long))
    assert answers[-1].status_code == 200
    for answer in answers:
        answer.close()


@pytest.mark.parametrize(("pool", "places"), [(1, 1), (4, 1), (7, 1), (8, 2), (16, 4), (100, 4)])
def test_streams_have_a_share_of_the_connections(
    monkeypatch: pytest.MonkeyPatch, pool: int, places: int
) -> None:
    class Small:
        database_pool_size = pool

    monkeypatch.setattr(streams, "settings", Small)
    semaphore = streams._places.__wrapped__()
    assert [semaphore.acquire(blocking=False) for _ in range(places + 1)] == [True] * places + [False]


def test_what_fails_before_the_first_byte_is_an_answer(
    long: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        activity_exports, "STATEMENT_TIMEOUT", text("SELECT pg_terminate_backend(pg_backend_pid())")
    )
    for _ in range(streams.AT_ONCE + 1):  # and its place is free again
        answer = opened(long)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    monkeypatch.undo()
    assert export(long.owner, long).data


def test_what_fails_later_does_not_pass_for_the_end(long: TeamSetting) -> None:
    answer = opened(long)
    next(answer.response)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'FETCH%' AND datname = current_database()"
    assert len(fetch(cut)) == 1
    with pytest.raises(Exception, match="database"):
        b"".join(answer.response)
    answer.close()
    assert export(long.owner, long).data


def test_a_reader_who_takes_too_long_is_cut_off(long: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = opened(long)
    next(answer.response)
    monkeypatch.setattr(streams, "LONGEST_S", 0.0)
    with pytest.raises(TimeoutError):
        b"".join(answer.response)


def test_a_stream_reads_one_state_and_writes_nothing(long: TeamSetting) -> None:
    answer = opened(long, order="asc")
    first = next(answer.response)
    happen(long, "meanwhile")
    assert b"meanwhile" not in first + b"".join(answer.response)
    assert b"meanwhile" in export(long.owner, long).data


MEASURE = """
import resource, sys
from uuid import UUID
from api.activity_exports import export_bytes
from models.access.actor import Origin
from models.access.credentials import Credential
from models.access.entry import enter_team
from models.database import transaction
from models.queries.activity_exports import ExportRequest
from models.queries.activity_filters import ActivityFilter

team_id, token, format_, proof = sys.argv[1:]
with transaction() as session:
    access = enter_team(session, Credential(token, Origin()), UUID(team_id))
wanted = ExportRequest(ActivityFilter(), format_, proof == "proof", descending=proof != "proof")
early, size = 0, 0
for number, part in enumerate(export_bytes(access, wanted, gzip=True)):
    size += len(part)
    if number == 20:
        early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(number, size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early)
"""


@pytest.fixture(scope="module")
def huge(app: Flask) -> TeamSetting:
    setting = make_team(app, roles=())
    happen_often(setting.id, setting.owner.id, 100_000)
    return setting


@pytest.mark.parametrize(("format_", "proof"), [("ndjson", ""), ("csv", "proof")])
def test_a_hundred_thousand_rows_take_no_more_memory_than_ten_thousand(
    huge: TeamSetting, format_: str, proof: str
) -> None:
    command = [sys.executable, "-c", MEASURE, str(huge.id), huge.owner.token, format_, proof]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    parts, size, grown_kib = map(int, done.stdout.split())
    assert parts >= 200
    assert size > 1_000_000
    assert grown_kib < 4_096  # of a hundred megabytes that went through


# --- what the log says of it


def test_it_is_recorded_before_the_first_byte(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Any] = []

    def looking(*_: Any) -> Iterator[bytes]:
        recorded.extend(
            fetch(
                "SELECT details FROM outbox WHERE team_id = :id AND action = 'activity_exported'", id=team.id
            )
        )
        yield b"x"

    drain()
    monkeypatch.setattr("api.activity_exports.export_bytes", lambda *_, **__: looking())
    query = {
        "format": "csv",
        "q": "Ada",
        "ip_address": "192.0.2.1",
        "action": "task_created",
        "since": "2026-01-01T00:00:00Z",
    }
    assert export(team.viewer, team, query).data == b"x"
    ((details,),) = recorded
    assert details.pop("export_id")
    assert details == {
        "format": "csv",
        "proof": False,
        "descending": True,
        "filters": {
            "action": ["task_created"],
            "since": "2026-01-01T00:00:00+00:00",
            "q": "withheld",
            "ip_address": "withheld",
        },
        "as_file": False,
    }


def test_every_export_is_recorded_and_one_that_is_refused_is_not(team: TeamSetting) -> None:
    drain()
    for _ in range(3):
        export(team.viewer, team)
    assert team.viewer.get(f"{team.path}{PATH}?format=x").status_code == 422
    drain()
    rows = listed(team.owner, team, {"user_id": str(team.viewer.id)})
    assert [row["action"] for row in rows].count("activity_exported") == 3
    assert [row["action"] for row in rows].count("activity_read") == 1

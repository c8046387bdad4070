"""Exports that a worker writes: their life, their link, and what becomes of them when something dies in the middle."""

import gzip
import hashlib
import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from flask import Flask
from sqlalchemy import text

from models.database import transaction
from models.operations import activity_exports as operations
from models.operations import teams
from models.operations.activity_exports import ATTEMPTS, PER_TEAM, Attempt, path_of
from models.queries import activity_exports
from models.settings import settings
from tests.api.exports import csv_cells, export, happen, happen_often, json_rows
from tests.factories import (
    Answer,
    Person,
    TeamSetting,
    drain,
    execute,
    fetch,
    join,
    make_agent,
    make_key,
    make_team,
)
from tests.workers.test_stack import eventually, running
from workers import exports, maintenance


@pytest.fixture(autouse=True)
def directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """For the files, and nobody else's export is due."""
    path = tmp_path_factory.mktemp("exports") / "made when needed"
    monkeypatch.setenv("EXPORT_DIRECTORY", str(path))
    settings.cache_clear()
    execute("DELETE FROM activity_exports")
    yield path
    monkeypatch.undo()
    settings.cache_clear()


def ask(person: Person, team: TeamSetting, **body: Any) -> dict[str, Any]:
    answer = person.post(f"{team.path}/activity/exports", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json
    return made


def now(person: Person, team: TeamSetting, made: dict[str, Any]) -> dict[str, Any]:
    answer = person.get(f"{team.path}/activity/exports/{made['id']}")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json
    return shown


def fetch_file(app: Flask, made: dict[str, Any], **kwargs: Any) -> Answer:
    """By nobody who is signed in."""
    assert made["download_url"].startswith(settings().public_url + "/api/v1/")
    path = made["download_url"].removeprefix(settings().public_url)
    return app.test_client().get(path, buffered=True, **kwargs)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*")) if directory.exists() else []


def let_pass(made: dict[str, Any], seconds: int) -> None:
    """As if so much time had gone by."""
    execute(
        "UPDATE activity_exports SET due_at = due_at - make_interval(secs => :s), expires_at = expires_at - make_interval(secs => :s),"
        " completed_at = completed_at - make_interval(secs => :s) WHERE id = :id",
        s=seconds,
        id=made["id"],
    )


def claimed() -> Attempt:
    with transaction() as session:
        attempt = operations.claim(session, at_once=10)
    assert attempt is not None
    return attempt


# --- from the wish to the file


@pytest.mark.parametrize("format_", ["ndjson", "csv"])
def test_its_file_is_what_the_stream_would_be(
    app: Flask, team: TeamSetting, format_: str, directory: Path
) -> None:
    happen(team, "=1", "two", "three")
    body = {"format": format_, "order": "asc", "action": ["workspace_created"], "user_id": str(team.owner.id)}
    made = ask(team.viewer, team, **body)
    assert (made["state"], made["rows"], made["percent"], made["size"]) == ("pending", 0, 0, None)
    exports.write()
    done = now(team.viewer, team, made)
    assert (done["state"], done["rows"], done["percent"], done["error"]) == ("completed", 4, 100, None)
    assert "download_url" not in done
    answer = fetch_file(app, made)
    assert answer.status_code == 200
    assert (len(answer.data), hashlib.sha256(answer.data).hexdigest()) == (done["size"], done["sha256"])
    stream = export(team.viewer, team, body).data
    assert gzip.decompress(answer.data) == stream
    assert b"=1" in stream
    assert answer.headers["Content-Type"] == "application/gzip"
    assert f".{format_}.gz" in answer.headers["Content-Disposition"]
    (file,) = directory.iterdir()
    assert (file.stat().st_mode & 0o777, directory.stat().st_mode & 0o777) == (0o600, 0o700)


def test_what_is_asked_is_what_is_shown_and_done(team: TeamSetting, app: Flask) -> None:
    happen(team, "one", "two")
    since = json_rows(export(team.owner, team))[0]["created_at"]
    filters = {
        "action": ["workspace_created", "task_created"], "user_id": str(team.owner.id), "resource_type": "workspace",
        "ip_address": "192.0.2.1", "outcome": "success", "q": "two", "since": since, "until": "2099-01-01T00:00:00+00:00",
    }  # fmt: skip
    made = ask(team.owner, team, **filters)
    shown = now(team.owner, team, made)
    assert {**shown["filters"], "since": since} == filters
    assert (shown["format"], shown["order"], shown["proof"]) == ("ndjson", "desc", False)
    exports.write()
    rows = gzip.decompress(fetch_file(app, made).data).splitlines()
    assert [json.loads(row)["resource_name"] for row in rows] == ["two"]


def test_a_proof_to_a_file(app: Flask, team: TeamSetting) -> None:
    made = ask(team.viewer, team, proof=True)
    assert made["order"] == "asc"
    drain()
    exports.write()
    assert gzip.decompress(fetch_file(app, made).data) == export(team.viewer, team, {"proof": "true"}).data
    for bad in ({"proof": True, "q": "x"}, {"proof": True, "order": "desc"}):
        answer = team.viewer.post(f"{team.path}/activity/exports", json=bad)
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["proof"])


def test_an_empty_one(app: Flask, team: TeamSetting) -> None:
    made = ask(team.viewer, team, format="csv", q="nothing of the kind")
    exports.write()
    assert csv_cells(gzip.decompress(fetch_file(app, made).data)) == []
    assert now(team.viewer, team, made)["rows"] == 0


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_it_says_how_far_it_is(team: TeamSetting, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    happen_often(team.id, team.owner.id, 2_000)
    made = ask(team.owner, team, order=order)
    say_so, seen = exports._say_so, []

    def looking(*arguments: Any) -> float:
        said = say_so(*arguments)
        seen.append(now(team.owner, team, made))
        return said

    monkeypatch.setattr(exports, "SAYS_SO_EVERY_S", -1.0)
    monkeypatch.setattr(exports, "_say_so", looking)
    exports.write()
    assert {each["state"] for each in seen} == {"running"}
    assert [each["rows"] for each in seen[:5]] == [0, 500, 1_000, 1_500, 2_000]
    percents = [each["percent"] for each in seen]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    assert 20 <= percents[1] <= 30


def test_it_is_told_in_the_log_when_asked_for_and_when_done(team: TeamSetting) -> None:
    made = ask(team.viewer, team, format="csv")
    exports.write()
    drain()
    rows = [row for row in json_rows(export(team.owner, team)) if row["resource_id"] == made["id"]]
    assert [(row["action"], row["user_id"]) for row in rows] == [
        ("activity_export_finished", None),
        ("activity_exported", str(team.viewer.id)),
    ]
    done = now(team.viewer, team, made)
    assert rows[0]["metadata"] == {
        "export_id": made["id"],
        "state": "completed",
        "rows": done["rows"],
        "sha256": done["sha256"],
        "error": None,
    }


# --- whose it is


@pytest.fixture
def everyone(team: TeamSetting) -> dict[str, Person]:
    agent = make_agent(team, "viewer")["id"]
    return {
        "owner": team.owner,
        "admin": team.admin,
        "viewer": team.viewer,
        "admins_key": make_key(team, team.admin, "activity:read"),
        "admins_other_key": make_key(team, team.admin, "activity:read"),
        "agents_key": make_key(team, team.admin, "activity:read", agent_id=agent),
        "agents_other_key": make_key(team, team.admin, "activity:read", agent_id=agent),
    }


@pytest.mark.parametrize(
    ("by", "seen_by"),
    [
        ("owner", {"owner"}),
        ("viewer", {"owner", "viewer"}),
        ("admin", {"owner", "admin"}),
        ("admins_key", {"owner", "admin", "admins_key"}),
        ("agents_key", {"owner", "admin", "agents_key", "agents_other_key"}),
    ],
)
def test_it_is_for_who_asked_and_the_owner(
    team: TeamSetting, everyone: dict[str, Person], by: str, seen_by: set[str]
) -> None:
    made = ask(everyone[by], team)
    path = f"{team.path}/activity/exports"
    for name, person in everyone.items():
        one, link = person.get(f"{path}/{made['id']}"), person.post(f"{path}/{made['id']}/link")
        listed = [row["id"] for row in person.get(path).json["items"]]
        allowed = name in seen_by
        assert (one.status_code, link.status_code) == ((200, 200) if allowed else (404, 404)), name
        assert listed == ([made["id"]] if allowed else []), name
    for name in everyone.keys() - seen_by:
        assert everyone[name].delete(f"{path}/{made['id']}").status_code == 404
    assert everyone[by].delete(f"{path}/{made['id']}").status_code == 204
    assert everyone[by].get(f"{path}/{made['id']}").status_code == 404


def test_another_teams_is_as_absent(app: Flask, team: TeamSetting) -> None:
    made = ask(team.owner, team)
    other = make_team(app, owner=team.owner)
    path = f"{other.path}/activity/exports/{made['id']}"
    answers = [team.owner.get(path), team.owner.delete(path), team.owner.post(f"{path}/link")]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert other.owner.get(f"{other.path}/activity/exports").json["items"] == []


def test_it_is_written_with_the_rights_that_are_left(app: Flask, team: TeamSetting) -> None:
    room = team.owner.post(f"{team.path}/workspaces", json={"name": "Vault", "visibility": "private"}).json[
        "id"
    ]
    listed = f"{team.path}/workspaces/{room}/members/{team.member.id}"
    assert team.owner.put(listed, json={"role": None}).status_code == 200
    drain()
    assert b"Vault" in export(team.member, team).data
    made = ask(team.member, team)
    assert team.owner.delete(listed).status_code == 204
    exports.write()
    assert b"Vault" not in gzip.decompress(fetch_file(app, made).data)


@pytest.mark.parametrize(
    "how", ["removed", "suspended", "signed out", "expired", "key revoked", "team deleted"]
)
def test_whoever_lost_the_right_meanwhile_gets_nothing(team: TeamSetting, directory: Path, how: str) -> None:
    person = join(team, "admin", "Ann")
    asks = make_key(team, person, "activity:read") if how == "key revoked" else person
    made = ask(asks, team)
    member = f"{team.path}/members/{person.id}"
    if how == "key revoked":
        assert isinstance(asks, type(make_key(team, person, "activity:read")))
        assert team.owner.delete(f"{team.path}/api-keys/{asks.key_id}").status_code == 204
    elif how == "expired":
        execute("UPDATE sessions SET expires_at = now() WHERE user_id = :id", id=person.id)
    else:
        assert {
            "removed": lambda: team.owner.delete(member),
            "suspended": lambda: team.owner.post(f"{member}/suspend"),
            "signed out": lambda: person.post("/auth/logout"),
            "team deleted": lambda: team.owner.delete(team.path),
        }[how]().status_code in {200, 204}
    exports.write()
    (row,) = fetch("SELECT state, error, token_hash FROM activity_exports WHERE id = :id", id=made["id"])
    assert (row.state, row.token_hash) == ("failed", None)
    assert row.error.startswith("Who asked for it may not read the log any more.")
    assert files(directory) == []


# --- the link


def test_the_link_is_needed_and_another_ends_it(app: Flask, team: TeamSetting) -> None:
    made, other = ask(team.viewer, team), ask(team.viewer, team)
    for _ in range(2):
        exports.write()
    assert fetch_file(app, made).status_code == 200
    swapped = {"download_url": made["download_url"].replace(made["id"], other["id"])}
    wrong = {"download_url": made["download_url"] + "x"}
    absent = {"download_url": made["download_url"].replace(made["id"], str(UUID(int=0)))}
    assert [fetch_file(app, each).status_code for each in (swapped, wrong, absent)] == [404] * 3
    renewed = team.viewer.post(f"{team.path}/activity/exports/{made['id']}/link").json
    assert renewed["download_url"] != made["download_url"]
    assert (fetch_file(app, made).status_code, fetch_file(app, renewed).status_code) == (404, 200)
    kept = fetch(
        "SELECT CAST(to_jsonb(e) AS text) AS row FROM activity_exports e WHERE id = :id", id=made["id"]
    )
    assert renewed["download_url"].partition("token=")[2] not in kept[0].row


def test_a_link_is_good_from_completion_for_a_day(app: Flask, team: TeamSetting, directory: Path) -> None:
    made = ask(team.viewer, team)
    early = fetch_file(app, made)
    assert (early.status_code, early.json["code"], early.json["state"]) == (409, "conflict", "pending")
    exports.write()
    day = 24 * 3600
    let_pass(made, day - 60)
    exports.sweep()
    assert fetch_file(app, made).status_code == 200
    assert len(files(directory)) == 1
    let_pass(made, 60)
    assert fetch_file(app, made).status_code == 404  # before anybody swept
    assert len(files(directory)) == 1
    exports.sweep()
    assert files(directory) == []
    assert now(team.viewer, team, made)["state"] == "expired"
    assert team.viewer.post(f"{team.path}/activity/exports/{made['id']}/link").status_code == 409
    let_pass(made, 29 * day - 60)
    exports.sweep()
    assert now(team.viewer, team, made)["state"] == "expired"
    let_pass(made, 60 + 1)
    exports.sweep()
    assert team.viewer.get(f"{team.path}/activity/exports/{made['id']}").status_code == 404


@pytest.mark.parametrize("how", ["removed", "suspended", "key revoked", "team deleted"])
def test_a_link_dies_with_the_right_to_it(app: Flask, team: TeamSetting, how: str) -> None:
    person = join(team, "admin", "Ann")
    asks = make_key(team, person, "activity:read") if how == "key revoked" else person
    made = ask(asks, team)
    exports.write()
    assert fetch_file(app, made).status_code == 200
    assert {
        "removed": lambda: team.owner.delete(f"{team.path}/members/{person.id}"),
        "suspended": lambda: team.owner.post(f"{team.path}/members/{person.id}/suspend"),
        "key revoked": lambda: team.owner.delete(f"{team.path}/api-keys/{asks.key_id}"),  # type: ignore[attr-defined]
        "team deleted": lambda: team.owner.delete(team.path),
    }[how]().status_code in {200, 204}
    assert fetch_file(app, made).status_code == 404


def test_a_link_outlives_the_session_that_asked(app: Flask, team: TeamSetting) -> None:
    made = ask(team.viewer, team)
    exports.write()
    assert team.viewer.post("/auth/logout").status_code == 204
    assert fetch_file(app, made).status_code == 200


def test_a_file_comes_in_ranges_and_is_known_by_its_hash(app: Flask, team: TeamSetting) -> None:
    made = ask(team.viewer, team)
    exports.write()
    whole = fetch_file(app, made)
    part = fetch_file(app, made, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.data) == (206, whole.data[5:10])
    again = fetch_file(app, made, headers={"If-None-Match": whole.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_a_file_that_is_not_there_is_404(app: Flask, team: TeamSetting, directory: Path) -> None:
    made = ask(team.viewer, team)
    exports.write()
    (file,) = directory.iterdir()
    file.unlink()
    assert fetch_file(app, made).status_code == 404


def test_the_link_is_never_kept_nor_logged(
    team: TeamSetting, capfd: pytest.CaptureFixture[str], app: Flask
) -> None:
    headers = {"Idempotency-Key": "once"}
    first = team.viewer.post(f"{team.path}/activity/exports", json={}, headers=headers)
    again = team.viewer.post(f"{team.path}/activity/exports", json={}, headers=headers)
    assert (first.status_code, again.status_code, again.json["id"]) == (201, 409, first.json["id"])
    fetch_file(app, first.json)
    out = "".join(capfd.readouterr())
    assert first.json["download_url"].partition("token=")[2] not in out


# --- how many


def test_a_team_has_so_many_and_no_more(team: TeamSetting) -> None:
    made = [ask(team.viewer, team) for _ in range(PER_TEAM)]
    path = f"{team.path}/activity/exports"
    refused = team.owner.post(path, json={})
    assert (refused.status_code, refused.json["code"]) == (409, "conflict")
    for _ in range(PER_TEAM):
        exports.write()
    assert team.owner.post(path, json={}).status_code == 409
    assert team.viewer.delete(f"{path}/{made[0]['id']}").status_code == 204
    assert team.owner.post(path, json={}).status_code == 201
    let_pass(made[1], 24 * 3600)
    assert team.owner.post(path, json={}).status_code == 409
    exports.sweep()
    assert team.owner.post(path, json={}).status_code == 201
    assert team.owner.post(path, json={}).status_code == 409


@pytest.mark.parametrize("at_once", [1, 2])
def test_only_so_many_are_written_at_once(app: Flask, at_once: int) -> None:
    for _ in range(3):
        setting = make_team(app, roles=())
        ask(setting.owner, setting)
    attempts = []
    for _ in range(3):
        with transaction() as session:
            attempts.append(operations.claim(session, at_once=at_once))
    assert [attempt is not None for attempt in attempts] == [True] * at_once + [False] * (3 - at_once)
    first = attempts[0]
    assert first is not None
    with transaction() as session:
        operations.failed(session, first, "over", for_good=True)
    with transaction() as session:
        assert operations.claim(session, at_once=at_once) is not None


# --- when something dies


def test_an_attempt_that_falls_silent_is_anothers(app: Flask, team: TeamSetting, directory: Path) -> None:
    made = ask(team.viewer, team)
    first = claimed()
    directory.mkdir(parents=True)
    path_of(first.id).write_bytes(b"half of it")
    let_pass(made, 59)
    with transaction() as session:
        assert operations.claim(session, at_once=10) is None
    let_pass(made, 1)
    second = claimed()
    assert (second.export_id, second.id != first.id) == (first.export_id, True)
    with transaction() as session:
        assert not operations.alive(session, first, rows=1, percent=1)
        assert not operations.complete(session, first, rows=1, size=1, sha256=b"x")
        operations.failed(session, first, "too late", for_good=True)
    exports.run(second)
    assert now(team.viewer, team, made)["state"] == "completed"
    assert len(files(directory)) == 2
    exports.sweep()
    assert files(directory) == [path_of(second.id).name]
    assert gzip.decompress(fetch_file(app, made).data).count(b"\n") == now(team.viewer, team, made)["rows"]


def test_an_attempt_that_was_taken_over_stops_and_cleans_up(team: TeamSetting, directory: Path) -> None:
    made = ask(team.viewer, team)
    first = claimed()
    let_pass(made, 60)
    second = claimed()
    exports.run(first)
    assert files(directory) == []
    exports.run(second)
    assert files(directory) == [path_of(second.id).name]


def test_one_that_is_cancelled_stops_and_leaves_nothing(
    team: TeamSetting, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen_often(team.id, team.owner.id, 2_000)
    made = ask(team.viewer, team)
    monkeypatch.setattr(exports, "SAYS_SO_EVERY_S", -1.0)
    alive, calls = operations.alive, []

    def cancelled(*arguments: Any, **progress: Any) -> bool:
        calls.append(progress["rows"])
        if progress["rows"] == 1_000:
            assert team.viewer.delete(f"{team.path}/activity/exports/{made['id']}").status_code == 204
        return alive(*arguments, **progress)

    monkeypatch.setattr(operations, "alive", cancelled)
    exports.write()
    assert (calls, files(directory)) == ([0, 500, 1_000], [])


def test_a_full_disk_is_tried_again_and_then_told(team: TeamSetting, directory: Path) -> None:
    happen_often(team.id, team.owner.id, 3_000)
    made = ask(team.viewer, team)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    try:
        for number in range(1, ATTEMPTS):
            exports.write()
            shown = now(team.viewer, team, made)
            assert (shown["state"], shown["error"]) == (
                "pending",
                "The file can't be written: File too large.",
            )
            exports.write()  # not before its pause is over
            assert (
                fetch("SELECT attempts FROM activity_exports WHERE id = :id", id=made["id"])[0].attempts
                == number
            )
            let_pass(made, 10 * number)
        assert files(directory) == []
        exports.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    shown = now(team.viewer, team, made)
    assert (shown["state"], shown["error"]) == ("failed", "The file can't be written: File too large.")
    assert files(directory) == []
    drain()
    told = [row for row in json_rows(export(team.owner, team)) if row["action"] == "activity_export_finished"]
    assert [(row["metadata"]["state"], row["metadata"]["error"]) for row in told] == [
        ("failed", shown["error"])
    ]


def test_a_disk_that_has_room_again(
    team: TeamSetting, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ask(team.viewer, team)
    directory.parent.joinpath("a file").touch()
    with monkeypatch.context() as patched:
        patched.setenv("EXPORT_DIRECTORY", str(directory.parent / "a file" / "and below"))
        settings.cache_clear()
        exports.write()
    settings.cache_clear()
    assert now(team.viewer, team, made)["error"] == "The file can't be written: Not a directory."
    let_pass(made, 10)
    exports.write()
    shown = now(team.viewer, team, made)
    assert (shown["state"], shown["error"]) == ("completed", None)


def test_a_database_that_goes_in_the_middle(
    app: Flask, team: TeamSetting, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen_often(team.id, team.owner.id, 2_000)
    made = ask(team.viewer, team)
    rows_before_the_cut = 1_000
    iterate = activity_exports.Export.__iter__

    def cut(self: activity_exports.Export) -> Iterator[Any]:
        for rows in iterate(self):
            yield rows
            if self.rows == rows_before_the_cut:
                pid = self._session.scalar(text("SELECT pg_backend_pid()"))
                fetch("SELECT pg_terminate_backend(:pid)", pid=pid)

    with monkeypatch.context() as patched:
        patched.setattr(activity_exports.Export, "__iter__", cut)
        exports.write()
    shown = now(team.viewer, team, made)
    assert (shown["state"], shown["error"]) == ("pending", "The database was away, or too slow for it.")
    assert files(directory) == []
    let_pass(made, 10)
    exports.write()
    assert now(team.viewer, team, made)["state"] == "completed"
    assert gzip.decompress(fetch_file(app, made).data).count(b"\n") > 2_000


def test_one_that_takes_too_long_fails_at_once(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ask(team.viewer, team)

    def too_long(*_: Any) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(exports, "_write", too_long)
    exports.write()
    assert (now(team.viewer, team, made)["state"], now(team.viewer, team, made)["error"]) == (
        "failed",
        exports.TOO_LONG,
    )


def test_workers_that_die_each_time_are_not_tried_for_ever(team: TeamSetting) -> None:
    made = ask(team.viewer, team)
    for _ in range(ATTEMPTS):
        claimed()
        let_pass(made, 60)
    with transaction() as session:
        assert operations.claim(session, at_once=10) is None
    shown = now(team.viewer, team, made)
    assert (shown["state"], shown["error"]) == ("failed", operations.SILENT)


# --- when it is to go


def test_a_purged_teams_files_go_too(team: TeamSetting, app: Flask, directory: Path) -> None:
    other = make_team(app)
    made = [ask(team.viewer, team), ask(other.viewer, other)]
    for _ in made:
        exports.write()
    assert len(files(directory)) == 2
    execute("UPDATE teams SET deleted_at = now() WHERE deleted_at IS NOT NULL")
    assert team.owner.delete(team.path).status_code == 204
    execute("UPDATE teams SET deleted_at = now() - interval '31 days' WHERE id = :id", id=team.id)
    maintenance.purge_teams()
    with transaction() as session:
        assert teams.purge_one(session) is None
    exports.sweep()
    assert len(files(directory)) == 1
    assert fetch_file(app, made[1]).status_code == 200


def test_what_is_about_a_person_goes_with_them(app: Flask, team: TeamSetting, directory: Path) -> None:
    elsewhere = make_team(app)
    about, other = ask(team.viewer, team), ask(elsewhere.viewer, elsewhere)
    drain()
    for _ in range(2):
        exports.write()
    with transaction() as session:
        operations.expire_those_about(session, team.member.id)  # who was added there
    exports.sweep()
    assert [fetch_file(app, each).status_code for each in (about, other)] == [404, 200]
    assert len(files(directory)) == 1


def test_a_strangers_file_is_left_alone(team: TeamSetting, directory: Path) -> None:
    directory.mkdir(parents=True)
    for name in ("notes.txt", "notes.gz", f"{UUID(int=1)}.txt"):
        (directory / name).touch()
    (directory / f"{UUID(int=1)}.gz").touch()
    exports.sweep()
    assert files(directory) == [f"{UUID(int=1)}.txt", "notes.gz", "notes.txt"]


def test_a_sweep_without_a_directory(directory: Path) -> None:
    exports.sweep()
    assert not directory.exists()


# --- a real worker


def test_a_worker_killed_in_the_middle(app: Flask, tmp_path: Path, directory: Path) -> None:
    """kill -9 of the whole group while the file grows; another worker takes over, and the result is whole."""
    team = make_team(app, roles=())
    happen_often(team.id, team.owner.id, 60_000)
    made = ask(team.owner, team, format="csv")

    def half_written() -> bool:
        return any(file.stat().st_size > 100_000 for file in directory.glob("*.gz"))

    with running(tmp_path, settings().redis_url) as worker:
        eventually(half_written, worker)
        worker.kill()
        assert now(team.owner, team, made)["state"] == "running"
        (left,) = files(directory)
        let_pass(made, 60)
        worker.start()
        eventually(lambda: now(team.owner, team, made)["state"] == "completed", worker, 60)
    done = now(team.owner, team, made)
    data = fetch_file(app, made).data
    assert hashlib.sha256(data).hexdigest() == done["sha256"]
    rows = csv_cells(gzip.decompress(data))
    assert len(rows) == done["rows"] > 60_000
    assert [int(row["seq"]) for row in rows] == list(range(len(rows), 0, -1))
    assert fetch("SELECT attempts FROM activity_exports WHERE id = :id", id=made["id"])[0].attempts == 2
    assert left in files(directory)
    exports.sweep()
    assert len(files(directory)) == 1

"""Erasing a person: nothing of them is left but ids, the logs stay valid, and neither a race nor a crash leaves a trace."""

import os
import signal
import subprocess
import sys
import time
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import text
from uuid_utils.compat import uuid7

from models.base import Base
from models.database import transaction
from models.errors import Conflict, DomainError, NotFound
from models.events.catalogue import WorkspaceCreated
from models.events.record import record
from models.operations import erasures
from models.queries.chain import DIGEST
from tests.accounts import PASSWORD, Account, Mailbox, post
from tests.factories import (
    TeamSetting,
    drain,
    execute,
    fetch,
    invite,
    make_key,
    make_person,
    make_role,
    make_team,
)
from tests.models.concurrency import together
from workers import maintenance

ADDRESS, BROWSER = "2001:db8::beef", "a browser of theirs/1.0"
RECOMPUTED = f"""
SELECT (activity_chain(activity_genesis(h.team_id), {DIGEST} ORDER BY l.seq)) AS recomputed,
       (SELECT hash FROM activity_heads WHERE team_id = :id) AS head
FROM activity_logs l JOIN activity_heads h ON h.team_id = l.team_id WHERE l.team_id = :id
"""


def seat(setting: TeamSetting, account: Account, role: str = "member") -> None:
    body = {"user_id": str(account.person.id), "role": role}
    assert setting.owner.post(f"{setting.path}/members", json=body).status_code == 201


def act(account: Account, setting: TeamSetting, times: int = 1) -> None:
    """Something that the log says came from them."""
    for _ in range(times):
        made = account.person.post(
            f"{setting.path}/workspaces",
            json={"name": "Lab"},
            headers={"User-Agent": BROWSER},
            environ_overrides={"REMOTE_ADDR": ADDRESS},
        )
        assert made.status_code == 201, made.text


def erase(account: Account, **body: Any) -> Any:
    return account.person.post("/me/erase", json={"password": PASSWORD, **body})


def settle() -> None:
    """All that a worker does of it, over the next ten minutes."""
    maintenance.go_on_erasing()
    execute("UPDATE erasures SET requested_at = requested_at - interval '11 minutes', due_at = now()")
    maintenance.go_on_erasing()


def finished(account: Account) -> bool:
    return bool(
        fetch("SELECT FROM erasures WHERE user_id = :id AND finished_at IS NOT NULL", id=account.person.id)
    )


def traces(*needles: str) -> list[str]:
    """The tables whose rows have any of these in them, in whatever column and case."""
    return [
        f"{table.name}: {needle}"
        for table in Base.metadata.sorted_tables
        for needle in needles
        if fetch(f'SELECT FROM "{table.name}" t WHERE t::text ILIKE :it LIMIT 1', it=f"%{needle}%")
    ]


def assert_chained(setting: TeamSetting) -> None:
    drain()
    ((recomputed, head),) = fetch(RECOMPUTED, id=setting.id)
    assert bytes(recomputed) == bytes(head)


@pytest.fixture
def account(app: Flask) -> Account:
    made = Account(app, email=f"erika.{uuid7().hex}@example.com")
    made.person.patch("/me", json={"name": f"Erika {made.email}"})
    return made


def test_nothing_of_the_person_is_left_but_ids_and_the_log_is_valid(
    app: Flask, team: TeamSetting, account: Account
) -> None:
    other = make_team(app)
    mailbox = Mailbox()
    account.person.post("/me/verify-email")
    token = mailbox.verification(account.email)
    post(app, "/auth/verify-email", {"token": token})
    for setting in (team, other):
        seat(setting, account, "admin")
        act(account, setting, 3)
    key = make_key(team, account.person, "tasks:read")
    waiting, left = make_team(app), make_team(app)
    invite(waiting, account.email.upper())
    invite(left, account.email)
    wrong = {"email": account.email, "password": "another password"}
    assert post(app, "/auth/login", wrong, environ_overrides={"REMOTE_ADDR": ADDRESS}).status_code == 401
    post(app, "/auth/request-password-reset", {"email": account.email})
    drain()
    act(account, team)  # which waits in the outbox
    before = [
        fetch("SELECT seq, hash FROM activity_logs WHERE team_id = :id", id=each.id) for each in (team, other)
    ]
    assert {trace.partition(":")[0] for trace in traces(account.email, ADDRESS, BROWSER)} >= {
        *("users", "account_events", "invitations", "mails", "activity_logs", "outbox"),
    }

    answer = erase(account)
    assert (answer.status_code, list(answer.json)) == (202, ["requested_at"])
    assert account.person.get("/me").status_code == key.get(team.path).status_code == 401
    assert account.sign_in().status_code == 401
    settle()
    drain()
    settle()
    assert finished(account)
    assert traces(account.email, ADDRESS, BROWSER) == []
    for setting in (team, other, waiting, left):
        assert_chained(setting)
    for setting, rows in zip((team, other), before, strict=True):
        log = {
            row.seq: row.hash
            for row in fetch("SELECT * FROM activity_logs WHERE team_id = :id", id=setting.id)
        }
        assert all(log[row.seq] == row.hash for row in rows)
        assert [
            row["user"]["id"] for row in setting.owner.get(f"{setting.path}/members").json["items"]
        ].count(str(account.person.id)) == 0
    for table in (
        "sessions",
        "api_keys",
        "account_events",
        "mailed_tokens",
        "second_factors",
        "team_members",
        "mails",
    ):
        assert fetch(f"SELECT FROM {table} WHERE user_id = :id", id=account.person.id) == []


def test_what_the_log_says_afterwards(team: TeamSetting, account: Account) -> None:
    seat(team, account)
    act(account, team)
    drain()
    assert erase(account).status_code == 202
    settle()
    drain()
    query = {"user_id": str(account.person.id)}
    rows = team.owner.get(f"{team.path}/activity", query_string=query).json["items"]
    assert [row["summary"] for row in rows] == [
        "Erased person ended the membership of Erased person by erasing the account",
        "Erased person created the workspace Lab",
    ]
    assert {(row["ip_address"], row["user_agent"]) for row in rows} == {(None, None)}
    assert rows[0]["metadata"] == {
        "user_id": str(account.person.id),
        "role": "member",
        "api_keys_revoked": 0,
    }


def test_the_address_is_free_again_and_whoever_takes_it_is_someone_else(app: Flask, account: Account) -> None:
    assert erase(account).status_code == 202
    again = Account(app, email=account.email)
    assert again.person.id != account.person.id
    assert again.actions() == ["registered", "signed_in"]
    assert erase(again).status_code == 202  # and another placeholder


def test_it_needs_the_password_and_the_second_factor(account: Account) -> None:
    wrong = account.person.post("/me/erase", json={"password": "another password"})
    assert (wrong.status_code, list(wrong.json["errors"])) == (422, ["password"])
    codes = account.enable_second_factor()
    without = erase(account)
    assert (without.status_code, without.json["code"]) == (401, "second_factor_required")
    assert erase(account, code="000000").status_code == 422
    assert account.person.get("/me").status_code == 200
    assert erase(account, code=codes[0]).status_code == 202


def test_an_owner_hands_over_first_and_is_told_what(app: Flask, account: Account) -> None:
    mine, deleted = (make_team(app, owner=account.person) for _ in range(2))
    assert account.person.delete(deleted.path).status_code == 204
    refused = erase(account)
    assert (refused.status_code, refused.json["code"]) == (409, "conflict")
    assert refused.json["teams"] == [{"id": str(mine.id), "name": "Design"}]
    body = {"user_id": str(mine.member.id)}
    assert account.person.post(f"{mine.path}/transfer-ownership", json=body).status_code == 200
    assert erase(account).status_code == 202
    drain()
    settle()
    assert finished(account)
    execute("UPDATE teams SET deleted_at = now() - interval '31 days' WHERE id = :id", id=deleted.id)
    maintenance.purge_teams()
    assert fetch("SELECT FROM teams WHERE id = :id", id=deleted.id) == []


def test_a_deleted_team_under_a_hold_still_needs_its_owner(app: Flask, account: Account) -> None:
    held = make_team(app, owner=account.person)
    assert account.person.put(f"{held.path}/legal-hold", json={"reason": "A"}).status_code == 200
    assert account.person.delete(held.path).status_code == 204
    assert [each["id"] for each in erase(account).json["teams"]] == [str(held.id)]


def test_an_invitation_for_an_address_that_was_never_verified_is_not_theirs(
    app: Flask, team: TeamSetting, account: Account
) -> None:
    """Whoever registers a stranger's address must not decline for them."""
    invitation = invite(team, account.email)
    assert erase(account).status_code == 202
    shown = team.owner.get(f"{team.path}/invitations/{invitation['id']}").json
    assert (shown["status"], shown["email"]) == ("pending", account.email)


def test_one_that_waits_for_a_verified_address_is_declined_and_gives_its_seat_back(
    team: TeamSetting, account: Account
) -> None:
    account.person.verify_email()
    invitation = invite(team, account.email)
    assert erase(account).status_code == 202
    drain()
    newest = team.owner.get(f"{team.path}/activity?limit=1").json["items"][0]
    assert (newest["action"], newest["resource_id"]) == ("invitation_declined", invitation["id"])
    shown = team.owner.get(f"{team.path}/invitations/{invitation['id']}").json
    assert (shown["status"], shown["email"]) == ("revoked", f"erased-{invitation['id']}@erased.invalid")


def test_an_accepted_one_forgets_the_address(team: TeamSetting, account: Account) -> None:
    invitation = invite(team, account.email)
    assert account.person.post("/invitations/accept", json={"token": invitation["token"]}).status_code == 200
    assert erase(account).status_code == 202
    settle()
    assert traces(account.email) == []


def test_what_was_refused_to_them_is_summed_without_where_it_came_from(
    team: TeamSetting, account: Account
) -> None:
    seat(team, account, "viewer")
    for _ in range(3):
        refused = account.person.post(
            f"{team.path}/workspaces", json={"name": "A"}, environ_overrides={"REMOTE_ADDR": ADDRESS}
        )
        assert refused.status_code == 403
    assert erase(account).status_code == 202
    settle()
    execute(
        "UPDATE refused_attempts SET since = now() - interval '2 minutes' WHERE team_id = :id", id=team.id
    )
    maintenance.fold_refusals()
    drain()
    rows = team.owner.get(f"{team.path}/activity?outcome=denied").json["items"]
    assert [(row["metadata"]["count"], row["ip_address"]) for row in rows] == [(2, None), (1, None)]
    assert_chained(team)


def erase_as_operator(account: Account) -> None:
    with transaction() as session:
        erasures.erase(session, erasures.lock(session, UUID(str(account.person.id))), in_person=False)


def test_an_operator_erases_by_address(app: Flask, team: TeamSetting, account: Account) -> None:
    seat(team, account)
    runner = app.test_cli_runner()

    def run(*arguments: str, answer: str = "") -> tuple[int, str]:
        with app.app_context():
            result = runner.invoke(args=["user", "erase", *arguments], input=answer)
        return result.exit_code, result.output

    assert run("nobody@example.com", "--yes") == (1, "Error: Nobody has this address.\n")
    assert run(account.email, answer="n\n")[0] == 1
    assert account.person.get("/me").status_code == 200
    owned = make_team(app, owner=account.person)
    code, said = run(account.email, "--yes")
    assert (code, f"{owned.id}  Design" in said) == (1, True)
    assert account.person.delete(owned.path).status_code == 204
    code, said = run(account.email.upper(), answer="y\n")
    assert (code, "a worker goes on" in said) == (0, True)
    drain()
    newest = team.owner.get(f"{team.path}/activity?limit=1").json["items"][0]
    assert (newest["summary"], newest["user_id"]) == (
        "The system ended the membership of Erased person by erasing the account",
        None,
    )


def test_two_erasures_at_once_are_one(team: TeamSetting, account: Account) -> None:
    seat(team, account)
    outcomes = together(*[lambda: erase_as_operator(account)] * 3)
    assert sorted(type(each).__name__ for each in outcomes) == ["NoneType", "NotFound", "NotFound"]
    drain()
    assert (
        len(fetch("SELECT FROM activity_logs WHERE team_id = :id AND action = 'member_erased'", id=team.id))
        == 1
    )
    assert len(fetch("SELECT FROM erasures WHERE user_id = :id", id=account.person.id)) == 1


def test_who_is_added_at_that_moment_is_erased_from_there_or_not_added(app: Flask) -> None:
    for _ in range(8):
        setting, account = make_team(app), Account(app)
        body = {"user_id": str(account.person.id), "role": "viewer"}

        def add(setting: TeamSetting = setting, body: dict[str, str] = body) -> int:
            status: int = setting.owner.post(f"{setting.path}/members", json=body).status_code
            return status

        def erased(account: Account = account) -> bool:
            for _ in range(3):
                try:
                    erase_as_operator(account)
                except Conflict:
                    continue
                return True
            return False

        added, gone = together(add, erased)
        assert gone is True
        assert added in {201, 404}
        assert fetch("SELECT FROM team_members WHERE user_id = :id", id=account.person.id) == []
        drain()
        actions = [
            row.action
            for row in fetch(
                "SELECT action FROM activity_logs WHERE team_id = :id AND resource_id = :person ORDER BY seq",
                id=setting.id,
                person=account.person.id,
            )
        ]
        assert actions == (["member_added", "member_erased"] if added == 201 else [])


def test_a_team_that_is_made_at_that_moment_is_not_left_without_an_owner(app: Flask) -> None:
    for _ in range(8):
        account = Account(app)

        def make(account: Account = account) -> int:
            status: int = account.person.post("/teams", json={"name": "Art"}).status_code
            return status

        def erased(account: Account = account) -> type[DomainError] | None:
            try:
                erase_as_operator(account)
            except DomainError as error:
                return type(error)
            return None

        made, refusal = together(make, erased)
        assert (made, refusal) in {(201, Conflict), (404, None), (401, None)}


def test_what_they_were_just_doing_is_erased_too(team: TeamSetting, account: Account) -> None:
    """A request that entered before commits after the account is gone and the first pass went by."""
    seat(team, account)
    drain()
    with transaction() as session:
        access = account.person.enter(session, team.id)
        assert access.origin.ip_address
        assert erase(account).status_code == 202
        maintenance.go_on_erasing()
        record(session, access, WorkspaceCreated(workspace_id=uuid7(), name="Late"))
    drain()
    assert not finished(account)

    def late() -> list[Any]:
        return fetch(
            "SELECT ip_address, origin_salt, origin_hash FROM activity_logs"
            " WHERE team_id = :id AND resource_name = 'Late'",
            id=team.id,
        )

    assert str(late()[0].ip_address) == "127.0.0.1"
    maintenance.go_on_erasing()  # too early for the last pass
    assert late()[0].ip_address is not None
    settle()
    assert finished(account)
    assert (late()[0].ip_address, late()[0].origin_salt) == (None, None)
    assert late()[0].origin_hash is not None
    assert_chained(team)


@pytest.mark.parametrize(("since", "done"), [("9 minutes 50 seconds", False), ("10 minutes 1 second", True)])
def test_the_last_pass_begins_ten_minutes_after_the_request(account: Account, since: str, done: bool) -> None:
    erase_as_operator(account)
    execute(
        "UPDATE erasures SET requested_at = now() - CAST(:since AS interval), due_at = now() WHERE user_id = :id",
        since=since,
        id=account.person.id,
    )
    maintenance.go_on_erasing()
    assert finished(account) is done


def test_a_team_under_a_legal_hold_keeps_what_it_has_until_that_is_released(
    app: Flask, team: TeamSetting, account: Account
) -> None:
    other = make_team(app)
    for setting in (team, other):
        seat(setting, account)
        act(account, setting)
    assert team.owner.put(f"{team.path}/legal-hold", json={"reason": "A"}).status_code == 200
    erase_as_operator(account)
    maintenance.go_on_erasing()
    drain()  # of what was in the outbox until now
    settle()

    def known(setting: TeamSetting) -> int:
        return len(
            fetch(
                "SELECT FROM activity_logs WHERE team_id = :id AND user_agent = :ua",
                id=setting.id,
                ua=BROWSER,
            )
        )

    assert (known(team), known(other), finished(account)) == (1, 0, False)
    assert team.owner.delete(f"{team.path}/legal-hold").status_code == 204
    maintenance.go_on_erasing()
    assert known(team) == 1  # an hour later, not at once
    execute("UPDATE erasures SET due_at = now() WHERE user_id = :id", id=account.person.id)
    maintenance.go_on_erasing()
    assert (known(team), finished(account)) == (0, True)
    assert_chained(team)


def test_it_goes_in_parts_through_any_number_of_teams(
    app: Flask, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasures, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(erasures, "TEAMS_AT_ONCE", 1)
    settings = [make_team(app) for _ in range(3)]
    for setting in settings[::2]:
        seat(setting, account)
        act(account, setting, 5)
    drain()
    erase_as_operator(account)
    settle()
    assert finished(account)
    assert traces(BROWSER) == []
    for setting in settings:
        assert_chained(setting)


ERASING = (
    "from models.operations import erasures; from workers import maintenance;"
    " erasures.ROWS_AT_ONCE = 1; print('begun', flush=True); maintenance.go_on_erasing()"
)


def test_a_worker_that_is_killed_goes_on_where_it_was(team: TeamSetting, account: Account) -> None:
    seat(team, account)
    drain()
    with transaction() as session:
        access = account.person.enter(session, team.id)
        for _ in range(150):
            record(session, access, WorkspaceCreated(workspace_id=uuid7(), name="Lab"))
    drain()
    erase_as_operator(account)

    def known() -> int:
        found = "SELECT FROM activity_logs WHERE team_id = :id AND user_id = :u AND origin_salt IS NOT NULL"
        return len(fetch(found, id=team.id, u=account.person.id))

    assert known() == 150
    killed = 0
    for _ in range(3):
        worker = subprocess.Popen(
            [sys.executable, "-c", ERASING], env=dict(os.environ), stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "begun\n"
        before, deadline = known(), time.monotonic() + 20
        while known() > before - 15 and worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        killed += worker.poll() is None
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
        assert_chained(team)
    assert killed >= 1
    settle()
    assert (known(), finished(account)) == (0, True)
    assert_chained(team)


def test_workers_at_once_do_it_once(
    team: TeamSetting, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasures, "ROWS_AT_ONCE", 2)
    seat(team, account)
    act(account, team, 9)
    drain()
    erase_as_operator(account)
    assert together(*[maintenance.go_on_erasing] * 3) == [None] * 3
    settle()
    assert finished(account)
    assert traces(BROWSER) == []
    assert_chained(team)


def test_nobody_can_be_added_by_the_id_of_who_is_gone(
    app: Flask, team: TeamSetting, account: Account
) -> None:
    make_role(team, "clerk", "tasks:read")
    erase_as_operator(account)
    body = {"user_id": str(account.person.id), "role": "clerk"}
    assert team.owner.post(f"{team.path}/members", json=body).status_code == 404
    by_address = {"email": f"erased-{account.person.id}@erased.invalid", "role": "clerk"}
    assert team.owner.post(f"{team.path}/members", json=by_address).status_code == 404
    with pytest.raises(NotFound):
        erase_as_operator(account)
    with transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM users WHERE name = 'Erased person'"))
    assert make_person(app).get("/me").status_code == 200

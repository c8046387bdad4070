"""What operators run: each command does what it says, and says by its exit code whether anything is wrong."""

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest
from click.testing import Result
from flask import Flask

from api.cli import GROUPS
from models import encryption, signing
from models.database import transaction
from models.operations import checkpoints, deliveries, second_factors
from models.queries import kept_secrets
from models.settings import settings
from tests.accounts import Account
from tests.accounts import post as post_json
from tests.factories import (
    TeamSetting,
    drain,
    execute,
    fetch,
    fold,
    fold_log,
    make_agent,
    make_delivery,
    make_key,
    make_person,
    make_team,
    make_webhook,
)

pytestmark = pytest.mark.usefixtures("own_database")  # what is said of all teams is of those made here
PASSWORD = "a long enough password"


def run(app: Flask, *arguments: str, code: int = 0, **options: Any) -> Result:
    with app.app_context():
        result = app.test_cli_runner().invoke(args=arguments, **options)
    assert result.exit_code == code, (arguments, result.output, result.exception)
    return result


def listed(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def test_an_admin_is_made_verified_with_a_team(app: Flask) -> None:
    email = f"{make_person(app).id}@example.com"
    arguments = ("user", "create", email, "--name", "Ada", "--team", "Operations")
    said = run(app, *arguments, env={"NEW_PASSWORD": PASSWORD}).output
    assert PASSWORD not in said
    signed_in = post_json(app, "/auth/login", {"email": email, "password": PASSWORD})
    assert (signed_in.status_code, signed_in.json["user"]["email_verified"]) == (200, True)
    teams = app.test_client().get(
        "/api/v1/teams", headers={"Authorization": f"Bearer {signed_in.json['token']}"}
    )
    (team,) = teams.json["items"]  # type: ignore[index]
    assert (team["name"], team["role"], team["owner_id"]) == (
        "Operations",
        "admin",
        signed_in.json["user"]["id"],
    )
    assert "team " + team["id"] in said
    assert "exists already" in run(app, *arguments, env={"NEW_PASSWORD": PASSWORD}, code=1).output
    short = run(app, "user", "create", f"x{email}", "--name", "A", env={"NEW_PASSWORD": "a" * 11}, code=1)
    assert "12 characters" in short.output
    assert run(app, "user", "create", f"x{email}", "--name", "A", env={"NEW_PASSWORD": "a" * 12}).output


def test_a_suspended_account_is_out_everywhere_and_comes_back_as_it_was(app: Flask) -> None:
    account = Account(app)
    team = make_team(app, owner=account.person, roles=("member",))
    key = make_key(team, account.person, "tasks:read", "teams:read")
    agent = make_agent(team)
    robot = make_key(team, account.person, "tasks:read", "teams:read", agent_id=agent["id"])
    other = account.another_session()
    for caller in (key, robot, other):
        assert caller.get(team.path).status_code == 200
    said = run(app, "user", "suspend", account.email.upper(), "--reason", "Stolen laptop").output
    assert "2 sessions ended" in said
    for session in (account.person, other):
        assert session.get("/me").status_code == 401
        assert session.get(team.path).status_code == 401
    for caller in (key, robot):
        refused = caller.get(team.path)
        assert (refused.status_code, refused.json["missing"]) == (403, "account")
    refused = account.sign_in()
    assert (refused.status_code, "suspended" in refused.json["detail"]) == (401, True)
    wrong = account.sign_in("another password")
    assert (wrong.status_code, "suspended" in wrong.json["detail"]) == (401, False)  # no news for a stranger
    assert team.member.get(team.path).status_code == 200
    again = run(app, "user", "suspend", account.email, "--reason", "Twice", code=1)
    assert "suspended already" in again.output

    run(app, "user", "reinstate", account.email, "--reason", "Found")
    for caller in (key, robot):
        assert caller.get(team.path).status_code == 200
    account.person = account.another_session()
    assert account.person.get(team.path).status_code == 200
    events = {event["action"]: event["details"] for event in account.events()}
    assert events["suspended"] == {"reason": "Stolen laptop", "sessions_ended": 2}
    assert events["reinstated"] == {"reason": "Found"}
    assert "not suspended" in run(app, "user", "reinstate", account.email, "--reason", "Twice", code=1).output
    assert "Nobody" in run(app, "user", "suspend", "nobody@example.com", "--reason", "x", code=1).output


def test_a_suspended_team_is_entered_by_nobody_and_loses_nothing(app: Flask, team: TeamSetting) -> None:
    key = make_key(team, team.owner, "teams:read")
    webhook = make_webhook(team)
    drain()
    run(app, "team", "suspend", str(team.id), "--reason", "Unpaid")
    for caller in (team.owner, team.member, key):
        refused = caller.get(team.path)
        assert (refused.status_code, refused.json["missing"]) == (403, "team")
        assert "suspended" in refused.json["detail"]
    assert team.owner.get("/teams").json["items"] == []
    assert team.owner.get("/me").status_code == 200
    drain()

    def claimed() -> list[UUID]:
        with transaction() as session:
            found = [lease.webhook_id for lease in deliveries.claim(session, limit=1_000, slow=1_000)]
            session.rollback()
        return found

    assert UUID(webhook["id"]) not in claimed()
    run(app, "team", "suspend", str(team.id), "--reason", "Twice", code=1)
    run(app, "team", "reinstate", str(team.id), "--reason", "Paid")
    drain()
    assert UUID(webhook["id"]) in claimed()
    assert team.member.get(team.path).status_code == 200
    log = team.owner.get(f"{team.path}/activity?action=team_suspended&action=team_reinstated").json["items"]
    assert [row["action"] for row in log] == ["team_reinstated", "team_suspended"]
    assert log[1]["metadata"]["reason"] == "Unpaid"
    run(app, "team", "reinstate", str(team.id), "--reason", "Twice", code=1)
    run(app, "team", "suspend", str(UUID(int=7)), "--reason", "Nobody's", code=1)


def test_a_webhook_that_was_just_claimed_waits_too(app: Flask, team: TeamSetting) -> None:
    webhook = make_webhook(team)
    drain()
    with transaction() as session:
        (lease,) = [
            each
            for each in deliveries.claim(session, limit=1_000, slow=1_000)
            if each.webhook_id == UUID(webhook["id"])
        ]
    run(app, "team", "suspend", str(team.id), "--reason", "Unpaid")
    with transaction() as session:
        assert deliveries.load(session, lease) is None
    assert fetch("SELECT enabled FROM webhooks WHERE id = :id", id=webhook["id"]) == [(True,)]


@pytest.fixture
def busy(team: TeamSetting) -> TeamSetting:
    for _ in range(3):
        team.task()
    drain()
    fold()
    fold_log()
    return team


def test_every_chain_is_verified_and_what_is_wrong_is_named(app: Flask, busy: TeamSetting) -> None:
    run(app, "log", "verify")
    with transaction() as session:
        checkpoints.register_key(session)
        checkpoints.sign(session, busy.id)
    rows = fetch("SELECT max(seq) FROM activity_logs WHERE team_id = :id", id=busy.id)[0][0]
    one = run(app, "log", "verify", "--team", str(busy.id)).stdout
    assert one == f"1 teams, {rows} rows, 0 of them past the last checkpoint, 0 problems\n"
    act = "UPDATE activity_logs SET action = :action WHERE team_id = :id AND seq = 2"
    ((was,),) = fetch("SELECT action FROM activity_logs WHERE team_id = :id AND seq = 2", id=busy.id)
    execute("ALTER TABLE activity_logs DISABLE TRIGGER USER")
    try:
        execute(act, id=busy.id, action="task_deleted")
        wrong = run(app, "log", "verify", code=1)
        assert [(each["team_id"], each["seq"], each["problem"]) for each in listed(wrong)] == [
            (str(busy.id), 2, "changed")
        ]
    finally:
        execute(act, id=busy.id, action=was)
        execute("ALTER TABLE activity_logs ENABLE TRIGGER USER")
    run(app, "log", "verify")
    run(app, "log", "verify", "--team", str(UUID(int=7)), code=1)


SPOILT = (
    ("usage", "UPDATE usage_stats SET tasks_created = tasks_created + 1 WHERE team_id = :id"),
    ("usage", "DELETE FROM usage_stats WHERE team_id = :id"),
    ("usage", "UPDATE usage_breakdowns SET user_id = NULL WHERE team_id = :id AND metric = 'tasks_created'"),
    (
        "usage",
        "INSERT INTO usage_breakdowns (team_id, date, metric, quantity) VALUES (:id, '2001-01-01', 'api_calls', 1)",
    ),
    ("activity", "UPDATE activity_counts SET n = n + 1 WHERE team_id = :id AND value = 'task_created'"),
    ("activity", "DELETE FROM activity_counts WHERE team_id = :id AND dimension = 'user'"),
    ("activity", "DELETE FROM activity_days WHERE team_id = :id"),
    ("activity", "UPDATE activity_days SET last_seq = first_seq WHERE team_id = :id"),
    ("activity", "DELETE FROM activity_people WHERE team_id = :id"),
)
PROJECTED = ("usage_stats", "usage_breakdowns", "activity_counts", "activity_days", "activity_people")


def projected(team: TeamSetting) -> list[list[str]]:
    return [
        sorted(str(row) for row in fetch(f"SELECT to_jsonb(t) - 'id' FROM {table} t WHERE team_id = :id", id=team.id))
        for table in PROJECTED
    ]  # fmt: skip


@pytest.mark.parametrize(("what", "spoil"), SPOILT)
def test_what_is_folded_is_replayed_to_what_it_was(
    app: Flask, busy: TeamSetting, what: str, spoil: str
) -> None:
    team = ("--team", str(busy.id))
    before = projected(busy)
    assert run(app, "log", "replay", "all", *team).stdout == "1 teams, 0 rows differed, 0 do now\n"
    execute(spoil, id=busy.id)
    assert projected(busy) != before
    checked = run(app, "log", "replay", what, "--check", *team, code=1)
    assert len(listed(checked)) >= 1
    assert projected(busy) != before
    other = "activity" if what == "usage" else "usage"
    run(app, "log", "replay", other, "--check", *team)
    replayed = run(app, "log", "replay", what, *team)
    assert replayed.stdout.endswith(" 0 do now\n")
    assert projected(busy) == before


def test_a_replay_leaves_to_the_fold_what_is_not_folded(app: Flask, busy: TeamSetting) -> None:
    busy.task()
    drain()
    waiting = fetch("SELECT count(*) FROM usage_pending WHERE team_id = :id", id=busy.id)[0][0]
    assert waiting
    execute("DELETE FROM usage_stats WHERE team_id = :id", id=busy.id)
    execute("DELETE FROM activity_counts WHERE team_id = :id", id=busy.id)
    run(app, "log", "replay", "--team", str(busy.id))
    assert fetch("SELECT count(*) FROM usage_pending WHERE team_id = :id", id=busy.id) == [(waiting,)]
    fold()
    fold_log()
    assert fetch("SELECT sum(tasks_created)::int FROM usage_stats WHERE team_id = :id", id=busy.id) == [(4,)]
    assert fetch(
        "SELECT sum(n)::int FROM activity_counts WHERE team_id = :id AND value = 'task_created'", id=busy.id
    ) == [(4,)]
    run(app, "log", "replay", "--check")


def test_secrets_are_brought_under_the_first_key_and_old_keys_may_go(
    app: Flask, team: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings()
    old, new = b"o" * 32, b"n" * 32

    def use(*keys: bytes) -> None:
        configured = replace(given, encryption_keys=keys)
        for module in (encryption, kept_secrets, second_factors):
            monkeypatch.setattr(module, "settings", lambda: configured)

    def under() -> dict[str, set[str]]:
        with transaction() as session:
            found = kept_secrets.kept(session)
        return {
            key: {each.kind for each in found if each.standing == key and each.kind != "checkpoint"}
            for key in ("first", "known", "missing")
        }

    run(app, "secrets", "encrypt")
    execute("DELETE FROM second_factors WHERE secret = 'A'")
    use(old, *given.encryption_keys)
    make_webhook(team)
    account = Account(app)
    account.enable_second_factor()
    use(new, old, *given.encryption_keys)
    assert under()["known"] >= {"webhook secret", "second factor"}
    run(app, "secrets", "list")
    moved = run(app, "secrets", "encrypt").stdout
    assert int(moved.split()[0]) >= 2
    assert under() == {"first": {"webhook secret", "second factor"}, "known": set(), "missing": set()}
    use(new)
    run(app, "secrets", "list")
    assert account.person.get("/me").status_code == 200  # no rotation signs anybody out
    account.device.digits = 6
    execute("UPDATE second_factors SET last_step = 0 WHERE user_id = :id", id=account.person.id)
    assert account.sign_in(code=account.device.now()).status_code == 200
    use(old)
    lost = listed(run(app, "secrets", "list", code=1))
    assert {each["standing"] for each in lost if each["kind"] != "checkpoint"} == {"missing"}
    use()
    assert "not set" in run(app, "secrets", "encrypt", code=1).output
    use(new, *given.encryption_keys)
    monkeypatch.undo()
    use(*given.encryption_keys, new)
    run(app, "secrets", "encrypt")


def test_a_signing_key_rotates_and_what_it_signed_still_counts(
    app: Flask, busy: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction() as session:
        checkpoints.register_key(session)
        checkpoints.sign(session, busy.id)
    public = run(app, "secrets", "public-key").stdout.strip()
    assert base64.b64decode(public) == signing.keyring().public_keys[signing.keyring().signer.key_id]  # type: ignore[union-attr]
    given = settings()
    another = base64.b64encode(b"another seed of thirty-two bytes").decode()

    def use(*, retired: tuple[str, ...]) -> None:
        configured = replace(given, signing_key=another, retired_signing_keys=retired)
        monkeypatch.setattr(signing, "settings", lambda: configured)

    use(retired=())
    run(app, "log", "verify", "--team", str(busy.id), code=1)
    assert "missing" in {
        each["standing"]
        for each in listed(run(app, "secrets", "list", code=1))
        if each["kind"] == "checkpoint"
    }
    use(retired=(public,))
    run(app, "log", "verify", "--team", str(busy.id))
    busy.task()
    drain()
    with transaction() as session:
        checkpoints.register_key(session)
        assert checkpoints.sign(session, busy.id)
    run(app, "log", "verify", "--team", str(busy.id))
    run(app, "secrets", "list")


def due(app: Flask, command: str, *options: str, code: int = 1) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in listed(run(app, "jobs", command, *options, code=code))}


def test_what_waits_for_long_is_stuck_and_what_waits_for_its_turn_is_not(
    app: Flask, busy: TeamSetting
) -> None:
    busy.task()
    quiet = {each["id"] for each in listed(app.test_cli_runner().invoke(args=["jobs", "stuck"]))}
    assert str(busy.id) not in quiet
    execute("UPDATE outbox SET created_at = now() - interval '299 s' WHERE team_id = :id", id=busy.id)
    assert str(busy.id) not in {
        each["id"] for each in listed(app.test_cli_runner().invoke(args=["jobs", "stuck"]))
    }
    execute("UPDATE outbox SET created_at = now() - interval '301 s' WHERE team_id = :id", id=busy.id)
    waiting = due(app, "stuck")[str(busy.id)]
    assert (waiting["kind"], waiting["problem"]) == ("outbox", "1 events wait for the log")
    since = datetime.fromisoformat(waiting["since"])
    assert timedelta(0) <= datetime.now(UTC) - since - timedelta(seconds=301) < timedelta(seconds=60)
    drain()
    assert str(busy.id) not in {
        each["id"] for each in listed(app.test_cli_runner().invoke(args=["jobs", "stuck"]))
    }
    mail = "INSERT INTO mails (id, kind, address, due_at) VALUES (uuid7(), 'reset_password', :to, now() + :in * interval '1 s')"
    execute(mail, to="late@example.com", **{"in": -400})
    execute(mail, to="early@example.com", **{"in": 400})
    ids = dict(
        fetch(
            "SELECT address, id::text FROM mails WHERE address IN ('late@example.com', 'early@example.com')"
        )
    )
    found = due(app, "stuck")
    assert found[ids["late@example.com"]]["kind"] == "mail"
    assert ids["early@example.com"] not in found
    assert ids["late@example.com"] not in due(app, "stuck", "--longer", "500", code=0)


def test_what_was_given_up_is_listed_and_tried_again(app: Flask, team: TeamSetting) -> None:
    execute(
        "INSERT INTO mails (id, kind, address, attempts, failed_at, error, due_at)"
        " VALUES (uuid7(), 'reset_password', 'given-up@example.com', 19, now(), '550', now() + interval '1 h')"
    )
    (mail,) = fetch("SELECT id::text FROM mails WHERE address = 'given-up@example.com'")[0]
    webhook = make_webhook(team)
    delivery = make_delivery(webhook)
    drain()
    dead = due(app, "dead")
    assert (dead[mail]["kind"], dead[mail]["problem"], dead[mail]["attempts"]) == ("mail", "550", 19)
    assert dead[delivery]["kind"] == "delivery"
    run(app, "jobs", "retry", "mail", mail)
    assert fetch(
        "SELECT failed_at IS NULL, due_at <= now(), attempts FROM mails WHERE id::text = :id", id=mail
    ) == [(True, True, 0)]
    run(app, "jobs", "retry", "delivery", delivery)
    assert fetch("SELECT state, requested FROM webhook_deliveries WHERE id::text = :id", id=delivery) == [
        ("pending", True)
    ]
    drain()
    assert team.owner.get(f"{team.path}/activity?limit=1").json["items"][0]["action"] == "webhook_redelivered"
    left = {each["id"] for each in listed(app.test_cli_runner().invoke(args=["jobs", "dead"]))}
    assert not {mail, delivery} & left
    for nothing in (str(UUID(int=7)), "nonsense"):
        refused = run(app, "jobs", "retry", "mail", nothing, code=1)
        assert "There is no such mail here." in refused.output
    execute("UPDATE mails SET failed_at = now() WHERE id::text = :id", id=mail)
    run(app, "jobs", "retry", "mail")
    assert fetch("SELECT failed_at FROM mails WHERE id::text = :id", id=mail) == [(None,)]
    execute("DELETE FROM mails WHERE id::text = :id", id=mail)


def test_a_payment_order_that_was_given_up_is_no_first_attempt_again(app: Flask) -> None:
    assert run(app, "jobs", "retry", "payment", str(UUID(int=7)), code=1)
    assert run(app, "jobs", "retry", "close", f"{UUID(int=7)}/2026-01", code=1)
    assert run(app, "jobs", "retry", "erasure", str(UUID(int=7)), code=1)


def test_every_command_is_documented() -> None:
    said = (Path(__file__).parents[2] / "docs" / "operations" / "README.md").read_text()
    for group in GROUPS:
        assert isinstance(group, click.Group)
        for name in group.commands:
            assert re.search(rf"`{group.name} [^|]*(?<![\w-]){name}(?![\w-])", said), f"{group.name} {name}"

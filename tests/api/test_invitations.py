"""Invitations: how long they last, who may accept them, what they are worth, and what they tell to whom."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from tests.api.conftest import Post
from tests.factories import (
    Answer,
    Person,
    TeamSetting,
    drain,
    execute,
    fetch,
    invite,
    join,
    make_key,
    make_person,
    make_role,
    make_team,
)

FIELDS = {
    "id", "team_id", "email", "role", "status", "invited_by", "expires_at", "created_at", "updated_at",
}  # fmt: skip
RECRUITING = ("teams:read", "members:read", "members:create", "tasks:read")


def address() -> str:
    return f"{uuid7().hex}@example.com"


def send(setting: TeamSetting, email: str, role: str = "viewer", by: Person | None = None) -> Answer:
    return (by or setting.owner).post(f"{setting.path}/invitations", json={"email": email, "role": role})


def accept(person: Person, token: str) -> Answer:
    return person.post("/invitations/accept", json={"token": token})


def status(setting: TeamSetting, invitation: dict[str, Any]) -> str:
    shown: str = setting.owner.get(f"{setting.path}/invitations/{invitation['id']}").json["status"]
    return shown


def age(invitation: dict[str, Any], interval: str) -> None:
    execute(
        "UPDATE invitations SET expires_at = now() + CAST(:interval AS interval) WHERE id = :id",
        interval=interval,
        id=invitation["id"],
    )


def mails_of(invitation: dict[str, Any]) -> list[Any]:
    return fetch("SELECT * FROM mails WHERE invitation_id = :id", id=invitation["id"])


def registered(app: Flask, email: str) -> Person:
    """Whoever signs up under the address."""
    body = {"email": email, "password": "a good password", "name": "Newcomer"}
    answer: Any = app.test_client().post("/api/v1/auth/register", json=body)
    assert answer.status_code == 201, answer.text
    return Person(app, answer.json["user"]["id"], email, "Newcomer", answer.json["token"])


def test_an_invitation_makes_a_member(team: TeamSetting, app: Flask) -> None:
    person = make_person(app, "Ina")
    sent = send(team, person.email, "member", by=team.admin)
    assert sent.status_code == 201
    assert set(sent.json) == {*FIELDS, "token"}
    assert (sent.json["email"], sent.json["role"], sent.json["status"]) == (person.email, "member", "pending")
    assert sent.json["invited_by"] == str(team.admin.id)
    shown = team.owner.get(f"{team.path}/invitations/{sent.json['id']}")
    assert shown.json == {name: sent.json[name] for name in FIELDS}
    assert "ETag" in shown.headers
    assert "ETag" not in sent.headers  # of what nobody can read again

    accepted = accept(person, sent.json["token"])
    assert accepted.status_code == 200
    assert accepted.json == person.get(team.path).json
    assert (accepted.json["id"], accepted.json["role"]) == (str(team.id), "member")
    assert status(team, sent.json) == "accepted"
    again = accept(person, sent.json["token"])
    assert (again.status_code, again.json["code"]) == (409, "conflict")


def test_a_token_is_shown_once_and_kept_as_a_hash(team: TeamSetting) -> None:
    """Pitfalls: an invitation readable with its token; ids that are bearer secrets."""
    made = invite(team, address())
    (row,) = fetch("SELECT * FROM invitations WHERE id = :id", id=made["id"])
    assert row.token_hash == hashlib.sha256(made["token"].encode()).digest()
    assert made["token"] not in str(row)
    assert row.mailed_token_hash is None  # made when the mail is sent
    for path in ("/invitations", f"/invitations/{made['id']}"):
        assert made["token"] not in team.owner.get(team.path + path).text
    drain()
    assert made["token"] not in team.owner.get(f"{team.path}/activity").text
    person = make_person(team.owner.app)
    for guess in (made["id"], made["token"][:-1], made["token"] + "x", made["token"].upper()):
        assert accept(person, guess).status_code == 404


def test_a_mail_is_due_and_holds_no_secret(team: TeamSetting) -> None:
    made = invite(team, address())
    (mail,) = mails_of(made)
    assert (mail.kind, mail.attempts, mail.failed_at) == ("invitation", 0, None)
    assert made["token"] not in str(mail)
    assert team.owner.post(f"{team.path}/invitations/{made['id']}/resend").status_code == 200
    assert len(mails_of(made)) == 2


@pytest.mark.parametrize(("left", "in_time"), [("5 seconds", True), ("-1 second", False)])
def test_an_invitation_expires(team: TeamSetting, app: Flask, left: str, in_time: bool) -> None:
    person = make_person(app)
    made = invite(team, person.email)
    (lasts,) = fetch("SELECT expires_at - created_at AS span FROM invitations WHERE id = :id", id=made["id"])
    assert lasts.span.days == 7
    age(made, left)
    assert status(team, made) == ("pending" if in_time else "expired")
    preview = app.test_client().post("/api/v1/invitations/preview", json={"token": made["token"]})
    assert preview.status_code == (200 if in_time else 404)
    answer = accept(person, made["token"])
    if in_time:
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json["invitation_status"]) == (409, "expired")
        assert person.get(team.path).status_code == 404


def test_resending_ends_the_old_token(team: TeamSetting, app: Flask) -> None:
    person = make_person(app)
    first = invite(team, person.email, by=team.admin)
    second = team.owner.post(f"{team.path}/invitations/{first['id']}/resend")
    assert (second.status_code, set(second.json)) == (200, {*FIELDS, "token"})
    assert (second.json["id"], second.json["status"]) == (first["id"], "pending")
    assert second.json["token"] != first["token"]
    assert second.json["expires_at"] > first["expires_at"]
    assert second.json["invited_by"] == str(team.owner.id)  # who answers for it from now on
    assert accept(person, first["token"]).status_code == 404
    assert accept(person, second.json["token"]).status_code == 200


def test_resending_ends_the_mailed_token(team: TeamSetting, app: Flask) -> None:
    person = make_person(app)
    made = invite(team, person.email)
    mailed = "ahi_mailed"
    execute(
        "UPDATE invitations SET mailed_token_hash = :hash WHERE id = :id",
        hash=hashlib.sha256(mailed.encode()).digest(),
        id=made["id"],
    )
    again = team.owner.post(f"{team.path}/invitations/{made['id']}/resend")
    assert accept(person, mailed).status_code == 404
    assert accept(person, again.json["token"]).status_code == 200


def test_resending_renews_what_expired(team: TeamSetting, app: Flask) -> None:
    person = make_person(app)
    made = invite(team, person.email)
    age(made, "-1 day")
    renewed = team.owner.post(f"{team.path}/invitations/{made['id']}/resend")
    assert (renewed.status_code, renewed.json["status"]) == (200, "pending")
    assert accept(person, made["token"]).status_code == 404
    assert accept(person, renewed.json["token"]).status_code == 200


def test_an_address_waits_once(team: TeamSetting, app: Flask) -> None:
    email = address()
    made = invite(team, email)
    twice = send(team, email.upper())
    assert (twice.status_code, twice.json["code"], twice.json["id"]) == (409, "conflict", made["id"])
    # What expired makes room, and can't come back beside the one that took it.
    age(made, "-1 second")
    second = invite(team, email)
    assert second["id"] != made["id"]
    assert team.owner.post(f"{team.path}/invitations/{made['id']}/resend").status_code == 409
    assert status(team, made) == "expired"
    assert status(team, second) == "pending"


def test_revoking_kills_the_token(team: TeamSetting, app: Flask) -> None:
    person = make_person(app)
    made = invite(team, person.email, by=team.admin)
    path = f"{team.path}/invitations/{made['id']}"
    assert team.member.delete(path).json["missing"] == "members:create"
    assert team.owner.delete(path).status_code == 204  # whoever invited
    refused = accept(person, made["token"])
    assert (refused.status_code, refused.json["invitation_status"]) == (409, "revoked")
    assert status(team, made) == "revoked"
    for again in (team.owner.delete(path), team.owner.post(f"{path}/resend")):
        assert (again.status_code, again.json["invitation_status"]) == (409, "revoked")
    assert invite(team, person.email)["id"] != made["id"]


def test_what_was_accepted_is_not_revoked_or_sent_again(team: TeamSetting, app: Flask) -> None:
    person = make_person(app)
    made = invite(team, person.email)
    assert accept(person, made["token"]).status_code == 200
    path = f"{team.path}/invitations/{made['id']}"
    for answer in (team.owner.delete(path), team.owner.post(f"{path}/resend")):
        assert (answer.status_code, answer.json["invitation_status"]) == (409, "accepted")
    assert person.get(team.path).status_code == 200


def test_invitations_are_listed_by_their_state(team: TeamSetting, app: Flask) -> None:
    person = make_person(app)
    made = {
        "accepted": invite(team, person.email),
        "revoked": invite(team, address()),
        "expired": invite(team, address()),
        "pending": invite(team, address()),
    }
    assert accept(person, made["accepted"]["token"]).status_code == 200
    assert team.owner.delete(f"{team.path}/invitations/{made['revoked']['id']}").status_code == 204
    age(made["expired"], "-1 second")

    def listed(query: str) -> list[tuple[str, str]]:
        items = team.admin.get(f"{team.path}/invitations?{query}").json["items"]
        return [(row["id"], row["status"]) for row in items]

    ids = {state: (row["id"], state) for state, row in made.items()}
    assert listed("") == [ids["pending"], ids["expired"], ids["revoked"], ids["accepted"]]
    for state in made:
        assert listed(f"status={state}") == [ids[state]]
    assert listed("status=pending&status=expired") == [ids["pending"], ids["expired"]]
    assert listed("status=accepted&status=expired") == [ids["expired"], ids["accepted"]]
    assert team.member.get(f"{team.path}/invitations").json["missing"] == "members:create"


@pytest.mark.parametrize(
    "spelt",
    [
        lambda email: email.upper(),
        lambda email: email.title(),
        lambda email: email.replace("kim", "\uff4b\uff49\uff4d"),
    ],
    ids=["upper", "title", "full width"],
)
def test_only_the_invited_address_accepts_however_it_is_spelt(
    team: TeamSetting, app: Flask, spelt: Callable[[str], str]
) -> None:
    """Pitfall: addresses compared by case."""
    person, other = make_person(app, "Kim"), make_person(app, "Kim")
    made = invite(team, spelt(person.email))
    refused = accept(other, made["token"])
    assert (refused.status_code, refused.json["missing"]) == (403, "invited_address")
    assert person.email not in refused.text
    assert other.get(team.path).status_code == 404
    assert status(team, made) == "pending"
    assert accept(person, made["token"]).status_code == 200


def test_an_address_is_given_without_spaces_around_it(team: TeamSetting) -> None:
    for email in (f" {address()}", f"{address()} ", f"{address()}\n"):
        answer = send(team, email)
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["email"])


def test_an_invitation_waits_for_whoever_signs_up(team: TeamSetting, app: Flask) -> None:
    email = address()
    made = invite(team, email, "member")
    person = registered(app, email.upper())
    (waiting,) = person.get("/me/invitations").json["items"]
    assert waiting == {
        "id": made["id"],
        "team": {"id": str(team.id), "name": "Design"},
        "email": email,
        "role": "member",
        "status": "pending",
        "invited_by": "Owner",
        "acceptable": False,
        "expires_at": made["expires_at"],
        "created_at": made["created_at"],
    }
    # Signed up is not verified: it opens by the token alone.
    for verb in ("accept", "decline"):
        refused = person.post(f"/me/invitations/{made['id']}/{verb}")
        assert (refused.status_code, refused.json["missing"]) == (403, "verified_email")
    assert person.get(team.path).status_code == 404
    person.verify_email()
    assert person.get("/me/invitations").json["items"][0]["acceptable"] is True
    accepted = person.post(f"/me/invitations/{made['id']}/accept")
    assert (accepted.status_code, accepted.json["role"]) == (200, "member")
    assert person.get("/me/invitations").json["items"] == []
    assert person.post(f"/me/invitations/{made['id']}/accept").status_code == 409


def test_with_the_token_an_address_need_not_be_verified(team: TeamSetting, app: Flask) -> None:
    email = address()
    made = invite(team, email)
    person = registered(app, email)
    assert accept(person, made["token"]).status_code == 200
    # The token that the API showed was not mailed: it proves no mailbox.
    (row,) = fetch("SELECT email_verified_at FROM users WHERE id = :id", id=person.id)
    assert row.email_verified_at is None


def test_the_mailed_token_proves_the_address(team: TeamSetting, app: Flask) -> None:
    person = make_person(app)
    made = invite(team, person.email)
    execute(
        "UPDATE invitations SET mailed_token_hash = :hash WHERE id = :id",
        hash=hashlib.sha256(b"ahi_in the mail " + made["id"].encode()).digest(),
        id=made["id"],
    )
    assert accept(person, "ahi_in the mail " + made["id"]).status_code == 200
    (row,) = fetch("SELECT email_verified_at FROM users WHERE id = :id", id=person.id)
    assert row.email_verified_at is not None


def test_nobody_elses_invitation_is_there(team: TeamSetting, app: Flask) -> None:
    made = invite(team, address())
    person = make_person(app)
    person.verify_email()
    assert person.get("/me/invitations").json["items"] == []
    for verb in ("accept", "decline"):
        foreign = person.post(f"/me/invitations/{made['id']}/{verb}")
        absent = person.post(f"/me/invitations/{uuid7()}/{verb}")
        assert foreign.status_code == absent.status_code == 404
        assert foreign.json["detail"] == absent.json["detail"]
    assert status(team, made) == "pending"


def test_the_invited_declines(team: TeamSetting, app: Flask) -> None:
    person = make_person(app)
    person.verify_email()
    made = invite(team, person.email)
    assert person.post(f"/me/invitations/{made['id']}/decline").status_code == 204
    assert status(team, made) == "revoked"
    assert accept(person, made["token"]).status_code == 409
    assert person.post(f"/me/invitations/{made['id']}/decline").status_code == 409
    drain()
    (row,) = team.owner.get(f"{team.path}/activity?action=invitation_declined").json["items"]
    assert row["user_id"] == str(person.id)


@pytest.mark.parametrize("verb", ["accept", "decline"])
def test_what_expired_waits_for_nobody(team: TeamSetting, app: Flask, verb: str) -> None:
    person = make_person(app)
    person.verify_email()
    made = invite(team, person.email)
    age(made, "-1 second")
    assert person.get("/me/invitations").json["items"] == []
    assert person.post(f"/me/invitations/{made['id']}/{verb}").status_code == 409


def test_a_deleted_teams_invitation_is_gone(team: TeamSetting, app: Flask, post: Post) -> None:
    person = make_person(app)
    person.verify_email()
    made = invite(team, person.email)
    assert team.owner.delete(team.path).status_code == 204
    assert accept(person, made["token"]).status_code == 404
    assert person.post(f"/me/invitations/{made['id']}/accept").status_code == 404
    assert person.get("/me/invitations").json["items"] == []
    assert post("/invitations/preview", json={"token": made["token"]}).status_code == 404


def test_a_preview_shows_the_teams_name_alone(team: TeamSetting, post: Post) -> None:
    """Pitfall: an invitation's page shows all its fields to anybody."""
    made = invite(team, address())
    shown = post("/invitations/preview", json={"token": made["token"]})
    assert shown.status_code == 200
    assert shown.json == {"team_name": "Design", "expires_at": made["expires_at"]}
    assert team.owner.delete(f"{team.path}/invitations/{made['id']}").status_code == 204
    gone = post("/invitations/preview", json={"token": made["token"]})
    unknown = post("/invitations/preview", json={"token": "ahi_" + "x" * 43})
    assert gone.status_code == unknown.status_code == 404
    assert gone.json["detail"] == unknown.json["detail"]


def test_the_answer_does_not_tell_which_addresses_exist(team: TeamSetting, app: Flask) -> None:
    """Pitfall: accounts enumerated by inviting."""
    known, unknown = (send(team, email) for email in (make_person(app).email, address()))
    assert known.status_code == unknown.status_code == 201
    assert set(known.json) == set(unknown.json)
    vary = {"id", "email", "token", "created_at", "updated_at", "expires_at"}
    assert {name: known.json[name] for name in FIELDS - vary} == {
        name: unknown.json[name] for name in FIELDS - vary
    }
    different = {"X-Request-Id", "Content-Length"}
    headers = [
        {name: value for name, value in answer.headers.items() if name not in different}
        for answer in (known, unknown)
    ]
    assert headers[0] == headers[1]
    bulk = team.owner.post(
        f"{team.path}/invitations/bulk",
        json={
            "invitations": [
                {"email": email, "role": "viewer"} for email in (address(), make_person(app).email)
            ]
        },
    )
    assert [row["error"] for row in bulk.json["results"]] == [None, None]


def test_a_member_is_not_invited(team: TeamSetting) -> None:
    refused = send(team, team.viewer.email.upper(), "admin")
    assert (refused.status_code, refused.json["code"]) == (409, "conflict")
    assert team.owner.get(f"{team.path}/invitations").json["items"] == []


def test_accepting_never_changes_a_membership(team: TeamSetting, app: Flask) -> None:
    """Pitfall: accepting writes over the role of somebody who is a member."""
    for role, invited_as in (("admin", "viewer"), ("viewer", "admin")):
        person = make_person(app)
        made = invite(team, person.email, invited_as)
        # A member all the same, past the operation that would have used the invitation up.
        execute(
            "INSERT INTO team_members (id, team_id, user_id, role) VALUES (:id, :team_id, :user_id, :role)",
            id=uuid7(),
            team_id=team.id,
            user_id=person.id,
            role=role,
        )
        assert accept(person, made["token"]).status_code == 409
        assert person.get(team.path).json["role"] == role


def test_adding_directly_uses_the_invitation_up(team: TeamSetting, app: Flask) -> None:
    person = make_person(app)
    made = invite(team, person.email, "admin")
    added = team.owner.post(f"{team.path}/members", json={"user_id": str(person.id), "role": "viewer"})
    assert added.status_code == 201
    assert status(team, made) == "accepted"
    assert accept(person, made["token"]).status_code == 409
    assert person.get(team.path).json["role"] == "viewer"


class TestPower:
    """Nobody invites above their own power: not at first, not again, and not by the time it is accepted."""

    def test_at_creation(self, team: TeamSetting) -> None:
        """Pitfall: escalation by invitation."""
        make_role(team, "recruiter", *RECRUITING)
        make_role(team, "guest", "teams:read", "tasks:read")
        recruiter = join(team, "recruiter")
        for role, lacking in (("admin", "activity:read"), ("viewer", "activity:read")):
            refused = send(team, address(), role, by=recruiter)
            assert (refused.status_code, refused.json["missing"]) == (403, lacking)
        assert team.owner.get(f"{team.path}/invitations").json["items"] == []
        for role in ("guest", "recruiter"):
            assert send(team, address(), role, by=recruiter).status_code == 201

    def test_through_a_key(self, team: TeamSetting) -> None:
        key = make_key(team, team.admin, "members:create", "teams:read")
        make_role(team, "guest", "teams:read")
        assert send(team, address(), "viewer", by=key).status_code == 403
        assert send(team, address(), "guest", by=key).status_code == 201

    @pytest.mark.parametrize("role", ["owner", "king", "ADMIN", "Admin"])
    def test_in_a_role_that_is_none(self, team: TeamSetting, role: str) -> None:
        answer = send(team, address(), role)
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["role"])

    def test_at_resend_and_revocation(self, team: TeamSetting) -> None:
        """Pitfall: rewriting a pending invitation."""
        make_role(team, "recruiter", *RECRUITING)
        recruiter = join(team, "recruiter")
        made = invite(team, address(), "admin")
        path = f"{team.path}/invitations/{made['id']}"
        assert recruiter.post(f"{path}/resend").status_code == 403
        assert recruiter.delete(path).status_code == 403
        assert team.owner.get(path).json["invited_by"] == str(team.owner.id)
        assert team.admin.post(f"{path}/resend").status_code == 200

    @pytest.mark.parametrize("what", ["demoted", "removed", "suspended", "deprived"])
    def test_at_acceptance(self, team: TeamSetting, app: Flask, what: str) -> None:
        """Pitfall: an invitation outlives the power of who sent it."""
        make_role(team, "recruiter", *RECRUITING)
        make_role(team, "guest", "teams:read", "tasks:read")
        recruiter, person = join(team, "recruiter"), make_person(app)
        made = invite(team, person.email, "guest", by=recruiter)
        member = f"{team.path}/members/{recruiter.id}"
        taken = {
            "demoted": lambda: team.owner.patch(member, json={"role": "guest"}),
            "removed": lambda: team.owner.delete(member),
            "suspended": lambda: team.owner.post(f"{member}/suspend"),
            "deprived": lambda: team.owner.patch(
                f"{team.path}/roles/recruiter", json={"permissions": ["members:create", "teams:read"]}
            ),
        }[what]()
        assert taken.status_code in {200, 204}
        person.verify_email()
        for refused in (
            accept(person, made["token"]),
            person.post(f"/me/invitations/{made['id']}/accept"),
        ):
            assert (refused.status_code, refused.json["code"]) == (409, "conflict")
        assert person.get(team.path).status_code == 404
        # Somebody who may answers for it instead.
        again = team.admin.post(f"{team.path}/invitations/{made['id']}/resend")
        assert accept(person, again.json["token"]).status_code == 200

    def test_of_a_role_that_was_widened_meanwhile(self, team: TeamSetting, app: Flask) -> None:
        make_role(team, "recruiter", *RECRUITING)
        make_role(team, "guest", "teams:read", "tasks:read")
        recruiter, person = join(team, "recruiter"), make_person(app)
        made = invite(team, person.email, "guest", by=recruiter)
        role = f"{team.path}/roles/guest"
        assert team.owner.patch(role, json={"permissions": ["teams:read", "tasks:update"]}).status_code == 200
        assert accept(person, made["token"]).status_code == 409
        assert team.owner.patch(role, json={"permissions": ["teams:read"]}).status_code == 200
        assert accept(person, made["token"]).status_code == 200


class TestSeats:
    """A pending invitation takes a seat, on every path and no longer than it is pending."""

    def used(self, setting: TeamSetting, answer: Answer) -> tuple[int, int]:
        assert (answer.status_code, answer.json["code"]) == (409, "seat_limit_reached"), answer.text
        return answer.json["limit"], answer.json["used"]

    def test_of_all_that_take_one(self, app: Flask, free_team: TeamSetting) -> None:
        team, person = free_team, make_person(app)
        made = [invite(team, email) for email in (person.email, address(), address(), address())]
        assert self.used(team, send(team, address())) == (5, 5)
        newcomer = {"user_id": str(make_person(app).id), "role": "viewer"}
        assert self.used(team, team.owner.post(f"{team.path}/members", json=newcomer)) == (5, 5)
        # Its own seat is not counted against it.
        assert accept(person, made[0]["token"]).status_code == 200
        assert self.used(team, send(team, address())) == (5, 5)
        assert team.owner.delete(f"{team.path}/invitations/{made[1]['id']}").status_code == 204
        assert team.owner.post(f"{team.path}/members", json=newcomer).status_code == 201
        # What expires loses its seat, and does not get it back when it is taken.
        age(made[2], "-1 second")
        last = invite(team, address())
        assert self.used(team, team.owner.post(f"{team.path}/invitations/{made[2]['id']}/resend")) == (5, 5)
        assert status(team, made[2]) == "expired"
        assert team.owner.delete(f"{team.path}/invitations/{last['id']}").status_code == 204
        assert team.owner.post(f"{team.path}/invitations/{made[2]['id']}/resend").status_code == 200
        assert team.owner.post(f"{team.path}/invitations/{made[3]['id']}/resend").status_code == 200

    def test_of_a_smaller_plan(self, team: TeamSetting) -> None:
        invite(team, address())
        one_too_many = invite(team, address())  # with four members
        plan = {"plan": "free"}
        assert self.used(team, team.owner.put(f"{team.path}/plan", json=plan)) == (5, 6)
        age(one_too_many, "-1 second")
        assert team.owner.put(f"{team.path}/plan", json=plan).status_code == 200

    def test_added_directly_takes_the_invitations(self, app: Flask, free_team: TeamSetting) -> None:
        team, person = free_team, make_person(app)
        for email in (person.email, address(), address(), address()):
            invite(team, email)
        added = team.owner.post(f"{team.path}/members", json={"email": person.email, "role": "viewer"})
        assert added.status_code == 201
        assert self.used(team, send(team, address())) == (5, 5)

    def test_accepted_at_the_same_time(self, app: Flask, free_team: TeamSetting) -> None:
        """Pitfall: one token, two acceptances."""
        person = make_person(app)
        made = invite(free_team, person.email)

        def once(_: int) -> int:
            again = Person(
                app, person.id, person.email, person.name, person.token
            )  # with a client of its own
            answered: int = accept(again, made["token"]).status_code
            return answered

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(once, range(4))) == [200, 409, 409, 409]
        assert len(free_team.owner.get(f"{free_team.path}/members").json["items"]) == 2


class TestBulk:
    def send(self, setting: TeamSetting, *wanted: tuple[str, str], by: Person | None = None) -> Answer:
        body = {"invitations": [{"email": email, "role": role} for email, role in wanted]}
        return (by or setting.owner).post(f"{setting.path}/invitations/bulk", json=body)

    def test_each_has_a_result(self, app: Flask, team: TeamSetting) -> None:
        make_role(team, "recruiter", *RECRUITING)
        make_role(team, "guest", "teams:read")
        recruiter, email, waiting = join(team, "recruiter"), address(), address()
        invite(team, waiting)
        answer = self.send(
            team,
            (email, "guest"),
            (email.upper(), "recruiter"),
            (address(), "king"),
            (address(), "admin"),
            (team.viewer.email, "guest"),
            (waiting, "guest"),
            (address(), "recruiter"),
            by=recruiter,
        )
        assert answer.status_code == 200
        results = answer.json["results"]
        codes = [row["error"] and row["error"]["code"] for row in results]
        assert codes == [
            None, "conflict", "validation_failed", "permission_denied", "conflict", "conflict", None,
        ]  # fmt: skip
        assert [row["email"] for row in results][:2] == [email, email.upper()]
        assert results[1]["error"]["id"] == results[0]["invitation"]["id"]
        assert list(results[2]["error"]["errors"]) == ["role"]
        assert results[3]["error"]["missing"] == "activity:read"
        for row in results:
            assert (row["invitation"] is None) is (row["error"] is not None)
        made = [row["invitation"] for row in results if row["invitation"]]
        assert all(set(each) == {*FIELDS, "token"} for each in made)
        assert all(len(mails_of(each)) == 1 for each in made)
        assert len(team.owner.get(f"{team.path}/invitations").json["items"]) == 3
        drain()
        assert len(team.owner.get(f"{team.path}/activity?action=invitation_created").json["items"]) == 3
        assert accept(registered(app, email), made[0]["token"]).status_code == 200

    def test_the_seats_end_in_the_middle(self, free_team: TeamSetting) -> None:
        wanted = [(address(), "viewer") for _ in range(6)]
        results = self.send(free_team, *wanted).json["results"]
        assert [row["error"] and row["error"]["code"] for row in results] == [None] * 4 + [
            "seat_limit_reached"
        ] * 2
        assert (results[4]["error"]["limit"], results[4]["error"]["used"]) == (5, 5)
        assert len(free_team.owner.get(f"{free_team.path}/invitations").json["items"]) == 4

    @pytest.mark.parametrize(("number", "fits"), [(0, False), (1, True), (100, True), (101, False)])
    def test_of_a_hundred_at_most(self, team: TeamSetting, number: int, fits: bool) -> None:
        assert team.owner.put(f"{team.path}/plan", json={"plan": "enterprise"}).status_code == 200
        answer = self.send(team, *((address(), "viewer") for _ in range(number)))
        (row,) = fetch("SELECT count(*) AS made FROM invitations WHERE team_id = :id", id=team.id)
        if fits:
            assert answer.status_code == 200
            assert [each["error"] for each in answer.json["results"]] == [None] * number
            assert row.made == number
        else:
            assert (answer.status_code, list(answer.json["errors"])) == (422, ["invitations"])
            assert row.made == 0

    def test_a_repeat_gets_no_tokens(self, team: TeamSetting) -> None:
        body = {"invitations": [{"email": address(), "role": "viewer"}]}
        headers = {"Idempotency-Key": uuid7().hex}
        path = f"{team.path}/invitations/bulk"
        first, again = (team.owner.post(path, json=body, headers=headers) for _ in range(2))
        assert (first.status_code, again.status_code, again.json["id"]) == (200, 409, str(team.id))
        assert len(team.owner.get(f"{team.path}/invitations").json["items"]) == 1

    def test_a_malformed_one_refuses_all(self, team: TeamSetting) -> None:
        answer = self.send(team, (address(), "viewer"), ("no address", "viewer"))
        assert answer.status_code == 422
        assert list(answer.json["errors"]["invitations"]) == ["1"]
        assert team.owner.get(f"{team.path}/invitations").json["items"] == []


def test_a_repeat_gets_no_token(team: TeamSetting) -> None:
    body, headers = {"email": address(), "role": "viewer"}, {"Idempotency-Key": uuid7().hex}
    first, again = (team.owner.post(f"{team.path}/invitations", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code, again.json["id"]) == (201, 409, first.json["id"])
    resend = f"{team.path}/invitations/{first.json['id']}/resend"
    headers = {"Idempotency-Key": uuid7().hex}
    sent, repeated = (team.owner.post(resend, headers=headers) for _ in range(2))
    assert (sent.status_code, repeated.status_code, repeated.json["id"]) == (200, 409, first.json["id"])
    assert "token" not in repeated.json
    assert len(mails_of(first.json)) == 2
    (kept,) = fetch("SELECT body FROM idempotency_keys WHERE key = :key", key=headers["Idempotency-Key"])
    assert kept.body is None


def test_another_teams_invitation_is_absent(team: TeamSetting, app: Flask) -> None:
    """Pitfall: a check on the tenant of the path, and a fetch by bare id."""
    other = make_team(app, owner=team.owner, roles=())
    made = invite(other, address())
    path = f"{team.path}/invitations/{made['id']}"
    answers = [team.owner.get(path), team.owner.delete(path), team.owner.post(f"{path}/resend")]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert status(other, made) == "pending"


def test_a_stale_revocation_revokes_nothing(team: TeamSetting) -> None:
    made = invite(team, address())
    path = f"{team.path}/invitations/{made['id']}"
    stale = team.owner.get(path).headers["ETag"]
    assert team.admin.post(f"{path}/resend").status_code == 200
    assert team.owner.delete(path, headers={"If-Match": stale}).status_code == 412
    assert status(team, made) == "pending"
    current = team.owner.get(path).headers["ETag"]
    assert team.owner.delete(path, headers={"If-Match": current}).status_code == 204


def test_the_log_joins_the_address(team: TeamSetting) -> None:
    email = address()
    made = invite(team, email)
    drain()
    (row,) = team.viewer.get(f"{team.path}/activity?action=invitation_created").json["items"]
    assert row["summary"] == f"Owner invited {email} as viewer"
    assert row["metadata"] == {"invitation_id": made["id"], "role": "viewer"}
    assert len(team.viewer.get(f"{team.path}/activity", query_string={"q": email[:20]}).json["items"]) == 1

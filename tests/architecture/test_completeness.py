"""
Every route that changes something leaves its trace: in the team's log, or in the person's own stream. Each non-GET route has
a call here that succeeds, or a reason for which it leaves none.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import pyotp
import pytest
from argon2 import PasswordHasher
from flask import Flask

from api.event_catalogue import account_actions
from models.access import passwords
from models.database import transaction
from models.events.catalogue import CATALOGUE
from models.operations.account_events import AccountAction
from models.operations.changes import MASKED, SECRET_WORDS, apply_changes, is_secret
from models.tables import User
from tests.accounts import PASSWORD, Account, Mailbox, post
from tests.api.routes import ROUTES, Route
from tests.factories import (
    Answer,
    Person,
    TeamSetting,
    execute,
    fetch,
    invite,
    make_agent,
    make_delivery,
    make_key,
    make_person,
    make_role,
    make_team,
    make_webhook,
)

CHANGING = [route for route in ROUTES if route.method != "GET"]
QUESTION = "a question, asked by POST for its body"
LEAVES_NONE = {
    "POST /invitations/preview": QUESTION,
    "POST /teams/<team_id>/permissions/check": QUESTION,
    "POST /teams/<team_id>/permissions/dry-run": QUESTION,
    "POST /teams/<team_id>/permissions/explain": QUESTION,
    "POST /teams/<team_id>/permissions/what-can": QUESTION,
    "POST /teams/<team_id>/permissions/who-can": QUESTION,
    "POST /teams/<team_id>/usage": "the ledger is its own record, one row for each thing reported, and append-only",
    "POST /teams/<team_id>/ws-tickets": "an entry that is asked for, used up within 30 s; it grants what its credential does",
    "POST /teams/<team_id>/tasks/<task_id>/heartbeat": "a sign of life every few seconds that changes nothing but its lease",
    "POST /auth/request-password-reset": "a mail to whoever has the address; the reset itself is recorded",
    "POST /me/verify-email": "a mail, sent again; the verification itself is recorded",
    "POST /me/two-factor": "a secret that counts for nothing until it is confirmed, which is recorded",
    "POST /teams/<team_id>/activity/exports/<export_id>/link": "another link to one's own file; the export itself is recorded",
    "POST /me/erase": "the person's stream goes with the account; the teams' logs say member_erased (test_erasure.py)",
}
Call = Callable[["Scene"], Answer]


@dataclass
class Scene:
    """A person with a password and a mailbox, a team of theirs, and who else is in it."""

    app: Flask
    account: Account
    setting: TeamSetting
    mailbox: Mailbox

    @property
    def person(self) -> Person:
        return self.account.person

    def of_team(self, method: str, below: str, body: Any = None, *, by: Person | None = None) -> Answer:
        return (by or self.person).call(method, self.setting.path + below, json=body)

    def task(self, *, started: bool = False) -> str:
        task: str = self.setting.task()["id"]
        if started:
            assert self.of_team("POST", f"/tasks/{task}/start").status_code == 200
        return f"/tasks/{task}"


def trace() -> int:
    """How many events there are, of teams and of persons."""
    (row,) = fetch(
        "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM activity_logs)"
        " + (SELECT count(*) FROM account_events) AS rows"
    )
    return int(row.rows)


def newcomer(scene: Scene) -> Person:
    return make_person(scene.app, "Newcomer")


def waiting(scene: Scene) -> tuple[Person, dict[str, Any]]:
    """Somebody whose address is verified and invited."""
    person = newcomer(scene)
    person.verify_email()
    return person, invite(scene.setting, person.email)


def accept(scene: Scene) -> Answer:
    person, invitation = waiting(scene)
    return person.post("/invitations/accept", json={"token": invitation["token"]})


def answer_waiting(verb: str, scene: Scene) -> Answer:
    person, invitation = waiting(scene)
    return person.post(f"/me/invitations/{invitation['id']}/{verb}")


def of_invitation(method: str, below: str, scene: Scene) -> Answer:
    return scene.of_team(method, f"/invitations/{waiting(scene)[1]['id']}{below}")


def other_session(scene: Scene) -> Answer:
    other = scene.account.another_session()
    (row,) = [row for row in other.get("/me/sessions").json["items"] if row["current"]]
    return scene.person.delete(f"/me/sessions/{row['id']}")


def other_sessions(scene: Scene) -> Answer:
    scene.account.another_session()
    return scene.person.delete("/me/sessions")


def reset(scene: Scene) -> Answer:
    assert post(scene.app, "/auth/request-password-reset", {"email": scene.account.email}).status_code == 202
    token = scene.mailbox.reset(scene.account.email)
    return post(scene.app, "/auth/reset-password", {"token": token, "password": "another password"})


def confirm(scene: Scene) -> Answer:
    begun = scene.person.post("/me/two-factor", json={"password": PASSWORD})
    code = pyotp.TOTP(begun.json["secret"]).now()
    return scene.person.post("/me/two-factor/confirm", json={"code": code})


def with_codes(path: str, body: dict[str, Any], scene: Scene) -> Answer:
    codes = scene.account.enable_second_factor()
    return scene.person.post(path, json={**body, "code": codes[0]})


def restore(scene: Scene) -> Answer:
    assert scene.of_team("DELETE", "").status_code == 204
    return scene.of_team("POST", "/restore")


def release(scene: Scene) -> Answer:
    assert scene.of_team("PUT", "/legal-hold", {"reason": "A"}).status_code == 200
    return scene.of_team("DELETE", "/legal-hold")


def reactivate(scene: Scene) -> Answer:
    path = f"/members/{scene.setting.viewer.id}"
    assert scene.of_team("POST", f"{path}/suspend").status_code == 200
    return scene.of_team("POST", f"{path}/reactivate")


def unlist(scene: Scene) -> Answer:
    path = f"/workspaces/{scene.setting.workspace_id}/members/{scene.setting.viewer.id}"
    assert scene.of_team("PUT", path, {"role": None}).status_code in {200, 201}
    return scene.of_team("DELETE", path)


def of_role(method: str, body: Any, scene: Scene) -> Answer:
    make_role(scene.setting, "clerk", "tasks:read")
    return scene.of_team(method, "/roles/clerk", body)


def of_agent(method: str, body: Any, scene: Scene) -> Answer:
    return scene.of_team(method, f"/agents/{make_agent(scene.setting)['id']}", body)


def claim(scene: Scene) -> Answer:
    scene.task()
    return scene.of_team("POST", f"/workspaces/{scene.setting.workspace_id}/tasks/claim", {})


def of_task(method: str, below: str, body: Any, scene: Scene, *, started: bool = False) -> Answer:
    return scene.of_team(method, scene.task(started=started) + below, body)


def of_member(method: str, below: str, body: Any, scene: Scene) -> Answer:
    return scene.of_team(method, f"/members/{scene.setting.viewer.id}{below}", body)


def of_workspace(method: str, below: str, body: Any, scene: Scene) -> Answer:
    return scene.of_team(method, f"/workspaces/{scene.setting.workspace_id}{below}", body)


def of_webhook(method: str, below: str, body: Any, scene: Scene) -> Answer:
    webhook = make_webhook(scene.setting)
    execute("UPDATE webhooks SET delivered_seq = 3 WHERE id = :id", id=webhook["id"])
    delivery = make_delivery(webhook)
    return scene.of_team(method, f"/webhooks/{webhook['id']}{below.format(delivery=delivery)}", body)


def of_export(method: str, scene: Scene) -> Answer:
    made = scene.of_team("POST", "/activity/exports", {"format": "csv"})
    return scene.of_team(method, f"/activity/exports/{made.json['id']}")


def registering(scene: Scene) -> Answer:
    body = {"email": f"x{scene.account.email}", "password": PASSWORD, "name": "Kim"}
    return post(scene.app, "/auth/register", body)


def change_password(scene: Scene) -> Answer:
    body = {"current_password": PASSWORD, "password": "another password"}
    return scene.person.put("/me/password", json=body)


def verify(scene: Scene) -> Answer:
    token = scene.mailbox.verification(scene.account.email)
    return post(scene.app, "/auth/verify-email", {"token": token})


def in_team(method: str, below: str, body: Any = None) -> Call:
    return lambda scene: scene.of_team(method, below, body)


CALLS: dict[str, Call] = {
    "POST /auth/login": lambda scene: scene.account.sign_in(),
    "POST /auth/logout": lambda scene: scene.person.post("/auth/logout"),
    "POST /auth/register": registering,
    "POST /auth/reset-password": reset,
    "POST /auth/verify-email": verify,
    "POST /invitations/accept": accept,
    "PATCH /me": lambda scene: scene.person.patch("/me", json={"name": "Sam"}),
    "POST /me/invitations/<invitation_id>/accept": partial(answer_waiting, "accept"),
    "POST /me/invitations/<invitation_id>/decline": partial(answer_waiting, "decline"),
    "PUT /me/password": change_password,
    "DELETE /me/sessions": other_sessions,
    "DELETE /me/sessions/<session_id>": other_session,
    "POST /me/two-factor/confirm": confirm,
    "POST /me/two-factor/disable": partial(with_codes, "/me/two-factor/disable", {"password": PASSWORD}),
    "POST /me/two-factor/recovery-codes": partial(with_codes, "/me/two-factor/recovery-codes", {}),
    "POST /teams": lambda scene: scene.person.post("/teams", json={"name": "Art"}),
    "POST /teams/<deleted_team_id>/restore": restore,
    "DELETE /teams/<team_id>": in_team("DELETE", ""),
    "PATCH /teams/<team_id>": in_team("PATCH", "", {"retention_days": 90}),
    "PUT /teams/<team_id>/legal-hold": in_team("PUT", "/legal-hold", {"reason": "A"}),
    "DELETE /teams/<team_id>/legal-hold": release,
    "POST /teams/<team_id>/activity/exports": in_team("POST", "/activity/exports", {"format": "csv"}),
    "DELETE /teams/<team_id>/activity/exports/<export_id>": partial(of_export, "DELETE"),
    "POST /teams/<team_id>/agents": in_team("POST", "/agents", {"name": "Scout", "role": "member"}),
    "DELETE /teams/<team_id>/agents/<agent_id>": partial(of_agent, "DELETE", None),
    "PATCH /teams/<team_id>/agents/<agent_id>": partial(of_agent, "PATCH", {"role": "viewer"}),
    "POST /teams/<team_id>/api-keys": in_team(
        "POST", "/api-keys", {"name": "Robot", "permissions": ["tasks:read"]}
    ),
    "DELETE /teams/<team_id>/api-keys/<api_key_id>": lambda scene: scene.of_team(
        "DELETE", f"/api-keys/{make_key(scene.setting, scene.person, 'tasks:read').key_id}"
    ),
    "POST /teams/<team_id>/invitations": in_team(
        "POST", "/invitations", {"email": "nobody@example.com", "role": "viewer"}
    ),
    "DELETE /teams/<team_id>/invitations/<invitation_id>": partial(of_invitation, "DELETE", ""),
    "POST /teams/<team_id>/invitations/<invitation_id>/resend": partial(of_invitation, "POST", "/resend"),
    "POST /teams/<team_id>/invitations/bulk": in_team(
        "POST", "/invitations/bulk", {"invitations": [{"email": "nobody@example.com", "role": "viewer"}]}
    ),
    "POST /teams/<team_id>/members": lambda scene: scene.of_team(
        "POST", "/members", {"user_id": str(newcomer(scene).id), "role": "viewer"}
    ),
    "DELETE /teams/<team_id>/members/<user_id>": partial(of_member, "DELETE", "", None),
    "PATCH /teams/<team_id>/members/<user_id>": partial(of_member, "PATCH", "", {"role": "member"}),
    "POST /teams/<team_id>/members/<user_id>/reactivate": reactivate,
    "POST /teams/<team_id>/members/<user_id>/suspend": partial(of_member, "POST", "/suspend", None),
    "PUT /teams/<team_id>/plan": in_team("PUT", "/plan", {"plan": "enterprise"}),
    "POST /teams/<team_id>/roles": in_team(
        "POST", "/roles", {"name": "clerk", "permissions": ["tasks:read"]}
    ),
    "DELETE /teams/<team_id>/roles/<name>": partial(of_role, "DELETE", None),
    "PATCH /teams/<team_id>/roles/<name>": partial(of_role, "PATCH", {"permissions": ["usage:read"]}),
    "DELETE /teams/<team_id>/tasks/<task_id>": partial(of_task, "DELETE", "", None),
    "PATCH /teams/<team_id>/tasks/<task_id>": partial(of_task, "PATCH", "", {"title": "Read"}),
    "POST /teams/<team_id>/tasks/<task_id>/cancel": partial(of_task, "POST", "/cancel", None),
    "POST /teams/<team_id>/tasks/<task_id>/complete": partial(of_task, "POST", "/complete", {}, started=True),
    "POST /teams/<team_id>/tasks/<task_id>/fail": partial(
        of_task, "POST", "/fail", {"error": "lost"}, started=True
    ),
    "POST /teams/<team_id>/tasks/<task_id>/start": partial(of_task, "POST", "/start", None),
    "POST /teams/<team_id>/transfer-ownership": lambda scene: scene.of_team(
        "POST", "/transfer-ownership", {"user_id": str(scene.setting.member.id)}
    ),
    "POST /teams/<team_id>/webhooks": in_team("POST", "/webhooks", {"url": "http://127.0.0.1:65535/hook"}),
    "DELETE /teams/<team_id>/webhooks/<webhook_id>": partial(of_webhook, "DELETE", "", None),
    "PATCH /teams/<team_id>/webhooks/<webhook_id>": partial(of_webhook, "PATCH", "", {"enabled": False}),
    "POST /teams/<team_id>/webhooks/<webhook_id>/rotate-secret": partial(
        of_webhook, "POST", "/rotate-secret", None
    ),
    "POST /teams/<team_id>/webhooks/<webhook_id>/test": partial(of_webhook, "POST", "/test", None),
    "POST /teams/<team_id>/webhooks/<webhook_id>/replay": partial(
        of_webhook, "POST", "/replay", {"from_seq": 1}
    ),
    "POST /teams/<team_id>/webhooks/<webhook_id>/deliveries/<delivery_id>/redeliver": partial(
        of_webhook, "POST", "/deliveries/{delivery}/redeliver", None
    ),
    "POST /teams/<team_id>/workspaces": in_team("POST", "/workspaces", {"name": "Lab"}),
    "DELETE /teams/<team_id>/workspaces/<workspace_id>": partial(of_workspace, "DELETE", "", None),
    "PATCH /teams/<team_id>/workspaces/<workspace_id>": partial(of_workspace, "PATCH", "", {"name": "Lab"}),
    "DELETE /teams/<team_id>/workspaces/<workspace_id>/members/<user_id>": unlist,
    "PUT /teams/<team_id>/workspaces/<workspace_id>/members/<user_id>": lambda scene: of_workspace(
        "PUT", f"/members/{scene.setting.viewer.id}", {"role": "viewer"}, scene
    ),
    "POST /teams/<team_id>/workspaces/<workspace_id>/tasks": partial(
        of_workspace, "POST", "/tasks", {"title": "Read"}
    ),
    "POST /teams/<team_id>/workspaces/<workspace_id>/tasks/claim": claim,
}
"""A call of each route that succeeds and changes something, once what it needs is there."""
BESIDES = {
    "POST /auth/register": "signed_in",
    "POST /auth/reset-password": "email_verified",
    "POST /me/two-factor/disable": "recovery_code_used",
    "POST /me/two-factor/recovery-codes": "recovery_code_used",
    "POST /teams/<team_id>/activity/exports": "activity_read",
}
"""What else such a call changes, with an event of its own."""


@pytest.fixture(autouse=True)
def cheap_argon2(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    passwords._nobodys_hash.cache_clear()
    yield
    passwords._nobodys_hash.cache_clear()


@pytest.fixture
def scene(app: Flask) -> Scene:
    mailbox, account = Mailbox(), Account(app)
    return Scene(app, account, make_team(app, owner=account.person), mailbox)


def test_each_route_that_is_no_get_is_called_or_excused() -> None:
    routes = {str(route) for route in CHANGING}
    assert set(CALLS) | set(LEAVES_NONE) == routes
    assert not set(CALLS) & set(LEAVES_NONE)
    assert all(LEAVES_NONE.values())


@pytest.mark.parametrize("route", [route for route in CHANGING if str(route) in CALLS], ids=str)
def test_what_changes_something_leaves_one_event(
    scene: Scene, route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events of the last request: what had to be there first has left its own."""
    seen: list[tuple[str, str, int]] = []
    send = Person.call

    def count(person: Person, method: str, path: str, **kwargs: Any) -> Answer:
        before = trace()
        answer = send(person, method, path, **kwargs)
        seen.append((method, path, trace() - before))
        return answer

    before = trace()
    monkeypatch.setattr(Person, "call", count)
    answer = CALLS[str(route)](scene)
    assert answer.status_code < 300, answer.text
    by_person = bool(seen) and answer.request.path.endswith(seen[-1][1])
    left = seen[-1][2] if by_person else trace() - before
    assert left == 1 + (str(route) in BESIDES), seen
    assert answer.request.method == route.method


NAMES = [(declared.type, field.name) for declared in CATALOGUE.values() for field in fields(declared)]


def test_no_event_has_a_field_for_a_secret() -> None:
    assert [each for each in NAMES if is_secret(each[1])] == []
    assert len(NAMES) > 100


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password_hash", True),
        ("token", True),
        ("mailed_token_hash", True),
        ("origin_salt", True),
        ("secret", True),
        ("llm_tokens_used", False),
        ("api_keys_revoked", False),
        ("name", False),
    ],
)
def test_a_name_of_a_secret_is_recognised(name: str, secret: bool) -> None:
    assert is_secret(name) is secret
    assert "secret" in SECRET_WORDS


def test_the_change_of_a_secret_is_told_without_it(app: Flask) -> None:
    person = make_person(app)
    with transaction() as session:
        user = session.get_one(User, person.id)
        changes = apply_changes(session, user, {"password_hash": "new", "name": "Sam"})
    assert changes == {"password_hash": [MASKED, MASKED], "name": ["Kim", "Sam"]}


def test_each_account_action_says_what_happened() -> None:
    said = account_actions()
    assert set(said) == set(AccountAction)
    assert all(said.values())

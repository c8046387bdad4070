"""
People, teams and what is in them, made through the product's own operations: `Person` calls the API, as a client would.

Passwords are not hashed here (argon2 is slow on purpose): a factory's person can't sign in with one.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.actor import Origin
from models.access.credentials import Credential
from models.access.entry import Access, enter, enter_team
from models.database import transaction
from models.operations import activity, activity_counts, members, sessions, teams, usage, users
from models.queries import teams as team_queries
from models.queries import users as accounts

BASE = "/api/v1"
Answer = Any
"""A werkzeug TestResponse; as such its `json` could be None, and every test would have to say that it is not."""


@dataclass
class Person:
    """A registered user with an open session."""

    app: Flask
    id: UUID
    email: str
    name: str
    token: str
    client: FlaskClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.app.test_client()

    @property
    def credential(self) -> Credential:
        return Credential(self.token, Origin("127.0.0.1", "tests", "request"))

    def call(self, method: str, path: str, headers: dict[str, str] | None = None, **kwargs: Any) -> Answer:
        """Calls the API with this person's token; `path` follows /api/v1."""
        headers = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        return self.client.open(BASE + path, method=method, headers=headers, **kwargs)

    def get(self, path: str, **kwargs: Any) -> Answer:
        return self.call("GET", path, **kwargs)

    def post(self, path: str, **kwargs: Any) -> Answer:
        return self.call("POST", path, **kwargs)

    def patch(self, path: str, **kwargs: Any) -> Answer:
        return self.call("PATCH", path, **kwargs)

    def put(self, path: str, **kwargs: Any) -> Answer:
        return self.call("PUT", path, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> Answer:
        return self.call("DELETE", path, **kwargs)

    def enter(self, session: Session, team_id: UUID | str) -> Access:
        return enter_team(session, self.credential, UUID(str(team_id)))

    def verify_email(self) -> None:
        """The person has proved to read their address."""
        execute("UPDATE users SET email_verified_at = now() WHERE id = :id", id=self.id)

    def set_up_second_factor(self, *, confirmed: bool = True) -> None:
        """With a secret that nobody's device has; enough where only its being there counts."""
        execute(
            "INSERT INTO second_factors (user_id, secret, confirmed_at)"
            " VALUES (:id, 'A', CASE WHEN :confirmed THEN now() END)",
            id=self.id,
            confirmed=confirmed,
        )


@dataclass
class KeyHolder(Person):
    """Someone who calls with an API key instead of a session."""

    key_id: str
    agent_id: str | None


def make_person(app: Flask, name: str = "Kim") -> Person:
    email = f"{name.lower()}-{uuid7().hex}@example.com"
    with transaction() as session:
        user = users.register(session, email=email, name=name, password_hash="no password")
        _, token = sessions.open_session(session, user, origin=Origin(), days=1)
    return Person(app, user.id, email, name, token)


@dataclass
class TeamSetting:
    """A team with one person of each built-in role, on the pro plan, with a workspace."""

    id: UUID
    owner: Person
    people: dict[str, Person]
    workspace_id: UUID

    @property
    def path(self) -> str:
        return f"/teams/{self.id}"

    @property
    def admin(self) -> Person:
        """An admin who is not the owner."""
        return self.people["admin"]

    @property
    def member(self) -> Person:
        return self.people["member"]

    @property
    def viewer(self) -> Person:
        return self.people["viewer"]

    def task(self, **values: Any) -> dict[str, Any]:
        """A new pending task, made by the owner."""
        path = f"{self.path}/workspaces/{self.workspace_id}/tasks"
        return _made(self.owner.post(path, json={"title": "A task", **values}))


def make_team(
    app: Flask, *, owner: Person | None = None, roles: tuple[str, ...] = ("admin", "member", "viewer")
) -> TeamSetting:
    owner = owner or make_person(app, "Owner")
    people = {role: make_person(app, role.capitalize()) for role in roles}
    with transaction() as session:
        team_id = teams.create(session, enter(session, owner.credential), name="Design").id
    with transaction() as session:
        access = owner.enter(session, team_id)
        team = team_queries.get(session, access, for_update=True)
        teams.change_plan(session, access, team, plan="pro")
        for role, person in people.items():
            members.add(session, access, team, user=accounts.get(session, person.id), role=role)
    created = owner.post(f"/teams/{team_id}/workspaces", json={"name": "Research"})
    return TeamSetting(team_id, owner, people, UUID(created.json["id"]))


def join(setting: TeamSetting, role: str, name: str = "Joan") -> Person:
    """A new person, whom the owner adds to the team."""
    person = make_person(setting.owner.app, name)
    body = {"user_id": str(person.id), "role": role}
    _made(setting.owner.post(f"{setting.path}/members", json=body))
    return person


def make_role(setting: TeamSetting, name: str, *permissions: str) -> dict[str, Any]:
    return _made(setting.owner.post(f"{setting.path}/roles", json={"name": name, "permissions": permissions}))


def invite(
    setting: TeamSetting, email: str, role: str = "viewer", *, by: Person | None = None
) -> dict[str, Any]:
    """The invitation, with its token."""
    by = by or setting.owner
    return _made(by.post(f"{setting.path}/invitations", json={"email": email, "role": role}))


def make_agent(
    setting: TeamSetting, role: str = "member", name: str = "Scout", *, by: Person | None = None
) -> dict[str, Any]:
    return _made((by or setting.owner).post(f"{setting.path}/agents", json={"name": name, "role": role}))


def make_key(setting: TeamSetting, by: Person, *permissions: str, **values: Any) -> KeyHolder:
    """A key that acts for `by`; the agent's with `agent_id`."""
    body = {"name": "Robot", "permissions": permissions, **values}
    made = _made(by.post(f"{setting.path}/api-keys", json=body))
    return KeyHolder(by.app, by.id, by.email, by.name, made["key"], made["id"], made["agent_id"])


def make_webhook(setting: TeamSetting, *, by: Person | None = None, **values: Any) -> dict[str, Any]:
    """A webhook to where nobody listens, with its secret."""
    body = {"url": "http://127.0.0.1:65535/hook", **values}
    return _made((by or setting.owner).post(f"{setting.path}/webhooks", json=body))


def make_delivery(webhook: dict[str, Any], seq: int = 1, state: str = "dead") -> str:
    """The id of the delivery of an event that was sent and that nobody took."""
    delivery_id = str(uuid7())
    execute(
        "INSERT INTO webhook_deliveries (id, team_id, webhook_id, seq, event_id, action, state, attempts)"
        " VALUES (:id, :team_id, :webhook_id, :seq, :id, 'task_created', :state, 1)",
        id=delivery_id,
        team_id=webhook["team_id"],
        webhook_id=webhook["id"],
        seq=seq,
        state=state,
    )
    return delivery_id


def _made(answer: Answer) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json
    return made


def execute(statement: str, **parameters: Any) -> None:
    """What only time or an operator does."""
    with transaction() as session:
        session.execute(text(statement), parameters)


def fetch(statement: str, **parameters: Any) -> list[Any]:
    with transaction() as session:
        return list(session.execute(text(statement), parameters).all())


def drain() -> int:
    """Projects all that waits in the outbox, as the worker would; how many events it moved."""
    moved = 0
    while True:
        with transaction() as session:
            batch = len(activity.project(session, limit=500))
        if not batch:
            return moved
        moved += batch


def fold() -> int:
    """Folds all that is pending, as the worker would; how many rows it took."""
    folded = 0
    while True:
        with transaction() as session:
            batch = usage.fold(session, 5_000)
        if not batch:
            return folded
        folded += batch


def fold_log() -> int:
    """Counts all of the log, as the worker would; how many rows it took."""
    folded = 0
    while True:
        with transaction() as session:
            batch = activity_counts.fold(session, limit=2_000)
        if not batch:
            return folded
        folded += batch

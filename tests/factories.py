"""
People, teams and what is in them, made through the product's own operations: `Person` calls the API, as a client would.

Passwords are not hashed here (argon2 is slow on purpose): a factory's person can't sign in with one.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.access.actor import Origin
from models.access.credentials import Credential
from models.access.entry import Access, enter, enter_team
from models.database import transaction
from models.operations import activity, members, sessions, teams, usage, users
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
        answer = self.owner.post(
            f"{self.path}/workspaces/{self.workspace_id}/tasks", json={"title": "A task", **values}
        )
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json
        return created


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

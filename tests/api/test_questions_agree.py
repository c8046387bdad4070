"""
The differential test: over generated teams, `check`, `explain`, `who-can`, `what-can` and the real routes never disagree.

A team has built-in and custom roles, roles in workspaces, private workspaces, suspended members, members without the second
factor that one of the teams requires, API keys with any scope (more than their makers have, too) and agents.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from models.access.credentials import KEY_PREFIX, hash_secret, new_token
from models.access.permissions import Permission
from models.access.power import WORKSPACE_SCOPED
from models.database import transaction
from models.tables import (
    Agent,
    ApiKey,
    PermissionGrant,
    SecondFactor,
    Team,
    TeamMember,
    Workspace,
    WorkspaceMember,
)
from tests.api.routes import TEAM_ROUTES, Route
from tests.api.test_bad_input import VALID
from tests.factories import Answer, Person, TeamSetting, make_person, make_team

EVERY = [permission.value for permission in Permission]
HARMLESS: dict[str, Any] = {"data": b"{", "headers": {"If-Match": '"stale"'}}
"""As in test_permissions.py: nothing that is allowed to go on with this changes anything."""
MISSING = {"owner": "owner_only", "membership": "suspended", "two_factor": "two_factor_missing"}
NOT_GRANTED = {"not_granted", "agent_role", "key_scope"}
BODIES: dict[str, Any] = {
    "TaskClaimSchema": {},
    "TaskHeartbeatSchema": {"lease_id": "0198c5f0-0000-7000-8000-000000000000"},
    "WorkspaceRoleSchema": {"role": None},
    **VALID,
}
Place = UUID | None


@dataclass
class Population:
    team: TeamSetting
    random: random.Random
    people: list[Person] = field(default_factory=list)
    keys: list[Person] = field(default_factory=list)
    """Persons too, who come with a key of theirs."""
    stranger: Person = field(init=False)
    places: list[Place] = field(default_factory=list)
    tasks: dict[UUID, UUID] = field(default_factory=dict)
    listed: dict[UUID, list[UUID]] = field(default_factory=dict)
    """Who is in each workspace's list."""

    @property
    def asker(self) -> Person:
        """The owner, who sees every workspace and every member."""
        return self.team.owner

    def ask(self, question: str, person: Person | None = None, query: str = "", **body: Any) -> Answer:
        path = f"{self.team.path}/permissions/{question}{query}"
        return (person or self.asker).post(path, json={key: _plain(value) for key, value in body.items()})

    def checked(self, place: Place, *, of: Person, by: Person | None = None) -> dict[str, dict[str, Any]]:
        """What `check` says of every permission: of a person, or (`by` themselves) of the caller as they come."""
        about = {} if by is not None else {"user_id": str(of.id)}
        checks = [{"permission": name, "workspace_id": _plain(place), **about} for name in EVERY]
        answer = self.ask("check", by, checks=checks)
        assert answer.status_code == 200, answer.text
        assert [each["permission"] for each in answer.json["results"]] == EVERY
        return {each["permission"]: each for each in answer.json["results"]}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


def populate(app: Flask, seed: int, *, second_factor: bool) -> Population:
    chance = random.Random(seed)
    team = make_team(app)
    population = Population(team, chance, people=[team.owner, *team.people.values()])
    population.people += [make_person(app, "Member") for _ in range(6)]
    population.stranger = make_person(app, "Stranger")
    with transaction() as session:
        roles = ["admin", "member", "viewer", *_custom_roles(session, population)]
        for person in population.people[4:]:
            session.add(TeamMember(team_id=team.id, user_id=person.id, role=chance.choice(roles)))
        session.flush()
        for visibility in ("team", "private", "private"):
            population.places.append(_workspace(session, population, visibility, roles))
        agents = [
            Agent(team_id=team.id, name=f"Agent {role}", role=role, created_by=team.owner.id)
            for role in roles
        ]
        session.add_all(agents)
        session.flush()
        for person in [team.owner, *population.people]:
            population.keys.append(_key(session, person, team, chance, chance.choice([None, *agents])))
    for place in population.listed:
        made = team.owner.post(f"{team.path}/workspaces/{place}/tasks", json={"title": "A task"})
        population.tasks[place] = UUID(made.json["id"])
    population.places.append(None)
    with transaction() as session:
        _bar(session, population, second_factor=second_factor)
    return population


def _custom_roles(session: Session, population: Population) -> Iterator[str]:
    chance = population.random
    for role in ("custom 1", "custom 2", "custom 3", "custom 4"):
        yield role
        for name in chance.sample(EVERY, chance.randint(1, len(EVERY))):
            resource, _, action = name.partition(":")
            session.add(
                PermissionGrant(team_id=population.team.id, role=role, resource=resource, action=action)
            )


def _workspace(session: Session, population: Population, visibility: str, roles: list[str]) -> UUID:
    """With six people listed in it, most of them in a role of their own."""
    team, chance = population.team, population.random
    row = Workspace(team_id=team.id, name=visibility, visibility=visibility, created_by=team.owner.id)
    session.add(row)
    session.flush()
    listed = chance.sample(population.people, 6)
    population.listed[row.id] = [person.id for person in listed]
    for person in listed:
        role = None if person is team.owner else chance.choice([None, *roles])
        session.add(WorkspaceMember(team_id=team.id, workspace_id=row.id, user_id=person.id, role=role))
    return row.id


def _bar(session: Session, population: Population, *, second_factor: bool) -> None:
    owner, *others = population.people
    chance = population.random
    for person in chance.sample(others, 2):
        session.execute(
            update(TeamMember).where(TeamMember.user_id == person.id).values(suspended_at=func.now())
        )
    if second_factor:
        for person, confirmed in zip([owner, *chance.sample(others, 6)], (1, 1, 1, 1, 1, 0, 0), strict=True):
            session.add(
                SecondFactor(user_id=person.id, secret="x", confirmed_at=func.now() if confirmed else None)
            )
        session.execute(update(Team).where(Team.id == population.team.id).values(two_factor_required=True))


def _key(
    session: Session, person: Person, team: TeamSetting, chance: random.Random, agent: Agent | None
) -> Person:
    secret = new_token(KEY_PREFIX)
    session.add(
        ApiKey(
            team_id=team.id,
            user_id=person.id,
            agent_id=agent.id if agent else None,
            name="A key",
            prefix=secret[:12],
            key_hash=hash_secret(secret),
            permissions=chance.sample(EVERY, chance.randint(len(EVERY) // 2, len(EVERY))),
            expires_at=datetime.now(UTC) + timedelta(days=1),
        )
    )
    return Person(person.app, person.id, person.email, person.name, secret)


@pytest.fixture(scope="module", params=[(1, False), (2, True)], ids=["plain", "second factor"])
def population(app: Flask, request: pytest.FixtureRequest) -> Population:
    seed, second_factor = request.param
    return populate(app, seed, second_factor=second_factor)


def answers(population: Population) -> Iterator[tuple[Person, bool, Place, dict[str, dict[str, Any]]]]:
    """What `check` says of everyone (in person, asked by the owner) and of every key that may enter, in every place."""
    for place in population.places:
        for person in population.people:
            yield person, False, place, population.checked(place, of=person)
        for person in population.keys:
            if population.checked(place, of=person)["teams:read"]["reason"] not in MISSING.values():
                yield person, True, place, population.checked(place, of=person, by=person)


def test_the_population_has_everything_that_can_differ(population: Population) -> None:
    """The generated tests would pass on a population without any of it."""
    reasons = {each["reason"] for *_, results in answers(population) for each in results.values()}
    vias = {
        str(each["via"]).partition(":")[0] for *_, results in answers(population) for each in results.values()
    }
    assert {"granted", "not_granted", "owner_only", "suspended", "workspace_not_found"} <= reasons
    assert {"agent_role", "key_scope"} <= reasons
    assert vias == {"role", "workspace_role", "owner", "None"}


def test_check_says_what_the_routes_do(population: Population) -> None:
    counted = {True: 0, False: 0}
    for person, _, place, results in answers(population):
        for route in TEAM_ROUTES:
            if (permission := route.permission) is None or _in_workspace(route) != (place is not None):
                continue
            said = results[permission]
            hidden = said["reason"] == "workspace_not_found"
            answer = _call(population, person, route, place, hidden=hidden)
            refused = {401, 403} if place is None else {401, 403, 404}
            context = (
                f"{route} by {person.email} in {place}: {answer.status_code} {answer.text[:200]}; {said}"
            )
            assert answer.status_code < 500, context
            assert said["allowed"] == (answer.status_code not in refused), context
            counted[said["allowed"]] += 1
            if answer.status_code == 403:
                missing = answer.json["missing"]
                # Of two reasons the route may name another first: it asks for the permission before it looks for the workspace.
                told = {MISSING.get(missing, "not_granted" if missing == permission else "?")}
                expected = {said["reason"]} if said["reason"] in MISSING.values() else {"not_granted"}
                assert told == expected, context
            elif answer.status_code == 404 and place is not None:
                assert said["reason"] == "workspace_not_found", context
    assert min(counted.values()) > 300


def _in_workspace(route: Route) -> bool:
    return "workspace_id" in route.rule or "task_id" in route.rule


def _call(population: Population, person: Person, route: Route, place: Place, *, hidden: bool) -> Answer:
    ids: dict[str, UUID | str] = {"team_id": population.team.id}
    if place is not None:
        # Another than the caller, as some routes need nothing of oneself.
        another = next(each for each in population.listed[place] if each != person.id)
        ids |= {"workspace_id": place, "task_id": population.tasks[place], "user_id": another}
    body = HARMLESS
    if hidden and route.body:  # which a route says after it has looked at the body
        body = HARMLESS | {"data": json.dumps(BODIES[route.body.__name__]).encode()}
    return person.call(route.method, route.path(**ids), **body)


def test_everyone_hears_of_themselves_what_the_owner_hears_of_them(population: Population) -> None:
    for place in population.places:
        for person in population.people:
            others = population.checked(place, of=person)
            if others["teams:read"]["reason"] in MISSING.values():
                assert (
                    population.ask("check", person, checks=[{"permission": "teams:read"}]).status_code == 403
                )
                continue
            assert population.checked(place, of=person, by=person) == others


def test_what_can_is_all_that_check_allows(population: Population) -> None:
    for person, as_they_come, place, results in answers(population):
        allowed = [
            {"permission": name, "via": said["via"]} for name, said in results.items() if said["allowed"]
        ]
        if as_they_come:
            answer = population.ask("what-can", person, workspace_id=place)
        else:
            answer = population.ask("what-can", user_id=person.id, workspace_id=place)
        assert answer.json["permissions"] == allowed
        assert answer.json["user_id"] == str(person.id)


def test_who_can_is_everyone_whom_check_allows(population: Population) -> None:
    for place in population.places:
        said = {person.id: population.checked(place, of=person) for person in population.people}
        for permission in EVERY:
            expected = {
                (str(user_id), each[permission]["via"])
                for user_id, each in said.items()
                if each[permission]["allowed"]
            }
            found = _every_page(population, permission, place)
            assert len(found) == len(expected), (permission, place)
            assert {(each["user"]["id"], each["via"]) for each in found} == expected


def _every_page(population: Population, permission: str, place: Place) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = "?limit=4"
    while True:
        answer = population.ask("who-can", query=query, permission=permission, workspace_id=place)
        assert answer.status_code == 200, answer.text
        found += answer.json["items"]
        if answer.json["next_cursor"] is None:
            return found
        query = f"?limit=4&cursor={answer.json['next_cursor']}"


def test_explain_says_what_check_does_and_its_path_why(population: Population) -> None:
    for person, as_they_come, place, results in answers(population):
        for permission in population.random.sample(EVERY, 4):
            if as_they_come:
                answer = population.ask("explain", person, permission=permission, workspace_id=place)
            else:
                answer = population.ask(
                    "explain", user_id=person.id, permission=permission, workspace_id=place
                )
            assert answer.status_code == 200, answer.text
            explained = answer.json
            assert {name: explained[name] for name in results[permission]} == results[permission]
            counting = [step["grants"] for step in explained["path"] if step["counts"]]
            assert all(counting) == explained["allowed"] == (not explained["missing"])


def test_who_can_grant_could(population: Population) -> None:
    """Whoever is named has the permission that they would use, where they would use it, and what they would give."""
    seen: set[str] = set()
    for person in population.people:
        for place in population.places:
            for permission in population.random.sample(EVERY, 5):
                answer = population.ask(
                    "explain", user_id=person.id, permission=permission, workspace_id=place
                )
                assert len(answer.json["can_grant"]) <= 20
                for giver in answer.json["can_grant"]:
                    seen.update(giver["how"])
                    _assert_could(population, giver, permission, place, answer.json)
    assert {"members:update", "workspaces:update", "roles:update", "transfer"} <= seen


def _assert_could(
    population: Population, giver: dict[str, Any], permission: str, place: Place, explained: dict[str, Any]
) -> None:
    for how in giver["how"]:
        if how == "transfer":
            assert giver["user"]["id"] == str(population.team.owner.id)
        elif how != "two_factor":
            there = place if how == "workspaces:update" else None
            said = population.ask(
                "check",
                checks=[
                    {"permission": name, "user_id": giver["user"]["id"], "workspace_id": _plain(there)}
                    for name in (how, permission)
                ],
            ).json["results"]
            assert said[0]["allowed"], (giver, explained)
            lifts_suspension = explained["reason"] == "suspended" and how == "members:update"
            # Only the owner may use what is the owner's alone; others can still have it to give, in a role.
            assert said[1]["allowed"] or said[1]["reason"] == "owner_only" or lifts_suspension, (
                giver,
                explained,
            )


def test_a_stranger_is_not_a_member_anywhere(population: Population) -> None:
    for place in population.places:
        for said in population.checked(place, of=population.stranger).values():
            assert (said["allowed"], said["reason"], said["via"]) == (False, "not_a_member", None)
        answer = population.ask("what-can", user_id=population.stranger.id, workspace_id=place)
        assert (answer.json["permissions"], answer.json["reason"]) == ([], "not_a_member")
    for permission in ("tasks:read", "teams:read"):
        holders = _every_page(population, permission, None)
        assert str(population.stranger.id) not in {each["user"]["id"] for each in holders}


def test_a_hidden_workspace_is_told_like_an_absent_one(population: Population) -> None:
    compared = 0
    for person in population.people:
        if population.checked(None, of=person)["members:read"]["allowed"] is False:
            continue
        for place in population.places:
            if place is None or person.get(f"{population.team.path}/workspaces/{place}").status_code != 404:
                continue
            hidden, absent = str(place), "0198c5f0-0000-7000-8000-000000000000"
            for body in (
                {"permission": "tasks:read"},
                {"permission": "members:read"},
                {"permission": "workspaces:update", "user_id": population.listed[place][0]},
            ):
                told = [
                    population.ask("explain", person, **body, workspace_id=each).text.replace(each, "")
                    for each in (hidden, absent)
                ]
                assert told[0] == told[1]
                compared += 1
            pair = [
                population.ask("who-can", person, permission="tasks:read", workspace_id=each)
                for each in (hidden, absent)
            ]
            assert [each.status_code for each in pair] == [404, 404]
            assert [each.json["detail"] for each in pair] == ["There is no such workspace here."] * 2
            lists = [
                population.ask("what-can", person, user_id=population.listed[place][0], workspace_id=each)
                for each in (hidden, absent)
            ]
            assert lists[0].text.replace(hidden, "") == lists[1].text.replace(absent, "")
            granted = {each["permission"] for each in lists[0].json["permissions"]}
            assert not granted & WORKSPACE_SCOPED
    assert compared

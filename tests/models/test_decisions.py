"""The one decision behind every answer about permissions, and that it is read in one statement."""

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from models.access.decisions import (
    Cap,
    Reason,
    Sight,
    Standing,
    changes,
    decide,
    granted,
    missing,
    path,
    ways_to_give,
)
from models.access.entry import Access, enter_team
from models.access.permissions import BUILT_IN_ROLES, OWNER_ONLY, Permission
from models.access.power import WORKSPACE_SCOPED
from models.database import transaction
from models.errors import PermissionDenied
from models.queries import permissions
from models.queries.paging import Page
from models.queries.permissions import Subject
from tests.factories import TeamSetting
from tests.models.conftest import CountStatements

ME, OWNER, PLACE = uuid7(), uuid7(), uuid7()
MEMBER = frozenset(each.value for each in BUILT_IN_ROLES["member"])
VIEWER = frozenset(each.value for each in BUILT_IN_ROLES["viewer"])
ADMIN = frozenset(each.value for each in Permission)
SETS = st.frozensets(st.sampled_from([each.value for each in Permission]))
CAPS = st.none() | st.builds(Cap, st.just("cap"), SETS)


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    """Any subject in any place, as the database can have it."""
    if draw(st.integers(0, 9)) == 0:
        return Standing(ME, sight=draw(st.none() | st.sampled_from(Sight)))
    sight = draw(st.none() | st.sampled_from(Sight))
    owns = draw(st.booleans())
    key = draw(CAPS)
    if owns and sight is Sight.hidden:
        sight = Sight.visible
    listed = sight is Sight.visible and not owns and draw(st.booleans())
    return Standing(
        ME,
        role="role",
        grants=ADMIN if owns else draw(SETS),
        owns=owns,
        barred=draw(st.none() | st.sampled_from(["membership", "account", "team", "two_factor"])),
        workspace_id=PLACE if sight else None,
        sight=sight,
        workspace_role="there" if listed else None,
        workspace_grants=draw(SETS) if listed else frozenset(),
        agent=draw(CAPS) if key else None,
        key=key,
    )


def give(standing: Standing, permission: Permission) -> Standing:
    """The standing once everything that `missing` names was given, and nothing else."""
    for lack in missing(standing, permission):
        more = frozenset({permission.value})
        if lack.step == "membership":
            standing = (
                replace(standing, barred=None) if lack.name else replace(standing, role="new", grants=more)
            )
        elif lack.step in {"account", "team", "two_factor"}:
            standing = replace(standing, barred=None)
        elif lack.step == "workspace":
            standing = replace(
                standing,
                sight=Sight.visible,
                workspace_role="listed",
                workspace_grants=more | standing.grants,
            )
        elif lack.step == "role":
            standing = replace(standing, grants=standing.grants | more)
        elif lack.step == "workspace_role":
            standing = replace(standing, workspace_grants=standing.workspace_grants | more)
        elif lack.step == "owner":
            standing = replace(standing, owns=True, grants=ADMIN, agent=None, key=None)
        elif lack.step == "agent" and standing.agent:
            standing = replace(
                standing, agent=replace(standing.agent, permissions=standing.agent.permissions | more)
            )
        elif lack.step == "api_key" and standing.key:
            standing = replace(
                standing, key=replace(standing.key, permissions=standing.key.permissions | more)
            )
    return standing


@settings(max_examples=1_000, deadline=None, database=None)
@given(standings(), st.sampled_from(Permission))
def test_the_answers_never_disagree(standing: Standing, permission: Permission) -> None:
    decision = decide(standing, permission)
    steps = [step for step in path(standing, permission) if step.counts]
    assert decision.allowed == all(step.grants for step in steps)
    assert decision.allowed == (not missing(standing, permission))
    assert decision.allowed == (permission in standing.may)
    assert decision.allowed == (permission in {each.permission for each in granted(standing)})
    assert decision.allowed == (decision.reason is Reason.granted) == (decision.via is not None)


@settings(max_examples=1_000, deadline=None, database=None)
@given(standings(), st.sampled_from(Permission))
def test_what_is_missing_is_what_would_have_to_be_given(standing: Standing, permission: Permission) -> None:
    lacks = missing(standing, permission)
    for lack in lacks:
        assert lack.detail
    for _ in range(3):  # a new member is still no owner, who comes out of suspension may lack the role
        standing = give(standing, permission)
    if standing.sight is Sight.absent and permission in WORKSPACE_SCOPED:
        return  # nothing can be given there
    assert decide(standing, permission).allowed


@settings(max_examples=500, deadline=None, database=None)
@given(standings(), st.sampled_from(Permission))
def test_an_entered_access_requires_the_same(standing: Standing, permission: Permission) -> None:
    """`Access.require` is what the routes ask; a hidden or absent workspace is for whoever reads it next."""
    if standing.role is None or standing.barred or not standing.sees_workspace:
        return
    access = Access(
        team_id=uuid7(),
        user_id=standing.user_id,
        role=standing.role,
        is_owner=standing.is_owner,
        permissions=standing.power,
        origin=None,  # type: ignore[arg-type]  # not looked at
    )
    if decide(standing, permission).allowed:
        access.require(permission)
    else:
        with pytest.raises(PermissionDenied) as refused:
            access.require(permission)
        owner_only = decide(standing, permission).reason is Reason.owner_only
        assert refused.value.missing == ("owner" if owner_only else permission.value)


@settings(max_examples=500, deadline=None, database=None)
@given(standings(), st.sampled_from(Permission), st.dictionaries(st.sampled_from("abc"), SETS, max_size=3))
def test_nobody_is_said_to_give_what_they_lack(
    standing: Standing, permission: Permission, roles: dict[str, frozenset[str]]
) -> None:
    for lack in missing(standing, permission):
        for way in ways_to_give(
            lack, standing, permission, roles=roles, own=frozenset(roles), owner_id=OWNER
        ):
            assert (way.user_id is None) == bool(way.roles)
            for role in way.roles:
                reactivation = lack.step == "membership" and lack.name
                assert way.how in roles[role]
                assert reactivation or permission in roles[role]


def plain(**values: object) -> Standing:
    return replace(Standing(ME, role="member", grants=MEMBER), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("standing", "permission", "reason", "via"),
    [
        (plain(), "tasks:create", "granted", "role:member"),
        (plain(), "members:create", "not_granted", None),
        (plain(role=None, grants=frozenset()), "tasks:read", "not_a_member", None),
        (plain(barred="membership"), "tasks:read", "suspended", None),
        (plain(barred="two_factor"), "tasks:read", "two_factor_missing", None),
        (plain(barred="account"), "tasks:read", "account_suspended", None),
        (plain(barred="team"), "tasks:read", "team_suspended", None),
        (plain(sight=Sight.absent), "tasks:read", "workspace_not_found", None),
        (plain(sight=Sight.absent), "members:read", "granted", "role:member"),
        (plain(sight=Sight.hidden), "tasks:read", "workspace_not_found", None),
        (plain(sight=Sight.hidden), "members:read", "granted", "role:member"),
        (plain(sight=Sight.hidden), "workspaces:create", "granted", "role:member"),
        (plain(grants=ADMIN), "teams:delete", "owner_only", None),
        (plain(grants=ADMIN, owns=True), "teams:delete", "granted", "owner"),
        (plain(grants=ADMIN, owns=True), "teams:update", "granted", "role:member"),
        (plain(grants=ADMIN, owns=True, key=Cap("ci", ADMIN)), "teams:delete", "owner_only", None),
        (plain(key=Cap("ci", VIEWER)), "tasks:create", "key_scope", None),
        (plain(key=Cap("ci", ADMIN)), "members:create", "not_granted", None),
        (plain(key=Cap("ci", ADMIN), agent=Cap("viewer", VIEWER)), "tasks:create", "agent_role", None),
        (plain(key=Cap("ci", VIEWER), agent=Cap("viewer", VIEWER)), "tasks:create", "agent_role", None),
        (plain(key=Cap("ci", ADMIN), agent=Cap("admin", ADMIN)), "tasks:create", "granted", "role:member"),
    ],
)
def test_a_decision_says_why(standing: Standing, permission: str, reason: str, via: str | None) -> None:
    decision = decide(standing, Permission(permission))
    assert (decision.reason, decision.via) == (reason, via)


def test_a_role_in_a_workspace_decides_about_what_is_in_it_alone() -> None:
    there = plain(sight=Sight.visible, workspace_role="viewer", workspace_grants=VIEWER)
    assert decide(there, Permission.tasks_create).reason is Reason.not_granted
    assert decide(there, Permission.tasks_read).via == "workspace_role:viewer"
    assert decide(there, Permission.workspaces_create).via == "role:member"
    assert decide(there, Permission.usage_create).via == "role:member"
    steps = {step.step: step for step in path(there, Permission.tasks_create)}
    assert (steps["role"].grants, steps["role"].counts) == (True, False)
    assert (steps["workspace_role"].grants, steps["workspace_role"].counts) == (False, True)
    raised = replace(there, grants=VIEWER, workspace_role="member", workspace_grants=MEMBER)
    assert decide(raised, Permission.tasks_create).via == "workspace_role:member"
    assert decide(raised, Permission.usage_create).reason is Reason.not_granted


def test_several_things_can_be_missing_at_once() -> None:
    through = plain(grants=VIEWER, agent=Cap("viewer", VIEWER), key=Cap("ci", VIEWER))
    lacks = missing(through, Permission.tasks_create)
    assert [lack.step for lack in lacks] == ["role", "agent", "api_key"]
    hidden = replace(through, sight=Sight.hidden, agent=None, key=None)
    (listing,) = missing(hidden, Permission.tasks_create)
    assert (listing.step, "in a role there that grants" in listing.detail) == ("workspace", True)
    (listing,) = missing(hidden, Permission.tasks_read)
    assert (listing.step, "in a role there that grants" in listing.detail) == ("workspace", False)


def test_the_owners_key_is_told_to_sign_in_and_others_to_transfer() -> None:
    roles = {"admin": ADMIN}
    through = plain(grants=ADMIN, owns=True, key=Cap("ci", ADMIN))
    for standing, how in ((through, "sign_in"), (plain(), "transfer")):
        (lack,) = missing(standing, Permission.teams_delete)
        (way,) = ways_to_give(
            lack, standing, Permission.teams_delete, roles=roles, own=frozenset(), owner_id=OWNER
        )
        assert (way.how, way.user_id) == (how, OWNER)


def test_what_changes_is_the_difference_of_two_standings() -> None:
    gains, loses = changes(plain(grants=VIEWER), plain(grants=(VIEWER | {"members:create"}) - {"tasks:read"}))
    assert (set(gains), set(loses)) == ({"members:create"}, {"tasks:read"})
    suspended = changes(plain(barred="membership"), plain(barred="membership", grants=ADMIN))
    assert suspended == (frozenset(), frozenset())
    promoted, _ = changes(plain(), plain(grants=ADMIN))
    assert not promoted & OWNER_ONLY
    within, _ = changes(plain(grants=VIEWER), plain(), WORKSPACE_SCOPED)
    assert within == {"tasks:create", "tasks:update", "tasks:delete", "workspaces:update"}


def access_of(team: TeamSetting) -> Access:
    with transaction() as session:
        return enter_team(session, team.member.credential, team.id)


def test_standings_come_in_one_statement_in_the_order_asked(
    team: TeamSetting, statements: CountStatements
) -> None:
    absent = uuid7()
    subjects = [
        Subject(team.viewer.id),
        Subject(),
        Subject(team.owner.id, team.workspace_id),
        Subject(absent),
        Subject(team.viewer.id),
        Subject(None, uuid7()),
    ]
    with transaction() as session, statements() as seen:
        access = enter_team(session, team.member.credential, team.id)
        found = permissions.standings(session, access, subjects)
    assert len(seen) == 2
    assert [each.user_id for each in found] == [
        team.viewer.id, team.member.id, team.owner.id, absent, team.viewer.id, team.member.id,
    ]  # fmt: skip
    assert [each.role for each in found] == ["viewer", "member", "admin", None, "viewer", "member"]
    assert [each.sight for each in found] == [None, None, Sight.visible, None, None, Sight.absent]
    assert [each.owns for each in found] == [False, False, True, False, False, False]
    assert found[0].grants == VIEWER


def test_a_batch_of_a_hundred_checks_is_entering_and_one_statement(
    team: TeamSetting, statements: CountStatements
) -> None:
    people = [team.owner, team.admin, team.member, team.viewer]
    checks = [
        {
            "permission": list(Permission)[number % len(Permission)].value,
            "user_id": str(people[number % 4].id),
            "workspace_id": str(team.workspace_id) if number % 3 else None,
        }
        for number in range(100)
    ]
    for size in (1, 100):
        with statements() as seen:
            answer = team.viewer.post(f"{team.path}/permissions/check", json={"checks": checks[:size]})
        assert (answer.status_code, len(answer.json["results"])) == (200, size)
        assert len(seen) == 2


def test_standings_are_of_the_callers_team_alone(team: TeamSetting, bare_team: TeamSetting) -> None:
    with transaction() as session:
        access = enter_team(session, team.member.credential, team.id)
        (elsewhere,) = permissions.standings(
            session, access, [Subject(bare_team.owner.id, bare_team.workspace_id)]
        )
    assert (elsewhere.role, elsewhere.owns, elsewhere.sight) == (None, False, Sight.absent)
    assert decide(elsewhere, Permission.tasks_read).reason is Reason.not_a_member


def test_a_workspace_hidden_from_the_caller_gives_nothing_away(team: TeamSetting) -> None:
    """Whatever others are in it: the standing is that of an id that does not exist."""

    def private_workspace() -> UUID:
        made = team.owner.post(f"{team.path}/workspaces", json={"name": "Private", "visibility": "private"})
        path = f"{team.path}/workspaces/{made.json['id']}/members/{team.viewer.id}"
        assert team.owner.put(path, json={"role": "admin"}).status_code == 200
        return UUID(made.json["id"])

    hidden, absent = private_workspace(), uuid7()
    for user_id in (team.owner.id, team.viewer.id, None):
        with transaction() as session:
            access = enter_team(session, team.member.credential, team.id)
            of_hidden, of_absent = permissions.standings(
                session, access, [Subject(user_id, hidden), Subject(user_id, absent)]
            )
        assert replace(of_hidden, workspace_id=absent) == of_absent
        assert of_hidden.sight is Sight.absent
    with transaction() as session:
        access = enter_team(session, team.viewer.credential, team.id)
        mine, others = permissions.standings(
            session, access, [Subject(None, hidden), Subject(team.member.id, hidden)]
        )
    assert (mine.sight, mine.workspace_role) == (Sight.visible, "admin")
    assert (others.sight, others.workspace_role) == (Sight.hidden, None)


def test_a_page_of_holders_is_one_statement(team: TeamSetting, statements: CountStatements) -> None:
    with transaction() as session:
        access = enter_team(session, team.member.credential, team.id)
        with statements() as seen:
            found = permissions.who_can(session, access, Permission.tasks_read, Page(limit=1))
    assert (len(seen), len(found.items)) == (1, 1)

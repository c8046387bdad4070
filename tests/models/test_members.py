"""
Membership under contention: seats are exact, the owner is always an active member and an admin, and who lost their power
meanwhile does nothing with it any more.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from uuid import UUID

import pytest
from flask import Flask

from models.access.entry import enter_team
from models.access.permissions import Permission
from models.database import transaction
from models.errors import (
    Conflict,
    DomainError,
    Invalid,
    NotFound,
    PermissionDenied,
    SeatLimitReached,
    Unauthenticated,
)
from models.operations import members
from models.queries import members as queries
from tests.factories import Person, TeamSetting, make_person, make_team
from tests.models.concurrency import raised
from tests.models.membership import (
    Keyed,
    accept,
    add,
    change_plan,
    change_role,
    create_key,
    create_workspace,
    crown,
    delete_team,
    demote,
    expel,
    expire,
    fetch,
    happened,
    invite,
    invite_each,
    latest_event,
    membership,
    owner_of,
    put,
    race,
    remove,
    resend,
    rounds,
    run,
    suspend,
    transfer,
    under_lock,
)

Act = Callable[[Person, UUID, Person], None]


@pytest.fixture(scope="module")
def arena(app: Flask) -> TeamSetting:
    """A team for many rounds; each puts it as it needs it."""
    return make_team(app)


@pytest.fixture(scope="module")
def small(app: Flask) -> TeamSetting:
    """A team of five seats and its owner alone, for many rounds."""
    team = make_team(app, roles=())
    resize(team, "free", 5)
    return team


@pytest.fixture(scope="module")
def guests(app: Flask) -> list[Person]:
    return [make_person(app, "Guest") for _ in range(8)]


def resize(team: TeamSetting, plan: str, seats: int) -> None:
    run("UPDATE teams SET plan = :plan, max_members = :n WHERE id = :id", id=team.id, plan=plan, n=seats)


# Seats


def test_twenty_at_once_get_the_four_seats_that_are_free(app: Flask, small: TeamSetting) -> None:
    expel(small.id, besides=[small.owner])
    people = [make_person(app, "Guest") for _ in range(20)]
    outcomes = race(small.id, *[partial(add, small.owner, small.id, person) for person in people])
    assert outcomes.refusals == [SeatLimitReached] * 16
    assert len(membership(small.id)) == 5
    assert outcomes.actions == ["member_added"] * 4


def test_one_person_added_twice_at_once_is_one_member(team: TeamSetting, app: Flask) -> None:
    guest = make_person(app, "Guest")
    outcomes = race(team.id, *[partial(add, team.owner, team.id, guest)] * 6)
    assert outcomes.refusals == [Conflict] * 5
    assert outcomes.actions == ["member_added"]


def test_every_way_into_a_team_at_once_meets_one_limit(small: TeamSetting, guests: list[Person]) -> None:
    """Five seats, two of them free, and six who want one: added, invited, in bulk, and one that expired sent again."""
    expel(small.id, besides=[small.owner])
    waiting = invite(small.owner, small.id, guests[0].email)
    expired = invite(small.owner, small.id, guests[1].email)
    kept = [waiting.invitation.id, expired.invitation.id]
    for _ in rounds():
        expel(small.id, besides=[small.owner], invitations_besides=kept)
        expire(expired.invitation.id)
        put(small.id, guests[2], "member")
        outcomes = race(
            small.id,
            partial(accept, guests[0], waiting.token),
            partial(resend, small.owner, small.id, expired.invitation.id),
            partial(add, small.owner, small.id, guests[3]),
            partial(invite, small.owner, small.id, guests[4].email),
            partial(invite_each, small.owner, small.id, *[(each.email, "viewer") for each in guests[5:8]]),
        )
        assert outcomes.won[0], outcomes  # who is invited has a seat
        assert set(outcomes.refusals) | set(raised(outcomes.outcomes[4])) == {SeatLimitReached}
        assert len(outcomes.actions) == 3  # the acceptance, and whoever got the two free seats


def test_a_smaller_plan_and_newcomers_at_once_fit(small: TeamSetting, guests: list[Person]) -> None:
    """Four of the smaller plan's five seats are taken; it and two newcomers want the fifth."""
    try:
        for _ in rounds():
            expel(small.id, besides=[small.owner])
            resize(small, "pro", 50)
            for guest in guests[:3]:
                put(small.id, guest, "member")
            outcomes = race(
                small.id,
                partial(change_plan, small.owner, small.id, "free"),
                partial(add, small.owner, small.id, guests[3]),
                partial(invite, small.owner, small.id, guests[4].email),
            )
            assert outcomes.refusals == [SeatLimitReached]
    finally:
        expel(small.id, besides=[small.owner])
        resize(small, "free", 5)


# Admins against each other

AGAINST: dict[str, Act] = {"demote": demote, "remove": remove, "suspend": suspend}


@pytest.mark.parametrize("ways", list(product(AGAINST, AGAINST)), ids="-".join)
def test_of_two_admins_against_each_other_one_wins(
    arena: TeamSetting, guests: list[Person], ways: tuple[str, str]
) -> None:
    one, other = guests[:2]
    first, second = (AGAINST[way] for way in ways)
    for _ in rounds(ways=2):
        put(arena.id, one, "admin")
        put(arena.id, other, "admin")
        outcomes = race(arena.id, partial(first, one, arena.id, other), partial(second, other, arena.id, one))
        assert sorted(outcomes.won) == [False, True], outcomes
        assert set(outcomes.refusals) <= {NotFound, PermissionDenied}


def test_of_a_ring_of_admins_someone_is_left(arena: TeamSetting, guests: list[Person]) -> None:
    ring = guests[:4]
    for _ in rounds():
        for guest in ring:
            put(arena.id, guest, "admin")
        pairs = zip(ring, [*ring[1:], ring[0]], strict=True)
        outcomes = race(arena.id, *[partial(demote, one, arena.id, next_) for one, next_ in pairs])
        assert set(outcomes.refusals) == {PermissionDenied}
        left = [each for each in ring if membership(arena.id)[each.id] == "admin"]
        assert len(left) == 4 - sum(outcomes.won) >= 1


@pytest.mark.parametrize("way", AGAINST)
def test_who_loses_their_power_grants_nothing_more(
    arena: TeamSetting, guests: list[Person], way: str
) -> None:
    """An admin makes another one, at the moment at which the owner takes the power to do so."""
    admin, friend = guests[:2]
    for _ in rounds(ways=2):
        expel(arena.id, besides=[arena.owner])
        put(arena.id, admin, "admin")
        outcomes = race(
            arena.id,
            partial(add, admin, arena.id, friend, "admin"),
            partial(AGAINST[way], arena.owner, arena.id, admin),
        )
        assert outcomes.won[1]
        assert set(outcomes.refusals) <= {NotFound, PermissionDenied}
        if outcomes.won[0]:
            assert outcomes.actions[0] == "member_added"  # while the power was there


# Handing over

HEIR: dict[str, tuple[Callable[[TeamSetting], None], set[type[DomainError]]]] = {
    "leaves": (lambda team: remove(team.member, team.id, team.member), {NotFound}),
    "is removed": (lambda team: remove(team.admin, team.id, team.member), {NotFound}),
    "is suspended": (lambda team: suspend(team.admin, team.id, team.member), {Conflict}),
}
"""What may happen to an heir, and what the owner who was too late is told."""


@pytest.mark.parametrize(("act", "told"), HEIR.values(), ids=HEIR)
def test_an_heir_inherits_or_is_gone(
    arena: TeamSetting, act: Callable[[TeamSetting], None], told: set[type[DomainError]]
) -> None:
    for _ in rounds(ways=2):
        crown(arena.id, arena.owner)
        put(arena.id, arena.admin, "admin")
        put(arena.id, arena.member, "member")
        outcomes = race(arena.id, partial(transfer, arena.owner, arena.id, arena.member), partial(act, arena))
        handed, gone = outcomes.won
        assert handed != gone, outcomes
        assert owner_of(arena.id) == (arena.member.id if handed else arena.owner.id)
        assert set(outcomes.refusals) == ({Conflict} if handed else told)
        assert membership(arena.id)[arena.owner.id] == "admin"


def test_an_heir_who_is_demoted_meanwhile_is_an_admin(arena: TeamSetting) -> None:
    for _ in rounds():
        crown(arena.id, arena.owner)
        put(arena.id, arena.admin, "admin")
        put(arena.id, arena.member, "member")
        outcomes = race(
            arena.id,
            partial(transfer, arena.owner, arena.id, arena.member),
            partial(demote, arena.admin, arena.id, arena.member),
        )
        assert outcomes.won[0]
        assert set(outcomes.refusals) <= {Conflict}
        assert owner_of(arena.id) == arena.member.id


def test_a_team_that_is_handed_over_twice_at_once_goes_to_one(arena: TeamSetting) -> None:
    for _ in rounds():
        crown(arena.id, arena.owner)
        put(arena.id, arena.admin, "admin")
        put(arena.id, arena.member, "member")
        heirs = [arena.admin, arena.member]
        outcomes = race(arena.id, *[partial(transfer, arena.owner, arena.id, heir) for heir in heirs])
        assert outcomes.refusals == [PermissionDenied]
        assert outcomes.actions == ["ownership_transferred"]
        assert owner_of(arena.id) == heirs[outcomes.won.index(True)].id


def test_a_team_is_handed_over_or_deleted(arena: TeamSetting) -> None:
    for _ in rounds():
        crown(arena.id, arena.owner)
        put(arena.id, arena.admin, "admin")
        outcomes = race(
            arena.id,
            partial(transfer, arena.owner, arena.id, arena.admin),
            partial(delete_team, arena.owner, arena.id),
        )
        handed, _ = outcomes.won
        assert outcomes.refusals == [PermissionDenied if handed else NotFound]
        assert outcomes.actions == ["ownership_transferred" if handed else "team_deleted"]
        assert owner_of(arena.id) == (arena.admin.id if handed else arena.owner.id)
    crown(arena.id, arena.owner)


def test_an_owner_handing_over_still_acts_as_an_admin(arena: TeamSetting, guests: list[Person]) -> None:
    for _ in rounds():
        crown(arena.id, arena.owner)
        expel(arena.id, besides=[arena.owner])
        put(arena.id, arena.admin, "admin")
        outcomes = race(
            arena.id,
            partial(transfer, arena.owner, arena.id, arena.admin),
            partial(add, arena.owner, arena.id, guests[0], "admin"),
            partial(remove, arena.admin, arena.id, arena.owner),
        )
        assert outcomes.won[0]
        assert owner_of(arena.id) == arena.admin.id
        assert set(outcomes.refusals) <= {Conflict, NotFound}  # removed before the handing over: never
        if arena.owner.id not in membership(arena.id):
            assert outcomes.actions.index("ownership_transferred") < outcomes.actions.index("member_removed")
    crown(arena.id, arena.owner)


# Keys of members who go


def test_a_key_that_is_made_while_its_maker_is_removed_goes_too(arena: TeamSetting) -> None:
    for _ in rounds():
        put(arena.id, arena.admin, "admin")
        outcomes = race(
            arena.id,
            partial(create_key, arena.admin, arena.id, ["tasks:read"]),
            partial(remove, arena.owner, arena.id, arena.admin),
        )
        assert outcomes.won[1]
        assert set(outcomes.refusals) <= {NotFound}
        said = next(each for each in outcomes.events if each.action == "member_removed")
        assert said.details["api_keys_revoked"] == outcomes.won[0]
        assert not fetch(
            "SELECT FROM api_keys WHERE team_id = :id AND user_id = :user", id=arena.id, user=arena.admin.id
        )


def test_a_key_and_a_workspace_wait_for_the_removal_of_their_maker(arena: TeamSetting) -> None:
    """What is made as a member who goes at this moment is refused, as if it had come a moment later."""
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    for make in (
        partial(create_key, arena.admin, arena.id, ["tasks:read"]),
        partial(create_workspace, arena.admin, arena.id, "private"),
    ):
        put(arena.id, arena.admin, "admin")
        since = latest_event(arena.id)
        with ThreadPoolExecutor() as pool:
            with under_lock(arena.owner, arena.id) as (session, access, team):
                members.remove(session, access, team, queries.get(session, access, arena.admin.id))
                made = pool.submit(make)
                while not fetch(waiting):
                    assert not made.done()
            assert isinstance(made.exception(), NotFound)
        assert [each.action for each in happened(arena.id, since)] == ["member_removed"]


def test_a_key_acts_while_its_maker_is_removed(arena: TeamSetting, guests: list[Person]) -> None:
    """A key's first use is noted in its row, which the removal deletes: neither may wait for the other for ever."""
    for _ in rounds():
        expel(arena.id, besides=[arena.owner])
        put(arena.id, arena.admin, "admin")
        key = create_key(arena.admin, arena.id, [each.value for each in Permission])
        outcomes = race(
            arena.id,
            partial(add, Keyed(key.secret), arena.id, guests[0]),
            partial(remove, arena.owner, arena.id, arena.admin),
        )
        assert outcomes.won[1]
        assert set(outcomes.refusals) <= {NotFound, Unauthenticated}
        if outcomes.won[0]:
            assert outcomes.actions == ["member_added", "member_removed"]


def test_a_key_does_not_leave_for_its_maker(team: TeamSetting) -> None:
    """What a person may do without any permission, their key may not: it does what it was made for."""
    narrow = create_key(team.admin, team.id, ["members:read"])
    able = create_key(team.admin, team.id, ["members:read", "members:delete"])
    with pytest.raises(PermissionDenied) as refused:
        remove(Keyed(narrow.secret), team.id, team.admin)
    assert refused.value.missing == "members:delete"
    assert team.admin.id in membership(team.id)
    since = latest_event(team.id)
    remove(team.member, team.id, team.member)
    with pytest.raises(PermissionDenied):  # the admin's role is above what this key grants
        remove(Keyed(able.secret), team.id, team.admin)
    assert [each.action for each in happened(team.id, since)] == ["member_left"]


REFUSED: dict[str, tuple[Callable[[TeamSetting], None], type[DomainError]]] = {
    "the owner leaves": (lambda team: remove(team.owner, team.id, team.owner), Conflict),
    "the owner is removed": (lambda team: remove(team.admin, team.id, team.owner), Conflict),
    "the owner is demoted": (
        lambda team: change_role(team.admin, team.id, team.owner, "member"),
        Conflict,
    ),
    "the owner is suspended": (lambda team: suspend(team.admin, team.id, team.owner), Conflict),
    "suspending oneself": (lambda team: suspend(team.admin, team.id, team.admin), Conflict),
    "an heir from elsewhere": (
        lambda team: transfer(team.owner, team.id, make_person(team.owner.app)),
        NotFound,
    ),
    "a role that is none": (
        lambda team: add(team.owner, team.id, make_person(team.owner.app), "emperor"),
        Invalid,
    ),
    "adding without the permission": (
        lambda team: add(team.member, team.id, make_person(team.owner.app), "viewer"),
        PermissionDenied,
    ),
    "raising oneself": (
        lambda team: change_role(team.member, team.id, team.member, "admin"),
        PermissionDenied,
    ),
    "demoting someone above": (
        lambda team: change_role(team.member, team.id, team.admin, "viewer"),
        PermissionDenied,
    ),
    "removing someone above": (lambda team: remove(team.member, team.id, team.admin), PermissionDenied),
}


@pytest.mark.parametrize(("act", "error"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_changes_nothing(
    team: TeamSetting, act: Callable[[TeamSetting], None], error: type[DomainError]
) -> None:
    before, since = membership(team.id), latest_event(team.id)
    with pytest.raises(error):
        act(team)
    assert membership(team.id) == before
    assert owner_of(team.id) == team.owner.id
    assert not happened(team.id, since)


ABOVE: dict[str, Callable[[TeamSetting, Person], None]] = {
    "granting": lambda team, by: add(by, team.id, make_person(team.owner.app), "admin"),
    "raising oneself": lambda team, by: change_role(by, team.id, by, "admin"),
    "demoting": lambda team, by: demote(by, team.id, team.admin),
    "suspending": lambda team, by: suspend(by, team.id, team.admin),
    "removing": lambda team, by: remove(by, team.id, team.admin),
}


@pytest.mark.parametrize("act", ABOVE.values(), ids=ABOVE)
def test_managing_members_reaches_up_to_ones_own_power(
    team: TeamSetting, act: Callable[[TeamSetting, Person], None]
) -> None:
    """All `members:*` and no more: enough for viewers, not for admins."""
    manager = make_person(team.owner.app, "Manager")
    own_role(team.id, "manager", ["members:create", "members:read", "members:update", "members:delete"])
    own_role(team.id, "reader", ["members:read"])
    put(team.id, manager, "manager")
    before = membership(team.id)
    with pytest.raises(PermissionDenied):
        act(team, manager)
    assert membership(team.id) == before
    guest = make_person(team.owner.app, "Guest")
    add(manager, team.id, guest, "reader")
    suspend(manager, team.id, guest)
    remove(manager, team.id, guest)


def own_role(team_id: UUID, name: str, permissions: list[str]) -> None:
    for permission in permissions:
        resource, action = permission.split(":")
        run(
            "INSERT INTO permissions (id, team_id, role, resource, action) "
            "VALUES (uuid7(), :team, :role, :resource, :action)",
            team=team_id,
            role=name,
            resource=resource,
            action=action,
        )


def test_another_teams_own_role_is_no_role_here(app: Flask, team: TeamSetting) -> None:
    other = make_team(app, roles=())
    own_role(other.id, "auditor", ["activity:read"])
    guest = make_person(app, "Guest")
    with pytest.raises(Invalid):
        add(team.owner, team.id, guest, "auditor")
    add(other.owner, other.id, guest, "auditor")
    with transaction() as session:
        assert enter_team(session, guest.credential, other.id).permissions == {"activity:read"}


def test_who_leaves_keeps_nothing_assigned(team: TeamSetting) -> None:
    task = team.task(assignee_id=str(team.member.id))
    remove(team.owner, team.id, team.member)
    left = team.owner.get(f"{team.path}/tasks/{task['id']}").json
    assert (left["assignee_id"], left["title"]) == (None, task["title"])

"""Invitations under contention: accepted once, under one token at a time, and worth what the inviter may give then."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
import time_machine
from flask import Flask

from models.access.actor import Origin
from models.access.credentials import hash_secret, new_token
from models.access.entry import enter
from models.database import transaction
from models.errors import Conflict, NotFound, PermissionDenied, SeatLimitReached, Unauthenticated
from models.operations import mails, passwords, sessions
from models.operations.invitations import Invited
from models.queries import users
from tests.factories import Person, TeamSetting, make_person, make_team
from tests.models.membership import (
    accept,
    accept_waiting,
    add,
    check_at_rest,
    decline,
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
    put,
    race,
    remove,
    resend,
    revoke,
    rounds,
    run,
    suspend,
)


@pytest.fixture(scope="module")
def arena(app: Flask) -> TeamSetting:
    """A team for many rounds; each puts it as it needs it."""
    return make_team(app)


@pytest.fixture(scope="module")
def guest(app: Flask) -> Person:
    """Someone to invite, whose address is verified."""
    person = make_person(app, "Guest")
    verify(person)
    return person


def verify(person: Person) -> None:
    run("UPDATE users SET email_verified_at = now() WHERE id = :id", id=person.id)


def sign_in_again(person: Person) -> Person:
    """The same person, by another session."""
    with transaction() as session:
        user = users.get(session, person.id, for_update=True)
        return replace(person, token=sessions.open_session(session, user, origin=Origin(), days=1)[1])


def mailed_token(invited: Invited) -> str:
    """A token as the worker makes it when it sends the mail."""
    token = new_token(mails.INVITATION_PREFIX)
    run(
        "UPDATE invitations SET mailed_token_hash = :hash WHERE id = :id",
        id=invited.invitation.id,
        hash=hash_secret(token),
    )
    return token


def stage(team: TeamSetting) -> None:
    """The team as it was, and nobody invited."""
    expel(team.id, besides=[team.owner])
    put(team.id, team.admin, "admin")
    run("UPDATE teams SET deleted_at = NULL WHERE id = :id", id=team.id)


def status(invited: Invited) -> str:
    found: str = fetch("SELECT status FROM invitations WHERE id = :id", id=invited.invitation.id)[0].status
    return found


def test_an_invitation_is_accepted_once(arena: TeamSetting, guest: Person) -> None:
    """By the same token twice, by the one that was mailed, and by whoever waits under the address: all at once."""
    for _ in rounds():
        stage(arena)
        invited = invite(arena.admin, arena.id, guest.email)
        mailed = mailed_token(invited)
        outcomes = race(
            arena.id,
            partial(accept, guest, invited.token),
            partial(accept, guest, invited.token),
            partial(accept, guest, mailed),
            partial(accept_waiting, guest, invited.invitation.id),
        )
        assert outcomes.refusals == [Conflict] * 3
        assert outcomes.actions == ["invitation_accepted"]
        assert membership(arena.id)[guest.id] == "member"


def test_an_invitation_is_accepted_or_revoked(arena: TeamSetting, guest: Person) -> None:
    for _ in rounds():
        stage(arena)
        invited = invite(arena.admin, arena.id, guest.email)
        outcomes = race(
            arena.id,
            partial(accept, guest, invited.token),
            partial(revoke, arena.owner, arena.id, invited.invitation.id),
        )
        accepted, _ = outcomes.won
        assert outcomes.refusals == [Conflict]
        assert (status(invited), guest.id in membership(arena.id)) == (
            ("accepted", True) if accepted else ("revoked", False)
        )


def test_an_invitation_is_accepted_or_declined(arena: TeamSetting, guest: Person) -> None:
    for _ in rounds(ways=2):
        stage(arena)
        invited = invite(arena.admin, arena.id, guest.email)
        outcomes = race(
            arena.id,
            partial(accept, guest, invited.token),
            partial(decline, guest, invited.invitation.id),
        )
        assert outcomes.refusals == [Conflict]
        assert (guest.id in membership(arena.id)) == outcomes.won[0]


def test_a_resend_ends_the_token_that_is_just_being_used(arena: TeamSetting, guest: Person) -> None:
    for _ in rounds():
        stage(arena)
        invited = invite(arena.admin, arena.id, guest.email)
        outcomes = race(
            arena.id,
            partial(accept, guest, invited.token),
            partial(resend, arena.owner, arena.id, invited.invitation.id),
        )
        accepted, _ = outcomes.won
        assert outcomes.refusals == ([Conflict] if accepted else [NotFound])
        if not accepted:
            accept(guest, outcomes.outcomes[1].token)
        assert status(invited) == "accepted"


def test_two_resends_leave_one_token(arena: TeamSetting, guest: Person) -> None:
    for _ in rounds(ways=2):
        stage(arena)
        invited = invite(arena.admin, arena.id, guest.email)
        outcomes = race(
            arena.id,
            partial(resend, arena.owner, arena.id, invited.invitation.id),
            partial(resend, arena.admin, arena.id, invited.invitation.id),
        )
        assert outcomes.refusals == []
        worth = []
        for each in outcomes.outcomes:
            try:
                accept(guest, each.token)
                worth.append(each.token)
            except NotFound:
                pass
        assert len(worth) == 1


def test_the_invited_is_added_meanwhile(arena: TeamSetting, guest: Person) -> None:
    """However it comes, they are a member once, and the invitation is used up."""
    for _ in rounds():
        stage(arena)
        invited = invite(arena.admin, arena.id, guest.email)
        outcomes = race(
            arena.id,
            partial(accept, guest, invited.token),
            partial(add, arena.owner, arena.id, guest, "viewer"),
        )
        assert outcomes.refusals == [Conflict]
        assert membership(arena.id)[guest.id] == ("member" if outcomes.won[0] else "viewer")
        assert status(invited) == "accepted"


def test_one_address_is_invited_once(arena: TeamSetting, guest: Person) -> None:
    for _ in rounds():
        stage(arena)
        outcomes = race(
            arena.id,
            partial(invite, arena.owner, arena.id, guest.email),
            partial(invite, arena.admin, arena.id, guest.email.upper()),
            partial(invite_each, arena.owner, arena.id, *[(guest.email, "viewer")] * 2),
        )
        assert len(outcomes.actions) == 1
        assert set(outcomes.refusals) <= {Conflict}


@pytest.mark.parametrize("taken", [demote, remove, suspend], ids=["demoted", "removed", "suspended"])
def test_an_invitation_is_worth_what_its_inviter_may_give(
    arena: TeamSetting, guest: Person, taken: Callable[[Person, UUID, Person], None]
) -> None:
    """The inviter loses the power to give the role at the moment of the acceptance."""
    for _ in rounds(ways=2):
        stage(arena)
        invited = invite(arena.admin, arena.id, guest.email, "admin")
        outcomes = race(
            arena.id,
            partial(accept, guest, invited.token),
            partial(taken, arena.owner, arena.id, arena.admin),
        )
        assert outcomes.won[1]
        assert set(outcomes.refusals) <= {Conflict}
        if outcomes.won[0]:
            assert outcomes.actions[0] == "invitation_accepted"  # while it was worth that
        else:
            assert guest.id not in membership(arena.id)
            assert status(invited) == "pending"


def test_a_team_is_deleted_while_somebody_joins(arena: TeamSetting, guest: Person) -> None:
    for _ in rounds(ways=2):
        stage(arena)
        invited = invite(arena.admin, arena.id, guest.email)
        outcomes = race(
            arena.id,
            partial(accept, guest, invited.token),
            partial(delete_team, arena.owner, arena.id),
        )
        assert outcomes.won[1]
        assert set(outcomes.refusals) <= {NotFound}
        assert (guest.id in membership(arena.id)) == outcomes.won[0]
    stage(arena)


def test_joining_two_teams_at_once(app: Flask, arena: TeamSetting, guest: Person) -> None:
    other = make_team(app, roles=())
    for _ in rounds(ways=2):
        stage(arena)
        expel(other.id, besides=[other.owner])
        here = invite(arena.admin, arena.id, guest.email)
        there = invite(other.owner, other.id, guest.email)
        since = latest_event(other.id)

        def join_the_other(token: str = there.token) -> list[None]:
            accept(guest, token)
            return []  # no event of the first

        outcomes = race(arena.id, partial(accept, guest, here.token), join_the_other)
        assert outcomes.refusals == []
        assert [each.action for each in happened(other.id, since)] == ["invitation_accepted"]
        check_at_rest(other.id)


def test_joining_while_the_password_is_changed_elsewhere(arena: TeamSetting, guest: Person) -> None:
    """
    A session that was not used for long is noted as used; a changed password deletes it. The one who joins wants the
    user's row, which the other holds: neither may wait for ever.
    """

    def change_password(person: Person) -> list[None]:
        with transaction() as session:
            actor = enter(session, person.credential)
            user = users.get(session, actor.user_id, for_update=True)
            passwords.change(session, actor, user, password_hash="no password")
        return []  # no event of the team's

    for _ in rounds():
        stage(arena)
        invited = invite(arena.admin, arena.id, guest.email)
        one, other = sign_in_again(guest), sign_in_again(guest)
        run("UPDATE sessions SET last_used_at = now() - interval '1 hour' WHERE user_id = :id", id=guest.id)
        outcomes = race(arena.id, partial(accept, one, invited.token), partial(change_password, other))
        assert outcomes.won[1]
        assert set(outcomes.refusals) <= {Unauthenticated}
        guest.token = other.token  # the one that is left


def test_who_has_the_mailed_token_has_proved_the_address(arena: TeamSetting) -> None:
    """And the person's own stream says so, once; the token that the API showed proves nothing."""
    stage(arena)
    for mailed in (False, True):
        person = make_person(arena.owner.app, "Newcomer")
        invited = invite(arena.admin, arena.id, person.email)
        accept(person, mailed_token(invited) if mailed else invited.token)
        (user,) = fetch("SELECT email_verified_at FROM users WHERE id = :id", id=person.id)
        told = fetch(
            "SELECT FROM account_events WHERE user_id = :id AND action = 'email_verified'", id=person.id
        )
        assert (user.email_verified_at is not None, len(told)) == (mailed, int(mailed))


def test_an_expired_invitation_comes_back_into_a_free_seat_alone(app: Flask) -> None:
    team = make_team(app, roles=())
    run("UPDATE teams SET plan = 'free', max_members = 2 WHERE id = :id", id=team.id)
    expired = invite(team.owner, team.id, "one@example.com")
    expire(expired.invitation.id)
    waiting = invite(team.owner, team.id, "two@example.com")
    resend(team.owner, team.id, waiting.invitation.id)  # it has its seat already
    with pytest.raises(SeatLimitReached):
        resend(team.owner, team.id, expired.invitation.id)
    assert status(expired) == "pending"  # as it was, and its time over
    with time_machine.travel(timedelta(hours=-1)), pytest.raises(SeatLimitReached):
        resend(team.owner, team.id, expired.invitation.id)  # a clock that is slow makes no seat
    revoke(team.owner, team.id, waiting.invitation.id)
    resend(team.owner, team.id, expired.invitation.id)
    check_at_rest(team.id)


def test_only_the_invited_address_accepts(arena: TeamSetting, guest: Person) -> None:
    stage(arena)
    invited = invite(arena.admin, arena.id, guest.email.upper())
    since = latest_event(arena.id)
    with pytest.raises(PermissionDenied):
        accept(make_person(arena.owner.app, "Thief"), invited.token)
    assert not happened(arena.id, since)
    accept(guest, invited.token)

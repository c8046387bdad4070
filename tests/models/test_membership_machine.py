"""
Anybody does anything to a team, one step after the other, beside a model of what should come of it.

The model is plain sets and dicts and knows no SQL; each rule says in which order the product refuses, and what changes if
it does not. After every step the database says what the model says, and the invariants of design.md, 1, hold.
MACHINE_EXAMPLES=150 MACHINE_STEPS=60 takes some 6,000 steps.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from models.access.entry import enter_team
from models.access.permissions import BUILT_IN_ROLES
from models.access.power import WORKSPACE_SCOPED
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
from models.plans import PLANS
from tests.factories import Person, make_person, make_team
from tests.models import membership as act
from tests.models.membership import Caller, Keyed, MadeKey, check_at_rest, fetch, happened, latest_event, run

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "10"))
STEPS = int(os.environ.get("MACHINE_STEPS", "40"))
PEOPLE = 6
"""The first makes the team; the last two have not verified their addresses."""
STRANGERS = ("nobody@example.com", "Somebody@Example.com")
"""Addresses without an account."""
ROLES = ("admin", "member", "viewer", "recruiter", "auditor", "keeper")
"""Three are built in; the others exist when somebody has made them."""
POWERS = (
    ("members:read", "tasks:read"),
    ("members:read", "members:create", "tasks:read"),
    ("members:read", "members:create", "members:update", "members:delete"),
    ("roles:read", "roles:create", "roles:update", "roles:delete", "tasks:read"),
    ("workspaces:read", "workspaces:update", "tasks:read", "tasks:update", "workspaces:create"),
    ("api_keys:read", "api_keys:create", "api_keys:delete", "tasks:read", "members:read"),
    ("billing:update", "teams:delete", "teams:transfer"),
    tuple(sorted(each.value for each in BUILT_IN_ROLES["admin"])),
)


@dataclass
class Seat:
    role: str
    suspended: bool = False


@dataclass
class Asked:
    """An invitation."""

    id: UUID
    address: str
    role: str
    by: int
    token: str
    status: str = "pending"
    """As stored."""
    over: bool = False
    dead_tokens: list[str] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        return self.status == "pending" and not self.over


@dataclass
class Room:
    private: bool
    maker: int = 0
    listed: dict[int, str | None] = field(default_factory=dict)


@dataclass
class Key:
    made: MadeKey
    maker: int
    scope: frozenset[str]
    agent: UUID | None


@dataclass(frozen=True)
class Who:
    """A person, or one of the keys that were made, dead ones included."""

    person: int
    key: Key | None = None


@dataclass
class Model:
    owner: int = 0
    plan: str = "pro"
    deleted: bool = False
    seats: dict[int, Seat] = field(default_factory=dict)
    roles: dict[str, frozenset[str]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    rooms: dict[UUID, Room] = field(default_factory=dict)
    keys: dict[UUID, Key] = field(default_factory=dict)
    agents: dict[UUID, str] = field(default_factory=dict)

    def grants(self, role: str | None) -> frozenset[str]:
        built_in = {name: {p.value for p in granted} for name, granted in BUILT_IN_ROLES.items()}
        return frozenset(built_in.get(role or "", self.roles.get(role or "", frozenset())))

    def enters(self, who: Who) -> type[DomainError] | None:
        if who.key and who.key.made.id not in self.keys:
            return Unauthenticated
        if self.deleted or who.person not in self.seats:
            return NotFound
        return PermissionDenied if self.seats[who.person].suspended else None

    def power(self, who: Who, room: UUID | None = None) -> frozenset[str]:
        """What somebody may do who may enter; nothing for others."""
        if self.enters(who):
            return frozenset()
        power = self.grants(self.seats[who.person].role)
        if room and room in self.rooms and who.person != self.owner:
            there = self.rooms[room].listed.get(who.person)
            if there:
                power = (power - WORKSPACE_SCOPED) | (WORKSPACE_SCOPED & self.grants(there))
        if who.key:
            power &= who.key.scope
            if who.key.agent:
                power &= self.grants(self.agents[who.key.agent])
        return power

    def owns(self, who: Who) -> bool:
        return who.person == self.owner and who.key is None

    def sees(self, who: Who, room: UUID) -> bool:
        found = self.rooms.get(room)
        return found is not None and (
            not found.private or who.person in found.listed or who.person == self.owner
        )

    @property
    def taken(self) -> int:
        return len(self.seats) + sum(each.waits for each in self.asked)

    @property
    def full(self) -> bool:
        return self.taken >= PLANS[self.plan].max_members

    def names(self, role: str) -> bool:
        """Whether anything has this role."""
        return (
            any(seat.role == role for seat in self.seats.values())
            or any(each.status == "pending" and each.role == role for each in self.asked)
            or any(role in room.listed.values() for room in self.rooms.values())
            or role in self.agents.values()
        )

    def rename(self, role: str, to: str) -> None:
        for seat in self.seats.values():
            seat.role = to if seat.role == role else seat.role
        for asked in self.asked:
            asked.role = to if asked.role == role and asked.status == "pending" else asked.role
        for room in self.rooms.values():
            room.listed = {who: to if has == role else has for who, has in room.listed.items()}
        self.agents = {agent: to if has == role else has for agent, has in self.agents.items()}

    def forget(self, person: int) -> None:
        """The member's seat, keys and places in lists."""
        del self.seats[person]
        self.keys = {id_: key for id_, key in self.keys.items() if key.maker != person}
        for room in self.rooms.values():
            room.listed.pop(person, None)


T = TypeVar("T")
Refusal = tuple[bool, type[DomainError]]
"""Whether it applies, and what it is."""
PERSON = st.integers(0, PEOPLE - 1)
ROLE = st.sampled_from(ROLES)
INDEX = st.integers(0, 99)
ADDRESS = st.one_of(PERSON, st.sampled_from(STRANGERS))
ACTOR = st.tuples(
    st.one_of(st.just(0), st.just(0), st.integers(0, 2), PERSON), st.one_of(st.none(), st.none(), INDEX)
)
"""A person, those with power more often, or one of the keys that were made."""


class Membership(RuleBasedStateMachine):
    people: list[Person]
    app: Flask
    steps = 0
    changes = 0
    seen: Counter[str] = Counter()
    """What happened how often."""

    @initialize(plan=st.sampled_from(["free", "pro"]))
    def begin(self, plan: str) -> None:
        self.model = Model(plan="pro", seats={0: Seat("admin")})
        team = make_team(self.app, owner=self.people[0], roles=())
        self.team_id = team.id
        self.model.rooms[team.workspace_id] = Room(private=False)
        self.all_keys: list[Key] = []
        self.all_rooms = [team.workspace_id]
        self.all_agents: list[UUID] = []
        act.create_role(self.people[0], team.id, "recruiter", POWERS[2])
        self.model.roles["recruiter"] = frozenset(POWERS[2])
        act.create_role(self.people[0], team.id, "auditor", POWERS[0])
        self.model.roles["auditor"] = frozenset(POWERS[0])
        for person, role in ((1, "admin"), (2, "recruiter")):
            act.add(self.people[0], team.id, self.people[person], role)
            self.model.seats[person] = Seat(role)
        if plan == "free":
            act.change_plan(self.people[0], team.id, "free")
            self.model.plan = "free"
        self.since = latest_event(team.id)

    # How a step is taken

    def who(self, actor: tuple[int, int | None]) -> Who:
        person, key = actor
        if key is None or not self.all_keys:
            return Who(person)
        found = self.all_keys[key % len(self.all_keys)]
        return Who(found.maker, found)

    def any_of(self, things: Sequence[T], index: int, likely: Callable[[T], bool]) -> T | None:
        """One of them; three times of four a likely one, if there is any, so that more steps come to something."""
        chosen = [each for each in things if likely(each)] if index % 4 else []
        return (chosen or things)[index // 4 % len(chosen or things)] if things else None

    def any_person(self, index: int, likely: Callable[[int], bool]) -> int:
        return self.any_of(range(PEOPLE), index, likely) or 0

    def caller(self, who: Who) -> Caller:
        return Keyed(who.key.made.secret) if who.key else self.people[who.person]

    def step(
        self,
        who: Who,
        call: Callable[[], Any],
        refusals: Iterable[Refusal],
        *events: str,
        inviter: int | None = None,
    ) -> Any:
        """
        Takes the step. It must end in the first refusal that applies, without an event, or with these events; what it
        returned, or None if it was refused. Nobody's power may grow beyond that of whoever acted, or invited.
        """
        expected = next((error for applies, error in refusals if applies), None)
        giver = self.power_of(Who(inviter)) if inviter is not None else self.power_of(who)
        before = self.powers()
        outcome: Any = None
        refused: type[Exception] | None = None
        try:
            outcome = call()
        except DomainError as error:
            refused = type(error)
        assert refused == expected, (refused, expected)
        news = happened(self.team_id, self.since)
        self.since = max([self.since, *(event.id for event in news)])
        assert [event.action for event in news] == ([] if refused else list(events))
        for event in news:
            assert event.user_id == self.people[who.person].id
            assert event.api_key_id == (who.key.made.id if who.key else None)
        if "team_restored" not in events:
            for person, power in self.powers().items():
                assert power - before[person] <= giver, (person, power - before[person])
        type(self).steps += 1
        type(self).changes += bool(news)
        type(self).seen.update(event.action for event in news)
        return None if refused else (True if outcome is None else outcome)

    def power_of(self, who: Who, room: UUID | None = None) -> frozenset[str]:
        """As the database has it; nothing for who may not enter."""
        with transaction() as session:
            try:
                entered = enter_team(session, self.caller(who).credential, self.team_id, workspace_id=room)
            except DomainError:
                return frozenset()
            return entered.permissions

    def powers(self) -> dict[int, frozenset[str]]:
        return {person: self.power_of(Who(person)) for person in range(PEOPLE)}

    def entering(self, who: Who) -> list[Refusal]:
        error = self.model.enters(who)
        return [(error is not None, error or NotFound)]

    def lacks(self, who: Who, permission: str, room: UUID | None = None) -> Refusal:
        return permission not in self.model.power(who, room), PermissionDenied

    def giving(self, who: Who, role: str) -> list[Refusal]:
        granted = self.model.grants(role)
        return [(not granted, Invalid), (not granted <= self.model.power(who), PermissionDenied)]

    def above(self, who: Who, person: int) -> Refusal:
        seat = self.model.seats.get(person)
        return seat is not None and not self.model.grants(seat.role) <= self.model.power(
            who
        ), PermissionDenied

    def address(self, whose: int | str) -> str:
        return self.people[whose].email if isinstance(whose, int) else whose.casefold()

    def person_at(self, address: str) -> int | None:
        return next((n for n, person in enumerate(self.people) if person.email == address), None)

    # Members

    @rule(actor=ACTOR, index=INDEX, role=ROLE)
    def add(self, actor: tuple[int, int | None], index: int, role: str) -> None:
        who, model = self.who(actor), self.model
        person = self.any_person(index, lambda each: each not in model.seats)
        waiting = self.pending_for(self.people[person].email)
        freed = int(waiting is not None and waiting.waits)
        if self.step(
            who,
            lambda: act.add(self.caller(who), self.team_id, self.people[person], role),
            [
                *self.entering(who),
                self.lacks(who, "members:create"),
                *self.giving(who, role),
                (model.taken - freed >= PLANS[model.plan].max_members, SeatLimitReached),
                (person in model.seats, Conflict),
            ],
            "member_added",
        ):
            model.seats[person] = Seat(role)
            if waiting:
                waiting.status = "accepted"

    @rule(actor=ACTOR, person=PERSON, role=ROLE)
    def change_role(self, actor: tuple[int, int | None], person: int, role: str) -> None:
        who, model = self.who(actor), self.model
        seat = model.seats.get(person)
        same = seat is not None and seat.role == role
        refusals: list[Refusal] = [
            *self.entering(who),
            (seat is None, NotFound),
            self.lacks(who, "members:update"),
        ]
        if not same:
            refusals += [(person == model.owner, Conflict), *self.giving(who, role), self.above(who, person)]
        if (
            self.step(
                who,
                lambda: act.change_role(self.caller(who), self.team_id, self.people[person], role),
                refusals,
                *([] if same else ["member_role_changed"]),
            )
            and seat
        ):
            seat.role = role

    @rule(actor=ACTOR, person=PERSON)
    def suspend(self, actor: tuple[int, int | None], person: int) -> None:
        who, model = self.who(actor), self.model
        seat = model.seats.get(person)
        if (
            self.step(
                who,
                lambda: act.suspend(self.caller(who), self.team_id, self.people[person]),
                [
                    *self.entering(who),
                    (seat is None, NotFound),
                    self.lacks(who, "members:update"),
                    (person in (model.owner, who.person), Conflict),
                    self.above(who, person),
                ],
                *(["member_suspended"] if seat and not seat.suspended else []),
            )
            and seat
        ):
            seat.suspended = True

    @rule(actor=ACTOR, index=INDEX)
    def reactivate(self, actor: tuple[int, int | None], index: int) -> None:
        who = self.who(actor)
        barred = {each for each, seat in self.model.seats.items() if seat.suspended}
        person = self.any_person(index, barred.__contains__)
        seat = self.model.seats.get(person)
        if (
            self.step(
                who,
                lambda: act.reactivate(self.caller(who), self.team_id, self.people[person]),
                [
                    *self.entering(who),
                    (seat is None, NotFound),
                    self.lacks(who, "members:update"),
                    self.above(who, person),
                ],
                *(["member_reactivated"] if seat and seat.suspended else []),
            )
            and seat
        ):
            seat.suspended = False

    @rule(actor=ACTOR, person=PERSON)
    def remove(self, actor: tuple[int, int | None], person: int) -> None:
        who = self.who(actor)
        self._remove(who, person)

    @rule(person=PERSON)
    def leave(self, person: int) -> None:
        self._remove(Who(person), person)

    def _remove(self, who: Who, person: int) -> None:
        model = self.model
        leaving = person == who.person and who.key is None
        refusals: list[Refusal] = [*self.entering(who), (person not in model.seats, NotFound)]
        if leaving:  # also who is suspended may
            refusals = [(model.deleted or person not in model.seats, NotFound)]
        else:
            refusals.append(self.lacks(who, "members:delete"))
        refusals.append((person == model.owner, Conflict))
        if not leaving:
            refusals.append(self.above(who, person))
        if self.step(
            who,
            lambda: act.remove(self.caller(who), self.team_id, self.people[person]),
            refusals,
            "member_left" if leaving else "member_removed",
        ):
            model.forget(person)

    @rule(actor=ACTOR, person=PERSON)
    def transfer(self, actor: tuple[int, int | None], person: int) -> None:
        who, model = self.who(actor), self.model
        seat = model.seats.get(person)
        if (
            self.step(
                who,
                lambda: act.transfer(self.caller(who), self.team_id, self.people[person]),
                [
                    *self.entering(who),
                    (not model.owns(who), PermissionDenied),
                    (seat is None, NotFound),
                    (person == model.owner, Conflict),
                    (seat is not None and seat.suspended, Conflict),
                ],
                "ownership_transferred",
            )
            and seat
        ):
            model.owner, seat.role = person, "admin"

    # Invitations

    def pending_for(self, address: str) -> Asked | None:
        """What is stored as pending."""
        found = [each for each in self.model.asked if each.address == address and each.status == "pending"]
        assert len(found) <= 1
        return found[0] if found else None

    def any_asked(self, index: int, likely: Callable[[Asked], bool] = lambda _: False) -> Asked | None:
        return self.any_of(self.model.asked, index, likely)

    def inviting(self, who: Who, address: str, role: str) -> list[Refusal]:
        waiting = self.pending_for(address)
        return [
            *self.giving(who, role),
            (self.person_at(address) in self.model.seats, Conflict),
            (waiting is not None and waiting.waits, Conflict),
            (self.model.full, SeatLimitReached),
        ]

    def invited(self, who: Who, address: str, role: str, made: Any) -> None:
        if waiting := self.pending_for(address):
            waiting.status = "expired"
        self.model.asked.append(Asked(made.invitation.id, address, role, who.person, made.token))

    @rule(actor=ACTOR, whose=ADDRESS, role=ROLE, shout=st.booleans())
    def invite(self, actor: tuple[int, int | None], whose: int | str, role: str, shout: bool) -> None:
        who, address = self.who(actor), self.address(whose)
        written = f" {address.upper()} " if shout else address
        if made := self.step(
            who,
            lambda: act.invite(self.caller(who), self.team_id, written, role),
            [
                *self.entering(who),
                self.lacks(who, "members:create"),
                *self.inviting(who, address, role),
            ],
            "invitation_created",
        ):
            self.invited(who, address, role, made)

    @rule(actor=ACTOR, wanted=st.lists(st.tuples(ADDRESS, ROLE), min_size=1, max_size=4))
    def invite_each(self, actor: tuple[int, int | None], wanted: list[tuple[int | str, str]]) -> None:
        who = self.who(actor)
        written = [(self.address(whose), role) for whose, role in wanted]
        refusals: list[Refusal] = [*self.entering(who), self.lacks(who, "members:create")]
        # What comes of each depends on those before it, so the model goes first, on what it takes back if all is refused.
        expected: list[type[DomainError] | None] = []
        trial: list[Asked] = []
        if not any(applies for applies, _ in refusals):
            for address, role in written:
                error = next((e for applies, e in self.inviting(who, address, role) if applies), None)
                expected.append(error)
                if error is None:
                    if waiting := self.pending_for(address):
                        waiting.status = "expired"
                    trial.append(Asked(UUID(int=0), address, role, who.person, ""))
                    self.model.asked.append(trial[-1])
        outcomes = self.step(
            who,
            lambda: act.invite_each(self.caller(who), self.team_id, *written),
            refusals,
            *["invitation_created"] * len(trial),
        )
        if outcomes is None:
            return
        assert [type(each) if isinstance(each, DomainError) else None for each in outcomes] == expected
        made = [each for each in outcomes if not isinstance(each, DomainError)]
        for asked, invited in zip(trial, made, strict=True):
            asked.id, asked.token = invited.invitation.id, invited.token

    @rule(actor=ACTOR, index=INDEX)
    def resend(self, actor: tuple[int, int | None], index: int) -> None:
        who, asked = self.who(actor), self.any_asked(index, lambda each: each.over)
        if asked is None:
            return
        other = self.pending_for(asked.address)
        other = None if other is asked else other
        if made := self.step(
            who,
            lambda: act.resend(self.caller(who), self.team_id, asked.id),
            [
                *self.entering(who),
                self.lacks(who, "members:create"),
                *self.giving(who, asked.role),
                (asked.status not in ("pending", "expired"), Conflict),
                (self.person_at(asked.address) in self.model.seats, Conflict),
                (other is not None and other.waits, Conflict),
                (self.model.taken - asked.waits >= PLANS[self.model.plan].max_members, SeatLimitReached),
            ],
            "invitation_resent",
        ):
            if other:
                other.status = "expired"
            asked.status, asked.over, asked.by = "pending", False, who.person
            asked.dead_tokens.append(asked.token)
            asked.token = made.token

    @rule(actor=ACTOR, index=INDEX)
    def revoke(self, actor: tuple[int, int | None], index: int) -> None:
        who, asked = self.who(actor), self.any_asked(index)
        if asked is not None and self.step(
            who,
            lambda: act.revoke(self.caller(who), self.team_id, asked.id),
            [
                *self.entering(who),
                self.lacks(who, "members:create"),
                *self.giving(who, asked.role),
                (asked.status not in ("pending", "expired"), Conflict),
            ],
            "invitation_revoked",
        ):
            asked.status = "revoked"

    @rule(index=INDEX)
    def time_goes_by(self, index: int) -> None:
        asked = self.any_asked(index)
        if asked is not None and asked.waits:
            act.expire(asked.id)
            asked.over = True

    def accepting(self, person: int, asked: Asked) -> list[Refusal]:
        inviter = self.model.power(Who(asked.by))
        granted = self.model.grants(asked.role)
        worth = bool(granted) and "members:create" in inviter and granted <= inviter
        return [(not asked.waits, Conflict), (person in self.model.seats, Conflict), (not worth, Conflict)]

    @rule(person=PERSON, index=INDEX, dead=st.sampled_from([False, False, False, True]))
    def accept(self, person: int, index: int, dead: bool) -> None:
        if asked := self.any_asked(index):
            self._accept(person, asked, dead)

    def _accept(self, person: int, asked: Asked, dead: bool) -> None:
        dead = dead and bool(asked.dead_tokens)
        token = asked.dead_tokens[-1] if dead else asked.token
        if self.step(
            Who(person),
            lambda: act.accept(self.people[person], token),
            [
                (dead or self.model.deleted, NotFound),
                (self.person_at(asked.address) != person, PermissionDenied),
                *self.accepting(person, asked),
            ],
            "invitation_accepted",
            inviter=asked.by,
        ):
            asked.status = "accepted"
            self.model.seats[person] = Seat(asked.role)

    @rule(index=INDEX)
    def the_invited_accepts(self, index: int) -> None:
        """The same, by the right person."""
        asked = self.any_asked(index, self.can_come)
        person = self.person_at(asked.address) if asked else None
        if asked is not None and person is not None:
            self._accept(person, asked, dead=False)

    def can_come(self, asked: Asked) -> bool:
        person = self.person_at(asked.address)
        return person is not None and person not in self.model.seats and asked.waits

    @rule(person=PERSON, index=INDEX, takes=st.booleans())
    def answer_what_waits(self, person: int, index: int, takes: bool) -> None:
        asked = self.any_asked(index, self.can_come)
        if asked is None:
            return
        invited = self.person_at(asked.address)
        person = invited if invited is not None and index % 4 else person
        answer = act.accept_waiting if takes else act.decline
        refusals: list[Refusal] = [
            (self.person_at(asked.address) != person or self.model.deleted, NotFound),
            (person >= PEOPLE - 2, PermissionDenied),
            *(self.accepting(person, asked) if takes else [(not asked.waits, Conflict)]),
        ]
        if self.step(
            Who(person),
            lambda: answer(self.people[person], asked.id),
            refusals,
            "invitation_accepted" if takes else "invitation_declined",
            inviter=asked.by,
        ):
            asked.status = "accepted" if takes else "revoked"
            if takes:
                self.model.seats[person] = Seat(asked.role)

    # Roles

    @rule(actor=ACTOR, name=ROLE, permissions=st.sampled_from(POWERS))
    def create_role(self, actor: tuple[int, int | None], name: str, permissions: tuple[str, ...]) -> None:
        who = self.who(actor)
        if self.step(
            who,
            lambda: act.create_role(self.caller(who), self.team_id, name, permissions),
            [
                *self.entering(who),
                self.lacks(who, "roles:create"),
                (bool(self.model.grants(name)), Conflict),
                (not set(permissions) <= self.model.power(who), PermissionDenied),
            ],
            "role_created",
        ):
            self.model.roles[name] = frozenset(permissions)

    @rule(
        actor=ACTOR,
        role=ROLE,
        name=st.one_of(st.none(), ROLE),
        permissions=st.one_of(st.none(), st.sampled_from(POWERS)),
    )
    def update_role(
        self,
        actor: tuple[int, int | None],
        role: str,
        name: str | None,
        permissions: tuple[str, ...] | None,
    ) -> None:
        who, model = self.who(actor), self.model
        had = model.grants(role)
        wanted = had if permissions is None else frozenset(permissions)
        to = name or role
        changed = to != role or wanted != had
        if self.step(
            who,
            lambda: act.update_role(self.caller(who), self.team_id, role, name=name, permissions=permissions),
            [
                *self.entering(who),
                (not had, NotFound),
                self.lacks(who, "roles:update"),
                (role in BUILT_IN_ROLES, Conflict),
                (not had | wanted <= model.power(who), PermissionDenied),
                (to != role and bool(model.grants(to)), Conflict),
            ],
            *(["role_updated"] if changed else []),
        ):
            del model.roles[role]
            model.roles[to] = wanted
            model.rename(role, to)

    @rule(actor=ACTOR, role=ROLE, replacement=st.one_of(st.none(), ROLE))
    def delete_role(self, actor: tuple[int, int | None], role: str, replacement: str | None) -> None:
        who, model = self.who(actor), self.model
        power = model.power(who)
        refusals: list[Refusal] = [
            *self.entering(who),
            (not model.grants(role), NotFound),
            self.lacks(who, "roles:delete"),
            (role in BUILT_IN_ROLES, Conflict),
            (not model.grants(role) <= power, PermissionDenied),
        ]
        if replacement is None:
            refusals.append((model.names(role), Conflict))
        else:
            refusals += [
                (replacement == role or not model.grants(replacement), Invalid),
                (not model.grants(replacement) <= power, PermissionDenied),
            ]
        if self.step(
            who,
            lambda: act.delete_role(self.caller(who), self.team_id, role, replacement),
            refusals,
            "role_deleted",
        ):
            del model.roles[role]
            if replacement:
                model.rename(role, replacement)

    # Workspaces

    def room(self, index: int) -> UUID:
        return self.any_of(self.all_rooms, index, self.model.rooms.__contains__) or self.all_rooms[0]

    def being_in(self, who: Who, room: UUID) -> list[Refusal]:
        return [*self.entering(who), (not self.model.sees(who, room), NotFound)]

    def above_there(self, who: Who, room: UUID, person: int, role: str | None) -> Refusal:
        """Whether the person, with this role in the workspace, may do more in it."""
        seat = self.model.seats.get(person)
        has = self.model.grants(role or (seat.role if seat else None)) & WORKSPACE_SCOPED
        return not has <= self.model.power(who, room), PermissionDenied

    @rule(actor=ACTOR, private=st.booleans())
    def create_workspace(self, actor: tuple[int, int | None], private: bool) -> None:
        who = self.who(actor)
        if made := self.step(
            who,
            lambda: act.create_workspace(self.caller(who), self.team_id, "private" if private else "team"),
            [*self.entering(who), self.lacks(who, "workspaces:create")],
            "workspace_created",
        ):
            self.all_rooms.append(made)
            self.model.rooms[made] = Room(private, who.person, {who.person: None} if private else {})

    @rule(actor=ACTOR, index=INDEX, private=st.booleans())
    def open_or_close(self, actor: tuple[int, int | None], index: int, private: bool) -> None:
        who, room = self.who(actor), self.room(index)
        found = self.model.rooms.get(room)
        changed = found is not None and found.private != private
        closes = changed and private and found is not None and found.maker != who.person
        if (
            self.step(
                who,
                lambda: act.update_workspace(
                    self.caller(who), self.team_id, room, visibility="private" if private else "team"
                ),
                [
                    *self.being_in(who, room),
                    self.lacks(who, "workspaces:update", room),
                    *([self.lacks(who, "workspaces:delete", room)] if closes else []),
                ],
                *(["workspace_updated"] if changed else []),
            )
            and found
        ):
            found.private = private
            if changed and private:
                found.listed.setdefault(who.person, None)

    @rule(actor=ACTOR, index=INDEX, whom=INDEX, role=st.one_of(st.none(), ROLE))
    def enlist(self, actor: tuple[int, int | None], index: int, whom: int, role: str | None) -> None:
        who, room, model = self.who(actor), self.room(index), self.model
        found = model.rooms.get(room, Room(private=False))
        person = self.any_person(whom, model.seats.__contains__)
        previous = found.listed.get(person)
        refusals: list[Refusal] = [
            *self.being_in(who, room),
            (person not in model.seats, NotFound),
            self.lacks(who, "workspaces:update", room),
        ]
        if role is not None:
            refusals += [
                (person == model.owner, Conflict),
                (not model.grants(role), Invalid),
            ]
        if role != previous:
            refusals += [self.above_there(who, room, person, each) for each in (previous, role)]
        events = [] if role == previous else ["workspace_member_role_changed"]
        before = {each: self.power_of(Who(each), room) for each in range(PEOPLE)}
        power = self.power_of(who, room)
        if self.step(
            who,
            lambda: act.enlist(self.caller(who), self.team_id, room, self.people[person], role),
            refusals,
            *(events if person in found.listed else ["workspace_member_added"]),
        ):
            found.listed[person] = role
        for each, had in before.items():
            assert self.power_of(Who(each), room) - had <= power

    @rule(actor=ACTOR, index=INDEX, whom=INDEX)
    def unlist(self, actor: tuple[int, int | None], index: int, whom: int) -> None:
        who, room, model = self.who(actor), self.room(index), self.model
        found = model.rooms.get(room, Room(private=False))
        person = self.any_person(whom, found.listed.__contains__)
        oneself = person == who.person and who.key is None
        refusals: list[Refusal] = [*self.being_in(who, room), (person not in model.seats, NotFound)]
        if not oneself:
            refusals.append(self.lacks(who, "workspaces:update", room))
        refusals.append((person not in found.listed, NotFound))
        role = found.listed.get(person)
        if not oneself:
            refusals.append(self.above_there(who, room, person, role))
        if role is not None and not found.private:
            refusals.append(self.above_there(who, room, person, None))
        if self.step(
            who,
            lambda: act.unlist(self.caller(who), self.team_id, room, self.people[person]),
            refusals,
            "workspace_member_removed",
        ):
            del found.listed[person]

    @rule(actor=ACTOR, index=INDEX)
    def delete_workspace(self, actor: tuple[int, int | None], index: int) -> None:
        who, room = self.who(actor), self.room(index)
        if self.step(
            who,
            lambda: act.delete_workspace(self.caller(who), self.team_id, room),
            [*self.being_in(who, room), self.lacks(who, "workspaces:delete", room)],
            "workspace_deleted",
        ):
            del self.model.rooms[room]

    # Keys and agents

    @rule(actor=ACTOR, scope=st.sampled_from(POWERS), index=st.one_of(st.none(), INDEX))
    def create_key(self, actor: tuple[int, int | None], scope: tuple[str, ...], index: int | None) -> None:
        who = self.who(actor)
        agent = (
            self.all_agents[index % len(self.all_agents)] if index is not None and self.all_agents else None
        )
        if made := self.step(
            who,
            lambda: act.create_key(self.caller(who), self.team_id, scope, agent),
            [
                *self.entering(who),
                self.lacks(who, "api_keys:create"),
                (agent is not None and agent not in self.model.agents, NotFound),
                (who.key is not None, PermissionDenied),
                (not set(scope) <= self.model.power(who), PermissionDenied),
            ],
            "api_key_created",
        ):
            key = Key(made, who.person, frozenset(scope), agent)
            self.all_keys.append(key)
            self.model.keys[made.id] = key

    @rule(actor=ACTOR, index=INDEX)
    def revoke_key(self, actor: tuple[int, int | None], index: int) -> None:
        if not self.all_keys:
            return
        who, key = self.who(actor), self.all_keys[index % len(self.all_keys)]
        if self.step(
            who,
            lambda: act.revoke_key(self.caller(who), self.team_id, key.made.id),
            [
                *self.entering(who),
                self.lacks(who, "api_keys:delete"),
                (key.made.id not in self.model.keys, NotFound),
            ],
            "api_key_revoked",
        ):
            del self.model.keys[key.made.id]

    @rule(actor=ACTOR, role=ROLE)
    def create_agent(self, actor: tuple[int, int | None], role: str) -> None:
        who = self.who(actor)
        name = f"Agent {len(self.all_agents)}"
        if made := self.step(
            who,
            lambda: act.create_agent(self.caller(who), self.team_id, name, role),
            [*self.entering(who), self.lacks(who, "api_keys:create"), *self.giving(who, role)],
            "agent_created",
        ):
            self.all_agents.append(made)
            self.model.agents[made] = role

    @rule(actor=ACTOR, index=INDEX, role=ROLE)
    def update_agent(self, actor: tuple[int, int | None], index: int, role: str) -> None:
        if not self.all_agents:
            return
        who, agent = self.who(actor), self.all_agents[index % len(self.all_agents)]
        has = self.model.agents.get(agent, "")
        refusals: list[Refusal] = [
            *self.entering(who),
            (not has, NotFound),
            self.lacks(who, "api_keys:create"),
        ]
        if has != role:
            refusals += [*self.giving(who, has), *self.giving(who, role)]
        if self.step(
            who,
            lambda: act.update_agent(self.caller(who), self.team_id, agent, role),
            refusals,
            *([] if has == role else ["agent_updated"]),
        ):
            self.model.agents[agent] = role

    @rule(actor=ACTOR, index=INDEX)
    def delete_agent(self, actor: tuple[int, int | None], index: int) -> None:
        if not self.all_agents:
            return
        who, agent = self.who(actor), self.all_agents[index % len(self.all_agents)]
        if self.step(
            who,
            lambda: act.delete_agent(self.caller(who), self.team_id, agent),
            [
                *self.entering(who),
                (agent not in self.model.agents, NotFound),
                self.lacks(who, "api_keys:delete"),
            ],
            "agent_deleted",
        ):
            del self.model.agents[agent]
            self.model.keys = {id_: key for id_, key in self.model.keys.items() if key.agent != agent}

    # The team

    @rule(actor=ACTOR, plan=st.sampled_from(["free", "pro"]))
    def change_plan(self, actor: tuple[int, int | None], plan: str) -> None:
        who, model = self.who(actor), self.model
        same = plan == model.plan
        if self.step(
            who,
            lambda: act.change_plan(self.caller(who), self.team_id, plan),
            [
                *self.entering(who),
                self.lacks(who, "billing:update"),
                (not same and model.taken > PLANS[plan].max_members, SeatLimitReached),
            ],
            *([] if same else ["plan_changed"]),
        ):
            model.plan = plan

    @rule(actor=ACTOR, back=st.sampled_from([True, True, True, False]))
    def delete_team(self, actor: tuple[int, int | None], back: bool) -> None:
        who = self.who(actor)
        if self.step(
            who,
            lambda: act.delete_team(self.caller(who), self.team_id),
            [*self.entering(who), (not self.model.owns(who), PermissionDenied)],
            "team_deleted",
        ):
            self.model.deleted = True
            if back:  # or most of what comes would be refused
                self.restore_team(self.model.owner)

    @rule(person=PERSON)
    def restore_team(self, person: int) -> None:
        if self.step(
            Who(person),
            lambda: act.restore_team(self.people[person], self.team_id),
            [(not self.model.deleted or person != self.model.owner, NotFound)],
            "team_restored",
        ):
            self.model.deleted = False

    @rule()
    def the_owner_restores(self) -> None:
        self.restore_team(self.model.owner)

    # What holds after every step

    @invariant()
    def at_rest(self) -> None:
        check_at_rest(self.team_id)

    @invariant()
    def everyone_is_where_the_model_has_them(self) -> None:
        ids = {person.id: n for n, person in enumerate(self.people)}
        seats = fetch(
            "SELECT user_id, role, suspended_at FROM team_members WHERE team_id = :id", id=self.team_id
        )
        assert {ids[row.user_id]: Seat(row.role, row.suspended_at is not None) for row in seats} == (
            self.model.seats
        )
        asked = fetch("SELECT id, role, status FROM invitations WHERE team_id = :id", id=self.team_id)
        assert {(row.id, row.role, row.status) for row in asked} == {
            (each.id, each.role, each.status) for each in self.model.asked
        }
        listed = fetch(
            "SELECT workspace_id, user_id, role FROM workspace_members WHERE team_id = :id", id=self.team_id
        )
        assert {(row.workspace_id, ids[row.user_id], row.role) for row in listed} == {
            (room, person, role)
            for room, found in self.model.rooms.items()
            for person, role in found.listed.items()
        }

    @invariant()
    def power_is_what_the_model_says(self) -> None:
        for person in range(PEOPLE):
            assert self.power_of(Who(person)) == self.model.power(Who(person))
        room = self.all_rooms[-1]
        for person in self.model.seats:
            assert self.power_of(Who(person), room) == self.model.power(Who(person), room)

    @invariant()
    def no_key_is_above_its_maker(self) -> None:
        for key in self.all_keys[-6:]:
            power = self.power_of(Who(key.maker, key))
            assert power == self.model.power(Who(key.maker, key))
            assert power <= self.power_of(Who(key.maker)) & key.scope


@pytest.mark.timeout(0)
def test_anybody_does_anything(app: Flask, record_property: Callable[[str, object], None]) -> None:
    people = [make_person(app, "Actor") for _ in range(PEOPLE)]
    for person in people[: PEOPLE - 2]:
        run("UPDATE users SET email_verified_at = now() WHERE id = :id", id=person.id)

    class Here(Membership):
        pass

    Here.people, Here.app = people, app
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    for name, value in {"steps": Here.steps, "changes": Here.changes, **Here.seen}.items():
        record_property(name, value)
    assert Here.changes > Here.steps // 10

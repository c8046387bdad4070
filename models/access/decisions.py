"""
Why somebody may do something, or may not: the one place that every answer about permissions comes from.

A `Standing` is all that decides about one subject in one place, read in one statement (models/queries/permissions.py).
What it may do is put together by `effective` and `lacking` (models/access/power.py), as on entering a team; so a question
and the route itself give the same answer. Nothing here reads the database.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from uuid import UUID

from models.access.permissions import OWNER_ONLY, Permission
from models.access.power import OWNER, WORKSPACE_SCOPED, effective, lacking


class Reason(StrEnum):
    granted = "granted"
    not_a_member = "not_a_member"
    suspended = "suspended"
    account_suspended = "account_suspended"
    team_suspended = "team_suspended"
    two_factor_missing = "two_factor_missing"
    workspace_not_found = "workspace_not_found"
    owner_only = "owner_only"
    not_granted = "not_granted"
    """By the role that decides: in the workspace if they have one there, else in the team."""
    agent_role = "agent_role"
    key_scope = "key_scope"


BARRED_BY = {
    "membership": Reason.suspended,
    "account": Reason.account_suspended,
    "team": Reason.team_suspended,
    "two_factor": Reason.two_factor_missing,
}
"""What models.access.entry.BARRED says, as a reason."""


class Sight(StrEnum):
    """How a workspace looks."""

    absent = "absent"
    """To whoever asks: there is none, or it is hidden from them, and they must not learn which."""
    hidden = "hidden"
    """From the subject alone: private, and does not list them."""
    visible = "visible"


@dataclass(frozen=True, slots=True)
class Cap:
    """What can only take away: an agent, by the name of its role, or an API key, by its own."""

    name: str
    permissions: frozenset[str]


@dataclass(frozen=True)  # without slots, for the cached power
class Standing:
    """One subject in one place: the team at large or, with `sight`, a workspace of it."""

    user_id: UUID
    role: str | None = None
    """None: no member of the team."""
    grants: frozenset[str] = frozenset()
    """Of that role."""
    owns: bool = False
    """The team's owner, or whatever acts for them."""
    barred: str | None = None
    """Why a member may not enter all the same, as models.access.entry.BARRED says it."""
    workspace_id: UUID | None = None
    sight: Sight | None = None
    workspace_role: str | None = None
    """Instead of `role`, for what is about workspaces and tasks."""
    workspace_grants: frozenset[str] = frozenset()
    agent: Cap | None = None
    key: Cap | None = None

    @property
    def is_owner(self) -> bool:
        """The owner in person: no key and no agent is."""
        return self.owns and self.agent is None and self.key is None

    @property
    def out(self) -> Reason | None:
        """Why nothing is allowed at all."""
        if self.role is None:
            return Reason.not_a_member
        if self.barred is not None:
            return BARRED_BY[self.barred]
        return None

    @property
    def sees_workspace(self) -> bool:
        """True for the team at large. What is hidden is refused like what is absent: all that is workspace-scoped."""
        return self.sight in {None, Sight.visible}

    @cached_property
    def power(self) -> frozenset[str]:
        """The set that entering this place gives. It still holds what only the owner may use of it."""
        if self.out is not None:
            return frozenset()
        power = effective(
            self.grants,
            workspace=self.workspace_grants if self.workspace_role is not None else None,
            agent=self.agent.permissions if self.agent else None,
            key=self.key.permissions if self.key else None,
        )
        return power if self.sees_workspace else power - WORKSPACE_SCOPED

    @property
    def may(self) -> frozenset[str]:
        """Every permission that `decide` allows."""
        return self.power if self.is_owner else self.power - OWNER_ONLY

    def decided_in_workspace(self, permission: Permission) -> bool:
        """Whether a role in the workspace decides about it, instead of that in the team."""
        return self.workspace_role is not None and permission in WORKSPACE_SCOPED


@dataclass(frozen=True, slots=True)
class Decision:
    permission: Permission
    allowed: bool
    reason: Reason
    via: str | None = None
    """The path that granted it: `role:member`, `workspace_role:viewer` or `owner`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that an answer hangs on."""

    step: str
    """membership, account, team, two_factor, workspace, role, workspace_role, owner, agent or api_key."""
    name: str | None
    grants: bool
    counts: bool = True
    """False for the role in the team where one in the workspace stands instead, and for a workspace where it is not asked
    about. All that count must grant."""


@dataclass(frozen=True, slots=True)
class Missing:
    """One grant that is missing. All of them together are what would have to be given, and no more."""

    step: str
    name: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Way:
    """How something missing can be given: by members whose role is one of `roles`, or by the one in `user_id`."""

    how: str
    roles: frozenset[str] = frozenset()
    user_id: UUID | None = None
    within_workspace: bool = False
    """The role that decides in the workspace, of somebody who sees it."""


def decide(standing: Standing, permission: Permission) -> Decision:
    if standing.out is not None:
        return Decision(permission, False, standing.out)
    if permission in WORKSPACE_SCOPED and not standing.sees_workspace:
        return Decision(permission, False, Reason.workspace_not_found)
    lacks = lacking(permission, standing.power, is_owner=standing.is_owner)
    if lacks is None:
        return Decision(permission, True, Reason.granted, _via(standing, permission))
    return Decision(
        permission, False, Reason.owner_only if lacks == OWNER else _taken_by(standing, permission)
    )


def _via(standing: Standing, permission: Permission) -> str:
    if permission in OWNER_ONLY:
        return OWNER
    if standing.decided_in_workspace(permission):
        return f"workspace_role:{standing.workspace_role}"
    return f"role:{standing.role}"


def _taken_by(standing: Standing, permission: Permission) -> Reason:
    """The first that does not grant it: the person's role, then the agent's, then the key."""
    in_workspace = standing.decided_in_workspace(permission)
    if permission not in (standing.workspace_grants if in_workspace else standing.grants):
        return Reason.not_granted
    if standing.agent is not None and permission not in standing.agent.permissions:
        return Reason.agent_role
    return Reason.key_scope


BEFORE_THE_ROLE = {
    Reason.account_suspended: "account",
    Reason.team_suspended: "team",
    Reason.two_factor_missing: "two_factor",
}


def path(standing: Standing, permission: Permission) -> list[Step]:
    """Every step of the decision in its order. It is allowed if all that count grant it, and only then."""
    out = standing.out
    if out is Reason.not_a_member:
        return [Step("membership", None, False)]
    if out is Reason.suspended:
        steps = [Step("membership", "suspended", False)]
    else:
        steps = [Step("membership", "active", True)]
    for reason, step in BEFORE_THE_ROLE.items():
        if out is reason:
            steps.append(Step(step, None, False))
    if standing.sight is not None:
        counts = permission in WORKSPACE_SCOPED
        steps.append(Step("workspace", str(standing.workspace_id), standing.sees_workspace, counts=counts))
    in_workspace = standing.decided_in_workspace(permission)
    steps.append(Step("role", standing.role, permission in standing.grants, counts=not in_workspace))
    if in_workspace:
        steps.append(Step("workspace_role", standing.workspace_role, permission in standing.workspace_grants))
    if permission in OWNER_ONLY:
        steps.append(Step("owner", None, standing.is_owner))
    for kind, cap in (("agent", standing.agent), ("api_key", standing.key)):
        if cap is not None:
            steps.append(Step(kind, cap.name, permission in cap.permissions))
    return steps


def missing(standing: Standing, permission: Permission) -> list[Missing]:
    """The smallest set of grants with which it would be allowed; empty if it is."""
    refusing = {step.step: step for step in path(standing, permission) if step.counts and not step.grants}
    if "owner" in refusing:  # who becomes the owner is an admin, and signs in
        refusing = {name: step for name, step in refusing.items() if name not in {"role", "agent", "api_key"}}
    if "workspace" in refusing:  # who gets listed there gets a role with it, if need be
        refusing.pop("role", None)
    return [Missing(step.step, step.name, _detail(standing, permission, step)) for step in refusing.values()]


def _detail(standing: Standing, permission: Permission, step: Step) -> str:
    by_role = "" if permission in standing.grants else f", in a role there that grants {permission}"
    said = {
        "membership": "The membership is suspended; reactivate it."
        if step.name
        else f"This is no member of the team; make them one, in a role that grants {permission}.",
        "account": "The account is suspended; whoever runs this installation can lift that.",
        "team": "The team is suspended; whoever runs this installation can lift that.",
        "two_factor": "The team asks its members for a second factor; they set one up under /me/two-factor.",
        "workspace": "There is no such workspace here."
        if standing.sight is Sight.absent
        else f"They are not listed in this private workspace; list them{by_role}.",
        "role": f"The role {step.name} lacks {permission}.",
        "workspace_role": f"The role {step.name}, theirs in this workspace, lacks {permission}.",
        "owner": "The owner has this in person, and no key or agent of theirs; sign in."
        if standing.owns
        else "The team's owner alone has this; ownership can be transferred.",
        "agent": f"The agent's role {step.name} lacks {permission}.",
        "api_key": f"The scope of the key {step.name} lacks {permission}.",
    }
    return said[step.step]


def ways_to_give(
    lack: Missing,
    standing: Standing,
    permission: Permission,
    *,
    roles: Mapping[str, frozenset[str]],
    own: frozenset[str],
    owner_id: UUID,
) -> list[Way]:
    """
    How, and by whom, what is missing could be given. Nobody gives more than they have, or changes who has more.

    `roles` is what each role of the team grants, `own` names those that are the team's own and so can be edited.
    """
    if lack.step == "owner":
        return [Way("sign_in" if standing.owns else "transfer", user_id=owner_id)]
    if lack.step == "two_factor":
        return [Way("two_factor", user_id=standing.user_id)]
    if lack.step == "api_key":
        person = replace(standing, agent=None, key=None)
        able = {permission.value, Permission.api_keys_create.value} <= person.power
        return [Way("new_key", user_id=standing.user_id)] if able else []
    powers = Powers(roles, permission)
    ways: list[Way] = []
    if lack.step == "membership":
        if lack.name:
            ways.append(powers.way(Permission.members_update, standing.grants))
        else:
            ways.append(powers.way_with_a_role(Permission.members_create))
    elif lack.step == "agent" and standing.agent is not None:
        ways.append(powers.way_with_a_role(Permission.api_keys_create, standing.agent.permissions))
    elif lack.step == "role":
        ways.append(powers.way_with_a_role(Permission.members_update, standing.grants))
    if (
        lack.step in {"workspace", "workspace_role", "role"}
        and standing.sight in {Sight.hidden, Sight.visible}
        and permission in WORKSPACE_SCOPED
    ):
        ways.append(powers.way_in_workspace(standing))
    edited = {
        "role": (standing.role, standing.grants),
        "workspace_role": (standing.workspace_role, standing.workspace_grants),
        "agent": (standing.agent.name, standing.agent.permissions) if standing.agent else (None, frozenset()),
    }.get(lack.step)
    if edited is not None and edited[0] in own:
        ways.append(powers.way(Permission.roles_update, edited[1] | {permission.value}))
    return [way for way in ways if way.roles]


@dataclass(frozen=True, slots=True)
class Powers:
    """Which of a team's roles could give one permission."""

    roles: Mapping[str, frozenset[str]]
    permission: Permission

    def way(self, by: Permission, above: frozenset[str] = frozenset()) -> Way:
        """By using `by`, for whoever has it and all of `above`."""
        needed = above | {by.value}
        return Way(by.value, frozenset(name for name, power in self.roles.items() if needed <= power))

    def way_with_a_role(self, by: Permission, above: frozenset[str] = frozenset()) -> Way:
        """By giving a role that grants it, within the giver's own power."""
        way = self.way(by, above | {self.permission.value})
        return replace(way, roles=frozenset(name for name in way.roles if self._gives(self.roles[name])))

    def way_in_workspace(self, standing: Standing) -> Way:
        """By listing somebody there, with a role in it if need be."""
        by = Permission.workspaces_update
        scoped = WORKSPACE_SCOPED & effective(
            standing.grants, workspace=standing.workspace_grants if standing.workspace_role else None
        )
        if standing.sight is Sight.hidden and self.permission in standing.grants:
            return replace(self.way(by, frozenset({self.permission.value})), within_workspace=True)
        able = (
            name
            for name in self.way(by, scoped | {self.permission.value}).roles
            if self._gives(self.roles[name], WORKSPACE_SCOPED)
        )
        return Way(by.value, frozenset(able), within_workspace=True)

    def _gives(self, power: frozenset[str], scope: frozenset[str] | None = None) -> bool:
        return any(
            self.permission in grants and (grants if scope is None else grants & scope) <= power
            for grants in self.roles.values()
        )


def changes(
    before: Standing, after: Standing, within: frozenset[str] | None = None
) -> tuple[frozenset[str], frozenset[str]]:
    """What a subject gains and loses from one standing to the other (of `within`, if that is given)."""
    gains, loses = after.may - before.may, before.may - after.may
    return (gains, loses) if within is None else (gains & within, loses & within)


def granted(standing: Standing) -> Iterator[Decision]:
    """Everything that is allowed, in the catalogue's order."""
    return (decision for permission in Permission if (decision := decide(standing, permission)).allowed)

"""Private workspaces: whoever may not see one learns of its events nothing but their numbers, on whichever way they come."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from models.access.entry import enter_team
from models.database import transaction
from models.errors import Unavailable
from models.events.catalogue import WorkspaceDeleted
from models.events.record import record
from models.tables import DeletedWorkspace, Workspace, WorkspaceMember
from realtime import hub
from tests.factories import Person
from tests.realtime.conftest import Connect, Team, drain, execute, project

Show = Callable[..., list[list[dict[str, Any]]]]
WAYS = ["live", "healed", "replayed"]


@pytest.fixture(params=WAYS)
def show(
    request: pytest.FixtureRequest, connect_to: Connect, team: Team, monkeypatch: pytest.MonkeyPatch
) -> Show:
    """
    `show(happen, *people)`: the frames that each of them is sent of what `happen` records: at once, over Redis alone; from
    the log, since the worker died before it published; or on resuming later.
    """

    def live(happen: Callable[[], None], *people: Person) -> list[list[dict[str, Any]]]:
        clients = [connect_to(team, person).ready() for person in people]
        before = team.head()
        happen()
        with monkeypatch.context() as patched:
            if request.param == "live":
                patched.setattr(hub, "_read", away)
                drain()
            else:
                project()
            return [[client.receive() for _ in range(team.head() - before)] for client in clients]

    def replayed(happen: Callable[[], None], *people: Person) -> list[list[dict[str, Any]]]:
        before = team.head()
        happen()
        project()
        return [replay(connect_to, team, person, before) for person in people]

    return replayed if request.param == "replayed" else live


def away(*_: object) -> None:
    raise Unavailable("away")


def replay(connect_to: Connect, team: Team, person: Person, last_seq: int) -> list[dict[str, Any]]:
    client = connect_to(team, person)
    client.hello(last_seq=last_seq)
    frames = [client.receive() for _ in range(team.head() - last_seq)]
    assert client.is_quiet(0)
    return frames


def redacted(seq: int) -> dict[str, Any]:
    return {"type": "redacted", "seq": seq, "origin": "server"}


def test_only_the_listed_and_the_owner_see_a_private_workspaces_events(team: Team, show: Show) -> None:
    board, open_one = team.private_workspace(team.member), team.private_workspace()
    execute("UPDATE workspaces SET visibility = 'team' WHERE id = :id", id=open_one)
    before = team.head()

    def happen() -> None:
        team.happen(at=open_one)
        team.happen(2, at=board)
        team.happen()

    owner, listed, admin, viewer = show(happen, team.owner, team.member, team.admin, team.viewer)
    assert [frame["seq"] for frame in owner] == list(range(before + 1, before + 5))
    assert {frame["type"] for frame in owner} == {"workspace_created"}
    assert [frame["data"].get("name") for frame in owner] == ["Research"] * 4
    assert listed == owner
    assert admin == viewer == [owner[0], redacted(before + 2), redacted(before + 3), owner[3]]


@pytest.mark.parametrize("agent_role", [None, "admin"], ids=["key", "agent"])
def test_a_key_sees_what_its_maker_sees(team: Team, show: Show, agent_role: str | None) -> None:
    board = team.private_workspace(team.member)
    keys = [team.with_key(person, agent_role=agent_role) for person in (team.owner, team.member, team.admin)]
    owner, listed, admin = show(lambda: team.happen(at=board), *keys)
    assert owner == listed
    assert owner[0]["type"] == "workspace_created"
    assert admin == [redacted(owner[0]["seq"])]


def test_a_workspace_that_nobody_is_listed_in_is_the_owners(team: Team, show: Show) -> None:
    board = team.private_workspace()
    owner, admin = show(lambda: team.happen(at=board), team.owner, team.admin)
    assert admin == [redacted(owner[0]["seq"])]
    assert owner[0]["type"] == "workspace_created"


def take_off(team: Team, workspace_id: UUID, person: Person) -> None:
    execute(
        "DELETE FROM workspace_members WHERE workspace_id = :workspace AND user_id = :user",
        workspace=workspace_id,
        user=person.id,
    )


def put_on(team: Team, workspace_id: UUID, person: Person) -> None:
    with transaction() as session:
        session.add(WorkspaceMember(team_id=team.id, workspace_id=workspace_id, user_id=person.id))


def test_who_is_taken_off_the_list_sees_no_more_of_it_and_who_is_put_on_sees_it(
    connect_to: Connect, team: Team
) -> None:
    board = team.private_workspace(team.member)
    before = team.head()
    member, viewer = connect_to(team, team.member).ready(), connect_to(team, team.viewer).ready()
    team.happen(at=board)
    drain()
    first = member.receive_type("workspace_created")
    assert viewer.receive() == redacted(before + 1)
    take_off(team, board, team.member)
    put_on(team, board, team.viewer)
    team.happen(at=board)
    drain()
    assert member.receive() == redacted(before + 2)
    second = viewer.receive_type("workspace_created")
    # Whoever resumes later is shown what they may see now, of the past too.
    assert replay(connect_to, team, team.member, before) == [redacted(before + 1), redacted(before + 2)]
    assert replay(connect_to, team, team.viewer, before) == [first, second]


def test_visibility_is_that_of_now(team: Team, connect_to: Connect) -> None:
    board = team.private_workspace()
    before = team.head()
    team.happen(at=board)
    project()
    assert replay(connect_to, team, team.admin, before) == [redacted(before + 1)]
    execute("UPDATE workspaces SET visibility = 'team' WHERE id = :id", id=board)
    [shown] = replay(connect_to, team, team.admin, before)
    assert shown["type"] == "workspace_created"
    execute("UPDATE workspaces SET visibility = 'private' WHERE id = :id", id=board)
    assert replay(connect_to, team, team.admin, before) == [redacted(before + 1)]


def test_what_happened_before_a_workspace_became_private_is_private_even_if_it_is_drained_later(
    team: Team, show: Show
) -> None:
    board = team.private_workspace(team.member)
    execute("UPDATE workspaces SET visibility = 'team' WHERE id = :id", id=board)

    def happen() -> None:
        team.happen(at=board)
        execute("UPDATE workspaces SET visibility = 'private' WHERE id = :id", id=board)

    listed, admin = show(happen, team.member, team.admin)
    assert listed[0]["type"] == "workspace_created"
    assert admin == [redacted(listed[0]["seq"])]


def delete(team: Team, workspace_id: UUID, *listed: Person, private: bool = True) -> None:
    with transaction() as session:
        access = enter_team(session, team.owner.credential, team.id)
        if private:
            ids = [person.id for person in listed]
            session.add(DeletedWorkspace(team_id=team.id, workspace_id=workspace_id, user_ids=ids))
        session.delete(session.get_one(Workspace, workspace_id))
        session.flush()
        record(session, access, WorkspaceDeleted(workspace_id=workspace_id, name="Board", tasks_deleted=0))


def test_a_deleted_private_workspace_stays_private(team: Team, show: Show) -> None:
    board = team.private_workspace(team.member)

    def happen() -> None:
        team.happen(at=board)
        delete(team, board, team.member)

    owner, listed, admin = show(happen, team.owner, team.member, team.admin)
    assert [frame["type"] for frame in owner] == ["workspace_created", "workspace_deleted"]
    assert listed == owner
    assert admin == [redacted(frame["seq"]) for frame in owner]


def test_a_deleted_open_workspace_stays_open(team: Team, show: Show) -> None:
    once_open = team.private_workspace()
    execute("UPDATE workspaces SET visibility = 'team' WHERE id = :id", id=once_open)

    def happen() -> None:
        team.happen(at=once_open)
        delete(team, once_open, private=False)

    [viewer] = show(happen, team.viewer)
    assert [frame["type"] for frame in viewer] == ["workspace_created", "workspace_deleted"]


@pytest.mark.usefixtures("frequent_heartbeats")
def test_a_redacted_event_counts_in_heartbeat_and_welcome(connect_to: Connect, team: Team) -> None:
    board = team.private_workspace()
    client = connect_to(team, team.viewer)
    before = client.hello()["seq"]
    team.happen(at=board)
    drain()
    while (received := client.receive())["type"] == "heartbeat":
        assert received["data"]["seq"] == before
    assert received == redacted(before + 1)
    assert client.receive_type("heartbeat")["data"] == {"seq": before + 1}
    assert connect_to(team, team.viewer).hello(last_seq=before + 1)["seq"] == before + 1


def test_messages_reach_everyone_all_the_same(connect_to: Connect, team: Team) -> None:
    team.private_workspace(team.member)
    sender, other = connect_to(team, team.member), connect_to(team, team.admin).ready()
    sender.send("cursor", 1)
    assert other.receive_type("cursor")["data"] == 1

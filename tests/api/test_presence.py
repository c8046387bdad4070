"""GET /presence, and the tickets that open sockets."""

import hashlib
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from uuid_utils.compat import uuid7

from api import presence
from models.access.actor import Origin
from models.access.entry import Access, enter_with_ticket
from models.database import transaction
from models.errors import DomainError, PermissionDenied, Unauthenticated
from realtime.publisher import connect
from tests.factories import (
    Answer,
    Person,
    TeamSetting,
    execute,
    fetch,
    join,
    make_key,
    make_person,
    make_role,
    make_team,
)
from tests.models.concurrency import raised, together
from tests.realtime.conftest import Client, serving
from workers.maintenance import expire_tickets

AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="module")
def server(app: Flask) -> Iterator[str]:
    """The address of the whole application, sockets and REST, in threads of this process."""
    with serving(app) as address:
        yield address


@pytest.fixture
def sockets(server: str) -> Iterator[Any]:
    """Opens sockets: `sockets(team, "token=…")`; they are closed at the test's end."""
    clients: list[Client] = []

    def open_client(team: TeamSetting, query: str) -> Client:
        clients.append(Client(server, f"/ws/{team.id}?{query}"))
        return clients[-1]

    yield open_client
    for client in clients:
        client.vanish()


def online(team: TeamSetting, by: Person, count: int) -> list[dict[str, Any]]:
    """Who is, once there are so many."""
    deadline = time.monotonic() + 5
    while True:
        answer = by.get(f"{team.path}/presence")
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json["items"]
        if len(items) == count:
            return items
        assert time.monotonic() < deadline, items
        time.sleep(0.1)


# ------------------------------------------------------------------------------------------------ presence


def test_who_is_online_is_told_by_person(team: TeamSetting, sockets: Any) -> None:
    assert team.viewer.get(f"{team.path}/presence").json == {"items": [], "next_cursor": None}
    for person in (team.member, team.member, team.admin):
        client = sockets(team, f"token={person.token}").ready()
    client.send("presence", {"state": "away"})
    client.ready()
    time.sleep(1)
    assert online(team, team.viewer, 2) == sorted(
        (
            {"user_id": str(team.member.id), "state": "online", "devices": 2},
            {"user_id": str(team.admin.id), "state": "away", "devices": 1},
        ),
        key=lambda each: str(each["user_id"]),
    )
    client.vanish()
    assert online(team, team.viewer, 1)[0]["user_id"] == str(team.member.id)


def test_another_teams_people_are_not_told(app: Flask, team: TeamSetting, sockets: Any) -> None:
    other = make_team(app)
    sockets(other, f"token={other.member.token}").ready()
    online(other, other.viewer, 1)
    assert online(team, team.viewer, 0) == []
    assert team.viewer.get(f"{other.path}/presence").status_code == 404


def test_presence_comes_in_pages(team: TeamSetting, sockets: Any) -> None:
    people = [team.owner, team.admin, team.member, team.viewer]
    for person in people:
        sockets(team, f"token={person.token}").ready()
    everyone = online(team, team.viewer, 4)
    read: list[dict[str, Any]] = []
    query: dict[str, Any] | None = {"limit": 3}
    sizes = []
    while query:
        page = team.viewer.get(f"{team.path}/presence", query_string=query).json
        sizes.append(len(page["items"]))
        read += page["items"]
        cursor = page["next_cursor"]
        query = {"limit": 3, "cursor": cursor} if cursor else None
    assert (read, sizes) == (everyone, [3, 1])
    whole = team.viewer.get(f"{team.path}/presence", query_string={"limit": 4}).json
    assert (whole["items"], whole["next_cursor"]) == (everyone, None)
    for bad in ("x", "bnVsbA", "WyJ4Il0", "W10", "WyIxIiwiMiJd"):
        answer = team.viewer.get(f"{team.path}/presence", query_string={"cursor": bad})
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["cursor"]), bad


@pytest.mark.parametrize(("method", "what"), [("GET", "presence"), ("POST", "ws-tickets")])
def test_both_need_realtime_read(app: Flask, team: TeamSetting, method: str, what: str) -> None:
    make_role(team, "deaf", "tasks:read", "realtime:publish")
    make_role(team, "listener", "realtime:read")
    path = f"{team.path}/{what}"
    refused = join(team, "deaf").call(method, path)
    assert (refused.status_code, refused.json["missing"]) == (403, "realtime:read")
    for person in (join(team, "listener"), team.viewer, make_key(team, team.admin, "realtime:read")):
        assert person.call(method, path).status_code in {200, 201}
    assert make_key(team, team.admin, "tasks:read").call(method, path).json["missing"] == "realtime:read"
    assert make_person(app).call(method, path).status_code == 404
    assert app.test_client().open(f"/api/v1{path}", method=method).status_code == 401


def test_while_redis_is_away_presence_is_503_and_tickets_are_made(
    team: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "connect", lambda _url: connect(AWAY))
    answer = team.viewer.get(f"{team.path}/presence")
    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
    make_role(team, "deaf", "tasks:read")
    assert join(team, "deaf").get(f"{team.path}/presence").status_code == 403
    assert team.viewer.post(f"{team.path}/ws-tickets").status_code == 201


# ------------------------------------------------------------------------------------------------ tickets


def ticket_of(team: TeamSetting, person: Person) -> str:
    answer: Answer = person.post(f"{team.path}/ws-tickets")
    assert answer.status_code == 201, answer.text
    ticket: str = answer.json["ticket"]
    return ticket


def hash_of(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode()).digest()


def use(team: TeamSetting, ticket: str) -> Access:
    with transaction() as session:
        return enter_with_ticket(session, ticket, team.id, Origin())[0]


def outcome_of(team: TeamSetting, ticket: str) -> type[DomainError] | None:
    try:
        use(team, ticket)
    except DomainError as error:
        return type(error)
    return None


def test_a_ticket_is_shown_once_and_kept_as_a_hash(team: TeamSetting) -> None:
    answer = team.member.post(f"{team.path}/ws-tickets")
    assert (answer.status_code, set(answer.json)) == (201, {"ticket", "expires_at"})
    ticket = answer.json["ticket"]
    assert ticket.startswith("aht_")
    assert len(ticket) > 30
    (row,) = fetch("SELECT *, expires_at - created_at AS lives FROM tickets WHERE team_id = :id", id=team.id)
    assert row.token_hash == hash_of(ticket)
    assert ticket not in str(row)
    assert row.expires_at == datetime.fromisoformat(answer.json["expires_at"])
    assert 30 <= row.lives.total_seconds() < 35
    assert row.session_id is not None
    assert row.api_key_id is None
    again = ticket_of(team, team.member)
    assert again != ticket


def test_a_ticket_opens_one_socket(team: TeamSetting, sockets: Any) -> None:
    ticket = ticket_of(team, team.member)
    client = sockets(team, f"ticket={ticket}").ready()
    assert client.ask("cursor", 1)["user_id"] == str(team.member.id)
    assert sockets(team, f"ticket={ticket}").close_code() == 1008
    client.ready()
    assert fetch("SELECT 1 FROM tickets WHERE team_id = :id", id=team.id) == []


def test_a_ticket_carries_the_rights_of_who_asked(team: TeamSetting, sockets: Any) -> None:
    viewer = sockets(team, f"ticket={ticket_of(team, team.viewer)}")
    assert viewer.ask("cursor")["data"]["missing"] == "realtime:publish"
    narrow = make_key(team, team.admin, "realtime:read")
    listening = sockets(team, f"ticket={ticket_of(team, narrow)}")
    assert listening.ask("cursor")["data"]["missing"] == "realtime:publish"
    wide = make_key(team, team.admin, "realtime:read", "realtime:publish")
    speaking = sockets(team, f"ticket={ticket_of(team, wide)}")
    assert speaking.ask("cursor")["user_id"] == str(team.admin.id)
    team.owner.delete(f"{team.path}/api-keys/{wide.key_id}")
    assert speaking.close_code() == 4001
    assert listening.receive_type("cursor")["user_id"] == str(team.admin.id)
    listening.ready()


@pytest.mark.parametrize("bad", ["x", "aht_", "aht_wrong", "%00", "x" * 3000, "ahq_wrong"])
def test_what_is_no_ticket_opens_none(shared: TeamSetting, sockets: Any, bad: str) -> None:
    assert sockets(shared, f"ticket={bad}").close_code() == 1008


def test_a_credential_is_no_ticket_and_a_ticket_no_credential(team: TeamSetting, sockets: Any) -> None:
    assert sockets(team, f"ticket={team.member.token}").close_code() == 1008
    ticket = ticket_of(team, team.member)
    assert sockets(team, f"token={ticket}").close_code() == 1008
    bearer = Person(team.member.app, team.member.id, "", "", ticket)
    assert bearer.get(team.path).status_code == 401
    sockets(team, f"ticket={ticket}").ready()


def test_a_ticket_is_good_for_30_seconds(team: TeamSetting) -> None:
    for passed, outcome in ((29, None), (31, Unauthenticated)):
        ticket = ticket_of(team, team.member)
        execute(
            "UPDATE tickets SET expires_at = expires_at - :passed * interval '1 s' WHERE token_hash = :hash",
            passed=passed,
            hash=hash_of(ticket),
        )
        assert outcome_of(team, ticket) is outcome


def test_of_many_who_use_a_ticket_at_once_one_enters(team: TeamSetting) -> None:
    for _ in range(5):
        ticket = ticket_of(team, team.member)
        outcomes = together(*[lambda ticket=ticket: use(team, ticket)] * 8)
        assert [each.user_id for each in outcomes if isinstance(each, Access)] == [team.member.id]
        assert raised(outcomes) == [Unauthenticated] * 7


def test_a_ticket_is_one_teams(app: Flask, team: TeamSetting, sockets: Any) -> None:
    other = make_team(app, owner=team.owner)
    ticket = ticket_of(team, team.owner)
    assert sockets(other, f"ticket={ticket}").close_code() == 1008
    sockets(team, f"ticket={ticket}").ready()  # the other team's refusal did not use it up


ENDED: dict[str, tuple[str, type[Exception]]] = {
    "signed out": ("DELETE FROM sessions WHERE user_id = :user", Unauthenticated),
    "expired": ("UPDATE sessions SET expires_at = now() WHERE user_id = :user", Unauthenticated),
    "suspended": ("UPDATE team_members SET suspended_at = now() WHERE user_id = :user", PermissionDenied),
    "demoted": ("UPDATE team_members SET role = 'none' WHERE user_id = :user", PermissionDenied),
}


@pytest.mark.parametrize("cause", ENDED)
def test_a_ticket_is_worth_what_its_credential_is_by_then(
    team: TeamSetting, sockets: Any, cause: str
) -> None:
    statement, outcome = ENDED[cause]
    ticket, other = ticket_of(team, team.member), ticket_of(team, team.admin)
    execute(statement, user=team.member.id)
    assert outcome_of(team, ticket) is outcome
    assert sockets(team, f"ticket={ticket}").close_code() == 1008
    sockets(team, f"ticket={other}").ready()


def test_a_revoked_keys_ticket_is_gone(team: TeamSetting, sockets: Any) -> None:
    key = make_key(team, team.admin, "realtime:read")
    ticket = ticket_of(team, key)
    (row,) = fetch(
        "SELECT session_id, api_key_id FROM tickets WHERE token_hash = :hash", hash=hash_of(ticket)
    )
    assert (row.session_id, str(row.api_key_id)) == (None, key.key_id)
    assert team.owner.delete(f"{team.path}/api-keys/{key.key_id}").status_code == 204
    assert fetch("SELECT 1 FROM tickets WHERE token_hash = :hash", hash=hash_of(ticket)) == []
    assert sockets(team, f"ticket={ticket}").close_code() == 1008


def test_a_repeat_with_its_key_makes_no_second_ticket_and_does_not_show_the_first(team: TeamSetting) -> None:
    headers = {"Idempotency-Key": uuid7().hex}
    first, again = (team.member.post(f"{team.path}/ws-tickets", headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 409)
    assert first.json["ticket"] not in again.text
    assert len(fetch("SELECT 1 FROM tickets WHERE team_id = :id", id=team.id)) == 1
    (kept,) = fetch("SELECT body FROM idempotency_keys WHERE resource_id = :id", id=team.id)
    assert kept.body is None


def test_unused_tickets_are_deleted_in_time(team: TeamSetting) -> None:
    over, good = ticket_of(team, team.member), ticket_of(team, team.member)
    execute("UPDATE tickets SET expires_at = now() WHERE token_hash = :hash", hash=hash_of(over))
    for _ in range(2):
        expire_tickets()
        rows = fetch("SELECT token_hash FROM tickets WHERE team_id = :id", id=team.id)
        assert [row.token_hash for row in rows] == [hash_of(good)]


def test_a_ticket_is_not_logged(team: TeamSetting, sockets: Any, capfd: pytest.CaptureFixture[str]) -> None:
    ticket = ticket_of(team, team.member)
    sockets(team, f"ticket={ticket}").ready()
    assert sockets(team, f"ticket={ticket}").close_code() == 1008
    assert ticket not in "".join(capfd.readouterr())

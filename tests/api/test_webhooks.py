"""Webhooks over the API: who may point one where, its secret, its limits, its test button; sending is tests/workers/test_webhooks.py."""

import base64
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import trustme
from flask import Flask
from uuid_utils.compat import uuid7

from api import webhooks as views
from models import destinations, posting
from models.operations.webhooks import LIMIT
from models.settings import settings
from tests.factories import (
    TeamSetting,
    drain,
    execute,
    fetch,
    join,
    make_delivery,
    make_key,
    make_role,
    make_webhook,
)
from tests.receiver import Received, Receiver, Reply, receiving

FIELDS = {
    "id", "team_id", "user_id", "url", "description", "actions", "enabled", "disabled_at", "disabled_reason",
    "delivered_seq", "replay_seq", "replay_until", "failing_since", "last_error", "previous_secret_expires_at",
    "created_at", "updated_at",
}  # fmt: skip
PUBLIC = "https://93.184.215.14/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def open_internet(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As in production: no private network is open. What the resolver says is in the list."""
    closed = replace(settings(), webhook_private_networks=())
    monkeypatch.setattr(views, "settings", lambda: closed)
    says = ["93.184.215.14"]
    monkeypatch.setattr(destinations, "look_up", lambda host, port: list(says))
    return says


def events(setting: TeamSetting) -> list[Any]:
    return fetch("SELECT action, details FROM outbox WHERE team_id = :id ORDER BY id", id=setting.id)


def test_a_webhook_is_made_shown_changed_and_deleted(team: TeamSetting) -> None:
    path = f"{team.path}/webhooks"
    made = make_webhook(
        team, description="Our SIEM", actions=["task_created", "member_added", "task_created"]
    )
    assert set(made) == FIELDS | {"secret"}
    shown = team.admin.get(f"{path}/{made['id']}")
    assert set(shown.json) == FIELDS
    assert shown.json == {key: value for key, value in made.items() if key != "secret"}
    assert shown.json["actions"] == ["member_added", "task_created"]
    assert (shown.json["enabled"], shown.json["user_id"]) == (True, str(team.owner.id))
    assert team.owner.get(path).json["items"] == [shown.json]
    changed = team.owner.patch(f"{path}/{made['id']}", json={"actions": None, "enabled": False})
    assert (changed.json["actions"], changed.json["enabled"]) == (None, False)
    assert changed.json["disabled_at"] is not None
    assert changed.json["updated_at"] > made["updated_at"]
    stale = team.owner.delete(f"{path}/{made['id']}", headers={"If-Match": shown.headers["ETag"]})
    assert stale.status_code == 412
    fresh = changed.headers["ETag"]
    assert team.owner.delete(f"{path}/{made['id']}", headers={"If-Match": fresh}).status_code == 204
    assert team.owner.get(f"{path}/{made['id']}").status_code == 404


def test_the_secret_is_shown_once_and_is_of_the_standard(team: TeamSetting) -> None:
    one, two = make_webhook(team), make_webhook(team)
    for made in (one, two):
        assert re.fullmatch(r"whsec_[A-Za-z0-9+/]+=*", made["secret"])
        assert 24 <= len(base64.b64decode(made["secret"].removeprefix("whsec_"))) <= 64
    assert one["secret"] != two["secret"]
    text = (
        team.owner.get(f"{team.path}/webhooks").text
        + team.owner.get(f"{team.path}/webhooks/{one['id']}").text
    )
    assert "whsec_" not in text
    body = {"url": "http://127.0.0.1:65535/"}
    headers = {"Idempotency-Key": uuid7().hex}
    made = team.owner.post(f"{team.path}/webhooks", json=body, headers=headers)
    again = team.owner.post(f"{team.path}/webhooks", json=body, headers=headers)
    assert (made.status_code, again.status_code, again.json["id"]) == (201, 409, made.json["id"])


def test_a_team_has_twenty_at_the_most(team: TeamSetting) -> None:
    made = [make_webhook(team, enabled=False) for _ in range(LIMIT)]
    full = team.owner.post(f"{team.path}/webhooks", json={"url": "http://127.0.0.1:65535/"})
    assert (full.status_code, full.json["code"]) == (409, "conflict")
    assert "20" in full.json["detail"]
    assert team.owner.delete(f"{team.path}/webhooks/{made[0]['id']}").status_code == 204
    make_webhook(team)


def test_without_an_encryption_key_there_are_none(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    keyless = replace(settings(), encryption_keys=())
    monkeypatch.setattr("models.encryption.settings", lambda: keyless)
    refused = team.owner.post(f"{team.path}/webhooks", json={"url": "http://127.0.0.1:65535/"})
    assert (refused.status_code, refused.json["code"]) == (503, "unavailable")
    assert "ENCRYPTION_KEY" in refused.json["detail"]


# --- who decides where the log goes


DECISIVE: dict[str, dict[str, Any]] = {
    "url": {"url": "http://127.0.0.1:65534/"},
    "actions": {"actions": None},
    "enabled": {"enabled": True},
    "all": {"url": "http://127.0.0.1:65534/", "enabled": False},
}


def test_a_key_makes_none_points_none_elsewhere_and_learns_no_secret(team: TeamSetting) -> None:
    """What a leaked key had set up would send the log out after the key is gone."""
    key = make_key(team, team.owner, "webhooks:create", "webhooks:read", "webhooks:update", "activity:read")
    webhook = make_webhook(team, enabled=False, actions=["task_created"])
    path = f"{team.path}/webhooks/{webhook['id']}"
    refused = [
        key.post(f"{team.path}/webhooks", json={"url": "http://127.0.0.1:65535/"}),
        *(key.patch(path, json=body) for body in DECISIVE.values()),
        key.post(f"{path}/rotate-secret"),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json["missing"]) == (403, "session")
    assert key.get(path).json == team.owner.get(path).json
    assert key.patch(path, json={"description": "Ours"}).status_code == 200
    assert team.owner.patch(path, json={"enabled": True}).status_code == 200
    assert key.patch(path, json={"enabled": False}).json["enabled"] is False
    assert key.post(f"{path}/test").status_code == 200


def test_who_may_not_read_the_log_can_not_have_it_sent(team: TeamSetting) -> None:
    make_role(team, "pointer", "webhooks:create", "webhooks:update", "webhooks:read")
    pointer = join(team, "pointer")
    webhook = make_webhook(team, enabled=False, actions=["task_created"])
    refused = [
        pointer.post(f"{team.path}/webhooks", json={"url": "http://127.0.0.1:65535/"}),
        *(pointer.patch(f"{team.path}/webhooks/{webhook['id']}", json=body) for body in DECISIVE.values()),
        pointer.post(f"{team.path}/webhooks/{webhook['id']}/rotate-secret"),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json["missing"]) == (403, "activity:read")


@pytest.mark.parametrize("change", DECISIVE)
def test_whoever_decides_where_it_goes_answers_for_it(team: TeamSetting, change: str) -> None:
    webhook = make_webhook(team, enabled=False, actions=["task_created"])
    path = f"{team.path}/webhooks/{webhook['id']}"
    same = {"url": webhook["url"], "actions": ["task_created"], "enabled": False, "description": "Ours"}
    assert team.admin.patch(path, json=same).json["user_id"] == str(team.owner.id)
    drain()
    assert team.admin.patch(path, json=DECISIVE[change]).json["user_id"] == str(team.admin.id)
    (event,) = events(team)
    assert event.details["changes"]["user_id"] == [str(team.owner.id), str(team.admin.id)]


def test_the_log_shows_no_secret_of_the_receiver(team: TeamSetting) -> None:
    drain()
    webhook = make_webhook(team, url="http://127.0.0.1:65535/services/T0/XYZ?token=XYZ")
    path = f"{team.path}/webhooks/{webhook['id']}"
    for body in (
        {"url": "http://127.0.0.1:65535/services/T0/ABC?token=ABC"},
        {"url": "http://127.0.0.2:65535/ABC"},
    ):
        assert team.owner.patch(path, json=body).status_code == 200
    assert team.owner.post(f"{path}/rotate-secret").status_code == 200
    assert team.owner.delete(path).status_code == 204
    told = str(events(team))
    assert "127.0.0.1:65535" in told
    for secret in ("XYZ", "ABC", "whsec_", "services"):
        assert secret not in told
    assert [event.action for event in events(team)] == [
        "webhook_created", "webhook_updated", "webhook_updated", "webhook_secret_rotated", "webhook_deleted",
    ]  # fmt: skip


# --- where it may go


@pytest.mark.parametrize(
    "url",
    [
        "http://93.184.215.14/", "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/", "https://[fd00::1]/", "https://100.64.0.1/", "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://0.0.0.0/", "https://224.0.0.1/",
    ],
)  # fmt: skip
def test_an_address_inside_is_refused_at_once(team: TeamSetting, open_internet: list[str], url: str) -> None:
    fine = make_webhook(team, url=PUBLIC, enabled=False)
    for answer in (
        team.owner.post(f"{team.path}/webhooks", json={"url": url}),
        team.owner.patch(f"{team.path}/webhooks/{fine['id']}", json={"url": url}),
    ):
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["url"])
    assert team.owner.get(f"{team.path}/webhooks/{fine['id']}").json["url"] == PUBLIC


def test_so_is_a_name_that_leads_there_or_nowhere(team: TeamSetting, open_internet: list[str]) -> None:
    body = {"url": "https://hooks.example/"}
    for says in (["10.0.0.1"], ["93.184.215.14", "::1"], []):
        open_internet[:] = says
        answer = team.owner.post(f"{team.path}/webhooks", json=body)
        assert (answer.status_code, list(answer.json["errors"])) == (422, ["url"])
    open_internet[:] = ["93.184.215.14"]
    assert team.owner.post(f"{team.path}/webhooks", json=body).status_code == 201


def test_nothing_is_looked_up_for_who_may_not_go_on(
    team: TeamSetting, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return []

    monkeypatch.setattr(destinations, "look_up", look_up)
    body = {"url": "https://hooks.example/"}
    other = join(team, "viewer")
    assert team.member.post(f"{team.path}/webhooks", json=body).status_code == 403
    assert other.post(f"{team.path}/webhooks", json=body).status_code == 403
    assert other.post(f"/teams/{uuid7()}/webhooks", json=body).status_code == 404
    assert app.test_client().post(f"/api/v1{team.path}/webhooks", json=body).status_code == 401
    assert asked == []


def test_no_transaction_is_open_while_the_name_is_looked_up(
    team: TeamSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def look_up(host: str, port: int) -> list[str]:
        opened.append(_open_transactions())
        return ["127.0.0.1"]

    monkeypatch.setattr(destinations, "look_up", look_up)
    before = _open_transactions()
    assert team.owner.post(f"{team.path}/webhooks", json={"url": "http://hooks.example/"}).status_code == 201
    assert opened == [before]


def _open_transactions() -> int:
    """The fewest within a second: what other threads of this process have is over in a moment, the request's stays."""
    from models.database import engine

    fewest = 1_000
    until = time.monotonic() + 1
    while fewest and time.monotonic() < until:
        fewest = min(fewest, engine().pool.checkedout())  # type: ignore[attr-defined]
        time.sleep(0.01)
    return fewest


# --- the test button


def test_the_test_button_sends_a_message_and_shows_what_came_of_it(
    team: TeamSetting, receiver: Receiver
) -> None:
    webhook = make_webhook(team, url=receiver.url, enabled=False)
    drain()
    path = f"{team.path}/webhooks/{webhook['id']}/test"
    receiver.reply(Reply(500), Reply(204))
    failed, fine = team.owner.post(path), team.owner.post(path)
    assert failed.json == {
        "delivered": False,
        "status": 500,
        "error": "status",
        "duration_ms": failed.json["duration_ms"],
    }
    assert (fine.json["delivered"], fine.json["status"], fine.json["error"]) == (True, 204, None)
    for received in receiver.received:
        assert received.signatures == [received.signature_by(webhook["secret"])]
        assert received.json["type"] == "webhook_test"
        assert received.json["data"] == {"team_id": str(team.id), "webhook_id": webhook["id"]}
    assert [event.details["status"] for event in events(team)] == [500, 204]
    assert team.owner.get(f"{team.path}/webhooks/{webhook['id']}/deliveries").json["items"] == []


def test_the_test_button_checks_the_address_and_opens_no_transaction(
    team: TeamSetting, receiver: Receiver, open_internet: list[str]
) -> None:
    webhook = make_webhook(team, url="https://hooks.example:8443/")
    open_internet[:] = ["127.0.0.1"]
    answer = team.owner.post(f"{team.path}/webhooks/{webhook['id']}/test")
    assert (answer.json["status"], answer.json["error"]) == (None, "address_refused")


def test_no_transaction_is_open_while_the_test_is_sent(team: TeamSetting, receiver: Receiver) -> None:
    opened: list[int] = []

    def look(_: Received) -> Reply:
        opened.append(_open_transactions())
        return Reply()

    receiver.answer = look
    webhook = make_webhook(team, url=receiver.url)
    before = _open_transactions()
    assert team.owner.post(f"{team.path}/webhooks/{webhook['id']}/test").json["delivered"] is True
    assert opened == [before]


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    made = trustme.CA()
    trusting = ssl.create_default_context()
    made.configure_trust(trusting)
    monkeypatch.setattr(posting, "tls_context", lambda: trusting)
    return made


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("names", "error"), [(["hooks.example"], None), (["127.0.0.1"], "tls"), (["other.example"], "tls")]
)
def test_the_certificate_is_the_names_and_not_the_addresses(
    team: TeamSetting,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    error: str | None,
) -> None:
    monkeypatch.setattr(destinations, "look_up", lambda host, port: ["127.0.0.1"])
    with receiving(tls=server_tls(authority, *names)) as receiver:
        url = receiver.url.replace("127.0.0.1", "hooks.example")
        webhook = make_webhook(team, url=url)
        answer = team.owner.post(f"{team.path}/webhooks/{webhook['id']}/test")
        assert (answer.json["delivered"], answer.json["error"]) == (error is None, error)
        if error is None:
            assert receiver.received[0].headers["Host"] == url.split("/")[2]


def test_an_unknown_authority_is_refused(team: TeamSetting) -> None:
    with receiving(tls=server_tls(trustme.CA(), "127.0.0.1")) as receiver:
        webhook = make_webhook(team, url=receiver.url)
        answer = team.owner.post(f"{team.path}/webhooks/{webhook['id']}/test")
        assert answer.json["error"] == "tls"
        assert receiver.received == []


def test_a_handshake_that_never_ends_is_cut(team: TeamSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        webhook = make_webhook(team, url=f"https://127.0.0.1:{listener.getsockname()[1]}/")
        answer = team.owner.post(f"{team.path}/webhooks/{webhook['id']}/test")
    assert answer.json["error"] in {"timeout", "tls", "connection"}
    assert answer.json["duration_ms"] < 3_000


# --- deliveries, replays


def test_deliveries_are_listed_newest_event_first_by_state(team: TeamSetting) -> None:
    webhook, other = make_webhook(team, enabled=False), make_webhook(team, enabled=False)
    states = ["delivered", "dead", "pending", "delivered", "dead"]
    ids = [make_delivery(webhook, seq, state) for seq, state in enumerate(states, 1)]
    make_delivery(other, 9)
    path = f"{team.path}/webhooks/{webhook['id']}/deliveries"
    listed = team.owner.get(path).json["items"]
    assert [row["id"] for row in listed] == ids[::-1]
    assert set(listed[0]) == {
        "id", "webhook_id", "seq", "event_id", "action", "state", "attempts", "last_status", "last_error", "duration_ms",
        "next_attempt_at", "created_at", "attempted_at",
    }  # fmt: skip
    for state in set(states):
        found = team.owner.get(f"{path}?state={state}").json["items"]
        assert found == [row for row in listed if row["state"] == state]
    first = team.owner.get(f"{path}?limit=3").json
    rest = team.owner.get(path, query_string={"cursor": first["next_cursor"]}).json
    assert first["items"] + rest["items"] == listed
    wrong = team.owner.get(f"{path}?state=lost")
    assert (wrong.status_code, list(wrong.json["errors"])) == (422, ["state"])


def test_both_sides_of_what_can_be_replayed(team: TeamSetting) -> None:
    webhook = make_webhook(team)
    execute("UPDATE webhooks SET delivered_seq = 5 WHERE id = :id", id=webhook["id"])
    path = f"{team.path}/webhooks/{webhook['id']}/replay"
    for body, field in (
        ({"from_seq": 0}, "from_seq"),
        ({"from_seq": 6}, "from_seq"),
        ({"from_seq": 3, "until_seq": 2}, "from_seq"),
        ({"from_seq": 3, "until_seq": 6}, "until_seq"),
        ({"until_seq": 3}, "from_seq"),
    ):
        answer = team.owner.post(path, json=body)
        assert (answer.status_code, list(answer.json["errors"])) == (422, [field]), body
    for body, window in (
        ({"from_seq": 5}, (4, 5)),
        ({"from_seq": 1}, (0, 5)),
        ({"from_seq": 3, "until_seq": 3}, (2, 3)),
    ):
        shown = team.owner.post(path, json=body).json
        assert (shown["replay_seq"], shown["replay_until"]) == window


def test_a_disabled_webhook_replays_and_redelivers_nothing(team: TeamSetting) -> None:
    webhook = make_webhook(team, enabled=False)
    path = f"{team.path}/webhooks/{webhook['id']}"
    execute("UPDATE webhooks SET delivered_seq = 5 WHERE id = :id", id=webhook["id"])
    delivery = make_delivery(webhook)
    ask: list[Callable[[], Any]] = [
        lambda: team.owner.post(f"{path}/replay", json={"from_seq": 1}),
        lambda: team.owner.post(f"{path}/deliveries/{delivery}/redeliver"),
    ]
    assert [each().status_code for each in ask] == [409, 409]
    assert team.owner.patch(path, json={"enabled": True}).status_code == 200
    assert [each().status_code for each in ask] == [200, 200]


def test_a_delivery_of_another_webhook_is_not_found(team: TeamSetting) -> None:
    one, two = make_webhook(team), make_webhook(team)
    delivery = make_delivery(two)
    answer = team.owner.post(f"{team.path}/webhooks/{one['id']}/deliveries/{delivery}/redeliver")
    assert answer.status_code == 404

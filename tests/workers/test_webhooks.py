"""Webhooks sent to a real receiver: order, signatures, tries, dead letters, replays, and who sees what."""

import base64
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from models import destinations, posting
from models.database import transaction
from models.operations import deliveries, mails
from models.operations.deliveries import Outcome, delay_after
from models.posting import Answer
from models.settings import settings
from tests.factories import (
    Person,
    TeamSetting,
    drain,
    execute,
    fetch,
    join,
    make_key,
    make_role,
    make_team,
    make_webhook,
)
from tests.models.concurrency import together
from tests.receiver import Received, Receiver, Reply, receiving
from workers import maintenance, webhooks
from workers.mail_texts import compose

DAY_S = 86_400


@pytest.fixture(autouse=True)
def _no_others() -> None:
    """What other tests left is not served here."""
    execute("UPDATE webhooks SET enabled = false")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def make(setting: TeamSetting, receiver: Receiver, **values: Any) -> dict[str, Any]:
    """A webhook for what happens from now on; that its owner reads the log is noted before."""
    log(setting, 1)
    drain()
    made = make_webhook(setting, url=receiver.url, **values)
    drain()
    execute("UPDATE webhooks SET delivered_seq = delivered_seq + 1 WHERE id = :id", id=made["id"])  # its own
    return made


def happen(setting: TeamSetting, number: int = 1) -> None:
    for _ in range(number):
        setting.task()
    drain()


def log(setting: TeamSetting, number: int) -> list[dict[str, Any]]:
    """The last events, in their order, as the API shows them."""
    answer = setting.owner.get(f"{setting.path}/activity?limit={number}")
    return list(reversed(answer.json["items"]))


def state(webhook: dict[str, Any]) -> Any:
    (row,) = fetch("SELECT * FROM webhooks WHERE id = :id", id=webhook["id"])
    return row


def rows(webhook: dict[str, Any]) -> list[Any]:
    return fetch("SELECT * FROM webhook_deliveries WHERE webhook_id = :id ORDER BY seq", id=webhook["id"])


def make_due(webhook: dict[str, Any]) -> None:
    execute("UPDATE webhooks SET due_at = now() WHERE id = :id", id=webhook["id"])


def run_out(webhook: dict[str, Any]) -> None:
    execute("UPDATE webhooks SET lease_expires_at = now() WHERE id = :id", id=webhook["id"])


def path(setting: TeamSetting, webhook: dict[str, Any], below: str = "") -> str:
    return f"{setting.path}/webhooks/{webhook['id']}{below}"


# --- what is sent


def test_an_event_arrives_signed_as_the_standard_says_and_as_the_api_shows_it(
    team: TeamSetting, receiver: Receiver
) -> None:
    webhook = make(team, receiver)
    team.task(title="Ärger")
    drain()
    webhooks.deliver_due()
    (received,) = receiver.received
    (row,) = log(team, 1)
    assert received.path == "/hook?from=us"
    assert received.signatures == [received.signature_by(webhook["secret"])]
    assert received.headers["webhook-id"] == row["id"]
    assert abs(int(received.headers["webhook-timestamp"]) - time.time()) < 60
    assert received.headers["Content-Type"] == "application/json"
    (stored,) = fetch(
        "SELECT encode(hash, 'hex') AS hash FROM activity_logs WHERE team_id = :id AND seq = :seq",
        id=team.id,
        seq=row["seq"],
    )
    data = received.json["data"]
    assert data.pop("hash") == stored.hash
    row.pop("hash", None)
    assert data == row
    assert (received.json["type"], received.json["timestamp"]) == ("task_created", row["created_at"])


def test_events_arrive_in_the_logs_order_once_each_over_one_connection(
    team: TeamSetting, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "BATCH", 3)
    webhook = make(team, receiver)
    happen(team, 10)
    webhooks.deliver_due()
    expected = [row["seq"] for row in log(team, 10)]
    assert receiver.seqs == expected
    assert receiver.connections == 1
    assert state(webhook).delivered_seq == expected[-1]
    assert [(row.seq, row.state, row.attempts) for row in rows(webhook)] == [
        (seq, "delivered", 1) for seq in expected
    ]
    webhooks.deliver_due()
    assert len(receiver.received) == 10
    happen(team)
    webhooks.deliver_due()
    assert receiver.seqs == [*expected, expected[-1] + 1]


def test_what_is_not_wanted_is_passed_over(team: TeamSetting, receiver: Receiver) -> None:
    webhook = make(team, receiver, actions=["workspace_created"])
    happen(team, 3)
    assert team.owner.post(f"{team.path}/workspaces", json={"name": "Lab"}).status_code == 201
    happen(team, 2)
    webhooks.deliver_due()
    assert [each.json["type"] for each in receiver.received] == ["workspace_created"]
    assert state(webhook).delivered_seq == log(team, 1)[0]["seq"]


def test_a_long_stretch_that_is_not_wanted_is_passed_over_in_parts(
    team: TeamSetting, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "SCANNED_AT_ONCE", 2)
    webhook = make(team, receiver, actions=["workspace_created"])
    happen(team, 7)
    assert team.owner.post(f"{team.path}/workspaces", json={"name": "Lab"}).status_code == 201
    drain()
    webhooks.deliver_due()
    assert len(receiver.received) == 1
    assert state(webhook).delivered_seq == receiver.seqs[0]


def test_what_a_private_workspace_holds_goes_to_who_may_see_it_now(
    team: TeamSetting, receiver: Receiver
) -> None:
    """Of a webhook of the owner, who sees all, and of one of an admin, who is listed nowhere and later in one."""
    owners = make(team, receiver)
    with receiving() as theirs:
        admins = make_webhook(team, by=team.admin, url=theirs.url)
        drain()
        vault = team.owner.post(
            f"{team.path}/workspaces", json={"name": "Vault", "visibility": "private"}
        ).json["id"]
        team.owner.post(f"{team.path}/workspaces/{vault}/tasks", json={"title": "Secret plan"})
        happen(team)
        webhooks.deliver_due()
        assert b"Secret plan" in b"".join(each.body for each in receiver.received)
        assert theirs.received
        for word in (b"Secret plan", b"Vault", vault.encode()):
            assert word not in b"".join(each.body for each in theirs.received)
        assert state(admins).delivered_seq == state(owners).delivered_seq
        listed = team.owner.put(
            f"{team.path}/workspaces/{vault}/members/{team.admin.id}", json={"role": None}
        )
        assert listed.status_code < 300
        team.owner.post(f"{team.path}/workspaces/{vault}/tasks", json={"title": "Second plan"})
        drain()
        webhooks.deliver_due()
        assert b"Second plan" in b"".join(each.body for each in theirs.received)
        assert team.owner.delete(f"{team.path}/workspaces/{vault}/members/{team.admin.id}").status_code == 204
        team.owner.post(f"{team.path}/workspaces/{vault}/tasks", json={"title": "Third plan"})
        drain()
        webhooks.deliver_due()
        assert b"Third plan" not in b"".join(each.body for each in theirs.received)


def lose(setting: TeamSetting, person: Person, how: str) -> None:
    path = f"{setting.path}/members/{person.id}"
    answer = {
        "removed": lambda: setting.owner.delete(path),
        "suspended": lambda: setting.owner.post(f"{path}/suspend"),
        "demoted": lambda: setting.owner.patch(path, json={"role": "member"}),
        "unable to read the log": lambda: setting.owner.patch(path, json={"role": "pointer"}),
    }[how]()
    assert answer.status_code < 300


@pytest.mark.parametrize("how", ["removed", "suspended", "demoted", "unable to read the log"])
def test_who_may_not_read_the_log_any_more_is_sent_none_of_it(
    team: TeamSetting, receiver: Receiver, how: str
) -> None:
    make_role(team, "pointer", "webhooks:create", "webhooks:update", "webhooks:read")
    leaver = join(team, "admin")
    webhook = make_webhook(team, by=leaver, url=receiver.url)
    lose(team, leaver, how)
    happen(team)
    webhooks.deliver_due()
    assert receiver.received == []
    assert (state(webhook).enabled, state(webhook).disabled_reason) == (False, "no_access")
    drain()
    newest = log(team, 1)[0]
    assert (newest["action"], newest["metadata"]["reason"]) == ("webhook_disabled", "no_access")
    enabled = team.admin.patch(path(team, webhook), json={"enabled": True})
    assert (enabled.json["user_id"], enabled.json["disabled_reason"]) == (str(team.admin.id), None)
    webhooks.deliver_due()
    assert receiver.seqs[-1] >= newest["seq"]  # and nothing was lost
    assert receiver.seqs == sorted(receiver.seqs)


@pytest.mark.parametrize("how", ["removed", "suspended"])
def test_so_it_is_in_the_middle_of_sending(team: TeamSetting, receiver: Receiver, how: str) -> None:
    leaver = join(team, "admin")
    drain()
    webhook = make_webhook(team, by=leaver, url=receiver.url)
    happen(team, 5)

    def act(received: Received) -> Reply:
        if len(receiver.received) == 1:
            lose(team, leaver, how)
        return Reply(after_s=webhooks.NOTED_EVERY_S * 1.2)

    receiver.answer = act
    webhooks.deliver_due()
    assert len(receiver.received) == 1
    assert state(webhook).disabled_reason == "no_access"
    assert state(webhook).delivered_seq == receiver.seqs[0]


def test_a_demoted_maker_of_a_webhook_does_not_stop_anothers(team: TeamSetting, receiver: Receiver) -> None:
    leaver = join(team, "admin")
    with receiving() as theirs:
        make_webhook(team, by=leaver, url=theirs.url)
        make(team, receiver)
        lose(team, leaver, "removed")
        drain()
        webhooks.deliver_due()
        assert theirs.received == []
        assert receiver.received


# --- when it fails


def test_a_failure_holds_what_is_behind_it_and_is_tried_again_with_the_same_id(
    team: TeamSetting, receiver: Receiver
) -> None:
    receiver.reply(Reply(500), Reply(204))
    webhook = make(team, receiver)
    happen(team, 3)
    webhooks.deliver_due()
    webhooks.deliver_due()  # which is too early
    (first,) = receiver.received
    (row,) = rows(webhook)
    assert (row.state, row.attempts, row.last_status, row.last_error) == ("pending", 1, 500, "status")
    assert 3.9 <= (row.next_attempt_at - row.attempted_at).total_seconds() <= 6.1
    assert state(webhook).failing_since is not None
    assert state(webhook).last_error == "status"
    assert state(webhook).delivered_seq == first.seq - 1
    make_due(webhook)
    webhooks.deliver_due()
    assert receiver.seqs == [first.seq, first.seq, first.seq + 1, first.seq + 2]
    assert receiver.received[1].headers["webhook-id"] == first.headers["webhook-id"]
    assert receiver.received[1].body == first.body
    assert [(row.state, row.attempts) for row in rows(webhook)] == [
        ("delivered", 2),
        ("delivered", 1),
        ("delivered", 1),
    ]
    assert (state(webhook).failing_since, state(webhook).last_error) == (None, None)


def test_the_tries_grow_rarer_for_about_a_day() -> None:
    delays = [delay_after(tries).total_seconds() for tries in range(1, deliveries.MAXIMUM_ATTEMPTS)]
    assert delays[:6] == [5, 20, 80, 320, 1280, 5120]
    assert set(delays[6:]) == {3 * 3600}
    assert DAY_S <= sum(delays) <= 1.1 * DAY_S


def test_delays_differ_within_bounds() -> None:
    answer = Answer(500, "status", 1)
    found = {deliveries._delay(3, answer).total_seconds() for _ in range(200)}
    assert len(found) > 100
    assert 80 * 0.8 <= min(found) < 80 < max(found) <= 80 * 1.2


def test_after_the_last_try_it_is_a_dead_letter_and_the_others_go_on(
    team: TeamSetting, receiver: Receiver
) -> None:
    webhook = make(team, receiver)
    happen(team, 2)
    doomed = log(team, 2)[0]["seq"]
    receiver.answer = lambda received: Reply(500 if received.seq == doomed else 204)
    for attempt in range(1, deliveries.MAXIMUM_ATTEMPTS + 1):
        make_due(webhook)
        webhooks.deliver_due()
        dead = attempt == deliveries.MAXIMUM_ATTEMPTS
        (row,) = rows(webhook)
        assert (row.state, row.attempts) == ("dead" if dead else "pending", attempt)
        assert (row.next_attempt_at is None) is dead
    make_due(webhook)
    webhooks.deliver_due()
    assert receiver.seqs == [doomed] * deliveries.MAXIMUM_ATTEMPTS + [doomed + 1]
    assert [row.state for row in rows(webhook)] == ["dead", "delivered"]
    assert state(webhook).enabled
    answer = team.owner.get(path(team, webhook, "/deliveries"), query_string={"state": "dead"})
    (letter,) = answer.json["items"]
    assert (letter["seq"], letter["attempts"], letter["last_status"]) == (doomed, 15, 500)


@pytest.mark.parametrize(("days", "disabled"), [(2.99, False), (3.01, True)])
def test_it_is_disabled_after_three_days_without_a_success_with_a_notice(
    team: TeamSetting, receiver: Receiver, days: float, disabled: bool
) -> None:
    receiver.reply(Reply(500))
    webhook = make(team, receiver)
    happen(team)
    webhooks.deliver_due()
    execute("DELETE FROM mails")
    execute(
        "UPDATE webhooks SET failing_since = now() - make_interval(secs => :s) WHERE id = :id",
        s=days * DAY_S,
        id=webhook["id"],
    )
    make_due(webhook)
    webhooks.deliver_due()
    assert state(webhook).enabled is not disabled
    assert state(webhook).disabled_reason == ("failing" if disabled else None)
    letters = []
    with transaction() as session:
        while claimed := mails.claim(session):
            letters.append(claimed.letter)
    to = sorted(letter.to for letter in letters if letter)
    assert to == (sorted([team.owner.email, team.admin.email]) if disabled else [])
    if disabled:
        letter = letters[0]
        assert letter is not None
        text = compose(letter, sender="hq@hq.example", public_url="https://hq.example").get_content()
        assert receiver.url.split("/")[2] in text
        assert "/hook" not in text
        make_due(webhook)
        webhooks.deliver_due()
        assert len(receiver.received) == 2
        receiver.reply(Reply())
        assert team.owner.patch(path(team, webhook), json={"enabled": True}).status_code == 200
        webhooks.deliver_due()
        assert state(webhook).failing_since is None
        assert receiver.seqs[2:] == list(range(receiver.seqs[0], receiver.seqs[0] + len(receiver.seqs) - 2))


def test_of_a_webhook_that_somebody_enabled_again_no_mail_is_sent(
    team: TeamSetting, receiver: Receiver
) -> None:
    receiver.reply(Reply(410))
    webhook = make(team, receiver)
    happen(team)
    execute("DELETE FROM mails")
    webhooks.deliver_due()
    assert len(fetch("SELECT FROM mails")) == 2
    assert team.owner.patch(path(team, webhook), json={"enabled": True}).status_code == 200
    with transaction() as session:
        assert [mails.claim(session) for _ in range(3)] == [mails.Claimed(None), mails.Claimed(None), None]


def test_410_disables_it_at_once_and_the_event_stays_to_be_sent(
    team: TeamSetting, receiver: Receiver
) -> None:
    receiver.reply(Reply(410), Reply())
    webhook = make(team, receiver)
    happen(team, 2)
    webhooks.deliver_due()
    assert (state(webhook).enabled, state(webhook).disabled_reason) == (False, "gone")
    assert state(webhook).delivered_seq == receiver.seqs[0] - 1
    make_due(webhook)
    webhooks.deliver_due()
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("status", "asked", "least", "most"),
    [
        (429, "60", 60, 62),
        (503, "60", 60, 62),
        (503, "1", 4, 6.1),
        (503, "0", 4, 6.1),
        (429, "999999", 3 * 3600, 3 * 3600 + 1),
        (429, "-5", 4, 6.1),
        (429, "soon", 4, 6.1),
        (429, None, 4, 6.1),
        (500, "60", 4, 6.1),
    ],
)
def test_retry_after_is_honoured_within_bounds(
    team: TeamSetting, receiver: Receiver, status: int, asked: str | None, least: float, most: float
) -> None:
    receiver.reply(Reply(status, {"Retry-After": asked} if asked else {}))
    webhook = make(team, receiver)
    happen(team)
    webhooks.deliver_due()
    (row,) = rows(webhook)
    assert least - 0.5 <= (row.next_attempt_at - row.attempted_at).total_seconds() <= most


def test_retry_after_may_be_a_date(team: TeamSetting, receiver: Receiver) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    receiver.reply(Reply(503, {"Retry-After": at}))
    webhook = make(team, receiver)
    happen(team)
    webhooks.deliver_due()
    (row,) = rows(webhook)
    assert 590 <= (row.next_attempt_at - row.attempted_at).total_seconds() <= 601


def test_a_redirect_is_not_followed(team: TeamSetting, receiver: Receiver) -> None:
    with receiving() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            receiver.reply(Reply(status, {"Location": elsewhere.url}))
            webhook = make(team, receiver)
            happen(team)
            webhooks.deliver_due()
            assert (rows(webhook)[0].last_status, rows(webhook)[0].last_error) == (status, "redirect")
            execute("UPDATE webhooks SET enabled = false")
        assert elsewhere.received == []


def drip(connection: Any) -> None:
    try:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
    except OSError:
        return


def drip_body(connection: Any) -> None:
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.02)
    except OSError:
        return


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(after_s=1.0), "timeout"),
        (Reply(raw=drip), "timeout"),
        (Reply(raw=lambda connection: connection.sendall(b"nonsense\r\n\r\n")), "protocol"),
        (Reply(raw=lambda connection: None), "protocol"),
        (Reply(200, body=b"x" * 10_000_000), None),
        (Reply(raw=drip_body), None),
        (Reply(201, body=b"{}"), None),
    ],
    ids=["silent", "dripping", "nonsense", "hangs up", "endless", "dripping body", "fine"],
)
def test_no_answer_takes_longer_than_its_time_or_more_than_its_space(
    team: TeamSetting,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    reply: Reply,
    error: str | None,
) -> None:
    monkeypatch.setattr(posting, "TOTAL_S", 0.5)
    receiver.reply(reply)
    webhook = make(team, receiver)
    happen(team)
    started = time.monotonic()
    webhooks.deliver_due()
    assert time.monotonic() - started < 5
    (row,) = rows(webhook)
    assert (row.last_error, row.state) == (error, "pending" if error else "delivered")
    assert row.duration_ms < 3_000


def test_nobody_listens(team: TeamSetting) -> None:
    drain()
    webhook = make_webhook(team)
    happen(team)
    webhooks.deliver_due()
    (row,) = rows(webhook)
    assert (row.last_status, row.last_error) == (None, "connection")


def test_a_connection_that_the_receiver_closes_between_two_events_is_no_failure(
    team: TeamSetting, receiver: Receiver
) -> None:
    def close_after_each(connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.01)

    receiver.reply(Reply(raw=close_after_each))
    webhook = make(team, receiver)
    happen(team, 5)
    webhooks.deliver_due()
    assert [row.state for row in rows(webhook)] == ["delivered"] * 5
    assert state(webhook).failing_since is None
    assert receiver.seqs == sorted(receiver.seqs)


# --- where it may go


def test_an_address_is_checked_anew_at_every_connection(
    team: TeamSetting, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the name that was fine when the webhook was made points inside now."""
    says = ["93.184.215.14"]
    monkeypatch.setattr(destinations, "look_up", lambda host, port: list(says))
    port = receiver.url.split(":")[2].split("/")[0]
    with monkeypatch.context() as patched:
        open_to = replace(settings(), webhook_private_networks=())
        patched.setattr(webhooks, "settings", lambda: open_to)
        drain()
        webhook = make_webhook(team, url=f"https://rebinding.example:{port}/")
        happen(team)
        says[:] = ["127.0.0.1"]
        webhooks.deliver_due()
        (row,) = rows(webhook)
        assert (row.state, row.last_error) == ("pending", "address_refused")
        says[:] = ["93.184.215.14", "10.0.0.1"]
        make_due(webhook)
        webhooks.deliver_due()
        assert rows(webhook)[0].last_error == "address_refused"
        says[:] = []
        make_due(webhook)
        webhooks.deliver_due()
        assert rows(webhook)[0].last_error == "unresolvable"
    assert receiver.received == []


def test_the_environments_proxies_are_not_used(
    team: TeamSetting, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        make(team, receiver)
        happen(team)
        webhooks.deliver_due()
        assert len(receiver.received) == 1
        assert proxy.received == []


# --- secrets


@pytest.mark.parametrize(("hours", "signs"), [(23.9, True), (24.1, False)])
def test_the_secret_before_a_rotation_signs_too_for_a_day(
    team: TeamSetting, receiver: Receiver, hours: float, signs: bool
) -> None:
    webhook = make(team, receiver)
    rotated = team.owner.post(path(team, webhook, "/rotate-secret"))
    assert rotated.status_code == 200
    new = rotated.json["secret"]
    assert new != webhook["secret"]
    execute(
        "UPDATE webhooks SET previous_secret_expires_at = previous_secret_expires_at - make_interval(secs => :s)",
        s=hours * 3600,
    )
    happen(team)
    webhooks.deliver_due()
    received = receiver.received[-1]
    expected = [received.signature_by(new)] + ([received.signature_by(webhook["secret"])] if signs else [])
    assert received.signatures == expected
    webhooks.expire()
    kept = state(webhook).previous_secret
    assert (kept is not None) is signs


def test_secrets_lie_encrypted_and_move_to_the_first_key(
    team: TeamSetting, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = make(team, receiver)
    rotated = team.owner.post(path(team, webhook, "/rotate-secret")).json["secret"]
    plain = base64.b64decode(webhook["secret"].removeprefix("whsec_"))
    before = bytes(state(webhook).secret)
    assert plain not in bytes(state(webhook).previous_secret)
    (old,) = settings().encryption_keys
    both = replace(settings(), encryption_keys=(b"n" * 32, old))
    monkeypatch.setattr("models.encryption.settings", lambda: both)
    maintenance.encrypt_again()
    after = bytes(state(webhook).secret)
    assert after != before
    maintenance.encrypt_again()
    assert bytes(state(webhook).secret) == after
    alone = replace(settings(), encryption_keys=(b"n" * 32,))
    monkeypatch.setattr("models.encryption.settings", lambda: alone)
    happen(team)
    webhooks.deliver_due()
    received = receiver.received[0]
    assert received.signatures == [received.signature_by(rotated), received.signature_by(webhook["secret"])]


def test_an_earlier_secret_of_no_known_key_keeps_nobodys_from_the_first_key(
    team: TeamSetting, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = make(team, receiver)
    team.owner.post(path(team, webhook, "/rotate-secret"))
    execute("UPDATE webhooks SET previous_secret = 'lost' WHERE id = :id", id=webhook["id"])
    before = bytes(state(webhook).secret)
    (old,) = settings().encryption_keys
    both = replace(settings(), encryption_keys=(b"n" * 32, old))
    monkeypatch.setattr("models.encryption.settings", lambda: both)
    maintenance.encrypt_again()
    assert bytes(state(webhook).secret) != before
    assert bytes(state(webhook).previous_secret) == b"lost"


def test_a_webhook_whose_secret_can_not_be_read_waits(
    team: TeamSetting, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = make(team, receiver)
    happen(team)
    with monkeypatch.context() as patched:
        keyless = replace(settings(), encryption_keys=())
        patched.setattr("models.encryption.settings", lambda: keyless)
        assert webhooks.deliver_due() == 1
    assert receiver.received == []
    assert state(webhook).enabled
    make_due(webhook)
    webhooks.deliver_due()
    assert len(receiver.received) == 1


# --- asked for again


def test_a_replay_sends_a_stretch_again_before_what_is_new(team: TeamSetting, receiver: Receiver) -> None:
    webhook = make(team, receiver)
    happen(team, 5)
    webhooks.deliver_due()
    sent = receiver.seqs
    asked = team.owner.post(path(team, webhook, "/replay"), json={"from_seq": sent[1], "until_seq": sent[3]})
    assert (asked.status_code, asked.json["replay_until"]) == (200, sent[3])
    happen(team, 1)  # and the event of the replay
    webhooks.deliver_due()
    assert receiver.seqs == [*sent, *sent[1:4], sent[-1] + 1, sent[-1] + 2]
    ids = [each.headers["webhook-id"] for each in receiver.received]
    assert ids[5:8] == ids[1:4]
    assert state(webhook).replay_seq is None
    assert [row.state for row in rows(webhook)] == ["delivered"] * 7


def test_a_replay_reaches_back_before_the_webhook(team: TeamSetting, receiver: Receiver) -> None:
    webhook = make(team, receiver)
    made_at = state(webhook).delivered_seq
    assert made_at > 3
    assert team.owner.post(path(team, webhook, "/replay"), json={"from_seq": 1}).status_code == 200
    drain()
    webhooks.deliver_due()
    assert receiver.seqs == list(range(1, made_at + 2))


def test_a_replay_takes_the_place_of_one_that_is_stuck(team: TeamSetting, receiver: Receiver) -> None:
    webhook = make(team, receiver)
    happen(team, 3)
    webhooks.deliver_due()
    first, *_, last = receiver.seqs
    receiver.reply(Reply(500), Reply())
    assert team.owner.post(path(team, webhook, "/replay"), json={"from_seq": first}).status_code == 200
    webhooks.deliver_due()
    assert (rows(webhook)[0].state, rows(webhook)[0].attempts) == ("pending", 1)
    assert team.owner.post(path(team, webhook, "/replay"), json={"from_seq": last}).status_code == 200
    assert (rows(webhook)[0].state, rows(webhook)[0].last_error) == ("dead", "replaced")
    webhooks.deliver_due()
    assert receiver.seqs[3:] == [first, last]
    drain()
    webhooks.deliver_due()
    assert receiver.seqs[5:] == [last + 1, last + 2]


def test_a_dead_letter_is_delivered_when_asked_for_out_of_turn(team: TeamSetting, receiver: Receiver) -> None:
    webhook = make(team, receiver)
    happen(team, 3)
    dead = log(team, 3)[0]["seq"]
    receiver.answer = lambda received: Reply(500 if received.seq == dead else 204)
    execute("UPDATE webhooks SET delivered_seq = :seq WHERE id = :id", seq=dead - 1, id=webhook["id"])
    webhooks.deliver_due()
    execute("UPDATE webhook_deliveries SET attempts = 14 WHERE webhook_id = :id", id=webhook["id"])
    make_due(webhook)
    webhooks.deliver_due()
    make_due(webhook)
    webhooks.deliver_due()
    letter = rows(webhook)[0]
    assert (letter.seq, letter.state) == (dead, "dead")
    redeliver = path(team, webhook, f"/deliveries/{letter.id}/redeliver")
    asked = team.owner.post(redeliver)
    assert (asked.status_code, asked.json["state"]) == (200, "pending")
    webhooks.deliver_due()
    assert receiver.seqs[-1] == dead
    assert (rows(webhook)[0].state, rows(webhook)[0].attempts) == ("dead", 16)  # one attempt decides
    receiver.reply(Reply())
    assert team.owner.post(redeliver).status_code == 200
    webhooks.deliver_due()
    assert (rows(webhook)[0].state, rows(webhook)[0].attempts) == ("delivered", 17)
    assert not state(webhook).redelivering
    drain()
    webhooks.deliver_due()
    assert receiver.seqs[-2:] == [dead + 3, dead + 4]  # the events of asking


def test_what_waits_for_its_next_try_is_tried_now_when_asked_for(
    team: TeamSetting, receiver: Receiver
) -> None:
    receiver.reply(Reply(500), Reply())
    webhook = make(team, receiver)
    happen(team)
    webhooks.deliver_due()
    (row,) = rows(webhook)
    assert team.owner.post(path(team, webhook, f"/deliveries/{row.id}/redeliver")).status_code == 200
    webhooks.deliver_due()
    assert receiver.seqs[:2] == [row.seq, row.seq]
    assert (rows(webhook)[0].state, rows(webhook)[0].attempts) == ("delivered", 2)


def test_a_redelivery_of_what_may_not_be_seen_any_more_is_given_up(
    team: TeamSetting, receiver: Receiver
) -> None:
    drain()
    webhook = make_webhook(team, by=team.admin, url=receiver.url)
    room = team.owner.post(f"{team.path}/workspaces", json={"name": "Lab"}).json["id"]
    drain()
    webhooks.deliver_due()
    made = next(row for row in rows(webhook) if row.action == "workspace_created")
    private = team.owner.patch(f"{team.path}/workspaces/{room}", json={"visibility": "private"})
    assert private.status_code == 200
    before = len(receiver.received)
    assert team.owner.post(path(team, webhook, f"/deliveries/{made.id}/redeliver")).status_code == 200
    webhooks.deliver_due()
    assert room.encode() not in b"".join(each.body for each in receiver.received[before:])
    (row,) = [row for row in rows(webhook) if row.id == made.id]
    assert (row.state, row.last_error) == ("dead", "withheld")
    assert not state(webhook).redelivering


def test_what_waits_and_may_not_be_seen_any_more_is_given_up(team: TeamSetting, receiver: Receiver) -> None:
    drain()
    webhook = make_webhook(team, by=team.admin, url=receiver.url, actions=["workspace_created"])
    room = team.owner.post(f"{team.path}/workspaces", json={"name": "Lab"}).json["id"]
    drain()
    receiver.reply(Reply(500), Reply())
    webhooks.deliver_due()
    team.owner.patch(f"{team.path}/workspaces/{room}", json={"visibility": "private"})
    drain()
    make_due(webhook)
    webhooks.deliver_due()
    assert len(receiver.received) == 1
    (row,) = rows(webhook)
    assert (row.state, row.last_error, row.next_attempt_at) == ("dead", "withheld", None)


# --- many workers


def test_of_many_workers_at_once_each_event_is_sent_by_one_in_order(
    app: Flask, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TURN_S", 0.05)  # so that they take turns
    monkeypatch.setattr(deliveries, "BATCH", 4)
    settings_ = [make_team(app, roles=()) for _ in range(3)]
    with receiving() as second, receiving() as third:
        receivers = [receiver, second, third]
        for setting, each in zip(settings_, receivers, strict=True):
            make(setting, each)
            happen(setting, 40)
        turns = together(*[webhooks.deliver_due] * 4)
        assert all(isinstance(number, int) for number in turns)
        assert sum(turns) > 3
        for setting, each in zip(settings_, receivers, strict=True):
            assert each.seqs == [row["seq"] for row in log(setting, 40)]


def test_a_slow_receiver_does_not_delay_another_teams(app: Flask, receiver: Receiver) -> None:
    """More slow ones than there are places for such."""
    slow, quick = make_team(app, roles=()), make_team(app, roles=())
    gate = threading.Event()

    def wait(_: Received) -> Reply:
        gate.wait(20)
        return Reply()

    with receiving(wait) as tar_pit:
        for _ in range(20):
            make_webhook(slow, url=tar_pit.url)
        drain()
        running = threading.Thread(target=webhooks.deliver_due)
        running.start()
        try:
            deadline = time.monotonic() + 10
            while len(tar_pit.received) < deliveries.AT_ONCE_PER_TEAM:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            make(quick, receiver)
            happen(quick, 3)
            while len(receiver.received) < 3:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert len(tar_pit.received) == deliveries.AT_ONCE_PER_TEAM
        finally:
            gate.set()
            running.join(60)


def test_those_that_were_slow_leave_places_to_the_others(app: Flask) -> None:
    settings_ = [make_team(app, roles=()) for _ in range(4)]
    made = [make_webhook(setting) for setting in settings_]
    drain()
    for webhook in made[:3]:
        execute("UPDATE webhooks SET slow = true WHERE id = :id", id=webhook["id"])
    with transaction() as session:
        claimed = deliveries.claim(session, limit=10, slow=2)
    assert sorted(lease.slow for lease in claimed) == [False, True, True]
    with transaction() as session:
        assert len(deliveries.claim(session, limit=10, slow=0)) == 0
        assert len(deliveries.claim(session, limit=10, slow=1)) == 1


def test_a_lease_that_is_lost_notes_nothing_and_a_broken_one_ends_the_sending(
    team: TeamSetting, receiver: Receiver
) -> None:
    webhook = make(team, receiver)
    happen(team, 2)
    with transaction() as session:
        (lease,) = deliveries.claim(session, limit=1, slow=1)
        assert deliveries.claim(session, limit=1, slow=1) == []
    with transaction() as session:
        batch = deliveries.load(session, lease)
    assert batch is not None
    outcome = Outcome(batch.events[0], Answer(200, None, 1))
    run_out(webhook)
    with transaction() as session:
        (other,) = deliveries.claim(session, limit=1, slow=1)
    with transaction() as session:
        assert not deliveries.settle(session, lease, [outcome])
        assert deliveries.load(session, lease) is None
        deliveries.release(session, lease)
    assert rows(webhook) == []
    assert state(webhook).lease_id == other.lease_id
    # A change of where it points breaks the lease, and nobody begins until what was under way must have ended.
    changed = team.owner.patch(path(team, webhook), json={"url": receiver.url + "&new=1"})
    assert changed.status_code == 200
    with transaction() as session:
        assert not deliveries.settle(session, other, [outcome])
        assert deliveries.claim(session, limit=1, slow=1) == []
    left = (state(webhook).lease_expires_at - datetime.now(UTC)).total_seconds()
    assert posting.TOTAL_S < left <= 12
    run_out(webhook)
    webhooks.deliver_due()
    assert receiver.received[0].path.endswith("&new=1")


def test_an_idle_webhook_is_not_held_up_by_a_change(team: TeamSetting, receiver: Receiver) -> None:
    webhook = make(team, receiver)
    assert team.owner.patch(path(team, webhook), json={"url": receiver.url + "&new=1"}).status_code == 200
    assert state(webhook).lease_expires_at is None


class FellOver(BaseException):
    """The worker's process ends here."""


@pytest.mark.parametrize("at", ["load", "settle", "release"])
def test_a_crash_repeats_and_skips_nothing(
    team: TeamSetting, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    webhook = make(team, receiver)
    happen(team, 3)
    with transaction() as session:
        (lease,) = deliveries.claim(session, limit=1, slow=1)

    def die(*_: Any, **__: Any) -> None:
        raise FellOver

    with monkeypatch.context() as patched:
        patched.setattr(deliveries, at, die)
        with pytest.raises(FellOver):
            webhooks.serve(lease)
    already = receiver.seqs
    run_out(webhook)
    webhooks.deliver_due()
    expected = [row["seq"] for row in log(team, 3)]
    assert receiver.seqs == already + ([] if at == "release" else expected)
    assert {each.headers["webhook-id"] for each in receiver.received} == {row["id"] for row in log(team, 3)}
    assert state(webhook).delivered_seq == expected[-1]


def test_no_transaction_is_open_while_it_sends(team: TeamSetting, receiver: Receiver) -> None:
    webhook = make(team, receiver)

    def look(_: Received) -> Reply:
        fetch("SELECT FROM webhooks WHERE id = :id FOR UPDATE NOWAIT", id=webhook["id"])
        return Reply()

    receiver.answer = look
    happen(team, 2)
    webhooks.deliver_due()
    assert [row.state for row in rows(webhook)] == ["delivered"] * 2


def test_a_deleted_team_is_sent_nothing_until_it_is_restored(team: TeamSetting, receiver: Receiver) -> None:
    make(team, receiver)
    happen(team)
    assert team.owner.delete(team.path).status_code == 204
    drain()
    webhooks.deliver_due()
    assert receiver.received == []
    assert team.owner.post(f"{team.path}/restore").status_code == 200
    drain()
    webhooks.deliver_due()
    assert [each.json["type"] for each in receiver.received] == [
        "task_created",
        "team_deleted",
        "team_restored",
    ]


def test_so_many_runs_at_once_as_the_settings_say(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    started, go_on = threading.Semaphore(0), threading.Event()
    runs: list[int] = []

    def run(look_around: Any) -> int:
        look_around()
        runs.append(1)
        started.release()
        go_on.wait(10)
        return 0

    monkeypatch.setattr(webhooks, "deliver_due", run)
    threads = [threading.Thread(target=webhooks.deliver) for _ in range(settings().webhook_workers)]
    for thread in threads:
        thread.start()
        assert started.acquire(timeout=10)
    webhooks.deliver()  # returns at once
    assert len(runs) == settings().webhook_workers == 2
    go_on.set()
    for thread in threads:
        thread.join(10)
    webhooks.deliver()
    assert len(runs) == 3
    assert redis.keys(f"{webhooks.LOCK_KEY}*") == []


def test_deliveries_are_kept_for_a_month(team: TeamSetting, receiver: Receiver) -> None:
    webhook = make(team, receiver)
    happen(team, 3)
    webhooks.deliver_due()
    execute(
        "UPDATE webhook_deliveries SET attempted_at = now() - make_interval(days => 29, hours => 23) WHERE webhook_id = :id",
        id=webhook["id"],
    )
    ids = [row.id for row in rows(webhook)]
    execute(
        "UPDATE webhook_deliveries SET attempted_at = now() - make_interval(days => 31) WHERE id = :id",
        id=ids[0],
    )
    execute(
        "UPDATE webhook_deliveries SET attempted_at = now() - make_interval(days => 31), state = 'pending' WHERE id = :id",
        id=ids[1],
    )
    webhooks.expire()
    assert [row.id for row in rows(webhook)] == ids[1:]


def test_a_key_may_ask_for_a_replay_of_what_goes_there_anyway(team: TeamSetting, receiver: Receiver) -> None:
    webhook = make(team, receiver)
    happen(team)
    webhooks.deliver_due()
    key = make_key(team, team.owner, "webhooks:update", "webhooks:read")
    assert key.post(path(team, webhook, "/replay"), json={"from_seq": receiver.seqs[0]}).status_code == 200
    webhooks.deliver_due()
    assert len(receiver.received) == 2

"""A real Celery worker that sends webhooks, killed while it is at it."""

from pathlib import Path

import pytest

from models.settings import settings
from tests.factories import TeamSetting, execute, fetch, make_webhook
from tests.receiver import Reply, receiving
from tests.workers.test_stack import eventually, happen, running

EVENTS = 400


@pytest.mark.parametrize("whole", [True, False], ids=["the worker", "a process of it"])
def test_a_worker_killed_while_sending_skips_nothing_and_keeps_the_order(
    team: TeamSetting, tmp_path: Path, whole: bool
) -> None:
    execute("UPDATE webhooks SET enabled = false")
    with (
        receiving(lambda _: Reply(after_s=0.003)) as receiver,
        running(tmp_path, settings().redis_url) as worker,
    ):
        webhook = make_webhook(team, url=receiver.url)
        about = {str(happen(team)) for _ in range(EVENTS)}
        for share in (0.1, 0.4, 0.7):
            wanted = int(EVENTS * share)
            eventually(lambda wanted=wanted: len(receiver.received) > wanted, worker)  # type: ignore[misc]
            if whole:
                worker.kill()
                worker.start()
            else:
                worker.kill_a_child()
            # What the dead process leased runs out in its time, which nobody has here.
            execute(
                "UPDATE webhooks SET lease_expires_at = least(lease_expires_at, now() + interval '2 s') WHERE id = :id",
                id=webhook["id"],
            )
        eventually(
            lambda: about <= {each.json["data"]["resource_id"] for each in receiver.received}, worker, 60
        )
        (last,) = fetch("SELECT seq FROM activity_heads WHERE team_id = :id", id=team.id)
        eventually(
            lambda: fetch(
                "SELECT FROM webhooks WHERE id = :id AND delivered_seq = :seq", id=webhook["id"], seq=last.seq
            ),
            worker,
        )
    ids: dict[str, int] = {}
    for each in receiver.received:
        assert ids.setdefault(each.headers["webhook-id"], each.seq) == each.seq
    first_seen = list(ids.values())
    assert first_seen == list(range(first_seen[0], last.seq + 1))
    assert len(receiver.received) > len(first_seen) or not whole
    deliveries = fetch(
        "SELECT seq, state FROM webhook_deliveries WHERE webhook_id = :id ORDER BY seq", id=webhook["id"]
    )
    assert deliveries == [(seq, "delivered") for seq in first_seen]

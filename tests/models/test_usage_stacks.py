"""What a stacked chart shows adds up to what was used, whoever is named."""

from datetime import date

from flask import Flask

from models.database import transaction
from models.queries import usage, usage_stacks
from models.queries.usage_reports import Group
from models.queries.usage_stacks import Share
from models.tables.usage import Metric
from tests.factories import Person, TeamSetting, fold, join, make_team

DAY = "2025-03-07"


def report(setting: TeamSetting, person: Person, quantity: int, day: str = DAY) -> None:
    event = {
        "external_id": f"{person.id}-{day}-{quantity}",
        "metric": "llm_tokens_used",
        "quantity": quantity,
        "occurred_at": f"{day}T12:00:00Z",
    }
    answer = person.post(f"{setting.path}/usage", json={"events": [event]})
    assert answer.status_code == 202, answer.text


def shares(setting: TeamSetting, most: int, by: Group = Group.user) -> list[Share]:
    with transaction() as session:
        access = setting.viewer.enter(session, setting.id)
        found = usage_stacks.shares(
            session, access, since=date(2025, 3, 1), until=date(2025, 3, 31), by=by, most=most
        )
        total = usage.total(session, access, since=date(2025, 3, 1), until=date(2025, 3, 31))
    assert sum(share.quantity for share in found) == total.llm_tokens_used
    assert {share.metric for share in found} == {Metric.llm_tokens_used}
    return list(found)


def test_as_many_as_asked_for_stand_apart_and_the_rest_is_one(app: Flask) -> None:
    setting = make_team(app)
    third = join(setting, "member", "Mina")
    report(setting, setting.owner, 10)
    report(setting, setting.member, 30)
    report(setting, third, 20)
    fold()
    report(setting, setting.member, 5, "2025-03-08")  # not folded yet
    named = {share.rank: share.name for share in shares(setting, 3)}
    assert named == {1: "Member", 2: "Mina", 3: "Owner"}
    found = shares(setting, 2)
    assert [(share.date.day, share.rank, share.id, share.quantity) for share in found] == [
        (7, 0, None, 10),
        (7, 1, setting.member.id, 30),
        (7, 2, third.id, 20),
        (8, 1, setting.member.id, 5),
    ]


def test_what_nobody_of_them_used_is_a_share_as_well(app: Flask) -> None:
    setting = make_team(app)
    report(setting, setting.member, 7)
    assert [
        (share.rank, share.id, share.name, share.quantity) for share in shares(setting, 1, Group.agent)
    ] == [(1, None, None, 7)]

"""What the overview and a task's page say."""

import re

from tests.console.conftest import settle
from tests.console.html import look
from tests.factories import Answer, TeamSetting, make_agent, make_key

TAGS = re.compile(r"<[^>]+>|\s+")


def said(shown: Answer) -> str:
    assert shown.status_code == 200
    return " ".join(TAGS.sub(" ", shown.text).split())


def end(team: TeamSetting, task: str, **result: object) -> None:
    for verb, body in (("start", {}), ("complete", result)):
        answer = team.member.post(f"{team.path}/tasks/{task}/{verb}", json=body)
        assert answer.status_code == 200, answer.text


def test_the_figures_are_of_today_now_and_this_month(team: TeamSetting) -> None:
    end(team, team.task()["id"], llm_tokens_used=1_200)
    running = team.task(title="Being done")["id"]
    assert team.member.post(f"{team.path}/tasks/{running}/start").status_code == 200
    team.task()
    settle(team)
    shown = said(look(team.owner, f"/teams/{team.id}"))
    assert "Tasks done today 1 1 of 20,000 this month" in shown
    assert "Running now 1 1 waiting" in shown
    assert "Tokens this month 1,200 of 50M" in shown
    korean = said(look(team.owner, f"/teams/{team.id}", "ko"))
    assert "오늘 완료한 작업 1 이번 달 1 / 20,000" in korean


def test_who_is_online_is_shown_with_the_task_they_are_on(team: TeamSetting) -> None:
    for title in ("The first", "The newest"):
        task = team.task(title=title, assignee_id=str(team.member.id))["id"]
        assert team.member.post(f"{team.path}/tasks/{task}/start").status_code == 200
    team.task(title="Not begun", assignee_id=str(team.viewer.id))
    people = look(team.owner, f"/teams/{team.id}").text.split('id="people"')[1].split("</section>")[0]
    assert re.findall(r"</svg>([^<]+)</a>", people) == ["The newest"]


def test_a_tasks_tokens_are_told_by_part_and_lead_to_the_ledger(team: TeamSetting) -> None:
    task = team.task()["id"]
    end(team, task, tokens={"input": 1_000, "output": 234}, model="large")
    shown = look(team.viewer, f"/teams/{team.id}/tasks/{task}")
    assert "Tokens 1,234 : Input 1,000 · Output 234 large" in said(shown)
    rows = re.findall(rf'href="(/teams/{team.id}/usage/ledger/[^"]+)"', shown.text)
    assert [look(team.viewer, row).status_code for row in rows] == [200, 200]


def test_tokens_that_were_told_whole_are_shown_whole(team: TeamSetting) -> None:
    task = team.task()["id"]
    end(team, task, llm_tokens_used=500)
    shown = look(team.owner, f"/teams/{team.id}/tasks/{task}")
    assert "Tokens 500 Made" in said(shown)
    (row,) = re.findall(r'href="([^"]+/usage/ledger/[^"]+)"', shown.text)
    assert look(team.owner, row).status_code == 200
    none = team.task()["id"]
    assert "Tokens 0 Made" in said(look(team.owner, f"/teams/{team.id}/tasks/{none}"))


def test_a_task_names_the_agent_at_it(team: TeamSetting) -> None:
    agent = make_agent(team, "member", "Scout")
    key = make_key(team, team.owner, "tasks:update", agent_id=agent["id"])
    task = team.task()["id"]
    assert "Agent Scout" not in said(look(team.owner, f"/teams/{team.id}/tasks/{task}"))
    assert key.post(f"{team.path}/tasks/{task}/start").status_code == 200
    assert "Agent Scout" in said(look(team.owner, f"/teams/{team.id}/tasks/{task}"))

"""What the overview and a task's page say."""

import re

from flask import Flask

from tests.console.conftest import settle
from tests.console.html import look
from tests.factories import Answer, TeamSetting, invite, make_agent, make_key, make_person

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


def test_the_steps_of_a_new_team_are_ticked_off_and_end_with_its_first_task(app: Flask) -> None:
    person = make_person(app)
    team = person.post("/teams", json={"name": "New"}).json["id"]
    page = f"/teams/{team}"
    assert look(person, page).text.count('class="done"') == 0
    workspace = person.post(f"/teams/{team}/workspaces", json={"name": "Tides"}).json["id"]
    shown = look(person, page).text
    assert shown.count('class="done"') == 1
    assert f"/workspaces/{workspace}/tasks" in shown
    assert person.post(f"/teams/{team}/workspaces/{workspace}/tasks", json={"title": "A"}).status_code == 201
    assert 'id="steps"' not in look(person, page).text


def test_an_invitation_says_of_whom_to_what_and_as_what(team: TeamSetting) -> None:
    person = make_person(team.owner.app)
    token = invite(team, person.email, "viewer")["token"]
    shown = said(look(person, f"/invitations/accept?token={token}"))
    assert "Join Design" in shown
    assert "Owner invites you as viewer." in shown
    assert shown.count("Owner invites") == 1
    waiting = said(look(person, "/invitations/accept"))
    assert "Design Owner invites you as viewer. Confirm your address first" in waiting
    other = said(look(make_person(team.owner.app), f"/invitations/accept?token={token}"))
    assert "Design" not in other


def test_cancelled_tasks_are_counted_below_the_board_and_listed_in_the_table(team: TeamSetting) -> None:
    board = f"/teams/{team.id}/tasks"
    task = team.task(title="Not worth it")["id"]
    assert "cancelled task" not in said(look(team.viewer, board))
    assert team.member.post(f"{team.path}/tasks/{task}/cancel").status_code == 200
    shown = look(team.viewer, board)
    assert "1 cancelled task" in said(shown)
    assert "Not worth it" not in shown.text
    (link,) = re.findall(r'href="([^"]+status=cancelled[^"]*)"', shown.text)
    assert "Not worth it" in look(team.viewer, link.replace("&amp;", "&")).text

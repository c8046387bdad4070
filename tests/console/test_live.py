"""Two people in two browsers see each other's work as it happens."""

from tests.console.conftest import ScreenOf
from tests.factories import TeamSetting


def test_a_task_appears_and_moves_on_anothers_board(team: TeamSetting, screen_of: ScreenOf) -> None:
    owner, member = screen_of(team.owner), screen_of(team.member)
    theirs = member.open(f"/teams/{team.id}/tasks")
    member.live()
    ours = owner.open(f"/teams/{team.id}/tasks")
    owner.live()
    ours.click("[data-open=new-task]")
    ours.fill("#new-task [name=title]", "Summarize the week")
    ours.click("#new-task button.primary")
    theirs.wait_for_selector("section[aria-labelledby=col-pending] >> text=Summarize the week")
    theirs.click("text=Summarize the week")
    theirs.click("text=Start")
    ours.wait_for_selector("section[aria-labelledby=col-processing] >> text=Summarize the week")

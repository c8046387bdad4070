"""Two people in two browsers see each other's work as it happens."""

from playwright.sync_api import Route

from tests.console.conftest import ScreenOf, settle
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


def test_what_happens_before_the_socket_is_there_is_shown(team: TeamSetting, screen_of: ScreenOf) -> None:
    screen = screen_of(team.member)

    def meanwhile(route: Route) -> None:
        team.task(title="Between page and socket")
        settle(team)
        route.continue_()

    screen.page.route("**/ws-tickets", meanwhile)
    page = screen.open(f"/teams/{team.id}/tasks")
    page.wait_for_selector("section[aria-labelledby=col-pending] >> text=Between page and socket")


def test_what_happens_while_a_page_is_on_its_way_is_shown(team: TeamSetting, screen_of: ScreenOf) -> None:
    screen = screen_of(team.member)
    page = screen.open(f"/teams/{team.id}/members")
    screen.live()

    # Heard, and the page that is still there fetched anew: the next one was made before.
    page.evaluate(
        "document.addEventListener('team-event', () => setTimeout(() => { document.documentElement.dataset.heard = ''; }, 1000))"
    )

    def late(route: Route) -> None:
        answer = route.fetch()
        team.task(title="Between two pages")
        page.wait_for_selector("html[data-heard]")
        route.fulfill(response=answer)

    page.route("**/tasks", late, times=1)
    page.click(".rail-links >> text=Tasks")
    page.wait_for_selector("section[aria-labelledby=col-pending] >> text=Between two pages")


def test_who_is_signed_out_elsewhere_signs_in_again_and_comes_back(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    screen = screen_of(team.member)
    page = screen.open(f"/teams/{team.id}/tasks")
    screen.live()
    assert team.member.post("/auth/logout").status_code == 204
    page.wait_for_url(f"**/sign-in?next=%2Fteams%2F{team.id}%2Ftasks")
    screen.expect_complaint("401")

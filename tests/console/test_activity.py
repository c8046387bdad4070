"""Reading the log in a browser: narrowing it, opening a row, what is new, proof and exports."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from models.database import transaction
from models.operations import checkpoints
from models.queries import activity_density
from models.settings import settings
from tests.console.conftest import ScreenOf, settle
from tests.factories import Person, TeamSetting, execute, fetch, join, make_agent, make_key
from workers import exports


@pytest.fixture
def no_other_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory for files, and nobody else's export is due."""
    monkeypatch.setenv("EXPORT_DIRECTORY", str(tmp_path))
    settings.cache_clear()
    execute("DELETE FROM activity_exports")
    yield
    monkeypatch.undo()
    settings.cache_clear()


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def refused(team: TeamSetting, by: Person) -> None:
    assert by.post(f"{team.path}/workspaces", json={"name": "No"}).status_code == 403


def sentences(page: Page) -> list[str]:
    return page.locator("#log .sentence").all_inner_texts()


def test_rows_are_sentences_and_what_was_refused_is_marked(team: TeamSetting, screen_of: ScreenOf) -> None:
    team.task(title="Summarize the week")
    refused(team, team.viewer)
    settle(team)
    page = screen_of(team.owner).open(f"{team.path}/activity")
    expect(page.get_by_text("Owner created the task Summarize the week")).to_be_visible()
    expect(page.locator("#log li", has_text="Viewer was refused workspaces:create")).to_contain_text(
        "refused"
    )
    expect(page.locator("#log .badge.danger")).to_have_count(1)


def test_names_are_text_and_no_markup(team: TeamSetting, screen_of: ScreenOf) -> None:
    team.task(title="<img src=x onerror=alert(1)> {actor} %(x)s")
    settle(team)
    page = screen_of(team.owner).open(f"{team.path}/activity")
    expect(page.get_by_text("created the task <img src=x onerror=alert(1)> {actor} %(x)s")).to_be_visible()


def test_a_row_opens_to_its_diff_and_its_place_in_the_chain(team: TeamSetting, screen_of: ScreenOf) -> None:
    task = team.task(title="Before")
    team.owner.patch(
        f"{team.path}/tasks/{task['id']}", json={"title": "After", "assignee_id": str(team.member.id)}
    )
    settle(team)
    seq, digest = fetch(
        "SELECT seq, encode(hash, 'hex') FROM activity_logs WHERE team_id = :id AND action = 'task_updated'",
        id=team.id,
    )[0]
    (before,) = fetch(
        "SELECT encode(hash, 'hex') AS h FROM activity_logs WHERE team_id = :id AND seq = :seq - 1",
        id=team.id,
        seq=seq,
    )
    page = screen_of(team.owner).open(f"{team.path}/activity")
    page.get_by_role("link", name="Owner changed the task After").click()
    row = page.locator(f"#e-{seq} .log-open")
    expect(row.get_by_role("row", name="title Before After")).to_be_visible()
    expect(row.get_by_role("row", name="assignee id none Member")).to_be_visible()
    expect(row).to_contain_text("127.0.0.1")
    expect(row.locator(f"[data-copy='{digest}']")).to_be_visible()
    expect(row.locator(f"[data-copy='{before.h}']")).to_be_visible()
    assert query(page)["open"] == [str(seq)]
    page.go_back()
    expect(row).to_have_count(0)
    page.go_forward()
    row.get_by_role("link", name="to this row").click()
    expect(page.locator("#log li").first).to_have_id(f"e-{seq}")
    expect(row).to_be_visible()


def test_filters_are_chips_in_the_address_and_go_one_by_one(team: TeamSetting, screen_of: ScreenOf) -> None:
    team.task(title="Weekly digest")
    team.owner.post(f"{team.path}/workspaces", json={"name": "Weekly"})
    settle(team)
    page = screen_of(team.owner).open(f"{team.path}/activity")
    page.fill("#q", "weekly")
    page.press("#q", "Enter")
    expect(page.locator(".chip")).to_have_count(1)
    assert sentences(page) == ["Owner created the workspace Weekly", "Owner created the task Weekly digest"]
    page.locator(".facet a", has_text="task created").click()
    expect(page.locator(".chip")).to_have_count(2)
    assert sentences(page) == ["Owner created the task Weekly digest"]
    assert query(page) == {"q": ["weekly"], "action": ["task_created"]}
    page.get_by_role("link", name="Remove the filter Text").click()
    expect(page.locator(".chip")).to_have_count(1)
    assert query(page) == {"action": ["task_created"]}
    page.get_by_role("link", name="Clear", exact=True).click()
    expect(page.locator(".chip")).to_have_count(0)


def test_the_filter_dialog_takes_times_in_the_readers_zone(team: TeamSetting, screen_of: ScreenOf) -> None:
    settle(team)
    page = screen_of(team.owner).open(f"{team.path}/activity?q=owner")
    page.click("[data-open=filter]")
    page.select_option("#f-user", label="Owner")
    page.select_option("#f-outcome", "success")
    page.fill("#f-ip", "127.0.0.1")
    page.fill("#f-since", "2020-01-02T09:30")
    page.click("#filter button.primary")
    expect(page.locator(".chip")).to_have_count(5)
    assert query(page) == {
        "q": ["owner"],
        "user_id": [str(team.owner.id)],
        "outcome": ["success"],
        "ip_address": ["127.0.0.1"],
        "since": ["2020-01-02T00:30:00.000Z"],  # Seoul is 9 hours ahead
    }
    page.click("[data-open=filter]")
    expect(page.locator("#f-since")).to_have_value("2020-01-02T09:30")


def test_what_an_address_says_wrongly_is_passed_over(team: TeamSetting, screen_of: ScreenOf) -> None:
    settle(team)
    page = screen_of(team.owner).open(
        f"{team.path}/activity?user_id=me&since=soon&ip_address=home&outcome=bad&last=ever&open=x&action=team_created&q=%00"
    )
    assert sentences(page) == ["Owner created the team Design"]
    expect(page.locator(".chip")).to_have_count(1)


def test_pages_go_both_ways_and_jump_to_a_time(team: TeamSetting, screen_of: ScreenOf) -> None:
    for number in range(55):
        team.task(title=f"Number {number:02}")
    settle(team)
    page = screen_of(team.owner).open(f"{team.path}/activity?action=task_created")
    assert sentences(page)[0] == "Owner created the task Number 54"
    page.get_by_role("link", name="Older").click()
    expect(page.locator("#log .sentence").first).to_have_text("Owner created the task Number 04")
    page.get_by_role("link", name="Newer").click()
    expect(page.locator("#log .sentence").first).to_have_text("Owner created the task Number 54")
    (at,) = fetch(
        "SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS at FROM activity_logs"
        " WHERE team_id = :id AND resource_name = 'Number 30'",
        id=team.id,
    )
    page.goto(f"{page.url.partition('?')[0]}?action=task_created&at={at.at}")
    assert sentences(page)[0] == "Owner created the task Number 30"
    expect(page.locator(".chip", has_text="Back from")).to_be_visible()


def test_new_rows_wait_behind_a_pill(team: TeamSetting, screen_of: ScreenOf) -> None:
    settle(team)
    screen = screen_of(team.member)
    page = screen.open(f"{team.path}/activity?resource_type=task")
    screen.live()
    team.task(title="Reading this one")
    expect(page.get_by_text("Reading this one")).to_be_visible()  # an empty list has nothing to hold
    for number in range(2):
        team.task(title=f"Live {number}")
        team.owner.post(f"{team.path}/workspaces", json={"name": "Not a task"})
    pill = page.locator("[data-new-of=log]")
    expect(pill).to_have_text("2 new")
    assert sentences(page) == ["Owner created the task Reading this one"]
    pill.click()
    expect(page.get_by_text("Live 1")).to_be_visible()
    expect(pill).to_be_hidden()
    assert len(sentences(page)) == 3


def test_the_histogram_counts_and_filters(
    team: TeamSetting, screen_of: ScreenOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(team)
    screen = screen_of(team.owner)
    page = screen.open(f"{team.path}/activity?action=member_added")
    expect(page.locator("#density [data-value]").first).to_have_text("3")
    bar = page.locator(".bars a").last
    bar.click()
    expect(page.locator(".chip", has_text="From")).to_be_visible()
    assert set(query(page)) == {"action", "since", "until"}
    assert len(sentences(page)) == 3
    monkeypatch.setattr(activity_density, "COUNTED", 0)
    page.reload()
    expect(page.locator("#density")).to_contain_text("too many to count")


def test_the_bars_of_the_histogram_are_one_stop_and_arrows_go_among_them(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    settle(team)
    page = screen_of(team.owner).open(f"{team.path}/activity")
    stops = page.locator(".bars a[tabindex='0']")
    expect(stops).to_have_count(1)
    stops.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".bars a").nth(-2)).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator(".bars a").last).to_be_focused()
    expect(stops).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator(".chip", has_text="From")).to_be_visible()


def test_facets_count_people_and_agents(team: TeamSetting, screen_of: ScreenOf) -> None:
    agent = make_agent(team)
    key = make_key(team, team.owner, "tasks:create", agent_id=agent["id"])
    key.post(f"{team.path}/workspaces/{team.workspace_id}/tasks", json={"title": "By the agent"})
    settle(team)
    page = screen_of(team.owner).open(f"{team.path}/activity")
    expect(page.get_by_text("Scout for Owner created the task By the agent")).to_be_visible()
    page.locator(".facet a", has_text="Scout").click()
    expect(page.locator(".chip", has_text="Scout")).to_be_visible()
    assert sentences(page) == ["Scout for Owner created the task By the agent"]
    page.locator(".facet a", has_text="Scout").click()
    expect(page.locator(".chip")).to_have_count(0)


def test_reading_it_here_is_noted_as_over_the_api(team: TeamSetting, screen_of: ScreenOf) -> None:
    person = join(team, "viewer", "Reader")
    screen = screen_of(person)
    screen.open(f"{team.path}/activity")
    screen.page.reload()
    settle(team)
    (row,) = fetch(
        "SELECT count(*) AS n FROM activity_logs WHERE team_id = :team AND user_id = :id AND action = 'activity_read'",
        team=team.id,
        id=person.id,
    )
    assert row.n == 1


def test_the_chain_is_verified_on_click_and_checkpoints_are_listed(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    settle(team)
    screen = screen_of(team.viewer)
    page = screen.open(f"{team.path}/activity")
    expect(page.get_by_role("link", name="Not checked yet")).to_be_visible()
    with transaction() as session:
        signed = checkpoints.sign(session, team.id)
        assert signed is not None
        seq = signed.seq
    page.reload()
    page.get_by_role("link", name=f"Checked up to row {seq}").click()
    expect(page.get_by_role("heading", name="Checkpoints")).to_be_visible()
    expect(page.locator("#checkpoints tbody tr")).to_have_count(1)
    page.click("text=Verify now")
    expect(page.get_by_text("The log is what was logged.")).to_be_visible()
    with page.expect_download() as download:
        page.click("text=Download the checkpoints")
    assert [each["seq"] for each in json.loads(download.value.path().read_text())["items"]] == [seq]


def test_a_break_in_the_chain_is_named(team: TeamSetting, screen_of: ScreenOf) -> None:
    settle(team)
    execute("ALTER TABLE activity_logs DISABLE TRIGGER USER")
    try:
        execute("UPDATE activity_logs SET action = 'forged' WHERE team_id = :id AND seq = 2", id=team.id)
    finally:
        execute("ALTER TABLE activity_logs ENABLE TRIGGER USER")
    page = screen_of(team.owner).open(f"{team.path}/activity/proof")
    page.click("text=Verify now")
    expect(page.get_by_text("The log does not verify.")).to_be_visible()
    expect(page.locator("#verified li")).to_have_count(1)
    expect(page.locator("#verified li")).to_contain_text("2")
    expect(page.locator("#verified li")).to_contain_text("changed")


def test_an_export_holds_what_the_filters_leave(team: TeamSetting, screen_of: ScreenOf) -> None:
    team.task(title="In it")
    settle(team)
    page = screen_of(team.viewer).open(f"{team.path}/activity?action=task_created&action=team_created")
    page.click("[data-open=export]")
    expect(page.get_by_text("A proof needs every row")).to_be_visible()
    with page.expect_download() as download:
        page.locator("#export").get_by_role("link", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [row["action"] for row in rows] == ["task_created", "team_created"]


def test_a_proof_is_exported_without_filters(team: TeamSetting, screen_of: ScreenOf) -> None:
    settle(team)
    page = screen_of(team.viewer).open(f"{team.path}/activity")
    page.click("[data-open=export]")
    with page.expect_download() as download:
        page.locator("#export").get_by_role("link", name="NDJSON").nth(1).click()
    first = json.loads(download.value.path().read_text().splitlines()[0])
    assert (first["seq"], len(first["previous_hash"])) == (1, 64)


@pytest.mark.usefixtures("no_other_export")
def test_a_file_is_written_in_the_background_and_fetched(team: TeamSetting, screen_of: ScreenOf) -> None:
    settle(team)
    screen = screen_of(team.viewer)
    page = screen.open(f"{team.path}/activity?action=team_created")
    page.click("[data-open=export]")
    page.click("text=Write a file")
    page.wait_for_url("**/activity/exports")
    expect(page.locator("#exports")).to_contain_text("waiting")
    exports.write()
    expect(page.locator("#exports")).to_contain_text("ready")
    with page.expect_download() as download:
        page.locator("#exports").get_by_role("button", name="Download the export").click()
    (line,) = gzip.decompress(download.value.path().read_bytes()).decode().splitlines()
    assert json.loads(line)["action"] == "team_created"
    page.locator("#exports").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No export")).to_be_visible()


def test_exports_of_others_are_not_shown(team: TeamSetting, screen_of: ScreenOf) -> None:
    team.member.post(f"{team.path}/activity/exports", json={})
    page = screen_of(team.viewer).open(f"{team.path}/activity/exports")
    expect(page.get_by_text("No export")).to_be_visible()
    page = screen_of(team.owner).open(f"{team.path}/activity/exports")
    expect(page.locator("#exports tbody tr")).to_contain_text("Member")

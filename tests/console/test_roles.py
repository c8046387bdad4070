"""Roles in a browser: the matrix, a change whose effect shows first, and questions answered in words."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.console.conftest import ScreenOf
from tests.factories import TeamSetting, join, make_role

REVIEWER = ("teams:read", "members:read", "workspaces:read", "tasks:read", "tasks:update", "roles:read")


@pytest.fixture
def reviewer(team: TeamSetting) -> dict[str, Any]:
    return make_role(team, "reviewer", *REVIEWER)


def granted(team: TeamSetting, name: str) -> set[str]:
    return set(team.owner.get(f"{team.path}/roles/{name}").json["permissions"])


def test_a_role_is_made_from_another(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/roles")
    page.click("main .actions .primary")
    page.fill("#f-role-name", "triage")
    page.check("[value='tasks:update']")
    page.uncheck("[value='usage:read']")
    expect(page.locator("#effect")).to_contain_text("Permissions chosen: 8")
    page.click(".dock button.primary")
    page.wait_for_url(f"**/teams/{team.id}/roles")
    expect(page.locator("thead")).to_contain_text("triage")
    assert granted(team, "triage") == (granted(team, "viewer") | {"tasks:update"}) - {"usage:read"}


@pytest.mark.usefixtures("reviewer")
def test_who_gains_and_loses_what_shows_before_a_role_is_saved(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    join(team, "reviewer", "Joan")
    page = screen_of(team.owner).open(f"/teams/{team.id}/roles?edit=reviewer")
    page.check("[value='tasks:delete']")
    page.uncheck("[value='tasks:update']")
    expect(page.locator("#effect strong")).to_have_text("Joan")
    expect(page.locator("#effect .gain")).to_contain_text("tasks:delete")
    expect(page.locator("#effect .loss")).to_contain_text("tasks:update")
    assert granted(team, "reviewer") == set(REVIEWER)
    page.reload()  # what is chosen is in the address
    expect(page.locator("[value='tasks:delete']")).to_be_checked()
    page.click(".dock button.primary")
    page.wait_for_url(f"**/teams/{team.id}/roles")
    assert granted(team, "reviewer") == (set(REVIEWER) | {"tasks:delete"}) - {"tasks:update"}


@pytest.mark.usefixtures("reviewer")
def test_a_role_in_use_is_deleted_with_a_replacement_and_by_its_name(
    team: TeamSetting, screen_of: ScreenOf
) -> None:
    joan = join(team, "reviewer", "Joan")
    page = screen_of(team.owner).open(f"/teams/{team.id}/roles?delete=reviewer")
    page.select_option("#f-replacement", "viewer")
    expect(page.locator("#deletion-effect")).to_contain_text("Joan")
    page.fill("#f-delete-role", "viewer")
    page.click("button.danger")
    assert granted(team, "reviewer") == set(REVIEWER)
    page.fill("#f-delete-role", "reviewer")
    page.click("button.danger")
    page.wait_for_url(f"**/teams/{team.id}/roles")
    assert team.owner.get(f"{team.path}/roles/reviewer").status_code == 404
    assert team.owner.get(f"{team.path}/members/{joan.id}").json["role"] == "viewer"


@pytest.mark.usefixtures("reviewer")
def test_a_role_that_nobody_has_is_deleted_without_one(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/roles?delete=reviewer")
    expect(page.locator("#f-replacement")).to_have_count(0)
    page.fill("#f-delete-role", "reviewer")
    page.click("button.danger")
    page.wait_for_url(f"**/teams/{team.id}/roles")
    assert team.owner.get(f"{team.path}/roles/reviewer").status_code == 404


def test_why_somebody_may_not_and_who_could_change_it(team: TeamSetting, screen_of: ScreenOf) -> None:
    page = screen_of(team.owner).open(f"/teams/{team.id}/roles")
    page.select_option("#ask [name=person]", str(team.viewer.id))
    page.select_option("#ask [name=permission]", "tasks:delete")
    answer = page.locator("#answer")
    expect(answer).to_contain_text("No, Viewer may not.")
    expect(answer).to_contain_text("Their role in the team, viewer, does not grant it.")
    expect(answer).to_contain_text("Owner by giving them another role")
    page.select_option("#ask [name=person]", str(team.member.id))
    expect(answer).to_contain_text("Yes, Member may.")
    assert f"person={team.member.id}" in page.url
    page.reload()
    expect(page.locator("#answer")).to_contain_text("Their role in the team, member, grants it.")


def test_a_role_in_a_workspace_decides_there(team: TeamSetting, screen_of: ScreenOf) -> None:
    path = f"{team.path}/workspaces/{team.workspace_id}/members/{team.member.id}"
    assert team.owner.put(path, json={"role": "viewer"}).status_code in {200, 201}
    query = f"person={team.member.id}&permission=tasks:delete&workspace={team.workspace_id}"
    page = screen_of(team.owner).open(f"/teams/{team.id}/roles?{query}")
    expect(page.locator("#answer")).to_contain_text(
        "Their role in this workspace, viewer, does not grant it."
    )


@pytest.mark.usefixtures("reviewer")
def test_a_viewer_reads_the_matrix_and_is_offered_no_change(team: TeamSetting, screen_of: ScreenOf) -> None:
    for query in ("", "?edit=reviewer", "?new=1", "?delete=reviewer"):
        page = screen_of(team.viewer).open(f"/teams/{team.id}/roles{query}")
        expect(page.locator("thead")).to_contain_text("reviewer")
        for offered in (
            "main [type=checkbox]",
            "main [data-api]",
            "main >> text=Edit",
            "main >> text=New role",
        ):
            expect(page.locator(offered)).to_have_count(0)


@pytest.mark.usefixtures("reviewer")
def test_nobody_is_offered_to_grant_what_they_lack(team: TeamSetting, screen_of: ScreenOf) -> None:
    make_role(team, "keeper", *REVIEWER, "roles:create", "roles:update")
    keeper = join(team, "keeper", "Keeper")
    page = screen_of(keeper).open(f"/teams/{team.id}/roles?edit=reviewer")
    expect(page.locator("[value='tasks:delete']")).to_be_disabled()
    expect(page.locator("[value='tasks:update']")).to_be_enabled()

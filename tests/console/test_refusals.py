"""What a page says when it can't be shown, to people and in their language."""

from flask.testing import FlaskClient

from tests.console.html import HTML, look
from tests.factories import TeamSetting, join, make_person, make_role


def test_forbidden_says_what_is_missing_and_who_gives_it(team: TeamSetting) -> None:
    shown = look(team.viewer, f"/teams/{team.id}/keys")
    assert shown.status_code == 403
    for words in (
        "Your role does not grant what this page needs: See API keys and agents.",
        "These people can give it: Owner, Admin.",
        "api_keys:read",
        shown.headers["X-Request-Id"],
    ):
        assert words in shown.text
    assert "API 키와 에이전트를 봅니다" in look(team.viewer, f"/teams/{team.id}/keys", "ko").text


def test_who_may_not_see_members_is_not_told_their_names(team: TeamSetting) -> None:
    make_role(team, "reader", "teams:read")
    reader = join(team, "reader", "Reader")
    shown = look(reader, f"/teams/{team.id}/keys")
    assert shown.status_code == 403
    assert "Whoever manages roles in your team can give it." in shown.text
    assert "Admin" not in shown.text


def test_a_strangers_team_looks_like_one_that_is_not_there(team: TeamSetting) -> None:
    stranger = make_person(team.owner.app, "Stranger")
    for path in (f"/teams/{team.id}", f"/teams/{stranger.id}"):
        shown = look(stranger, path)
        assert shown.status_code == 404
        assert "It is not here, or it is not yours to see." in shown.text


def test_an_absent_address_is_a_page_for_people_and_a_problem_for_programs(client: FlaskClient) -> None:
    page = client.get("/nothing", headers={**HTML, "Accept-Language": "ko"})
    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert "이 주소에는 아무것도 없습니다." in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for path, headers in (("/api/nothing", HTML), ("/static/nothing.js", HTML), ("/nothing", {})):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")

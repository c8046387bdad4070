"""problem+json: one shape for everything that goes wrong, and nothing of our insides in it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api import problem_sources
from api.console import language
from api.errors import STATUS
from api.problem_texts import LONGEST, said
from models import errors
from models.errors import DomainError, QuotaExceeded
from models.queries import users
from tests.factories import Answer, TeamSetting, make_person

MEMBERS = {"type", "title", "status", "code", "detail", "request_id"}


def assert_problem(answer: Answer, status: int, code: str, *more: str) -> None:
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert set(answer.json) == MEMBERS | set(more)
    assert (answer.json["status"], answer.json["code"]) == (status, code)
    assert answer.json["type"].endswith(f"#{code}")
    assert answer.json["title"]
    assert answer.json["detail"]
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]


CASES: dict[str, tuple[Callable[[TeamSetting], Answer], int, str, tuple[str, ...]]] = {
    "unauthenticated": (
        lambda team: team.owner.get("/me", headers={"Authorization": ""}),
        401,
        "unauthenticated",
        (),
    ),
    "wrong password": (
        lambda team: team.owner.post("/auth/login", json={"email": "nobody@example.com", "password": "x"}),
        401,
        "unauthenticated",
        (),
    ),
    "forbidden": (lambda team: team.viewer.patch(team.path), 403, "permission_denied", ("missing",)),
    "absent": (lambda team: team.owner.get(f"{team.path}/tasks/{team.id}"), 404, "not_found", ()),
    "unrouted": (lambda team: team.owner.get("/nothing"), 404, "not_found", ()),
    "no id": (lambda team: team.owner.get("/teams/1"), 404, "not_found", ()),
    "method": (lambda team: team.owner.put(team.path), 405, "method_not_allowed", ()),
    "conflict": (lambda team: team.owner.delete(f"{team.path}/members/{team.owner.id}"), 409, "conflict", ()),
    "stale": (
        lambda team: team.owner.delete(team.path, headers={"If-Match": '"x"'}),
        412,
        "precondition_failed",
        (),
    ),
    "too large": (lambda team: team.owner.post("/teams", data=b"x" * 2**21), 413, "body_too_large", ()),
    "invalid": (lambda team: team.owner.post("/teams", json={}), 422, "validation_failed", ("errors",)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_error_has_the_one_shape(shared: TeamSetting, case: str) -> None:
    call, status, code, more = CASES[case]
    assert_problem(call(shared), status, code, *more)


def test_a_wrong_method_says_which_are_right(shared: TeamSetting) -> None:
    allowed = shared.owner.put(shared.path).headers["Allow"]
    assert {"GET", "PATCH", "DELETE"} <= set(allowed.split(", "))


def test_an_unknown_address_of_the_root_is_a_problem_too(client: FlaskClient) -> None:
    for path in ("/api", "/api/v1", "/nothing", "/health"):
        assert_problem(client.get(path), 404, "not_found")


def test_every_domain_error_has_a_status() -> None:
    codes = {error.code for error in _every_domain_error()}
    assert codes <= set(STATUS)
    assert "permission_denied" in codes


def test_what_nobody_expected_is_500_and_tells_nothing(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("a secret of ours")

    person = make_person(app)
    assert person.get("/me").status_code == 200
    monkeypatch.setattr(users, "shown", fail)
    answer = person.get("/me")
    assert_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "ValueError" not in answer.text


def test_who_asks_for_korean_reads_it_and_programs_read_english(shared: TeamSetting) -> None:
    path = f"{shared.path}/members/{shared.owner.id}"
    texts = {}
    for asked in (None, "ko-KR,ko;q=0.9,en;q=0.5", "de", "*"):
        answer = shared.owner.delete(path, headers={"Accept-Language": asked} if asked else {})
        assert_problem(answer, 409, "conflict")
        assert {"Accept-Language", "Cookie"} <= set(answer.vary)
        texts[asked] = (answer.headers["Content-Language"], answer.json["title"], answer.json["detail"])
    english = ("en", "Conflict", "The owner can't leave or be removed; transfer the ownership first.")
    korean = ("ko", "충돌", "소유자는 나가거나 내보낼 수 없습니다. 먼저 소유권을 넘기세요.")
    assert texts == {None: english, "ko-KR,ko;q=0.9,en;q=0.5": korean, "de": english, "*": english}


def test_what_was_chosen_in_the_console_comes_before_what_the_browser_asks_for(client: FlaskClient) -> None:
    client.set_cookie(language.COOKIE, "ko")
    answer = client.get("/api/v1/me", headers={"Accept-Language": "en"})
    assert (answer.status_code, answer.headers["Content-Language"]) == (401, "ko")
    assert answer.json is not None
    assert answer.json["detail"] == "`Authorization: Bearer …`에 세션 토큰이나 API 키를 보내세요."


def test_the_messages_of_fields_are_said_in_korean_under_the_same_names(shared: TeamSetting) -> None:
    body = {"title": "x" * 501, "prompt": 1, "unknown": 1}
    answer = shared.owner.post(
        f"{shared.path}/workspaces/{shared.workspace_id}/tasks", json=body, headers={"Accept-Language": "ko"}
    )
    assert_problem(answer, 422, "validation_failed", "errors")
    assert answer.json["errors"] == {
        "title": ["길이가 1 이상 500 이하여야 합니다."],
        "prompt": ["텍스트여야 합니다."],
        "unknown": ["알 수 없는 항목입니다."],
    }


def test_refusals_within_an_answer_are_said_in_korean_too(team: TeamSetting) -> None:
    sent = {"invitations": [{"email": team.member.email, "role": "member"}]}
    bulk = team.owner.post(f"{team.path}/invitations/bulk", json=sent, headers={"Accept-Language": "ko"})
    assert bulk.json is not None
    (outcome,) = bulk.json["results"]
    assert (outcome["error"]["code"], outcome["error"]["detail"]) == (
        "conflict",
        "이 이메일을 쓰는 사람은 이미 팀의 멤버입니다.",
    )
    asked = {"user_id": str(team.owner.id), "role": "member"}
    dry = team.owner.post(f"{team.path}/permissions/dry-run", json=asked, headers={"Accept-Language": "ko"})
    assert dry.json["refused"]["detail"] == "소유자는 항상 관리자입니다. 먼저 소유권을 넘기세요."


@pytest.mark.parametrize(
    ("text", "korean"),
    [
        ("There is no such task here.", "그런 작업이 여기에 없습니다."),
        ("There is no such webhook here.", "그런 웹훅이 여기에 없습니다."),
        # The role's name is a person's; a built-in one is said in words, and its particle follows the sound.
        ("The role auditor is in use; name the role that replaces it.", "auditor은(는) 사용 중인 역할입니다. 대신할 역할을 고르세요."),
        ("The role admin is built in; make one of your own.", "관리자는 기본 역할입니다. 새 역할을 만드세요."),
        ("The role admin grants members:create, which you do not have yourself.", "관리자 역할의 members:create 권한은 본인에게 없는 권한입니다."),
        ("This invitation is expired; ask for a new one.", "만료됨 상태인 초대입니다. 새로 요청하세요."),
        (
            str(QuotaExceeded(metric="tasks_created", used=1_000, limit=1_000, resets_at=datetime(2026, 12, 1, tzinfo=UTC))),
            "요금제의 월 한도는 만든 작업 1,000이고 지금까지 1,000을 썼습니다. 이 작업은 한도를 넘습니다. 요금제를 바꾸거나(PUT /teams/{team_id}/plan) 다음 달까지 기다리세요.",
        ),
        ("Must be one of: free, pro.", "다음 중 하나여야 합니다: free, pro."),
        ("Something that nobody wrote.", "Something that nobody wrote."),
        ("There is no such task here.\n{0.__class__}", "There is no such task here.\n{0.__class__}"),
        ("There is no permission {x.y}; GET /permissions lists them.", "{x.y} 권한은 없습니다. GET /permissions에 목록이 있습니다."),
        ("There is no permission " + "x" * LONGEST + "; GET /permissions lists them.",) * 2,
    ],
)  # fmt: skip
def test_what_stands_in_a_message_is_said_too(app: Flask, text: str, korean: str) -> None:
    with app.test_request_context(headers={"Accept-Language": "ko"}):
        assert said(text) == korean
    with app.test_request_context():
        assert said(text) == text


def test_every_message_that_the_code_refuses_with_is_found() -> None:
    found = set(problem_sources.messages())
    assert len(found) > 200
    for source, message in (
        ("models/errors.py", "There is no such {what} here."),
        ("models/queries/tasks.py", "task"),
        ("models/operations/members.py", "The role {role}"),
        (
            "models/access/entry.py",
            "Your membership in this team is suspended; an admin of the team can lift that.",
        ),
        (
            "models/operations/tasks.py",
            "A task that is {status} can't become {status2}; it leads to {open_ways}.",
        ),
        ("api/schemas/members.py", "Give either user_id or email."),
        ("libraries", "Missing data for required field."),
    ):
        assert (source, message) in found
    described = {"Rows a page.", "A JSON object a line, or a table."}
    assert described.isdisjoint(message for _, message in found)


def test_a_constraint_becomes_its_domain_error_and_no_database_text(team: TeamSetting) -> None:
    body = {"user_id": str(team.viewer.id), "role": "viewer"}
    answer = team.owner.post(f"{team.path}/members", json=body)
    assert_problem(answer, 409, "conflict")
    assert "team_members" not in answer.text


def _every_domain_error() -> list[type[DomainError]]:
    named = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, DomainError)
    ]
    return [each for each in named if each is not DomainError]

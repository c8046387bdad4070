"""Bad input on every route, generated from its schema: 422 with a message per field, and never a 500."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marshmallow import fields, validate

from api.problem_texts import LONGEST
from api.schemas.base import Boolean, Email, Integer, JsonValue, Text, Time
from api.schemas.roles import RoleName
from tests.api.routes import BODY_ROUTES, LIST_ROUTES, Route
from tests.factories import Answer, Person, TeamSetting, make_person, make_team, make_webhook

ID = "0198c5f0-0000-7000-8000-000000000000"
VALID: dict[str, dict[str, Any]] = {
    "MemberCreateSchema": {"email": "nobody@example.com", "role": "member"},
    "MemberRoleSchema": {"role": "member"},
    "PlanChoiceSchema": {"plan": "pro"},
    "TransferSchema": {"user_id": ID},
    "RegisterSchema": {"email": "someone@example.com", "password": "a good password", "name": "Someone"},
    "LoginSchema": {"email": "someone@example.com", "password": "a good password"},
    "ProfileSchema": {"name": "Someone"},
    "PasswordResetRequestSchema": {"email": "someone@example.com"},
    "PasswordResetSchema": {"token": "ahq_x", "password": "a good password"},
    "PasswordChangeSchema": {"current_password": "a good password", "password": "a better password"},
    "VerifyEmailSchema": {"token": "ahq_x"},
    "SecondFactorBeginSchema": {"password": "a good password"},
    "SecondFactorDisableSchema": {"password": "a good password", "code": "123456"},
    "CodeSchema": {"code": "123456"},
    "TeamNameSchema": {"name": "Design"},
    "TeamUpdateSchema": {"name": "Design", "two_factor_required": False, "retention_days": 30},
    "LegalHoldSchema": {"reason": "The case of the tides"},
    "EraseSchema": {"password": "a good password", "code": "123456"},
    "InvitationCreateSchema": {"email": "nobody@example.com", "role": "viewer"},
    "BulkInvitationSchema": {"invitations": [{"email": "nobody@example.com", "role": "viewer"}]},
    "TokenSchema": {"token": "ahi_x"},
    "RoleCreateSchema": {"name": "auditor", "permissions": ["activity:read"]},
    "RoleUpdateSchema": {"name": "auditor", "permissions": ["activity:read"]},
    "AgentCreateSchema": {"name": "Scout", "description": "Looks ahead", "role": "member"},
    "AgentUpdateSchema": {"name": "Scout", "description": "Looks ahead", "role": "member"},
    "ApiKeyCreateSchema": {
        "name": "Robot",
        "permissions": ["tasks:read"],
        "expires_at": "2099-01-01T00:00:00Z",
        "agent_id": ID,
    },
    "ChecksSchema": {"checks": [{"permission": "tasks:read", "user_id": ID, "workspace_id": None}]},
    "QuestionSchema": {"permission": "tasks:read", "user_id": ID, "workspace_id": None},
    "AboutSchema": {"user_id": ID, "workspace_id": None},
    "WhoCanSchema": {"permission": "tasks:read", "workspace_id": None},
    "DryRunSchema": {"role": "viewer", "permissions": ["tasks:read"]},
    "WorkspaceCreateSchema": {"name": "Research", "description": "What we found", "visibility": "private"},
    "WorkspaceUpdateSchema": {"name": "Research", "description": "What we found", "visibility": "team"},
    "WorkspaceRoleSchema": {"role": "viewer"},
    "TaskCreateSchema": {"title": "Write", "prompt": "about tides", "type": "text", "assignee_id": None},
    "TaskUpdateSchema": {"title": "Write", "prompt": "about tides", "type": "text", "assignee_id": None},
    "TaskClaimSchema": {"lease_s": 60, "types": ["text"]},
    "TaskHeartbeatSchema": {"lease_id": ID, "lease_s": 60},
    "TaskCompleteSchema": {"lease_id": ID, "result": [1], "llm_tokens_used": 1, "model": "large"},
    "TaskFailSchema": {"lease_id": ID, "error": "out of tokens"},
    "ActivityExportCreateSchema": {
        "format": "csv",
        "order": "asc",
        "proof": False,
        "action": ["task_created"],
        "user_id": ID,
        "agent_id": ID,
        "api_key_id": ID,
        "resource_type": "task",
        "resource_id": ID,
        "workspace_id": ID,
        "outcome": "success",
        "ip_address": "192.0.2.1",
        "since": "2026-01-01T00:00:00Z",
        "until": "2099-01-01T00:00:00Z",
        "q": "tide",
    },
    "WebhookCreateSchema": {
        "url": "http://127.0.0.1:65535/hook",
        "description": "Our SIEM",
        "actions": ["task_created"],
        "enabled": False,
    },
    "WebhookUpdateSchema": {
        "url": "http://127.0.0.1:65535/hook",
        "description": "Our SIEM",
        "actions": ["task_created"],
        "enabled": False,
    },
    "ReplaySchema": {"from_seq": 1, "until_seq": 1},
    "ReservationCreateSchema": {
        "external_id": "a",
        "metric": "llm_tokens_used",
        "quantity": 1,
        "model": "large",
        "workspace_id": None,
        "task_id": None,
        "expires_in_s": 60,
    },
    "ReservationSettleSchema": {"tokens": {"input": 1}, "model": "large"},
    "CorrectionSchema": {"ledger_id": ID, "reason": "counted twice"},
    "BackfillCreateSchema": {"name": "May", "reason": "the exporter was down"},
    "VoidSchema": {"reason": "wrong buyer"},
    "BillingDetailsSchema": {
        "name": "Tides Ltd",
        "address": "1 Quay",
        "tax_id": "X1",
        "email": "a@example.com",
    },
    "UsageReportSchema": {"events": [{"external_id": "a", "metric": "llm_tokens_used", "quantity": 1}]},
}
"""A good body of every schema. The tests change one thing of it, so a refusal can only be for that."""
SECRETS = {"token", "code", "password", "current_password"}
"""Of the right form, and yet refused for being wrong."""

NOT_AN_OBJECT = {
    "missing": b"",
    "blank": b" \n",
    "malformed": b'{"name": "x"',
    "two values": b"{} {}",
    "list": b"[]",
    "string": b'"name"',
    "number": b"1",
    "null": b"null",
    "not UTF-8": b'{"name": "\xff"}',
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": -Infinity}',
    "single quotes": b"{'name': 'x'}",
    "form": b"name=x",
    "deep list": b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep object": b'{"name":' * 50_000 + b"1" + b"}" * 50_000,
    "number of 5,000 digits": b'{"name": ' + b"9" * 5_000 + b"}",
}
WRONG: list[Any] = ["\x00", "a\x00b", "\ud800", "a\udfffb", [[[]]], {"a": {}}, True, 1.5, 10**400, -(10**400)]
"""Wrong for every field but one that takes any JSON."""


def _limits(field: Text) -> tuple[int, int]:
    (length,) = (each for each in field.validators if isinstance(each, validate.Length))
    assert length.min is not None
    assert length.max is not None
    return length.min, length.max


def wrong_values(field: fields.Field[Any]) -> Iterator[Any]:
    if isinstance(field, JsonValue):
        yield from ("a\x00b", {"a": ["\x00"]}, {"\x00": 1}, {"\ud800": 1}, "\ud800", _nested(33))
        return
    yield from (value for value in WRONG if value is not True or not isinstance(field, Boolean))
    if not field.allow_none:
        yield None
    if isinstance(field, Text):
        minimum, maximum = _limits(field)
        yield from (1, "x" * (maximum + 1))
        if minimum:
            yield from ("x" * (minimum - 1), *(["   "] if field.trim else []))
    elif isinstance(field, Email):
        yield from (1, "", "x", "a@", "@example.com", "a b@example.com", "a@b c", "x" * 320 + "@example.com")
        yield "\ufdfa" * 20 + "@example.com"  # 320 characters and more, once it is normalised
    elif isinstance(field, fields.List):
        yield from ("", {}, 1, [], [None], [1], [[]], ["x" * 501], ["\x00"], [""])
    elif isinstance(field, Boolean):
        yield from ("", "true", "false", "yes", 0, 1)
    elif isinstance(field, Integer):
        yield from ("", "1", 1.0, 2**63, -(2**63) - 1)
    elif isinstance(field, Time):
        yield from _wrong_times()
        yield 1
    else:  # ids, and one of a few words
        yield from ("", "x", 1, "x" * 10_000, ID[:-1])


def bad_bodies(route: Route) -> list[Any]:
    assert route.body is not None
    valid, schema = VALID[route.body.__name__], route.body()
    cases = []
    for name, field in schema.fields.items():
        if name in valid:
            cases += [(name, {**valid, name: value}) for value in wrong_values(field)]
        if field.required:
            cases.append((name, {key: value for key, value in valid.items() if key != name}))
    cases += [(name, {**valid, name: 1}) for name in ("unknown", "", "\x00", "\ud800", "x" * 10_000)]
    return cases


HANGUL = re.compile("[가-힣]")


def assert_invalid(answer: Answer, field: str) -> None:
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed"), answer.text[:300]
    assert answer.mimetype == "application/problem+json"
    assert list(answer.json["errors"]) == [field], answer.text[:300]
    assert _messages(answer.json["errors"][field])
    if answer.headers["Content-Language"] == "ko":
        said = [each for each in _messages(answer.json["errors"]) if len(each) <= LONGEST]
        assert [each for each in said if not HANGUL.search(each)] == []


@pytest.mark.parametrize("route", BODY_ROUTES, ids=str)
def test_a_body_that_is_no_object_is_422(scene: "Scene", route: Route) -> None:
    for name, data in NOT_AN_OBJECT.items():
        answer = scene.send(route, data)
        assert answer.status_code == 422, name
        assert_invalid(answer, "_body")


@pytest.mark.parametrize("route", BODY_ROUTES, ids=str)
def test_a_field_that_is_wrong_is_422_and_named(scene: "Scene", route: Route) -> None:
    for field, body in bad_bodies(route):
        assert_invalid(scene.send(route, json.dumps(body).encode()), field)


@pytest.mark.parametrize("route", BODY_ROUTES, ids=str)
def test_the_good_body_is_not_422(scene: "Scene", route: Route) -> None:
    """What the refusals above are measured against."""
    assert route.body is not None
    answer = scene.send(route, json.dumps(VALID[route.body.__name__]).encode())
    if answer.status_code == 422:
        assert set(answer.json["errors"]) <= SECRETS
    else:
        assert answer.status_code in {200, 201, 202, 204, 401, 404, 409}, answer.text


def nested() -> Iterator[Any]:
    """Every field of what a body has a list of."""
    for route in BODY_ROUTES:
        assert route.body is not None
        for name, field in route.body().fields.items():
            if isinstance(field, fields.List) and isinstance(field.inner, fields.Nested):
                for inner in field.inner.schema.fields:
                    yield pytest.param(route, name, inner, id=f"{route}-{inner}")


@pytest.mark.parametrize(("route", "name", "inner"), list(nested()))
def test_a_field_in_a_list_that_is_wrong_is_named_by_its_place(
    scene: "Scene", route: Route, name: str, inner: str
) -> None:
    assert route.body is not None
    listed: Any = route.body().fields[name]
    (good,) = VALID[route.body.__name__][name]
    for value in wrong_values(listed.inner.schema.fields[inner]):
        body = {name: [good, {**good, inner: value}]}
        answer = scene.send(route, json.dumps(body).encode())
        assert_invalid(answer, name)
        assert list(answer.json["errors"][name]) == ["1"]
        assert list(answer.json["errors"][name]["1"]) == [inner]


def texts() -> Iterator[Any]:
    for route in BODY_ROUTES:
        assert route.body is not None
        for name, field in route.body().fields.items():
            if isinstance(field, Text) and name not in {"role", "email", "replacement"}:
                yield pytest.param(route, name, *_limits(field), id=f"{route}-{name}")


@pytest.mark.parametrize(("route", "field", "minimum", "maximum"), list(texts()))
def test_both_sides_of_each_length(app: Flask, route: Route, field: str, minimum: int, maximum: int) -> None:
    scene = Scene(make_team(app, roles=()), make_person(app))
    valid = VALID[route.body.__name__] if route.body else {}
    for length, fits in ((minimum - 1, False), (minimum, True), (maximum, True), (maximum + 1, False)):
        if length < 0:
            continue
        # Counted in characters, whatever each takes in UTF-8; an address of its own for each that registers.
        body = {**valid, field: ("x" if names_a_role(route, field) else "\U0001f30a") * length}
        if "email" in body:
            body["email"] = f"{field}-{length}-{scene.person.id}@example.com"
        answer = scene.send(route, json.dumps(body, ensure_ascii=False).encode())
        if not fits:
            assert_invalid(answer, field)
        elif field in SECRETS and answer.status_code == 422:
            assert not any(" length " in message.lower() for message in _messages(answer.json["errors"]))
        else:
            assert answer.status_code in {200, 201, 401, 404, 409}, answer.text


def names_a_role(route: Route, field: str) -> bool:
    return route.body is not None and isinstance(route.body().fields[field], RoleName)


@pytest.mark.parametrize(
    "query",
    [
        *(f"limit={value}" for value in ("0", "-1", "201", "", "x", "1.5", "1_0", "%20", "9" * 5_000, "%00")),
        *(
            f"cursor={value}"
            for value in ("", "x", "%00", "%FF", "bnVsbA", "W10", "WyIiXQ", "WzFd", "x" * 3_000)
        ),
        "unknown=1",
        "%00=1",
        "%FF=1",
    ],
    ids=lambda query: query[:20],
)
@pytest.mark.parametrize("route", LIST_ROUTES, ids=str)
def test_a_bad_page_of_any_list_is_422(scene: "Scene", route: Route, query: str) -> None:
    answer = scene.ask(route, query)
    name = query.partition("=")[0]
    assert_invalid(answer, "\x00" if name == "%00" else name)


@pytest.mark.parametrize("limit", [1, 200])
@pytest.mark.parametrize("route", LIST_ROUTES, ids=str)
def test_the_limits_of_a_page_are_included(scene: "Scene", route: Route, limit: int) -> None:
    answer = scene.ask(route, {"limit": limit})
    assert answer.status_code == 200
    assert len(answer.json["items"]) <= limit
    envelope = {"items", "next_cursor"}
    if route.rule.endswith("/<uuid:team_id>/activity"):
        envelope.add("previous_cursor")  # the list that can be read both ways
    assert set(answer.json) >= envelope if route.body else set(answer.json) == envelope


@pytest.mark.parametrize("name", ["since", "until"])
def test_a_bad_time_is_422(scene: "Scene", name: str) -> None:
    for value in _wrong_times():
        answer = scene.team.owner.get(f"{scene.team.path}/activity", query_string={name: value})
        assert_invalid(answer, name)
    good = scene.team.owner.get(
        f"{scene.team.path}/activity", query_string={name: "2026-01-01T00:00:00+02:00"}
    )
    assert good.status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("action", ""),
        ("action", "\x00"),
        ("action", "x" * 101),
        ("user_id", "x"),
        ("resource_id", "x"),
        ("resource_type", "\x00"),
        ("resource_type", ""),
        ("q", ""),
        ("q", "a\x00"),
        ("q", "x" * 201),
    ],
)
def test_a_bad_filter_of_the_log_is_422(scene: "Scene", name: str, value: str) -> None:
    assert_invalid(scene.team.owner.get(f"{scene.team.path}/activity", query_string={name: value}), name)


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        ("", "from=x", "from"),
        ("", "to=2026-02-30", "to"),
        ("", "to=2026-01-01T00:00:00Z", "to"),
        ("", "from=2026-01-02&to=2026-01-01", "to"),
        ("", "from=2025-01-01&to=2026-01-03", "from"),
        ("", "from=0000-01-01", "from"),
        ("/monthly", "month=1", "year"),
        ("/monthly", "year=2026", "month"),
        ("/monthly", "year=2026&month=0", "month"),
        ("/monthly", "year=2026&month=13", "month"),
        ("/monthly", "year=1999&month=1", "year"),
        ("/monthly", "year=9999&month=1", "year"),
        ("/monthly", "year=2026&month=x", "month"),
    ],
)
def test_a_bad_range_of_the_usage_is_422(scene: "Scene", path: str, query: str, name: str) -> None:
    assert_invalid(scene.team.owner.get(f"{scene.team.path}/usage{path}", query_string=query), name)


def test_a_status_that_no_task_has_is_422(scene: "Scene") -> None:
    path = f"{scene.team.path}/workspaces/{scene.team.workspace_id}/tasks"
    assert_invalid(scene.team.owner.get(path, query_string={"status": "open"}), "status")
    assert scene.team.owner.get(path, query_string={"status": "pending"}).status_code == 200


def test_a_body_is_read_whatever_it_is_called(team: TeamSetting) -> None:
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "application/json", ""):
        answer = team.owner.patch(team.path, data=b'{"name": "Curl"}', content_type=content_type)
        assert answer.status_code == 200, content_type


def test_a_number_that_no_double_holds_is_422(team: TeamSetting) -> None:
    task = team.task()
    path = f"{team.path}/tasks/{task['id']}"
    assert team.member.post(f"{path}/start").status_code == 200
    assert_invalid(team.member.post(f"{path}/complete", data=b'{"result": [1e400]}'), "result")
    done = team.member.post(f"{path}/complete", data=b'{"result": [1e308]}')
    assert (done.status_code, done.json["result"]) == (200, [10**308])


def test_a_body_larger_than_a_mebibyte_is_413(team: TeamSetting) -> None:
    fits = b'{"name": "x"}'.ljust(1024 * 1024)
    assert team.owner.patch(team.path, data=fits).status_code == 200
    answer = team.owner.patch(team.path, data=fits + b" ")
    assert (answer.status_code, answer.json["code"]) == (413, "body_too_large")


def test_a_result_may_be_any_json_within_32_levels(team: TeamSetting) -> None:
    results: list[Any] = [None, False, 0, "", [], {}, 10**300, -(2**63) - 1, 1e-300, "🌊\n", {"": {"": 1}}]
    for result in (*results, _nested(32)):
        task = team.task()
        assert team.member.post(f"{team.path}/tasks/{task['id']}/start").status_code == 200
        done = team.member.post(
            f"{team.path}/tasks/{task['id']}/complete", data=json.dumps({"result": result})
        )
        assert (done.status_code, done.json["result"]) == (200, result)
        assert team.viewer.get(f"{team.path}/tasks/{task['id']}").json["result"] == result


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
    | st.sampled_from(
        ["\x00", "\ud800", ID, "2026-01-01T00:00:00Z", "a@example.com", "admin", 2**63, -1, "x" * 600]
    ),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("route", BODY_ROUTES, ids=str)
def test_no_json_makes_a_server_error(scene: "Scene", route: Route) -> None:
    assert route.body is not None
    names = st.sampled_from(sorted(route.body().fields))

    @settings(
        max_examples=25,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(JSON_VALUES | st.dictionaries(names, JSON_VALUES, max_size=4))
    def throw(value: Any) -> None:
        assert scene.send(route, json.dumps(value).encode()).status_code < 500

    throw()


class Scene:
    """Where every route leads to something."""

    def __init__(self, team: TeamSetting, person: Person) -> None:
        self.team, self.person = team, person
        self.task_id = team.task()["id"]
        self.webhook_id = make_webhook(team, enabled=False)["id"]
        backfill = team.owner.post(f"{team.path}/usage/backfills", json=VALID["BackfillCreateSchema"])
        self.backfill_id = backfill.json["id"]

    def call(self, route: Route, **kwargs: Any) -> Answer:
        """As somebody whose browser asks for Korean."""
        kwargs["headers"] = {"Accept-Language": "ko"}
        # A member who is nobody: a role that some input happens to name can't be taken from anyone.
        path = route.path(
            team_id=self.team.id,
            workspace_id=self.team.workspace_id,
            task_id=self.task_id,
            webhook_id=self.webhook_id,
            backfill_id=self.backfill_id,
        )
        if route.is_public:
            return self.person.client.open("/api/v1" + path, method=route.method, **kwargs)
        return self.team.owner.call(route.method, path, **kwargs)

    def ask(self, route: Route, query: Any) -> Answer:
        """A page of a list; some are the answer to a question in the body."""
        data = json.dumps(VALID[route.body.__name__]) if route.body else None
        return self.call(route, query_string=query, data=data)

    def send(self, route: Route, data: bytes) -> Answer:
        return self.call(route, data=data, content_type="application/json")


@pytest.fixture(scope="module")
def scene(app: Flask) -> Scene:
    return Scene(make_team(app, roles=()), make_person(app))


def _messages(value: Any) -> list[str]:
    """Every message, however deep under places and fields."""
    if isinstance(value, dict):
        return [message for item in value.values() for message in _messages(item)]
    assert all(isinstance(message, str) and message for message in value)
    return list(value)


def _wrong_times() -> list[str]:
    return [
        "",
        "x",
        "now",
        "1767225600",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-13-01T00:00:00Z",
        "2026-01-01T25:00:00Z",
        "2026-01-01T00:00:00Z\x00",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "99999-01-01T00:00:00Z",
    ]


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value

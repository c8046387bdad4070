"""What pages say, in both languages: complete catalogues, the log's sentences, Korean particles."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from string import Formatter
from typing import Any

import pytest
from babel.messages.pofile import read_po
from flask import Flask
from flask_babel import gettext
from uuid_utils.compat import uuid7

from api import translations
from api.console import language
from api.console.particles import Word, particle
from api.console.sentences import sentence
from api.console.words import action_name, in_words, resource_name
from models.events.catalogue import CATALOGUE
from models.queries.activity import ActivityView
from models.tables import ActivityLog


@contextmanager
def reading(app: Flask, code: str) -> Iterator[None]:
    with app.test_request_context(headers={"Accept-Language": code}):
        yield


def view_of(action: str, details: dict[str, Any] | None = None, **names: Any) -> ActivityView:
    declared = CATALOGUE.get(action)
    row = ActivityLog(
        action=action,
        details=details or {},
        resource_type=declared.resource_type if declared else "team",
        resource_name=names.pop("resource_name", None),
        agent_id=uuid7() if "agent_name" in names else None,
    )
    values = {"actor_name": None, "agent_name": None, "subject_name": None, **names}
    return ActivityView(row, **values)


def said(view: ActivityView) -> str:
    return sentence(view).striptags()


def test_nothing_lacks_korean_and_what_is_compiled_is_current() -> None:
    assert translations.complaints() == []


def test_what_is_missing_or_stale_is_told(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ko" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    source = (translations.DIRECTORY / "ko" / "LC_MESSAGES" / "messages.po").read_text("utf-8")
    without = source.replace('msgstr "로그아웃"', 'msgstr ""')
    assert without != source
    (folder / "messages.po").write_text(without, encoding="utf-8")
    monkeypatch.setattr(translations, "DIRECTORY", tmp_path)
    assert translations.complaints() == ["ko lacks: Sign out", "messages.mo of ko is out of date"]
    assert translations.update() == {"ko": ["Sign out"]}
    assert translations.complaints() == ["ko lacks: Sign out"]


def test_a_translation_keeps_every_place_that_its_message_has() -> None:
    places = re.compile(r"%\(\w+\)[sd]|\{\w+(?=[:}])")

    def named_in(text: Any) -> list[str]:
        """Of a plural, what its last form names."""
        return sorted(set(places.findall(text if isinstance(text, str) else text[-1])))

    with (translations.DIRECTORY / "ko" / "LC_MESSAGES" / "messages.po").open("rb") as file:
        messages = [each for each in read_po(file, locale="ko") if each.id]
    assert len(messages) > 300
    assert [each.id for each in messages if named_in(each.id) != named_in(each.string)] == []


@pytest.mark.parametrize("action", sorted(CATALOGUE))
def test_an_events_sentence_is_the_catalogues_in_english_and_whole_in_korean(app: Flask, action: str) -> None:
    wanted = {name for _, name, _, _ in Formatter().parse(CATALOGUE[action].sentence) if name}
    details = {
        name: 7 if name in {"count", "days"} else f"<{name}>" for name in wanted - {"actor", "resource"}
    }
    view = view_of(action, details, actor_name="Kim", resource_name="요약")
    with reading(app, "en"):
        assert said(view) == view.summary
    with reading(app, "ko"):
        text = said(view)
    assert text.startswith("Kim 님이 ")
    assert all(str(value) in text for value in details.values())
    if "resource" in wanted:
        assert "요약" in text


def test_agents_the_system_and_unknown_actions_have_sentences_too(app: Flask) -> None:
    by_agent = view_of("task_created", actor_name="김민지", agent_name="Digest", resource_name="주간 요약")
    by_system = view_of("task_returned", resource_name="주간 요약")
    with reading(app, "en"):
        assert said(by_agent) == "Digest for 김민지 created the task 주간 요약"
        assert said(by_system).startswith("The system made")
        assert said(view_of("from_the_future")) == "from_the_future"
        assert said(view_of("task_completed", actor_name="Kim")) == "Kim: task completed task"
    with reading(app, "ko"):
        assert said(by_agent) == "Digest(김민지 님 대리)가 ‘주간 요약’ 작업을 만들었습니다"  # noqa: RUF001
        assert said(by_system).startswith("시스템이 ")


def test_kept_values_are_read_in_words(app: Flask) -> None:
    role_changed = view_of(
        "member_role_changed",
        {"from_role": "viewer", "role": "auditor"},
        actor_name="Kim",
        subject_name="이서준",
    )
    with reading(app, "ko"):
        assert said(role_changed) == "Kim 님이 이서준 님의 역할을 뷰어에서 auditor(으)로 바꿨습니다"
        assert (in_words("admin"), in_words("auditor")) == ("관리자", "auditor")
        assert action_name("task_created") == "작업 생성"
    with reading(app, "en"):
        assert action_name("api_key_created") == "API key created"
        assert resource_name("api_key") == "API key"


@pytest.mark.parametrize(
    ("word", "wanted", "form"),
    [
        ("작업", "을", "을"), ("보고서", "을", "를"), ("시스템", "이", "이"), ("관리자", "으로", "로"),
        ("서울", "으로", "로"), ("서울", "을", "을"), ("팀", "으로", "으로"), ("Kim", "이", "이"), ("Lee", "이", "가"),
        ("Emil", "은", "은"), ("Emil", "으로", "로"), ("Park", "이", "이(가)"), ("Clark", "으로", "(으)로"),
        ("3", "과", "과"), ("2", "과", "와"), ("1", "으로", "로"), ("10", "을", "을"), ("민지 (Design)", "은", "은"),
        ("", "을", "을(를)"), ("…", "이", "이(가)"), ("日本", "이", "이(가)"),
    ],
)  # fmt: skip
def test_a_particle_follows_the_last_sound(word: str, wanted: str, form: str) -> None:
    assert particle(word, wanted) == form
    assert f"{Word(word):{wanted}}" == word + form


def test_a_word_may_be_shown_otherwise() -> None:
    assert f"{Word('팀', '<b>팀</b>'):을}" == "<b>팀</b>을"
    assert f"{Word('팀')}" == "팀"


def test_a_sentence_marks_who_and_what_and_escapes_them(app: Flask) -> None:
    view = view_of("task_failed", {"error": "<i>"}, actor_name="<Kim>", resource_name="A & B")
    with reading(app, "en"):
        assert sentence(view) == (
            "<b>&lt;Kim&gt;</b> reported the task <b>A &amp; B</b> as failed: &lt;i&gt;"
        )


def test_the_language_is_what_was_chosen_else_what_the_browser_asks_for(app: Flask) -> None:
    for asked, cookie, expected in (
        ("ko-KR,ko;q=0.9,en;q=0.8", None, "로그인"),
        ("de,fr", None, "Sign in"),
        ("en", "ko", "로그인"),
        ("ko", "en", "Sign in"),
        ("ko", "xx", "로그인"),
    ):
        headers = {"Accept-Language": asked} | ({"Cookie": f"{language.COOKIE}={cookie}"} if cookie else {})
        with app.test_request_context(headers=headers):
            assert gettext("Sign in") == expected

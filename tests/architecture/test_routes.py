"""Deny by default: every route declares what it needs, or the application does not start."""

import pytest
from flask import Flask
from flask.views import MethodView

import api
from api.resource import PUBLIC, Requirement, requirement_of, requires
from models.access.permissions import Permission


def test_every_route_declares_what_it_needs(app: Flask) -> None:
    api.refuse_undeclared_routes(app)
    assert len(list(app.url_map.iter_rules())) > 20


def test_a_function_without_a_declaration_is_refused() -> None:
    app = Flask("sample", static_folder=None)
    app.add_url_rule("/declared", "declared", requires(PUBLIC)(lambda: ""))
    api.refuse_undeclared_routes(app)
    app.add_url_rule("/undeclared", "undeclared", lambda: "")
    with pytest.raises(RuntimeError, match=r"GET /undeclared"):
        api.refuse_undeclared_routes(app)


def test_one_method_without_a_declaration_is_refused() -> None:
    class Sample(MethodView):
        @requires(Permission.teams_read)
        def get(self) -> str:
            return ""

        def delete(self) -> str:
            return ""

    app = Flask("sample", static_folder=None)
    app.add_url_rule("/sample", view_func=Sample.as_view("sample"))
    with pytest.raises(RuntimeError, match=r"\['DELETE /sample'\]"):
        api.refuse_undeclared_routes(app)


def test_an_application_with_an_undeclared_route_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    register = api.metering.register

    def register_and_more(app: Flask) -> None:
        register(app)
        app.add_url_rule("/forgotten", "forgotten", lambda: "")

    assert api.create_app()
    monkeypatch.setattr(api.metering, "register", register_and_more)
    with pytest.raises(RuntimeError, match="GET /forgotten"):
        api.create_app()


def test_a_declaration_is_read_from_its_view() -> None:
    @requires(Permission.teams_read, unless_self="user_id")
    def view() -> None: ...

    assert requirement_of(view) == Requirement(Permission.teams_read, "user_id")
    assert requirement_of(lambda: None) is None

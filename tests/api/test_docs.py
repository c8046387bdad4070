"""The OpenAPI document and the page that shows it."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from api.docs import document
from tests.api.routes import CONVERTER, ROUTES, Route
from tests.factories import Answer


@pytest.fixture
def paths(app: Flask) -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = document(app)["paths"]
    return found


def test_the_document_is_served_and_valid(app: Flask, client: FlaskClient) -> None:
    answer: Answer = client.get("/api/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.json == document(app)
    validate(answer.json)


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_every_route_is_documented(paths: dict[str, dict[str, dict[str, object]]], route: Route) -> None:
    described = paths[CONVERTER.sub("{", route.rule).replace(">", "}")][route.method.lower()]
    assert described["summary"]
    assert ("requestBody" in described) is (route.body is not None)


def test_the_page_needs_no_other_host(client: FlaskClient) -> None:
    page: Answer = client.get("/api/docs")
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert "//" not in page.text.replace("</", "")
    for name, mimetype in (
        ("start.js", "text/javascript"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui.css", "text/css"),
    ):
        assert f"docs/{name}" in page.text
        asset = client.get(f"/api/docs/{name}")
        assert (asset.status_code, asset.mimetype) == (200, mimetype)
        asset.close()


@pytest.mark.parametrize("name", ["nothing.js", "../docs.py", "..%2f..%2fdocs.py", "%00"])
def test_nothing_else_is_served(client: FlaskClient, name: str) -> None:
    answer: Answer = client.get(f"/api/docs/{name}")
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def test_the_document_says_what_each_route_needs(paths: dict[str, dict[str, dict[str, object]]]) -> None:
    assert paths["/api/v1/auth/login"]["post"]["security"] == []
    removal = paths["/api/v1/teams/{team_id}/members/{user_id}"]["delete"]
    assert "security" not in removal  # so the document's own, a bearer credential
    assert "`members:delete`" in str(removal["description"])
    assert "owner" in str(paths["/api/v1/teams/{team_id}"]["delete"]["description"])

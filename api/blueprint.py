"""flask-smorest's Blueprint with our parser, and every list in the one envelope."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import Schema

from api.json import StrictParser
from api.schemas.base import page_of

BASE = "/api/v1"
BINARY = {"type": "string", "format": "binary"}
F = TypeVar("F", bound=Callable[..., Any])


class Blueprint(SmorestBlueprint):  # type: ignore[misc]  # flask-smorest has no types
    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, noun: str, description: str) -> None:
        super().__init__(noun, f"api.{noun}", url_prefix=BASE, description=description)

    def body(self, schema: type[Schema]) -> Callable[[Any], Any]:
        """The parsed body becomes the method's first argument."""
        decorate: Callable[[Any], Any] = self.arguments(schema, location="json", error_status_code=422)
        return decorate

    def query(self, schema: type[Schema]) -> Callable[[Any], Any]:
        """The parsed query string becomes the method's first argument."""
        decorate: Callable[[Any], Any] = self.arguments(schema, location="query", error_status_code=422)
        return decorate

    def shows(self, schema: type[Schema], status: int = 200) -> Callable[[Any], Any]:
        decorate: Callable[[Any], Any] = self.response(status, schema)
        return decorate

    def lists(self, schema: type[Schema], *, both_ways: bool = False) -> Callable[[Any], Any]:
        decorate: Callable[[Any], Any] = self.response(200, page_of(schema, both_ways))
        return decorate

    def shows_nothing(self) -> Callable[[Any], Any]:
        """204, for what is done and has nothing to show."""
        decorate: Callable[[Any], Any] = self.response(204)
        return decorate

    def sends(self, content_type: str, *others: str) -> Callable[[F], F]:
        """A file in one of these types, which the method makes the answer of by itself."""

        def decorate(method: F) -> F:
            described: F = self.response(200, BINARY, content_type=content_type)(method)
            return self.sends_too(*others)(described)

        return decorate

    def sends_too(self, *content_types: str) -> Callable[[F], F]:
        """What the method may answer with instead of what it shows."""
        content = {content_type: {"schema": BINARY} for content_type in content_types}
        decorate: Callable[[F], F] = self.doc(responses={200: {"content": content}} if content else {})
        return decorate

    def refuses(self, *statuses: int) -> Callable[[F], F]:
        """Documents refusals of this route alone; those of all routes of its kind are there already (api/docs.py)."""

        def decorate(method: F) -> F:
            for status in statuses:
                method = self.alt_response(status, description="")(method)
            return method

        return decorate

"""flask-smorest's Blueprint with our parser, and every list in the one envelope."""

from collections.abc import Callable
from typing import Any

from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import Schema

from api.json import StrictParser
from api.schemas.base import page_of

BASE = "/api/v1"


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

    def sends(self, content_type: str) -> Callable[[Any], Any]:
        """A file, which the method makes the answer of by itself."""
        binary = {"type": "string", "format": "binary"}
        decorate: Callable[[Any], Any] = self.response(200, binary, content_type=content_type)
        return decorate

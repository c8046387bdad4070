"""Price books for tests: the shipped one, with changes."""

import json
from copy import deepcopy
from typing import Any

from models.database import transaction
from models.operations import price_books
from models.plans import SHIPPED

BODY: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
REISSUE = 2
"""The version of `load_reissue`."""


def changed(version: int, **plans: dict[str, Any]) -> dict[str, Any]:
    """The shipped book as another version. Of each plan named: `seats`, `base`, or terms by metric, which replace fields of those."""
    body = deepcopy(BODY)
    body["version"] = version
    for plan in body["plans"]:
        for key, value in plans.get(plan["name"], {}).items():
            if key in plan:
                plan[key] = value
            else:
                plan["metrics"].setdefault(key, {}).update(value)
    return body


def hard(included: int) -> dict[str, Any]:
    return {"included": included, "limit": "hard"}


def load(body: dict[str, Any]) -> bool:
    with transaction() as session:
        return price_books.load(session, body)


def load_reissue() -> int:
    """
    The version of a book that says what the shipped one does. In a database that tests share no other may be loaded: its plans
    would be everybody's.
    """
    load(changed(REISSUE))
    return REISSUE

"""What an update changed, for its event; of a secret, only that it changed."""

from typing import Any

from sqlalchemy.orm import Session

from models.base import Base

SECRET_WORDS = frozenset({"secret", "secrets", "token", "password", "hash", "salt", "code"})
"""A column with one of these in its name holds a secret, or what proves to know one: no event tells its value."""
MASKED = "***"


def is_secret(name: str) -> bool:
    return not SECRET_WORDS.isdisjoint(name.split("_"))


def apply_changes(session: Session, row: Base, values: dict[str, Any]) -> dict[str, list[Any]]:
    """
    Sets the values that differ and returns them as `{field: [before, after]}`, secrets masked; empty when nothing changed.

    The row comes back as the database has it, `updated_at` included.
    """
    changes = {
        name: [getattr(row, name), value] for name, value in values.items() if getattr(row, name) != value
    }
    for name, (_, value) in changes.items():
        setattr(row, name, value)
    if changes:
        session.flush()  # violated constraints speak up here, and updated_at comes back
    return {name: [MASKED, MASKED] if is_secret(name) else pair for name, pair in changes.items()}

"""What an update changed, for its event."""

from typing import Any

from sqlalchemy.orm import Session

from models.base import Base


def apply_changes(session: Session, row: Base, values: dict[str, Any]) -> dict[str, list[Any]]:
    """
    Sets the values that differ and returns them as `{field: [before, after]}`; empty when nothing changed.

    The row comes back as the database has it, `updated_at` included.
    """
    changes = {
        name: [getattr(row, name), value] for name, value in values.items() if getattr(row, name) != value
    }
    for name, (_, value) in changes.items():
        setattr(row, name, value)
    if changes:
        session.flush()  # violated constraints speak up here, and updated_at comes back
    return changes

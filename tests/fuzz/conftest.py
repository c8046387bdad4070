import pytest
from argon2 import PasswordHasher

from models.access import passwords
from tests.realtime.conftest import connect_to, server, small_app, team

__all__ = ["cheap_argon2", "connect_to", "server", "small_app", "team"]


@pytest.fixture(autouse=True)
def cheap_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real argon2id with its cost turned down: nothing here is about passwords."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    passwords._nobodys_hash.cache_clear()

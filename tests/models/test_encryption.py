"""Secrets at rest: what is kept, which key reads it, and what is refused."""

import base64
from collections.abc import Callable
from dataclasses import replace

import pytest
from environs import EnvError

from models import encryption
from models.errors import Unavailable
from models.settings import Settings, settings

OLD, NEW = b"o" * 32, b"n" * 32
Use = Callable[..., None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    def use(*keys: bytes) -> None:
        configured = replace(settings(), encryption_keys=keys)
        monkeypatch.setattr(encryption, "settings", lambda: configured)

    return use


def test_the_first_key_encrypts_and_all_decrypt(use: Use) -> None:
    use(OLD)
    kept = encryption.encrypt(b"secret", context="a")
    assert b"secret" not in kept
    assert encryption.encrypt(b"secret", context="a") != kept
    assert not encryption.is_stale(kept)
    use(NEW, OLD)
    assert encryption.decrypt(kept, context="a") == b"secret"
    assert encryption.is_stale(kept)
    again = encryption.encrypt(b"secret", context="a")
    assert not encryption.is_stale(again)
    use(NEW)
    assert encryption.decrypt(again, context="a") == b"secret"
    with pytest.raises(Unavailable):
        encryption.decrypt(kept, context="a")


def test_what_was_changed_or_is_anothers_is_refused(use: Use) -> None:
    use(OLD)
    kept = encryption.encrypt(b"secret", context="a")
    with pytest.raises(Unavailable):
        encryption.decrypt(kept, context="b")
    for place in range(len(kept)):
        changed = bytearray(kept)
        changed[place] ^= 1
        with pytest.raises(Unavailable):
            encryption.decrypt(bytes(changed), context="a")
    for length in range(len(kept)):
        with pytest.raises(Unavailable):
            encryption.decrypt(kept[:length], context="a")


def test_without_a_key_nothing_is_kept_but_what_was_in_clear_is_read(use: Use) -> None:
    use()
    assert not encryption.available()
    with pytest.raises(Unavailable, match="ENCRYPTION_KEY"):
        encryption.encrypt(b"secret", context="a")
    assert encryption.encrypt_text("secret", context="a") == "secret"
    assert encryption.decrypt_text("secret", context="a") == "secret"
    assert encryption.current_prefix() == ""


def test_text_is_encrypted_once_there_is_a_key(use: Use) -> None:
    use(OLD)
    kept = encryption.encrypt_text("secret", context="a")
    assert kept.startswith("enc1:")
    assert len(kept) <= 200  # the column of second factors holds 32 characters more
    assert encryption.decrypt_text(kept, context="a") == "secret"
    assert kept.startswith(encryption.current_prefix())
    use(NEW, OLD)
    assert not kept.startswith(encryption.current_prefix())
    assert encryption.decrypt_text(kept, context="a") == "secret"


def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(value: str) -> tuple[bytes, ...]:
        monkeypatch.setenv("ENCRYPTION_KEY", value)
        return Settings.from_environment().encryption_keys

    one, two = (base64.b64encode(key).decode() for key in (OLD, NEW))
    assert found("") == ()
    assert found(one) == (OLD,)
    assert found(f"{two},{one}") == found(f"{two} {one}\n") == (NEW, OLD)
    for bad in (
        one[:-1],
        one + "A",
        base64.b64encode(b"x" * 31).decode(),
        base64.b64encode(b"x" * 33).decode(),
        "no-key!",
    ):
        with pytest.raises(EnvError, match="ENCRYPTION_KEY") as refused:
            found(bad)
        assert bad not in str(refused.value)
    monkeypatch.setenv("ENCRYPTION_KEY", one)
    assert "oooo" not in repr(Settings.from_environment())


@pytest.mark.parametrize(
    ("value", "number"), [("", 0), ("10.0.0.0/8", 1), ("10.0.0.0/8, fd00::/8", 2), ("192.0.2.1", 1)]
)
def test_private_networks(monkeypatch: pytest.MonkeyPatch, value: str, number: int) -> None:
    monkeypatch.setenv("WEBHOOK_PRIVATE_NETWORKS", value)
    assert len(Settings.from_environment().webhook_private_networks) == number


@pytest.mark.parametrize("value", ["x", "10.0.0.1/8", "10.0.0.0/33"])
def test_private_networks_that_are_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WEBHOOK_PRIVATE_NETWORKS", value)
    with pytest.raises(EnvError, match="WEBHOOK_PRIVATE_NETWORKS"):
        Settings.from_environment()

"""The settings of mail: what is taken, what is refused, and what is when nothing is said."""

from pathlib import Path

import pytest
from environs import EnvError

from models.settings import Settings


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAIL_URL", "MAIL_FROM", "PUBLIC_URL", "PORT", "AGENTHQ_DATA"):
        monkeypatch.delenv(name, raising=False)


def test_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Settings.from_environment()
    assert found.mail_url == (Path.cwd() / "var" / "mail").as_uri()
    assert (found.mail_from, found.public_url) == ("AgentHQ <agenthq@localhost>", "http://127.0.0.1:8000")
    monkeypatch.setenv("AGENTHQ_DATA", "/some where")
    monkeypatch.setenv("PORT", "8001")
    found = Settings.from_environment()
    assert (found.mail_url, found.public_url) == ("file:///some%20where/mail", "http://127.0.0.1:8001")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAIL_URL", "file:///var/mail"),
        ("MAIL_URL", "smtp://mail.example"),
        ("MAIL_URL", "smtp://user:password@mail.example:587?starttls=true"),
        ("MAIL_URL", "smtp://mail.example?starttls=false"),
        ("MAIL_URL", "smtps://user:password@mail.example"),
        ("MAIL_FROM", "hq@example.com"),
        ("MAIL_FROM", "The HQ <hq@example.com>"),
        ("PUBLIC_URL", "https://hq.example"),
        ("PUBLIC_URL", "http://hq.example:8080/path"),
    ],
)
def test_what_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(Settings.from_environment(), name.lower()) == value


def test_a_slash_at_the_end_of_the_public_url_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLIC_URL", "https://hq.example/")
    assert Settings.from_environment().public_url == "https://hq.example"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAIL_URL", ""),
        ("MAIL_URL", "mail.example"),
        ("MAIL_URL", "http://mail.example"),
        ("MAIL_URL", "file://relative/path"),
        ("MAIL_URL", "file:///var/mail?x=1"),
        ("MAIL_URL", "file:var/mail"),
        ("MAIL_URL", "smtp://"),
        ("MAIL_URL", "smtp://mail.example:x"),
        ("MAIL_URL", "smtp://mail.example:0"),
        ("MAIL_URL", "smtp://mail.example:65536"),
        ("MAIL_URL", "smtp://user@mail.example"),
        ("MAIL_URL", "smtp://mail.example/path"),
        ("MAIL_URL", "smtp://mail.example?starttls=yes"),
        ("MAIL_URL", "smtp://mail.example?tls=true"),
        ("MAIL_URL", "smtps://mail.example?starttls=true"),
        ("MAIL_FROM", ""),
        ("MAIL_FROM", "HQ"),
        ("MAIL_FROM", "hq@"),
        ("MAIL_FROM", "HQ <hq@example.com>\nBcc: eve@example.com"),
        ("PUBLIC_URL", ""),
        ("PUBLIC_URL", "hq.example"),
        ("PUBLIC_URL", "ftp://hq.example"),
        ("PUBLIC_URL", "https://hq.example?x=1"),
        ("PUBLIC_URL", "https://hq.example/\nx"),
        ("PUBLIC_URL", "https://"),
    ],
)
def test_what_is_refused_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EnvError, match=name):
        Settings.from_environment()


KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.mark.parametrize(
    ("value", "taken"),
    [("", None), (KEY, KEY), ("A" * 43 + "=", "A" * 43 + "=")],
    ids=["none", "a key", "zeros"],
)
def test_a_signing_key_is_the_base64_of_32_bytes_or_none(
    monkeypatch: pytest.MonkeyPatch, value: str, taken: str | None
) -> None:
    monkeypatch.setenv("SIGNING_KEY", value)
    found = Settings.from_environment()
    assert found.signing_key == taken
    assert KEY not in repr(found)


@pytest.mark.parametrize("value", ["x", "AAAA", KEY + "AAAA", "é" * 44, "A" * 44])
def test_another_signing_key_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for name in ("SIGNING_KEY", "RETIRED_SIGNING_KEYS"):
        monkeypatch.setenv("SIGNING_KEY", "")
        monkeypatch.setenv(name, value)
        with pytest.raises(EnvError) as refused:
            Settings.from_environment()
        assert name in str(refused.value)
        assert len(value) < 2 or value not in str(refused.value)
        monkeypatch.delenv(name)


def test_retired_keys_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETIRED_SIGNING_KEYS", f"{KEY}, {KEY[:-3]}x8=")
    assert len(Settings.from_environment().retired_signing_keys) == 2
    monkeypatch.delenv("RETIRED_SIGNING_KEYS")
    assert Settings.from_environment().retired_signing_keys == ()


BILLING = (
    "BILLING_GRACE_HOURS", "SELLER_ADDRESS", "PAYMENT_PROVIDER", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET",
    "STRIPE_API_BASE",
)  # fmt: skip


def test_nobody_charges_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BILLING:
        monkeypatch.delenv(name, raising=False)
    found = Settings.from_environment()
    assert (found.payment_provider, found.billing_grace_hours) == ("null", 24)
    assert found.stripe_api_base == "https://api.stripe.com"
    monkeypatch.setenv("SELLER_ADDRESS", "1 Quay\\nBusan")
    assert Settings.from_environment().seller_address == "1 Quay\nBusan"


def test_stripe_needs_its_keys_and_shows_them_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BILLING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PAYMENT_PROVIDER", "stripe")
    for name in ("STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET"):
        with pytest.raises(EnvError, match=name):
            Settings.from_environment()
        monkeypatch.setenv(name, "a secret")
    found = Settings.from_environment()
    assert (found.payment_provider, found.stripe_api_key) == ("stripe", "a secret")
    assert "a secret" not in repr(found)


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("BILLING_GRACE_HOURS", "0", True),
        ("BILLING_GRACE_HOURS", "672", True),
        ("BILLING_GRACE_HOURS", "-1", False),
        ("BILLING_GRACE_HOURS", "673", False),
        ("BILLING_GRACE_HOURS", "a day", False),
        ("PAYMENT_PROVIDER", "null", True),
        ("PAYMENT_PROVIDER", "paypal", False),
        ("STRIPE_API_BASE", "http://127.0.0.1:1", True),
        ("STRIPE_API_BASE", "api.stripe.com", False),
    ],
)
def test_billing_within_its_limits(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, taken: bool
) -> None:
    monkeypatch.setenv(name, value)
    if taken:
        assert str(getattr(Settings.from_environment(), name.lower())) == value
    else:
        with pytest.raises(EnvError, match=name):
            Settings.from_environment()

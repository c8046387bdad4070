"""The second factor: setting it up, signing in with it, its recovery codes, and how it holds against guessing."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pyotp
import pytest
import time_machine
from flask import Flask
from uuid_utils.compat import uuid7

from models import encryption
from models.access.credentials import hash_secret
from models.errors import Unavailable
from models.operations import second_factors
from models.settings import settings
from tests.accounts import PASSWORD, Account, Mailbox, execute, fetch, post
from tests.factories import Answer, make_person
from tests.models.concurrency import together
from workers import maintenance


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def account(app: Flask, mailbox: Mailbox) -> Account:
    return Account(app)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """The middle of a TOTP step, from which nothing moves by itself."""
    with time_machine.travel(time.time() // 30 * 30 + 15, tick=False) as traveller:
        yield traveller


@pytest.fixture
def enabled(account: Account, clock: time_machine.Traveller) -> Account:
    """Whose second factor is enabled, a minute ago."""
    account.enable_second_factor()
    clock.shift(60)
    return account


def assert_problem(answer: Answer, status: int, code: str) -> None:
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text


def assert_invalid(answer: Answer, field: str) -> None:
    assert_problem(answer, 422, "validation_failed")
    assert list(answer.json["errors"]) == [field]


def status(account: Account) -> Any:
    return account.person.get("/me/two-factor").json


def wrong(account: Account) -> str:
    """A code that is right nowhere near now."""
    near = {account.device.at(int(time.time()) + 30 * step) for step in range(-5, 6)}
    return next(code for code in (f"{number:06}" for number in range(100)) if code not in near)


def test_it_is_enabled_by_its_first_code(
    account: Account, clock: time_machine.Traveller, mailbox: Mailbox
) -> None:
    other = account.another_session()
    assert status(account) == {"enabled": False, "recovery_codes_left": 0}
    begun = account.person.post("/me/two-factor", json={"password": PASSWORD})
    assert begun.status_code == 201
    uri = pyotp.parse_uri(begun.json["uri"])
    assert isinstance(uri, pyotp.TOTP)
    assert (uri.secret, uri.name, uri.issuer) == (begun.json["secret"], account.email, "AgentHQ")
    assert (uri.digits, uri.interval) == (6, 30)
    assert status(account)["enabled"] is False
    assert account.sign_in().status_code == 200  # until it is confirmed
    confirmed = account.person.post("/me/two-factor/confirm", json={"code": uri.now()})
    assert confirmed.status_code == 200
    codes = confirmed.json["recovery_codes"]
    assert len(set(codes)) == len(codes) == 10
    assert status(account) == {"enabled": True, "recovery_codes_left": 10}
    assert [person.get("/me").status_code for person in (account.person, other)] == [200, 401]
    (event,) = [row for row in account.events() if row["action"] == "two_factor_enabled"]
    assert event["details"] == {"sessions_ended": 2}
    assert "Two-factor authentication is on" in [mail["Subject"] for mail in mailbox.of(account.email)]


def test_beginning_needs_the_password_and_begins_anew_until_confirmed(account: Account) -> None:
    begin = account.person.post("/me/two-factor", json={"password": "a wrong password"})
    assert_invalid(begin, "password")
    assert_problem(account.person.post("/me/two-factor/confirm", json={"code": "123456"}), 409, "conflict")
    secrets = [
        account.person.post("/me/two-factor", json={"password": PASSWORD}).json["secret"] for _ in range(2)
    ]
    assert secrets[0] != secrets[1]
    first, second = (pyotp.TOTP(secret).now() for secret in secrets)
    assert_invalid(account.person.post("/me/two-factor/confirm", json={"code": first}), "code")
    assert account.person.post("/me/two-factor/confirm", json={"code": second}).status_code == 200
    assert_problem(account.person.post("/me/two-factor", json={"password": PASSWORD}), 409, "conflict")
    assert_problem(account.person.post("/me/two-factor/confirm", json={"code": second}), 409, "conflict")


def test_signing_in_needs_a_code(enabled: Account) -> None:
    assert_problem(enabled.sign_in(), 401, "second_factor_required")
    refused = enabled.sign_in(code=wrong(enabled))
    assert_problem(refused, 401, "unauthenticated")
    assert enabled.sign_in(code=enabled.device.now()).status_code == 200


def kept_secret(account: Account) -> str:
    (row,) = fetch("SELECT secret FROM second_factors WHERE user_id = :id", id=account.person.id)
    return str(row.secret)


def test_the_secret_lies_encrypted_for_its_person_alone(enabled: Account, account: Account) -> None:
    kept = kept_secret(enabled)
    assert kept.startswith(encryption.current_prefix())
    assert enabled.device.secret not in kept
    context = f"second_factor:{enabled.person.id}"
    assert encryption.decrypt_text(kept, context=context) == enabled.device.secret
    with pytest.raises(Unavailable):
        encryption.decrypt_text(kept, context=f"second_factor:{uuid7()}")


def test_a_secret_in_clear_or_under_another_key_is_brought_under_the_first(
    enabled: Account, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were kept before there was a key; and those of a key that is to go."""

    def use(*keys: bytes) -> None:
        configured = replace(settings(), encryption_keys=keys)
        for module in (encryption, second_factors):
            monkeypatch.setattr(module, "settings", lambda: configured)

    def sign_in() -> int:
        clock.shift(60)
        return int(enabled.sign_in(code=enabled.device.now()).status_code)

    (key,) = settings().encryption_keys
    secret, user_id = enabled.device.secret, enabled.person.id
    execute("UPDATE second_factors SET secret = :secret WHERE user_id = :id", secret=secret, id=user_id)
    assert sign_in() == 200
    use()
    maintenance.encrypt_again()
    assert kept_secret(enabled) == secret
    for keys in ((key,), (b"n" * 32, key)):
        use(*keys)
        maintenance.encrypt_again()
        kept = kept_secret(enabled)
        assert kept.startswith(encryption.current_prefix())
        maintenance.encrypt_again()
        assert kept_secret(enabled) == kept
        assert sign_in() == 200
    use(key)  # too early, or the wrong one: the secret can't be read, and nobody gets in without it
    maintenance.encrypt_again()
    assert kept_secret(enabled) == kept
    assert sign_in() == 503
    use(b"n" * 32)
    assert sign_in() == 200


def test_nobody_learns_of_it_without_the_password(app: Flask, enabled: Account) -> None:
    plain = Account(app)
    answers = [
        each.sign_in("a wrong password", **values)
        for each in (enabled, plain)
        for values in ({}, {"code": "123456"}, {"code": each.device.now() if each is enabled else "123456"})
    ]
    told = [(answer.status_code, {**answer.json, "request_id": None}) for answer in answers]
    assert all(each == told[0] for each in told)
    assert_problem(answers[0], 401, "unauthenticated")
    # Nor does a guess at the password use a code up, or count as a guess at the code.
    assert enabled.sign_in(code=enabled.device.now()).status_code == 200


def test_a_code_without_a_second_factor_does_no_harm(account: Account) -> None:
    assert account.sign_in(code="123456").status_code == 200


@pytest.mark.parametrize(("steps", "good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_the_clock_may_be_one_step_off(enabled: Account, steps: int, good: bool) -> None:
    code = enabled.device.at(int(time.time()) + 30 * steps)
    assert enabled.sign_in(code=code).status_code == (200 if good else 401)


@pytest.mark.parametrize("typed", ["{} {}", " {}{} "])
def test_a_code_may_be_typed_with_spaces(enabled: Account, typed: str) -> None:
    code = enabled.device.now()
    assert enabled.sign_in(code=typed.format(code[:3], code[3:])).status_code == 200


@pytest.mark.parametrize("code", ["x", "12345", "1234567", "\uff11" * 6, "😀" * 6, "-", "0" * 64])
def test_what_is_no_code_is_a_wrong_one(enabled: Account, code: str) -> None:
    assert_problem(enabled.sign_in(code=code), 401, "unauthenticated")


def test_no_code_is_taken_twice(enabled: Account, clock: time_machine.Traveller) -> None:
    code, earlier = enabled.device.now(), enabled.device.at(int(time.time()) - 30)
    assert enabled.sign_in(code=code).status_code == 200
    assert enabled.sign_in(code=code).status_code == 401
    assert enabled.sign_in(code=earlier).status_code == 401  # nor one from before it
    clock.shift(30)
    assert enabled.sign_in(code=code).status_code == 401  # still within the drift
    assert enabled.sign_in(code=enabled.device.now()).status_code == 200


def test_the_code_that_confirmed_does_not_sign_in(account: Account, clock: time_machine.Traveller) -> None:
    account.enable_second_factor()
    assert account.sign_in(code=account.device.now()).status_code == 401
    clock.shift(30)
    assert account.sign_in(code=account.device.now()).status_code == 200


def test_of_many_at_once_one_signs_in_by_a_code(enabled: Account, clock: time_machine.Traveller) -> None:
    for _ in range(10):
        code = enabled.device.now()
        answers = together(*[partial(enabled.sign_in, code=code)] * 4)
        assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
        clock.shift(30)


def test_a_recovery_code_stands_in_once(
    account: Account, clock: time_machine.Traveller, mailbox: Mailbox
) -> None:
    codes = account.enable_second_factor()
    assert account.sign_in(code=codes[0]).status_code == 200
    assert status(account)["recovery_codes_left"] == 9
    assert_problem(account.sign_in(code=codes[0]), 401, "unauthenticated")
    assert account.sign_in(code=codes[1].upper().replace("-", " ")).status_code == 200
    events = [row for row in account.events() if row["action"] == "recovery_code_used"]
    assert [row["details"] for row in events] == [{"left": 8}, {"left": 9}]
    assert [m["Subject"] for m in mailbox.of(account.email)].count("A recovery code was used") == 2


def test_of_many_at_once_one_uses_a_recovery_code(account: Account, clock: time_machine.Traveller) -> None:
    for code in account.enable_second_factor():
        answers = together(*[partial(account.sign_in, code=code)] * 4)
        assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
    assert status(account) == {"enabled": True, "recovery_codes_left": 0}


def test_nobody_elses_recovery_code_is_any_good(app: Flask, enabled: Account) -> None:
    codes = Account(app).enable_second_factor()
    assert_problem(enabled.sign_in(code=codes[0]), 401, "unauthenticated")


def test_recovery_codes_are_stored_as_hashes_alone(account: Account) -> None:
    codes = account.enable_second_factor()
    kept = {
        row.code_hash
        for row in fetch("SELECT code_hash FROM recovery_codes WHERE user_id = :id", id=account.person.id)
    }
    assert kept == {hash_secret(code.replace("-", "")) for code in codes}


def test_recovery_codes_are_renewed_by_a_code(enabled: Account, clock: time_machine.Traveller) -> None:
    (old,) = fetch("SELECT code_hash FROM recovery_codes WHERE user_id = :id LIMIT 1", id=enabled.person.id)
    refused = enabled.person.post("/me/two-factor/recovery-codes", json={"code": wrong(enabled)})
    assert_invalid(refused, "code")
    renewed = enabled.person.post("/me/two-factor/recovery-codes", json={"code": enabled.device.now()})
    assert (renewed.status_code, len(set(renewed.json["recovery_codes"]))) == (200, 10)
    assert fetch("SELECT FROM recovery_codes WHERE code_hash = :old", old=old[0]) == []
    assert status(enabled)["recovery_codes_left"] == 10
    again = enabled.person.post("/me/two-factor/recovery-codes", json={"code": enabled.device.now()})
    assert_invalid(again, "code")  # it was used
    assert enabled.actions().count("recovery_codes_renewed") == 1
    assert enabled.sign_in(code=renewed.json["recovery_codes"][0]).status_code == 200


def test_disabling_needs_the_password_and_a_code(enabled: Account, mailbox: Mailbox) -> None:
    code = enabled.device.now()
    path = "/me/two-factor/disable"
    assert_invalid(enabled.person.post(path, json={"password": "a wrong password", "code": code}), "password")
    assert_invalid(enabled.person.post(path, json={"password": PASSWORD, "code": wrong(enabled)}), "code")
    assert status(enabled)["enabled"] is True
    assert enabled.person.post(path, json={"password": PASSWORD, "code": code}).status_code == 204
    assert status(enabled) == {"enabled": False, "recovery_codes_left": 0}
    assert enabled.sign_in().status_code == 200
    assert "two_factor_disabled" in enabled.actions()
    assert "Two-factor authentication is off" in [mail["Subject"] for mail in mailbox.of(enabled.email)]
    assert_problem(enabled.person.post(path, json={"password": PASSWORD, "code": code}), 409, "conflict")
    renew = enabled.person.post("/me/two-factor/recovery-codes", json={"code": code})
    assert_problem(renew, 409, "conflict")


def fail(account: Account, times: int) -> None:
    for _ in range(times):
        assert_problem(account.sign_in(code=wrong(account)), 401, "unauthenticated")


def test_four_wrong_codes_lock_nothing_and_a_right_one_begins_the_count_anew(
    enabled: Account, clock: time_machine.Traveller
) -> None:
    for _ in range(2):
        fail(enabled, 4)
        assert enabled.sign_in(code=enabled.device.now()).status_code == 200
        clock.shift(30)


def test_after_five_wrong_codes_none_is_looked_at_for_a_quarter_of_an_hour(
    enabled: Account, clock: time_machine.Traveller
) -> None:
    recovery = enabled.person.post("/me/two-factor/recovery-codes", json={"code": enabled.device.now()})
    clock.shift(30)
    fail(enabled, 5)
    right = enabled.device.now()
    for code in (right, recovery.json["recovery_codes"][0], wrong(enabled)):
        locked = enabled.sign_in(code=code)
        assert_problem(locked, 429, "rate_limited")
        assert 15 * 60 <= int(locked.headers["Retry-After"]) <= 15 * 60 + 1
    # Without the password nothing of that shows.
    assert_problem(enabled.sign_in("a wrong password", code=right), 401, "unauthenticated")
    # The routes of who is signed in are no way around it.
    for path, body in (("recovery-codes", {}), ("disable", {"password": PASSWORD})):
        answer = enabled.person.post(f"/me/two-factor/{path}", json={"code": right, **body})
        assert_problem(answer, 429, "rate_limited")
    clock.shift(15 * 60 - 1)
    locked = enabled.sign_in(code=enabled.device.now())
    assert_problem(locked, 429, "rate_limited")
    assert 1 <= int(locked.headers["Retry-After"]) <= 2
    clock.shift(2)
    assert enabled.sign_in(code=enabled.device.now()).status_code == 200


def test_guesses_at_disabling_count_too(enabled: Account) -> None:
    for _ in range(5):
        body = {"password": PASSWORD, "code": wrong(enabled)}
        assert_invalid(enabled.person.post("/me/two-factor/disable", json=body), "code")
    assert_problem(enabled.sign_in(code=enabled.device.now()), 429, "rate_limited")


def test_a_used_code_is_no_guess(enabled: Account) -> None:
    code = enabled.device.now()
    assert enabled.sign_in(code=code).status_code == 200
    for _ in range(6):
        assert_problem(enabled.sign_in(code=code), 401, "unauthenticated")


def test_many_guesses_at_once_are_all_counted(enabled: Account) -> None:
    answers = together(*[lambda: enabled.sign_in(code=wrong(enabled))] * 8)
    assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 3
    ((failures,),) = fetch("SELECT failures FROM second_factors WHERE user_id = :id", id=enabled.person.id)
    assert failures == 5


def test_no_sign_in_without_a_code_outlives_the_confirmation(
    app: Flask, clock: time_machine.Traveller
) -> None:
    for _ in range(10):
        account = Account(app)
        secret = account.person.post("/me/two-factor", json={"password": PASSWORD}).json["secret"]
        code = {"code": pyotp.TOTP(secret).now()}
        confirmed, signed_in = together(
            partial(account.person.post, "/me/two-factor/confirm", json=code), account.sign_in
        )
        assert confirmed.status_code == 200
        if signed_in.status_code == 200:
            client = app.test_client()
            headers = {"Authorization": f"Bearer {signed_in.json['token']}"}
            assert client.get("/api/v1/me", headers=headers).status_code == 401
        else:
            assert_problem(signed_in, 401, "second_factor_required")


def test_secrets_are_not_kept_for_an_idempotency_key(account: Account) -> None:
    headers = {"Idempotency-Key": uuid7().hex}
    answers = [
        account.person.post("/me/two-factor", json={"password": PASSWORD}, headers=headers) for _ in range(2)
    ]
    assert answers[0].status_code == 201
    assert_problem(answers[1], 409, "conflict")
    assert answers[1].json["id"] == account.person.id
    body = {"code": pyotp.TOTP(answers[0].json["secret"]).now()}
    headers = {"Idempotency-Key": uuid7().hex}
    path = "/me/two-factor/confirm"
    confirmed = [account.person.post(path, json=body, headers=headers) for _ in range(2)]
    assert confirmed[0].status_code == 200
    assert_problem(confirmed[1], 409, "conflict")
    kept = fetch("SELECT body FROM idempotency_keys WHERE resource_id = :id", id=account.person.id)
    assert kept == [(None,), (None,)]


def test_nothing_of_it_is_there_for_who_is_not_signed_in(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/api/v1/me/two-factor").status_code == 401
    for path in ("", "/confirm", "/recovery-codes", "/disable"):
        assert_problem(post(app, f"/me/two-factor{path}", {}), 401, "unauthenticated")


def test_a_team_that_wants_a_second_factor_lets_in_who_has_one(app: Flask, mailbox: Mailbox) -> None:
    account = Account(app)
    team = account.person.post("/teams", json={"name": "Design"}).json
    execute("UPDATE teams SET two_factor_required = true WHERE id = :id", id=team["id"])
    path = f"/teams/{team['id']}"
    assert_problem(account.person.get(path), 403, "permission_denied")
    account.enable_second_factor()
    assert account.person.get(path).status_code == 200
    assert make_person(app).get(path).status_code == 404

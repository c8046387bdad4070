"""The queue of mails, and how they leave: over SMTP to a real server, and into files."""

import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from email import message_from_string
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd import smtp
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from flask import Flask
from redis import Redis
from uuid_utils.compat import uuid7

from models.access.credentials import hash_secret
from models.database import transaction
from models.operations import invitations, mails
from models.operations.mails import Letter
from models.queries import teams
from models.settings import settings
from models.tables.accounts import RESET_PASSWORD, VERIFY_EMAIL
from tests.accounts import TOKEN, execute, fetch
from tests.factories import Person, TeamSetting, make_person
from tests.models.concurrency import together
from workers import mail
from workers.mail_texts import LONGEST_NAME, WORDS, compose, one_line
from workers.mailers import FileMailer, Mailer, Refused, SmtpMailer, mailer_for

AUTHORITY = trustme.CA()
USER, PASSWORD = "a@user", "a:pass/word"


@pytest.fixture(autouse=True)
def nothing_due() -> None:
    execute("DELETE FROM mails")


@pytest.fixture
def person(app: Flask) -> Person:
    """Whose mail to verify the address is due."""
    return make_person(app)


class Recording:
    """A mailer that keeps what it is given, or does what it is told instead."""

    def __init__(self, act: Callable[[EmailMessage], None] = lambda message: None) -> None:
        self.act = act
        self.messages: list[EmailMessage] = []

    def send(self, message: EmailMessage) -> None:
        self.act(message)
        self.messages.append(message)


def failing(error: BaseException) -> Recording:
    def fail(_: EmailMessage) -> None:
        raise error

    return Recording(fail)


def parsed(text: str) -> EmailMessage:
    """A mail as its reader gets it, with this system's line ends."""
    message = message_from_string(text.replace("\r\n", "\n"), policy=default)
    assert isinstance(message, EmailMessage)
    return message


def token_of(message: EmailMessage) -> str:
    (token,) = TOKEN.findall(message.get_content())
    return str(token)


def make_due() -> None:
    execute("UPDATE mails SET due_at = now()")


# --- the queue


def test_a_mail_is_sent_once_and_gone(person: Person) -> None:
    mailer = Recording()
    assert [mail.send_due(mailer) for _ in range(2)] == [1, 0]
    (message,) = mailer.messages
    assert message["To"] == person.email
    assert fetch("SELECT FROM mails") == []


def test_no_transaction_is_open_while_it_is_sent(person: Person) -> None:
    """The token is committed before the mail leaves, and the row can be locked by anyone meanwhile."""
    seen = []

    def look(message: EmailMessage) -> None:
        fetch("SELECT FROM mails FOR UPDATE NOWAIT")
        hash_ = hash_secret(token_of(message))
        seen.append(fetch("SELECT user_id FROM mailed_tokens WHERE token_hash = :hash", hash=hash_))

    assert mail.send_due(Recording(look)) == 1
    assert seen == [[(person.id,)]]


def test_of_two_workers_at_once_one_sends_a_mail(app: Flask) -> None:
    people = [make_person(app) for _ in range(20)]
    mailer = Recording(lambda message: time.sleep(0.002))
    counts = together(*[lambda: mail.send_due(mailer)] * 4)
    assert sum(counts) == 20
    assert sorted(message["To"] for message in mailer.messages) == sorted(each.email for each in people)


def test_of_two_tasks_at_once_one_runs(person: Person, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, go_on = [], threading.Event()

    def run(_: Mailer) -> int:
        runs.append(1)
        go_on.wait(10)
        return 0

    monkeypatch.setattr(mail, "send_due", run)
    first = threading.Thread(target=mail.send)
    first.start()
    while not redis.exists(mail.LOCK_KEY):
        time.sleep(0.01)
    mail.send()  # returns at once
    go_on.set()
    first.join(10)
    assert (len(runs), redis.exists(mail.LOCK_KEY)) == (1, 0)
    mail.send()
    assert len(runs) == 2


def test_the_task_sends_what_is_due_where_the_settings_say(
    person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured = replace(
        settings(),
        mail_url=tmp_path.as_uri(),
        public_url="https://hq.example",
        mail_from="HQ <hq@hq.example>",
    )
    monkeypatch.setattr(mail, "settings", lambda: configured)
    for _ in range(2):
        mail.send()
        (file,) = tmp_path.iterdir()
    message = parsed(file.read_text())
    assert (message["From"], message["To"]) == ("HQ <hq@hq.example>", person.email)
    assert f"https://hq.example/verify-email?token={token_of(message)}\n" in message.get_content()


class FellOver(BaseException):
    """The worker's process ends here."""


def test_a_crash_before_sending_sends_it_again_with_another_token(person: Person) -> None:
    tokens = []

    def die(message: EmailMessage) -> None:
        tokens.append(token_of(message))
        raise FellOver

    with pytest.raises(FellOver):
        mail.send_due(Recording(die))
    mailer = Recording()
    assert mail.send_due(mailer) == 0  # not at once: the other worker might still be at it
    make_due()
    assert mail.send_due(mailer) == 1
    assert token_of(mailer.messages[0]) != tokens[0]
    assert fetch("SELECT FROM mails") == []


def test_a_crash_after_sending_sends_it_again_and_both_tokens_are_good(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailer = Recording()
    with monkeypatch.context() as patched:

        def die(*_: Any) -> None:
            raise FellOver

        patched.setattr(mails, "sent", die)
        with pytest.raises(FellOver):
            mail.send_due(mailer)
    make_due()
    assert mail.send_due(mailer) == 1
    hashes = {hash_secret(token_of(message)) for message in mailer.messages}
    kept = fetch("SELECT token_hash FROM mailed_tokens WHERE user_id = :id", id=person.id)
    assert {row.token_hash for row in kept} == hashes
    assert len(hashes) == 2


def test_a_failure_is_noted_and_tried_again_later(person: Person) -> None:
    assert mail.send_due(failing(OSError("nobody there"))) == 0
    ((attempts, error, failed_at, wait),) = fetch(
        "SELECT attempts, error, failed_at, due_at - created_at FROM mails"
    )
    assert (attempts, error, failed_at) == (1, "OSError('nobody there')", None)
    assert 60 <= wait.total_seconds() < 70
    mailer = Recording()
    execute("UPDATE mails SET due_at = now() + interval '5 s'")
    assert mail.send_due(mailer) == 0
    make_due()
    assert mail.send_due(mailer) == 1


def test_the_tries_grow_rarer_for_about_a_day() -> None:
    delays = [mails.delay_after(tries).total_seconds() / 60 for tries in range(1, mails.MAXIMUM_ATTEMPTS)]
    assert delays[:8] == [1, 2, 4, 8, 16, 32, 64, 120]
    assert set(delays[8:]) == {120}
    assert 23.5 * 60 <= sum(delays) <= 24.5 * 60


def test_it_is_given_up_after_the_last_try(person: Person) -> None:
    mailer = failing(OSError("nobody there"))
    for attempt in range(1, mails.MAXIMUM_ATTEMPTS + 1):
        assert fetch("SELECT failed_at FROM mails") == [(None,)], attempt
        make_due()
        mail.send_due(mailer)
    ((attempts, failed),) = fetch("SELECT attempts, failed_at IS NOT NULL FROM mails")
    assert (attempts, failed) == (mails.MAXIMUM_ATTEMPTS, True)
    make_due()
    assert mail.send_due(Recording()) == 0


def test_a_mail_whose_last_try_killed_its_worker_is_given_up(person: Person) -> None:
    execute("UPDATE mails SET attempts = :most", most=mails.MAXIMUM_ATTEMPTS)
    mailer = Recording()
    assert mail.send_due(mailer) == 0
    assert fetch("SELECT failed_at IS NOT NULL FROM mails") == [(True,)]


def test_an_address_that_is_refused_is_given_up_at_once(person: Person) -> None:
    mail.send_due(failing(Refused("no such mailbox")))
    assert fetch("SELECT failed_at IS NOT NULL FROM mails") == [(True,)]


def test_one_that_fails_holds_up_no_other(app: Flask) -> None:
    bad, good = make_person(app), make_person(app)

    def fail(message: EmailMessage) -> None:
        if message["To"] == bad.email:
            raise OSError("broken")

    mailer = Recording(fail)
    assert mail.send_due(mailer) == 1
    assert [message["To"] for message in mailer.messages] == [good.email]


def test_failed_mails_are_kept_for_a_month(app: Flask) -> None:
    for days in (29, 31):
        make_person(app)
        execute(
            "UPDATE mails SET failed_at = now() - make_interval(days => :days) WHERE failed_at IS NULL",
            days=days,
        )
    make_person(app)
    for _ in range(2):
        with transaction() as session:
            mails.expire(session)
        left = fetch(
            "SELECT (now() - failed_at) < interval '30 days' FROM mails ORDER BY failed_at NULLS LAST"
        )
        assert left == [(True,), (None,)]


def test_the_log_of_a_failure_names_no_address(person: Person, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        mail.send_due(failing(OSError(f"{person.email} is broken")))
    assert "mail not sent" in caplog.text
    assert person.email not in caplog.text


# --- invitations


def invite(team: TeamSetting, email: str) -> invitations.Invited:
    with transaction() as session:
        access = team.owner.enter(session, team.id)
        row = teams.get(session, access, for_update=True)
        return invitations.create(session, access, row, email=email, role="viewer")


def test_an_invitation_is_mailed_with_a_token_of_its_own(team: TeamSetting) -> None:
    address = f"Kim-{uuid7().hex}@example.com"
    execute("DELETE FROM mails")
    invited = invite(team, address)
    mailer = Recording()
    assert mail.send_due(mailer) == 1
    (message,) = mailer.messages
    token = token_of(message)
    assert message["To"] == address
    assert f"{settings().public_url}/invitations/accept?token={token}\n" in message.get_content()
    assert 'to the team "Design"' in message.get_content()
    assert token != invited.token
    hashes = fetch(
        "SELECT token_hash, mailed_token_hash FROM invitations WHERE id = :id", id=invited.invitation.id
    )
    assert hashes == [(hash_secret(invited.token), hash_secret(token))]


@pytest.mark.parametrize(
    "change",
    [
        "status = 'revoked'",
        "status = 'accepted'",
        "status = 'expired'",
        "expires_at = now()",
    ],
)
def test_an_invitation_that_is_not_pending_any_more_is_not_mailed(team: TeamSetting, change: str) -> None:
    execute("DELETE FROM mails")
    invited = invite(team, f"{uuid7().hex}@example.com")
    execute(f"UPDATE invitations SET {change} WHERE id = :id", id=invited.invitation.id)
    assert mail.send_due(Recording()) == 0
    assert fetch("SELECT FROM mails") == []


def test_an_invitation_to_a_deleted_team_is_not_mailed(team: TeamSetting) -> None:
    execute("DELETE FROM mails")
    invite(team, f"{uuid7().hex}@example.com")
    execute("UPDATE teams SET deleted_at = now() WHERE id = :id", id=team.id)
    assert mail.send_due(Recording()) == 0
    assert fetch("SELECT FROM mails") == []


# --- words


def letter(kind: str = mails.INVITATION, **values: Any) -> Letter:
    defaults: dict[str, Any] = {
        "to": "kim@example.com",
        "token": "ahm_x",
        "team": "T",
        "inviter": "I",
        "role": "viewer",
        "webhook": "hooks.example",
        "reason": "failing",
        "details": {"metric": "api_calls", "threshold": 80, "used": 81_000, "included": 100_000},
    }
    return Letter(uuid7(), kind, **{**defaults, **values})


def composed(given: Letter) -> EmailMessage:
    message = compose(given, sender="HQ <hq@hq.example>", public_url="https://hq.example")
    # Not from bytes: the library would read raw UTF-8 in a header, which RFC 6532 has, as something else.
    return parsed(message.as_bytes().decode())


@pytest.mark.parametrize("kind", WORDS)
def test_every_mail_says_something(kind: str) -> None:
    message = composed(letter(kind))
    assert message["Subject"]
    assert message.get_content().startswith("Hello,\n")
    assert "https://hq.example" in message.get_content()
    assert message.get_content_type() == "text/plain"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@hq.example>")
    paths = {
        VERIFY_EMAIL: "/verify-email?token=ahm_x",
        RESET_PASSWORD: "/reset-password?token=ahm_x",
        mails.INVITATION: "/invitations/accept?token=ahm_x",
    }
    assert (paths.get(kind, "https://hq.example") + "\n") in message.get_content()
    assert ("token" in message.get_content()) is (kind in paths)


@pytest.mark.parametrize(
    "name",
    [
        "A\r\nBcc: eve@example.com",
        "A\nBcc: eve@example.com\n\nBody",
        "A\x0bB\x85C\u2028D\u2029E",
        "A\x00\x1b[2J",
        "ﷺ" * 300,
    ],
)
def test_a_name_can_add_neither_a_header_nor_a_line(name: str) -> None:
    plain, odd = composed(letter(team="T", inviter="I")), composed(letter(team=name, inviter=name))
    assert plain.keys() == odd.keys()
    assert odd["Bcc"] is None
    assert len(odd.get_content().splitlines()) == len(plain.get_content().splitlines())
    assert odd["Subject"] == f"Invitation to the team {one_line(name)}"


@pytest.mark.parametrize(("length", "cut"), [(LONGEST_NAME, False), (LONGEST_NAME + 1, True)])
def test_a_long_name_is_cut(length: int, cut: bool) -> None:
    line = one_line("x" * length)
    assert len(line) == LONGEST_NAME
    assert line.endswith("…") is cut


@pytest.mark.parametrize(
    "to", ["kim@example.com\r\nBcc: eve@example.com", "kim@example.com\nX: y", "kim\r@example.com"]
)
def test_an_address_can_add_no_header(to: str) -> None:
    with pytest.raises(ValueError, match=r"CR or LF|line feed|carriage return|header"):
        compose(letter(to=to), sender="hq@hq.example", public_url="https://hq.example")


@pytest.mark.parametrize(
    "to",
    [
        "kim@example.com",
        "o'kim+tag@example.com",
        "ångström@example.com",
        "kim@bücher.example",
        "straße@straße.example",
    ],
)
def test_an_address_stays_as_it_is(to: str) -> None:
    message = composed(letter(to=to))
    assert [address.addr_spec for address in message["To"].addresses] == [to]


# --- SMTP


class Inbox:
    """What a local SMTP server was given; `replies` answers RCPT for an address."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.encrypted: list[bool] = []
        self.replies: dict[str, str] = {}
        self.goodbye = "221 Bye"

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, server: smtp.SMTP, session: Any, envelope: Envelope, address: str, options: Any
    ) -> str:
        envelope.rcpt_tos.append(address)
        return self.replies.get(address, "250 OK")

    async def handle_DATA(self, server: smtp.SMTP, session: Any, envelope: Envelope) -> str:  # noqa: N802
        self.envelopes.append(envelope)
        self.encrypted.append(session.ssl is not None)
        return "250 OK"

    async def handle_QUIT(self, server: smtp.SMTP, session: Any, envelope: Envelope) -> str:  # noqa: N802
        return self.goodbye


def authenticate(
    server: smtp.SMTP, session: Any, envelope: Envelope, mechanism: str, data: Any
) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (
        USER.encode(),
        PASSWORD.encode(),
    )
    return AuthResult(success=good)


class LocalController(Controller):
    """On whatever port is free, which aiosmtpd would not find again."""

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@contextmanager
def smtp_server(inbox: Inbox, **options: Any) -> Iterator[int]:
    """The port of a server on localhost."""
    controller = LocalController(inbox, hostname="127.0.0.1", port=0, ready_timeout=10, **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if everybody's authorities vouched for the local server."""
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


LOGIN = "a%40user:a%3Apass%2Fword@"


def test_a_mail_goes_over_smtp(person: Person) -> None:
    inbox = Inbox()
    with smtp_server(inbox) as port:
        assert mail.send_due(mailer_for(f"smtp://localhost:{port}")) == 1
    (envelope,) = inbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("agenthq@localhost", [person.email])
    assert isinstance(envelope.content, bytes)
    message = parsed(envelope.content.decode())
    assert message["Subject"] == "Verify your e-mail address"
    assert fetch("SELECT user_id FROM mailed_tokens WHERE token_hash = :h", h=hash_secret(token_of(message)))


def test_starttls_and_a_login_before_the_mail(trusted: None) -> None:
    inbox = Inbox()
    with smtp_server(
        inbox, tls_context=tls(), require_starttls=True, auth_required=True, authenticator=authenticate
    ) as port:
        mailer_for(f"smtp://{LOGIN}localhost:{port}?starttls=true").send(composed(letter()))
    assert inbox.encrypted == [True]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # aiosmtpd does not see this TLS
def test_smtps_is_encrypted_from_the_start(trusted: None) -> None:
    inbox = Inbox()
    with smtp_server(
        inbox, ssl_context=tls(), auth_required=True, auth_require_tls=False, authenticator=authenticate
    ) as port:
        mailer_for(f"smtps://{LOGIN}localhost:{port}").send(composed(letter()))
    assert len(inbox.envelopes) == 1


def test_a_certificate_that_nobody_vouches_for_gets_no_mail() -> None:
    inbox = Inbox()
    with smtp_server(inbox, tls_context=tls()) as port, pytest.raises(ssl.SSLCertVerificationError):
        mailer_for(f"smtp://localhost:{port}?starttls=true").send(composed(letter()))
    assert inbox.envelopes == []


def test_a_certificate_of_another_host_gets_no_mail(trusted: None) -> None:
    inbox = Inbox()
    with smtp_server(inbox, tls_context=tls()) as port, pytest.raises(ssl.SSLCertVerificationError):
        mailer_for(f"smtp://127.0.0.1:{port}?starttls=true").send(composed(letter()))
    assert inbox.envelopes == []


def test_a_server_without_starttls_gets_no_mail() -> None:
    """Someone between us and the server could have taken the offer away."""
    inbox = Inbox()
    with smtp_server(inbox) as port, pytest.raises(Exception, match="STARTTLS"):
        mailer_for(f"smtp://localhost:{port}?starttls=true").send(composed(letter()))
    assert inbox.envelopes == []


@pytest.mark.parametrize(("reply", "for_good"), [("550 no such mailbox", True), ("451 later", False)])
def test_a_refused_address_is_final_only_when_the_server_says_so(
    person: Person, reply: str, for_good: bool
) -> None:
    inbox = Inbox()
    inbox.replies[person.email] = reply
    with smtp_server(inbox) as port:
        assert mail.send_due(mailer_for(f"smtp://localhost:{port}")) == 0
    assert fetch("SELECT failed_at IS NOT NULL FROM mails") == [(for_good,)]


def test_a_wrong_password_is_the_operators_to_mend_and_not_final(person: Person, trusted: None) -> None:
    inbox = Inbox()
    with smtp_server(
        inbox,
        tls_context=tls(),
        authenticator=authenticate,
        auth_required=True,
        auth_exclude_mechanism=[
            "LOGIN"
        ],  # after a refusal aiosmtpd would wait for the client, and it for aiosmtpd
    ) as port:
        assert mail.send_due(mailer_for(f"smtp://a%40user:wrong@localhost:{port}?starttls=true")) == 0
        assert fetch("SELECT failed_at FROM mails") == [(None,)]
        make_due()
        assert mail.send_due(mailer_for(f"smtp://{LOGIN}localhost:{port}?starttls=true")) == 1


def test_a_server_that_is_away_or_silent_delays_the_mail(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr("workers.mailers.TIMEOUT_S", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        mailer = mailer_for(f"smtp://127.0.0.1:{listener.getsockname()[1]}")
        assert mail.send_due(mailer) == 0  # refuses
        listener.listen()
        make_due()
        started = time.monotonic()
        assert mail.send_due(mailer) == 0  # says nothing
        assert time.monotonic() - started < 3
    assert fetch("SELECT attempts, failed_at FROM mails") == [(2, None)]


def test_an_odd_goodbye_does_not_send_it_again(person: Person) -> None:
    inbox = Inbox()
    inbox.goodbye = "500 what?"
    with smtp_server(inbox) as port:
        assert mail.send_due(mailer_for(f"smtp://localhost:{port}")) == 1
    assert len(inbox.envelopes) == 1


def test_an_address_beyond_ascii_goes_to_a_server_that_takes_it() -> None:
    message = compose(
        letter(to="ångström@bücher.example"), sender="hq@hq.example", public_url="https://hq.example"
    )
    inbox = Inbox()
    with smtp_server(inbox, enable_SMTPUTF8=True) as port:
        mailer_for(f"smtp://localhost:{port}").send(message)
    assert inbox.envelopes[0].rcpt_tos == ["ångström@bücher.example"]
    inbox = Inbox()
    with smtp_server(inbox, enable_SMTPUTF8=False) as port, pytest.raises(Exception, match="SMTPUTF8"):
        mailer_for(f"smtp://localhost:{port}").send(message)
    assert inbox.envelopes == []


@pytest.mark.parametrize(
    ("url", "mailer"),
    [
        ("smtp://mail.example", SmtpMailer("mail.example", 25)),
        ("smtp://u:p@mail.example", SmtpMailer("mail.example", 587, "u", "p")),
        ("smtp://mail.example:26?starttls=true", SmtpMailer("mail.example", 26, starttls=True)),
        ("smtp://mail.example:26?starttls=false", SmtpMailer("mail.example", 26)),
        ("smtps://u%40x:p%2F@mail.example", SmtpMailer("mail.example", 465, "u@x", "p/", tls=True)),
        ("smtp://[::1]:2525", SmtpMailer("::1", 2525)),
        ("file:///var/a%20mail", FileMailer(Path("/var/a mail"))),
    ],
)
def test_a_url_says_which_mailer(url: str, mailer: Mailer) -> None:
    assert mailer_for(url) == mailer


def test_no_repr_shows_the_servers_password() -> None:
    assert "hidden" not in repr(mailer_for("smtp://u:hidden@mail.example"))


# --- files


def test_a_mail_is_a_file_that_its_owner_alone_reads(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "mail"
    mailer = FileMailer(directory)
    for kind in (VERIFY_EMAIL, RESET_PASSWORD):
        mailer.send(compose(letter(kind), sender="hq@hq.example", public_url="https://hq.example"))
    files = sorted(directory.iterdir())
    assert [file.suffix for file in files] == [".eml"] * 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    # In the order in which they were written, and the link whole for whoever looks at the file.
    texts = [file.read_text() for file in files]
    assert "https://hq.example/verify-email?token=ahm_x\n" in texts[0]
    assert message_from_string(texts[1])["Subject"] == "Reset your password"


def test_a_link_of_real_length_stays_whole_in_the_file(person: Person, tmp_path: Path) -> None:
    assert mail.send_due(FileMailer(tmp_path)) == 1
    (file,) = tmp_path.iterdir()
    (token,) = TOKEN.findall(file.read_text())
    assert fetch("SELECT FROM mailed_tokens WHERE token_hash = :h", h=hash_secret(token))


def test_a_file_that_could_not_be_written_is_tried_again(person: Person, tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("a file in the way")
    assert mail.send_due(FileMailer(tmp_path / "mail")) == 0
    assert fetch("SELECT attempts, failed_at FROM mails") == [(1, None)]

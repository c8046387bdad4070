"""What mails say. Plain text, so that nothing is hidden in it; names that people chose stand in one line and are cut."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, make_msgid, parseaddr
from urllib.parse import quote

from models.operations import mails
from models.operations.mails import Letter
from models.tables.accounts import RESET_PASSWORD, VERIFY_EMAIL

LONGEST_NAME = 80
Words = tuple[str, str]
"""The subject and the text."""


def compose(letter: Letter, *, sender: str, public_url: str) -> EmailMessage:
    """The mail in words, with its link; raises ValueError for an address that can't stand in a header."""
    subject, text = WORDS[letter.kind](letter, public_url)
    # An address beyond ASCII needs a server that knows SMTPUTF8 (RFC 6531); every other one goes to every server.
    message = EmailMessage(policy=SMTP if letter.to.isascii() else SMTPUTF8)
    message["From"] = sender
    local_part, _, domain = letter.to.rpartition("@")
    message["To"] = Address(username=local_part, domain=domain)
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=parseaddr(sender)[1].rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no machine shall answer it
    # As it is where that is possible, so that a link stays whole in the file too.
    message.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")
    return message


def _verify_email(letter: Letter, public_url: str) -> Words:
    return (
        "Verify your e-mail address",
        f"""Hello,

someone, hopefully you, made an AgentHQ account with this address. Please confirm that it is yours:

{_link(public_url, "verify-email", letter)}

The link works once, and for three days. If it was not you, ignore this mail.
""",
    )


def _reset_password(letter: Letter, public_url: str) -> Words:
    return (
        "Reset your password",
        f"""Hello,

someone, hopefully you, asked to reset the password of your AgentHQ account. Choose a new one here:

{_link(public_url, "reset-password", letter)}

The link works once, and for one hour. If it was not you, ignore this mail: your password stays as it is.
""",
    )


def _invitation(letter: Letter, public_url: str) -> Words:
    team, inviter, role = one_line(letter.team), one_line(letter.inviter), one_line(letter.role)
    return (
        f"Invitation to the team {team}",
        f"""Hello,

{inviter} invites you to the team "{team}" on AgentHQ, with the role {role}. Accept here:

{_link(public_url, "invitations/accept", letter)}

The link works for seven days. If you don't know what this is about, ignore this mail.
""",
    )


def _password_changed(letter: Letter, public_url: str) -> Words:
    return _notice(
        "Your password was changed", "the password of your AgentHQ account was changed", public_url
    )


def _two_factor_enabled(letter: Letter, public_url: str) -> Words:
    return _notice(
        "Two-factor authentication is on", "your AgentHQ account has a second factor from now on", public_url
    )


def _two_factor_disabled(letter: Letter, public_url: str) -> Words:
    return _notice(
        "Two-factor authentication is off", "your AgentHQ account has no second factor any more", public_url
    )


def _recovery_code_used(letter: Letter, public_url: str) -> Words:
    return _notice(
        "A recovery code was used",
        "a recovery code of your AgentHQ account was used to prove who you are",
        public_url,
    )


REASONS = {
    "failing": "nothing could be delivered to it for three days",
    "gone": "its receiver answered that it is gone for good (HTTP 410)",
    "no_access": "whoever answers for it may not read the team's log any more",
}


def _webhook_disabled(letter: Letter, public_url: str) -> Words:
    team, host = one_line(letter.team), one_line(letter.webhook)
    return (
        f"A webhook of the team {team} was disabled",
        f"""Hello,

the webhook of the team "{team}" to {host} was disabled, since {REASONS[letter.reason]}.

No event is lost: enable it again, and it goes on where it stopped. {public_url}
""",
    )


METRICS = {
    "tasks_created": "new tasks",
    "tasks_completed": "completed tasks",
    "llm_tokens_used": "LLM tokens",
    "api_calls": "API calls",
    "storage_bytes": "storage",
}
UNITS = dict.fromkeys(METRICS, "this month") | {"storage_bytes": "bytes"}


def _usage_alert(letter: Letter, public_url: str) -> Words:
    team, about = one_line(letter.team), letter.details
    what = METRICS[about["metric"]]
    reached = about["threshold"]
    return (
        f"{team} has used {reached} percent of its {what}",
        f"""Hello,

the team "{team}" has reached {reached} percent of the {what} that its plan includes: {about["used"]:,} of {about["included"]:,}
{UNITS[about["metric"]]}. Such a mail comes once a month at each of 50, 80, 100 and 120 percent.

What was used, by day, and a larger plan: {public_url}
""",
    )


WORDS: Mapping[str, Callable[[Letter, str], Words]] = {
    VERIFY_EMAIL: _verify_email,
    RESET_PASSWORD: _reset_password,
    mails.INVITATION: _invitation,
    mails.PASSWORD_CHANGED: _password_changed,
    mails.TWO_FACTOR_ENABLED: _two_factor_enabled,
    mails.TWO_FACTOR_DISABLED: _two_factor_disabled,
    mails.RECOVERY_CODE_USED: _recovery_code_used,
    mails.WEBHOOK_DISABLED: _webhook_disabled,
    mails.USAGE_ALERT: _usage_alert,
}


def _notice(subject: str, what: str, public_url: str) -> Words:
    return (
        subject,
        f"""Hello,

{what}.

If that was you, all is well. If not, reset your password at once: {public_url}
""",
    )


def _link(public_url: str, path: str, letter: Letter) -> str:
    return f"{public_url}/{path}?token={quote(letter.token or '')}"


def one_line(name: str) -> str:
    """A name that someone chose, as it may stand in a mail: without line breaks and control characters, and not for ever."""
    line = " ".join("".join(each if each.isprintable() else " " for each in name).split())
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"

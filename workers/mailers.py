"""How a mail leaves: over SMTP, or for development into a file."""

import os
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from uuid_utils.compat import uuid7

TIMEOUT_S = 8.0
"""For each answer of the server. A whole delivery has about six: less than the first delay of models/operations/mails.py."""


class Refused(Exception):
    """The server will never take mail for this address; to ask it again would be of no use, and bad manners."""


class Mailer(Protocol):
    def send(self, message: EmailMessage) -> None:
        """Returns once the message is in other hands; raises Refused, or whatever else was in the way."""


@dataclass(frozen=True, slots=True)
class SmtpMailer:
    """Hands mail to an SMTP server (RFC 5321), whose certificate must be good where TLS is asked for."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    """From the first byte (RFC 8314)."""
    starttls: bool = False

    def send(self, message: EmailMessage) -> None:
        with self._connected() as server:
            try:
                server.send_message(message)
            except smtplib.SMTPRecipientsRefused as error:
                if all(code >= 500 for code, _ in error.recipients.values()):
                    raise Refused("The server refuses this address.") from error
                raise

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        server = self._connect()
        try:
            if self.starttls:
                server.starttls(context=ssl.create_default_context())
            if self.user is not None and self.password is not None:
                server.login(self.user, self.password)
            yield server
            with suppress(
                smtplib.SMTPException, OSError
            ):  # it has the mail; how it says goodbye is its affair
                server.quit()
        finally:
            server.close()

    def _connect(self) -> smtplib.SMTP:
        if self.tls:
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_S, context=context)
        return smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class FileMailer:
    """Writes each mail into a file of its own, which its owner alone may read: it can hold a token."""

    directory: Path

    def send(self, message: EmailMessage) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = str(uuid7())  # sorts by time
        unfinished = self.directory / f".{name}"
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(message.as_bytes())
        unfinished.rename(self.directory / f"{name}.eml")


def mailer_for(url: str) -> Mailer:
    """The mailer that MAIL_URL asks for; models/settings.py has seen to its form."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FileMailer(Path(unquote(parts.path)))
    tls = parts.scheme == "smtps"
    return SmtpMailer(
        host=parts.hostname or "",
        port=parts.port or (465 if tls else 587 if parts.username else 25),
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        tls=tls,
        starttls=parse_qs(parts.query).get("starttls") == ["true"],
    )

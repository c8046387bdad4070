"""People who sign in with a password, their mailboxes and their devices."""

import re
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

import pyotp
from flask import Flask
from sqlalchemy import text
from uuid_utils.compat import uuid7

from models.database import transaction
from tests.factories import BASE, Answer, Person
from workers.mail import send_due

PASSWORD = "a good password"
TOKEN = re.compile(r"\?token=(\S+)")


class Mailbox:
    """Everybody's: what the worker would have handed to a mail server. Begins with nothing due."""

    def __init__(self) -> None:
        execute("DELETE FROM mails")
        self._messages: list[EmailMessage] = []

    def send(self, message: EmailMessage) -> None:
        self._messages.append(message)

    def of(self, address: str) -> list[EmailMessage]:
        """All that came to this address, the oldest first, once everything due is sent."""
        send_due(self)
        return [message for message in self._messages if message["To"].addresses[0].addr_spec == address]

    def tokens(self, address: str, subject: str) -> list[str]:
        """The tokens of the mails to this address whose subject has this in it, the oldest first."""
        found = [message for message in self.of(address) if subject in message["Subject"]]
        return [token for message in found for token in TOKEN.findall(message.get_content())]

    def verification(self, address: str) -> str:
        return self.tokens(address, "Verify")[-1]

    def reset(self, address: str) -> str:
        return self.tokens(address, "Reset")[-1]


@dataclass
class Account:
    """Someone who registered, as whom one can sign in and call."""

    app: Flask
    email: str = field(default_factory=lambda: f"{uuid7().hex}@example.com")
    password: str = PASSWORD
    person: Person = field(init=False)
    device: pyotp.TOTP = field(init=False)

    def __post_init__(self) -> None:
        body = {"email": self.email, "password": self.password, "name": "Kim"}
        answer = post(self.app, "/auth/register", body)
        assert answer.status_code == 201, answer.text
        user = answer.json["user"]
        self.person = Person(self.app, user["id"], user["email"], user["name"], answer.json["token"])

    def sign_in(self, password: str | None = None, **values: Any) -> Answer:
        body = {"email": self.email, "password": password or self.password, **values}
        return post(self.app, "/auth/login", body)

    def another_session(self, **values: Any) -> Person:
        answer = self.sign_in(**values)
        assert answer.status_code == 200, answer.text
        return Person(self.app, self.person.id, self.email, "Kim", answer.json["token"])

    def enable_second_factor(self) -> list[str]:
        """Its recovery codes; `device` shows the codes from then on. The present one was used by confirming."""
        begun = self.person.post("/me/two-factor", json={"password": self.password})
        assert begun.status_code == 201, begun.text
        self.device = pyotp.TOTP(begun.json["secret"])
        confirmed = self.person.post("/me/two-factor/confirm", json={"code": self.device.now()})
        assert confirmed.status_code == 200, confirmed.text
        codes: list[str] = confirmed.json["recovery_codes"]
        return codes

    def actions(self) -> list[str]:
        """What happened to the account, the oldest first."""
        return [row["action"] for row in reversed(self.events())]

    def events(self, **query: Any) -> list[dict[str, Any]]:
        """What happened to the account, newest first."""
        items: list[dict[str, Any]] = self.person.get("/me/activity", query_string=query).json["items"]
        return items


def post(app: Flask, path: str, body: Any, **kwargs: Any) -> Answer:
    """By nobody who is signed in, each time a new client."""
    return app.test_client().post(BASE + path, json=body, **kwargs)


def execute(statement: str, **parameters: Any) -> None:
    with transaction() as session:
        session.execute(text(statement), parameters)


def fetch(statement: str, **parameters: Any) -> list[Any]:
    with transaction() as session:
        return list(session.execute(text(statement), parameters).all())

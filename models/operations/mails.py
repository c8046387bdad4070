"""
Mail as a queue of intents: a row says which mail is due, and is gone once it was sent. It has no text and no secret; the
token that a mail carries is made when it is sent, and kept as a hash.

Sending is three steps, for nothing leaves the process inside a transaction: `claim` commits the token and puts the mail
off, the worker sends, `sent` deletes the row. A crash between them sends the mail again later, with a new token: never none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from models import json_text
from models.access.credentials import hash_secret, new_token
from models.access.permissions import ADMIN
from models.destinations import parse
from models.operations import mailed_tokens
from models.queries import invitations
from models.tables import Invitation, Mail, MailedToken, Team, TeamMember, User, Webhook
from models.tables.accounts import RESET_PASSWORD, VERIFY_EMAIL
from models.tables.invitations import PENDING

INVITATION = "invitation"
INVITATION_PREFIX = "ahi_"
"""Of the mailed tokens of invitations, as of those that the API shows (models/operations/invitations.py)."""
PASSWORD_CHANGED = "password_changed"  # noqa: S105  the name of an event  # nosec B105
TWO_FACTOR_ENABLED, TWO_FACTOR_DISABLED = "two_factor_enabled", "two_factor_disabled"
RECOVERY_CODE_USED = "recovery_code_used"
WEBHOOK_DISABLED = "webhook_disabled"
USAGE_ALERT = "usage_alert"

FIRST_DELAY, LONGEST_DELAY = timedelta(minutes=1), timedelta(hours=2)
"""Longer than a try can take (workers/mailers.py), so that nobody claims a mail that is just being sent."""
MAXIMUM_ATTEMPTS = 19
"""With the delays between them about a day."""
MAXIMUM_TOKENS_PER_HOUR = 5
"""So many mails of one purpose a person gets in an hour, whoever asks: nobody's mailbox is flooded from here."""
MAXIMUM_RECIPIENTS = 100
FAILED_KEPT_FOR = timedelta(days=30)
LONGEST_ERROR = 500


# The owner, and whoever else may see the bill.
ENQUEUE_USAGE_ALERT = text("""
INSERT INTO mails (id, kind, user_id, details)
SELECT uuid7(), :kind, m.user_id, CAST(:details AS jsonb)
FROM team_members m JOIN teams t ON t.id = m.team_id
WHERE m.team_id = :team_id AND m.suspended_at IS NULL AND (m.user_id = t.owner_id OR EXISTS (
  SELECT FROM permissions p WHERE p.role = m.role AND p.allowed AND p.resource = 'billing' AND p.action = 'read'
    AND (p.team_id IS NULL OR p.team_id = m.team_id)))
""")


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail to send now, before it has words (workers/mail_texts.py). Its token must not be logged."""

    mail_id: UUID
    kind: str
    to: str
    token: str | None = None
    team: str = ""
    inviter: str = ""
    role: str = ""
    webhook: str = ""
    """The host that it points to."""
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A mail that was due; without a letter when there is nothing (more) to say."""

    letter: Letter | None


def enqueue(session: Session, kind: str, user: User) -> None:
    """A mail to the user, sent soon after the commit."""
    session.add(Mail(kind=kind, user_id=user.id))


def enqueue_reset(session: Session, email_normalized: str) -> None:
    """A reset of the password for whoever has the address. Whether anybody has is looked up when it is sent, not here."""
    session.add(Mail(kind=RESET_PASSWORD, address=email_normalized))


def enqueue_invitation(session: Session, invitation: Invitation) -> None:
    """A mail to the invited address, unless the invitation has ended by the time it would be sent."""
    session.add(Mail(kind=INVITATION, invitation_id=invitation.id))


def enqueue_webhook_disabled(session: Session, webhook: Webhook) -> None:
    """A mail to the team's owner and to each admin who may enter it."""
    recipients = session.scalars(
        select(TeamMember.user_id)
        .join(Team, Team.id == TeamMember.team_id)
        .where(
            TeamMember.team_id == webhook.team_id,
            TeamMember.suspended_at.is_(None),
            (TeamMember.role == ADMIN) | (TeamMember.user_id == Team.owner_id),
        )
        .limit(MAXIMUM_RECIPIENTS)
    )
    session.add_all(
        Mail(kind=WEBHOOK_DISABLED, user_id=user_id, webhook_id=webhook.id) for user_id in recipients
    )


def enqueue_usage_alert(session: Session, team_id: UUID, **details: str | int) -> None:
    """A mail each to those who may see the team's bill, unless they have left by the time it would be sent."""
    about = json_text.dumps({"team_id": team_id, **details})
    session.execute(ENQUEUE_USAGE_ALERT, {"kind": USAGE_ALERT, "team_id": team_id, "details": about})


def delay_after(attempts: int) -> timedelta:
    """How long after the given number of tries the next one comes."""
    return min(LONGEST_DELAY, FIRST_DELAY * (1 << min(attempts - 1, 10)))


def claim(session: Session) -> Claimed | None:
    """
    The mail that is due the longest, for the caller to commit and then send; None when none is due.

    Any number of workers may claim at once. It is due again later: `sent` ends it, and whoever dies before leaves it to others.
    """
    mail = session.scalar(
        select(Mail)
        .where(Mail.failed_at.is_(None), Mail.due_at <= func.now())
        .order_by(Mail.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if mail is None:
        return None
    if mail.attempts >= MAXIMUM_ATTEMPTS:  # whoever made the last try died of it
        mail.failed_at = func.now()
        return Claimed(None)
    letter = _letter(session, mail)
    if letter is None:
        session.delete(mail)
    else:
        mail.attempts += 1
        mail.due_at = func.now() + delay_after(mail.attempts)
    return Claimed(letter)


def sent(session: Session, mail_id: UUID) -> None:
    session.execute(delete(Mail).where(Mail.id == mail_id))


def failed(session: Session, mail_id: UUID, error: str, *, for_good: bool = False) -> None:
    """Notes why a try failed. It is tried again (`claim` has put it off), unless for good or for the last time."""
    mail = session.get(Mail, mail_id, with_for_update=True)
    if mail is None:
        return
    mail.error = error[:LONGEST_ERROR].replace("\x00", "")
    if for_good or mail.attempts >= MAXIMUM_ATTEMPTS:
        mail.failed_at = func.now()


def expire(session: Session) -> None:
    """Deletes the mails that were given up a month ago."""
    session.execute(delete(Mail).where(Mail.failed_at < func.now() - FAILED_KEPT_FOR))


def _letter(session: Session, mail: Mail) -> Letter | None:
    if mail.kind == INVITATION:
        return _invitation(session, mail)
    if mail.kind == WEBHOOK_DISABLED:
        return _webhook_disabled(session, mail)
    if mail.kind == USAGE_ALERT:
        return _usage_alert(session, mail)
    user = _recipient(session, mail)
    if user is None or (mail.kind == VERIFY_EMAIL and user.email_verified_at is not None):
        return None
    token = None
    if mail.kind in mailed_tokens.VALID_FOR:
        if mail.attempts == 0 and _has_had_enough(session, user, mail.kind):
            return None
        token = mailed_tokens.issue(session, user.id, mail.kind)
    # To the address in the account, never to one that was typed: two that normalise alike may be two mailboxes.
    return Letter(mail.id, mail.kind, to=user.email, token=token)


def _recipient(session: Session, mail: Mail) -> User | None:
    by: Any = User.id == mail.user_id if mail.user_id else User.email_normalized == mail.address
    return session.scalar(select(User).where(by))


def _has_had_enough(session: Session, user: User, purpose: str) -> bool:
    lately = select(func.count()).where(
        MailedToken.user_id == user.id,
        MailedToken.purpose == purpose,
        MailedToken.created_at > func.now() - timedelta(hours=1),
    )
    return (session.scalar(lately) or 0) >= MAXIMUM_TOKENS_PER_HOUR


def _invitation(session: Session, mail: Mail) -> Letter | None:
    found = session.execute(
        select(Invitation, Team, User)
        .join(Team, (Team.id == Invitation.team_id) & Team.deleted_at.is_(None))
        .join(User, User.id == Invitation.invited_by)
        .where(Invitation.id == mail.invitation_id)
        .with_for_update(of=Invitation)
    ).one_or_none()
    if found is None or invitations.status_of(found[0]) != PENDING:
        return None
    invitation, team, inviter = found
    token = new_token(INVITATION_PREFIX)
    invitation.mailed_token_hash = hash_secret(token)
    return Letter(
        mail.id,
        mail.kind,
        to=invitation.email,
        token=token,
        team=team.name,
        inviter=inviter.name,
        role=invitation.role,
    )


def _webhook_disabled(session: Session, mail: Mail) -> Letter | None:
    """Nothing for who left the team meanwhile, or when somebody has seen to it."""
    found = session.execute(
        select(Webhook, Team, User)
        .join(Team, (Team.id == Webhook.team_id) & Team.deleted_at.is_(None))
        .join(TeamMember, (TeamMember.team_id == Team.id) & TeamMember.suspended_at.is_(None))
        .join(User, User.id == TeamMember.user_id)
        .where(Webhook.id == mail.webhook_id, User.id == mail.user_id, Webhook.disabled_reason.is_not(None))
    ).one_or_none()
    if found is None:
        return None
    webhook, team, user = found
    return Letter(
        mail.id,
        mail.kind,
        to=user.email,
        team=team.name,
        webhook=parse(webhook.url).authority,
        reason=webhook.disabled_reason or "",
    )


def _usage_alert(session: Session, mail: Mail) -> Letter | None:
    """Nothing for who has left, or of a team that is deleted."""
    details: dict[str, Any] = mail.details or {}
    found = session.execute(
        select(User.email, Team.name)
        .join(TeamMember, (TeamMember.user_id == User.id) & TeamMember.suspended_at.is_(None))
        .join(Team, (Team.id == TeamMember.team_id) & Team.deleted_at.is_(None))
        .where(User.id == mail.user_id, Team.id == UUID(details["team_id"]))
    ).one_or_none()
    if found is None:
        return None
    return Letter(mail.id, mail.kind, to=found.email, team=found.name, details=details)

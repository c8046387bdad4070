"""
TOTP as the second factor (RFC 6238: SHA-1, six digits, thirty seconds) and recovery codes for when the device is gone.

`check` takes a code in a transaction of its own, which commits whatever the code was: a wrong one must stay counted when the
refusal rolls the request back, and a right one must stay used. `uphold` then brings the result into the request's transaction,
under the user's lock, which everything takes that changes how the user signs in.
"""

import base64
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pyotp
from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from models import encryption
from models.access.actor import Actor, Origin
from models.access.credentials import hash_secret
from models.errors import Conflict, DomainError, Invalid, SecondFactorRequired, TooManyAttempts
from models.operations import account_events, mails, sessions
from models.operations.account_events import AccountAction
from models.queries import users
from models.settings import settings
from models.tables import RecoveryCode, SecondFactor, User

ISSUER = "AgentHQ"
STEP_S = 30
DRIFT_STEPS = 1
"""How many steps a device's clock may be off, either way."""
FAILURES_TO_LOCK = 5
LOCKED_FOR = timedelta(minutes=15)
RECOVERY_CODES = 10
RECOVERY_BYTES = 10
"""80 random bits a code: too many to guess, so that a fast hash keeps it."""


@dataclass(frozen=True, slots=True)
class Status:
    enabled: bool
    recovery_codes_left: int


@dataclass(frozen=True, slots=True)
class Setup:
    """What a device needs to show the codes; `uri` holds the same as a link, for a QR code."""

    secret: str
    uri: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What a code came to. `proven` says which second factor it proved, by when that was confirmed; None if there is none."""

    proven: datetime | None = None
    refusal: DomainError | None = None


def status(session: Session, actor: Actor) -> Status:
    return Status(users.has_second_factor(session, actor.user_id), _codes_left(session, actor.user_id))


def begin(session: Session, user: User) -> Setup:
    """
    A new secret, which counts once `confirm` has seen a code of it; one that was begun before and not confirmed is gone.

    The caller has locked the user. Raises Conflict if a second factor is enabled.
    """
    found = _of(session, user.id)
    if found is not None:
        if found.confirmed_at is not None:
            raise Conflict("A second factor is enabled already; disable it first.")
        session.delete(found)
        session.flush()  # makes room for the new one
    secret = pyotp.random_base32()
    session.add(
        SecondFactor(user_id=user.id, secret=encryption.encrypt_text(secret, context=_context(user.id)))
    )
    return Setup(secret, pyotp.TOTP(secret).provisioning_uri(name=user.email, issuer_name=ISSUER))


def confirm(session: Session, actor: Actor, user: User, *, code: str) -> list[str]:
    """
    Enables the second factor once its first code is right, and ends all other sessions; returns the recovery codes.

    The caller has locked the user. Raises Conflict if none was begun or it is enabled already, Invalid for a wrong code.
    """
    found = _of(session, user.id)
    if found is None:
        raise Conflict("No second factor was begun.")
    if found.confirmed_at is not None:
        raise Conflict("The second factor is enabled already.")
    step = _step_of(found, code)
    if step is None:
        raise wrong_code()
    found.confirmed_at, found.last_step = datetime.now(UTC), step
    codes = _renew_codes(session, user.id)
    ended = sessions.end_all(session, user.id, save=actor.session_id)
    account_events.record(
        session, user.id, AccountAction.two_factor_enabled, actor.origin, sessions_ended=ended
    )
    mails.enqueue(session, mails.TWO_FACTOR_ENABLED, user)
    return codes


def renew_recovery_codes(session: Session, actor: Actor, user: User) -> list[str]:
    """New recovery codes; the old ones are dead. The caller has locked the user and upheld a code."""
    codes = _renew_codes(session, user.id)
    account_events.record(session, user.id, AccountAction.recovery_codes_renewed, actor.origin)
    return codes


def disable(session: Session, user: User, *, origin: Origin, reason: str | None = None) -> None:
    """Takes the second factor away, if there is one, with its recovery codes. The caller has locked the user."""
    found = _of(session, user.id)
    if found is None:
        return
    session.delete(found)
    if found.confirmed_at is not None:
        details = {"reason": reason} if reason else {}
        account_events.record(session, user.id, AccountAction.two_factor_disabled, origin, **details)
        mails.enqueue(session, mails.TWO_FACTOR_DISABLED, user)


def check(
    session: Session, user_id: UUID, code: str | None, *, origin: Origin, wrong: DomainError
) -> Checked:
    """
    Whether the code proves the user's second factor, if there is one; `wrong` is what refuses a wrong code.

    A TOTP code is right within one step of the clock and was right once; a recovery code is gone when it was right. After
    five wrong codes in a row none is looked at for a quarter of an hour. Commit the transaction whatever comes of it.
    """
    found = _of(session, user_id)
    if found is None or found.confirmed_at is None:
        return Checked()
    now = datetime.now(UTC)
    if found.locked_until is not None and found.locked_until > now:
        seconds = int((found.locked_until - now).total_seconds()) + 1
        return Checked(refusal=TooManyAttempts(retry_after=seconds))
    if code is None:
        return Checked(refusal=SecondFactorRequired())
    step = _step_of(found, code)
    if step is not None and step <= found.last_step:
        return Checked(refusal=wrong)  # right, but used: no guess, and not counted as one
    if step is not None:
        found.last_step = step
    elif not _use_recovery_code(session, user_id, code, origin):
        found.failures += 1
        if found.failures % FAILURES_TO_LOCK == 0:
            found.locked_until = now + LOCKED_FOR
        return Checked(refusal=wrong)
    found.failures, found.locked_until = 0, None
    return Checked(proven=found.confirmed_at)


def uphold(session: Session, user: User, checked: Checked) -> None:
    """
    Raises what the code was refused with, or SecondFactorRequired if the second factor was changed since it was checked.

    The caller has locked the user, so it stays as it is until the end of this transaction.
    """
    if checked.refusal is not None:
        raise checked.refusal
    if _confirmed_at(session, user) != checked.proven:
        raise SecondFactorRequired


def uphold_own(session: Session, user: User, checked: Checked) -> None:
    """`uphold`, for what changes the second factor: raises Conflict where none is enabled, or it was changed meanwhile."""
    if checked.refusal is not None:
        raise checked.refusal
    if checked.proven is None or _confirmed_at(session, user) != checked.proven:
        raise Conflict("No second factor is enabled.")


def encrypt_again(session: Session, limit: int) -> int:
    """
    Brings up to `limit` secrets under the first key that are kept in clear or under another one that is known; how many it
    found. Without a key it leaves all as they are. Any number of workers may run it at once.
    """
    known = {encryption.key_id(key).hex() for key in settings().encryption_keys}
    readable = [SecondFactor.secret.startswith(f"{encryption.TEXT_PREFIX}{key}:") for key in known]
    in_clear = ~SecondFactor.secret.startswith(encryption.TEXT_PREFIX)
    if not known:
        return 0
    stale = session.scalars(
        select(SecondFactor)
        .where(or_(in_clear, *readable), ~SecondFactor.secret.startswith(encryption.current_prefix()))
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for factor in stale:
        context = _context(factor.user_id)
        factor.secret = encryption.encrypt_text(
            encryption.decrypt_text(factor.secret, context=context), context=context
        )
    return len(stale)


def _confirmed_at(session: Session, user: User) -> datetime | None:
    return session.scalar(select(SecondFactor.confirmed_at).where(SecondFactor.user_id == user.id))


def _of(session: Session, user_id: UUID) -> SecondFactor | None:
    """The user's second factor, locked: of two who come with one code, the second sees that it was used."""
    return session.get(SecondFactor, user_id, with_for_update=True, populate_existing=True)


def _context(user_id: UUID) -> str:
    return f"second_factor:{user_id}"


def _step_of(factor: SecondFactor, code: str) -> int | None:
    """The time step that the code is of; None if it is not of one near now. The latest, of several with one code."""
    digits = "".join(code.split())
    totp = pyotp.TOTP(encryption.decrypt_text(factor.secret, context=_context(factor.user_id)))
    now = int(datetime.now(UTC).timestamp()) // STEP_S
    steps = range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1)
    same = [step for step in steps if hmac.compare_digest(totp.generate_otp(step).encode(), digits.encode())]
    return max(same, default=None)


def _renew_codes(session: Session, user_id: UUID) -> list[str]:
    session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    codes = [_new_code() for _ in range(RECOVERY_CODES)]
    session.add_all(RecoveryCode(user_id=user_id, code_hash=_hash_code(code)) for code in codes)
    return codes


def _new_code() -> str:
    letters = base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode().lower()
    return "-".join(letters[start : start + 4] for start in range(0, len(letters), 4))


def _hash_code(code: str) -> bytes:
    """Of the code however it was typed: in any case, with or without its dashes."""
    return hash_secret("".join(code.split()).replace("-", "").lower())


def _use_recovery_code(session: Session, user_id: UUID, code: str, origin: Origin) -> bool:
    """Whether the code was one of the user's; it is not any more. The caller has locked the second factor."""
    used = session.execute(
        delete(RecoveryCode)
        .where(RecoveryCode.user_id == user_id, RecoveryCode.code_hash == _hash_code(code))
        .returning(RecoveryCode.user_id)
    ).all()
    if not used:
        return False
    left = _codes_left(session, user_id)
    account_events.record(session, user_id, AccountAction.recovery_code_used, origin, left=left)
    mails.enqueue(session, mails.RECOVERY_CODE_USED, users.get(session, user_id))
    return True


def _codes_left(session: Session, user_id: UUID) -> int:
    return session.scalar(select(func.count()).where(RecoveryCode.user_id == user_id)) or 0


def wrong_code() -> Invalid:
    return Invalid({"code": ["This code is wrong, was used or is over."]})

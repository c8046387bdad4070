"""
Counting API calls: committed before the answer leaves, by group commit.

Requests that are waiting at the same time share one statement. While it commits, the next ones gather; there is no
timer, so nobody waits for a batch to fill. A batch has a name that is unique for ever (process and number), so a commit
whose answer got lost is repeated without counting twice. No database, no answer: a call is never free.

Where a plan limits calls hard, a request counts itself in its own transaction instead: it and its call commit, or neither.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from uuid import UUID

import structlog
from flask import Flask, Response, g, request
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from api.authentication import credential
from api.errors import domain_problem
from models.access.entry import Access, enter_team
from models.database import single_statements, transaction
from models.errors import DomainError, QuotaExceeded, Unavailable
from models.metrics import CALLS_COUNTED
from models.operations import usage
from models.operations.usage import Caller

log = structlog.get_logger("api.metering")

TEAM_PATH = re.compile(
    r"/api/v1/teams/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(/.*)?", re.IGNORECASE
)
RETRY_FOR_S = 2.0
RETRY_PAUSE_S = 0.1
LONGEST_WAIT_S = 10.0


class Batch:
    """The calls that one statement commits, and those who wait for it."""

    def __init__(self) -> None:
        self.calls: Counter[Caller] = Counter()
        self.ended = threading.Event()
        self.committed = False


class CallCounter:
    """One thread and one connection a process; made on first use, so after the fork."""

    def __init__(self) -> None:
        self._process = uuid7()
        self._lock = threading.Lock()
        self._gathering = Batch()
        self._asked = threading.Event()
        threading.Thread(target=self._run, name="call counter", daemon=True).start()

    def count(self, caller: Caller) -> None:
        """Returns once the call is committed; raises Unavailable if it can't be."""
        with self._lock:
            batch = self._gathering
            batch.calls[caller] += 1
        self._asked.set()
        if not batch.ended.wait(LONGEST_WAIT_S) or not batch.committed:
            raise Unavailable("The call could not be counted, so it is not answered; try again shortly.")

    def _run(self) -> None:
        number = 0
        while self._asked.wait():
            self._asked.clear()
            with self._lock:
                batch, self._gathering = self._gathering, Batch()
            number += 1
            try:
                batch.committed = bool(batch.calls) and self._commit(batch, f"{self._process}:{number}")
            finally:
                batch.ended.set()

    def _commit(self, batch: Batch, name: str) -> bool:
        give_up = time.monotonic() + RETRY_FOR_S
        while True:
            try:
                with single_statements() as session:
                    usage.count_api_calls(session, batch.calls, batch=name)
            except Exception as error:
                if not isinstance(error, Unavailable) or time.monotonic() > give_up:
                    log.exception("calls not counted", batch=name)
                    return False
                time.sleep(RETRY_PAUSE_S)
            else:
                CALLS_COUNTED.observe(sum(batch.calls.values()))
                return True


@cache
def _counter() -> CallCounter:
    return CallCounter()


def count_call(response: Response) -> Response:
    """
    Counts this request, if it counts: a valid credential, a path under a team that the caller may enter, and an answer
    below 500 that is not 429. Paths that lead nowhere count too.
    """
    if response.status_code >= 500 or response.status_code == 429 or g.get("call_settled"):
        return response
    access = g.get("access") or _entered()
    if access is None:
        return response
    try:
        if is_limited(access):  # an error's answer, whose transaction was rolled back
            with transaction() as session:
                take_call(session, access)
        else:
            _counter().count(Caller(access.team_id, access.user_id, access.agent_id, access.api_key_id))
    except (Unavailable, QuotaExceeded) as error:
        return domain_problem(error)
    return response


def is_limited(access: Access | None) -> bool:
    """Whether the request may be refused because the team's plan has a hard limit of API calls."""
    return access is not None and access.calls_used_up is not None and not g.get("past_call_limit")


def refuse_call(session: Session, access: Access) -> None:
    """Raises QuotaExceeded before anything is done if no call was left when the caller entered, and none has come back."""
    if access.calls_used_up:
        with _uncounted_if_refused():
            usage.refuse_call(session, access)


def take_call(session: Session, access: Access) -> None:
    """Counts the request in the transaction, or raises QuotaExceeded; then it has changed nothing, and is not counted."""
    with _uncounted_if_refused():
        usage.take_call(session, access)


def settled() -> None:
    """The request is counted, or is not to be: nobody counts it after this."""
    g.call_settled = True


@contextmanager
def _uncounted_if_refused() -> Iterator[None]:
    try:
        yield
    except QuotaExceeded:
        settled()
        raise


def _entered() -> Access | None:
    """The access to the team in the path, if the caller may enter it: for answers that were given before anyone entered."""
    match = TEAM_PATH.fullmatch(request.path)
    if match is None:
        return None
    try:
        with transaction() as session:
            return enter_team(session, credential(), UUID(match[1]))
    except DomainError:
        return None


def register(app: Flask) -> None:
    app.after_request(count_call)

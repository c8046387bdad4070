"""One key, one change, however many requests carry it and whatever dies."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from models.database import transaction
from models.errors import Conflict, Invalid
from models.operations import idempotency, workspaces
from models.operations.idempotency import IdempotentRequest
from models.queries import workspaces as queries
from models.queries.paging import Page
from models.tables import IdempotencyKey
from tests.factories import TeamSetting
from tests.models.concurrency import raised, together


def new_request(**values: object) -> IdempotentRequest:
    return IdempotentRequest(**{"scope": uuid7().bytes, "key": "k", "fingerprint": b"f", **values})  # type: ignore[arg-type]


def keep(
    session: Session, request: IdempotentRequest, body: bytes | None = b"{}", made: UUID | None = None
) -> None:
    kept = IdempotencyKey(
        scope=request.scope,
        key=request.key,
        fingerprint=request.fingerprint,
        status=201,
        body=body,
        resource_id=made,
    )
    idempotency.keep(session, kept)


def carry_out(team: TeamSetting, request: IdempotentRequest) -> bytes | None:
    """Makes a workspace, unless the key has an answer; the answer."""
    with transaction() as session:
        kept = idempotency.claim(session, request)
        if kept is not None:
            return kept.body
        made = workspaces.create(session, team.owner.enter(session, team.id), name="Lab")
        body = str(made.id).encode()
        keep(session, request, body)
        return body


def workspace_count(team: TeamSetting) -> int:
    with transaction() as session:
        return len(queries.in_team(session, team.owner.enter(session, team.id), Page(limit=100)).items)


def test_many_requests_with_one_key_make_one_change(bare_team: TeamSetting) -> None:
    request = new_request()
    before = workspace_count(bare_team)
    outcomes = together(*[lambda: carry_out(bare_team, request)] * 12)
    assert set(raised(outcomes)) <= {Conflict}
    answers = {outcome for outcome in outcomes if isinstance(outcome, bytes)}
    assert len(answers) == 1
    assert workspace_count(bare_team) == before + 1
    assert {carry_out(bare_team, request)} == answers


def test_while_the_first_one_runs_others_are_told_so(bare_team: TeamSetting) -> None:
    request = new_request()
    with transaction() as session:
        assert idempotency.claim(session, request) is None
        with pytest.raises(Conflict, match="still running"):
            carry_out(bare_team, request)
        keep(session, request)
    assert carry_out(bare_team, request) == b"{}"


def test_keys_of_others_and_other_keys_do_not_wait(bare_team: TeamSetting) -> None:
    request = new_request()
    with transaction() as session:
        assert idempotency.claim(session, request) is None
        carry_out(bare_team, new_request())
        carry_out(bare_team, new_request(scope=request.scope, key="another"))


def test_a_fall_leaves_the_key_free(bare_team: TeamSetting) -> None:
    request = new_request()

    def fall() -> None:
        with transaction() as session:
            assert idempotency.claim(session, request) is None
            keep(session, request)
            session.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fall()
    before = workspace_count(bare_team)
    carry_out(bare_team, request)
    assert workspace_count(bare_team) == before + 1


def claim(request: IdempotentRequest) -> IdempotencyKey | None:
    with transaction() as session:
        return idempotency.claim(session, request)


def test_a_key_belongs_to_its_request() -> None:
    request = new_request()
    with transaction() as session:
        keep(session, request)
    assert claim(request) is not None
    with pytest.raises(Invalid) as refused:
        claim(new_request(scope=request.scope, fingerprint=b"another"))
    assert list(refused.value.errors) == ["Idempotency-Key"]


def test_a_secret_is_not_kept_only_what_was_made() -> None:
    request, made = new_request(), uuid7()
    with transaction() as session:
        keep(session, request, body=None, made=made)
    with pytest.raises(Conflict) as refused:
        claim(request)
    assert refused.value.members == {"id": str(made)}


def age(request: IdempotentRequest, interval: str) -> None:
    with transaction() as session:
        session.execute(
            text(
                "UPDATE idempotency_keys SET created_at = now() - CAST(:age AS interval) WHERE scope = :scope"
            ),
            {"age": interval, "scope": request.scope},
        )


def expire_when_asked(_: IdempotentRequest) -> None:
    """Nothing: claiming the key finds it expired."""


def expire_by_job(_: IdempotentRequest) -> None:
    for _again in range(2):
        with transaction() as session:
            idempotency.expire(session)


@pytest.mark.parametrize("expire", [expire_when_asked, expire_by_job])
def test_a_key_is_free_again_after_a_day(
    bare_team: TeamSetting, expire: Callable[[IdempotentRequest], None]
) -> None:
    request = new_request()
    first = carry_out(bare_team, request)
    age(request, "23 hours 59 minutes")
    expire(request)
    assert carry_out(bare_team, request) == first
    age(request, "24 hours 1 minute")
    expire(request)
    assert carry_out(bare_team, request) != first

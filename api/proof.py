"""Proof that the activity log is what was logged: verifying it, its signed checkpoints, and our public keys."""

from functools import partial
from threading import BoundedSemaphore
from typing import Any

from api.blueprint import Blueprint
from api.offload import off_the_loop
from api.pagination import envelope, page_from
from api.resource import PUBLIC, Resource, requires
from api.schemas.base import PageQuery
from api.schemas.proof import CheckpointSchema, SigningKeySchema, VerificationSchema, VerifyQuery
from models.access.permissions import Permission
from models.errors import Unavailable
from models.operations.activity_reads import note_read
from models.queries import proof
from models.queries.proof import Verification
from models.signing import keyring

blueprint = Blueprint("proof", "Proof that the activity log is what was logged")

VERIFICATIONS_AT_ONCE = 4
"""In one process: each keeps a connection of the pool and a core of the database busy for as long as it takes."""
_free = BoundedSemaphore(VERIFICATIONS_AT_ONCE)


@blueprint.route("/teams/<uuid:team_id>/activity/verify")
class Verify(Resource):
    @requires(Permission.activity_read)
    @blueprint.query(VerifyQuery)
    @blueprint.shows(VerificationSchema)
    def get(self, query: dict[str, Any]) -> Verification:
        """
        Whether the log is what was logged: each row is checked against the one before it, the last one against the head, and
        all against the signed checkpoints. A row that is changed, missing, inserted or swapped is named, and so is one whose
        address or user agent is another than the chain commits to (`origin`; an erased one is valid). It tells nothing of
        what the rows say, and covers those of private workspaces too. 503 while too many verifications run.
        """
        note_read(self.session, self.access)
        keys = keyring()
        if not _free.acquire(blocking=False):
            raise Unavailable("Too many logs are being verified; try again shortly.")
        try:
            return proof.verify(
                self.session,
                self.access,
                keys,
                vouching=partial(off_the_loop, keys.vouches_for_each),
                **query,
            )
        finally:
            _free.release()


@blueprint.route("/teams/<uuid:team_id>/activity/checkpoints")
class Checkpoints(Resource):
    @requires(Permission.activity_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(CheckpointSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The signed checkpoints, newest first. Keep copies: with one, nobody can rewrite what came before it unnoticed."""
        return envelope(proof.checkpoints(self.session, self.access, page_from(query)))


@blueprint.route("/signing-keys")
class SigningKeys(Resource):
    @requires(PUBLIC)
    @blueprint.query(PageQuery)
    @blueprint.lists(SigningKeySchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The public keys whose signatures on checkpoints count."""
        return envelope(proof.signing_keys(self.session, keyring(), page_from(query)))

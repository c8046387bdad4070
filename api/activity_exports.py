"""Exports of the activity log: streamed at once, or written to a file by a worker."""

from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flask import Response, request, send_file

from api.blueprint import Blueprint
from api.offload import off_the_loop
from api.pagination import envelope, page_from
from api.resource import PUBLIC, Resource, requires
from api.schemas.activity import (
    ActivityExportCreateSchema,
    ActivityExportSchema,
    DownloadQuery,
    ExportQuery,
    NewActivityExportSchema,
)
from api.schemas.base import PageQuery
from api.streams import Stream
from models.access.entry import Access
from models.access.permissions import Permission
from models.database import snapshot
from models.errors import NotFound
from models.operations import activity_exports as operations
from models.operations.activity_exports import WithLink
from models.operations.activity_reads import note_read
from models.queries import activity_exports, teams
from models.queries.activity_exports import Export, ExportRequest
from models.queries.activity_filters import ActivityFilter
from models.queries.export_formats import Encoder
from models.tables import ActivityExport as ActivityExportRow
from models.tables.activity_exports import CSV, NDJSON

blueprint = Blueprint("activity_exports", "The activity log as a file")

CONTENT_TYPE = {NDJSON: "application/x-ndjson; charset=utf-8", CSV: "text/csv; charset=utf-8"}


def export_request(query: dict[str, Any]) -> ExportRequest:
    """What a parsed query or body asks for; raises Invalid for a proof that would have gaps."""
    format_, order, proof = query.pop("format"), query.pop("order"), query.pop("proof")
    descending = order == "desc" if order else not proof
    return ExportRequest(ActivityFilter(**query), format_, proof, descending)


def file_name(team_id: UUID, format_: str, at: datetime) -> str:
    return f"activity-{team_id}-{at:%Y%m%dT%H%M%SZ}.{format_}"


def export_bytes(access: Access, wanted: ExportRequest, *, gzip: bool) -> Generator[bytes, None, None]:
    """The export, from a transaction of its own that lasts as long as it is read."""
    with snapshot() as session:
        export = Export(session, access, wanted)
        encoder = Encoder(wanted, gzip=gzip, previous_hash=export.previous_hash)
        for rows in export:
            yield off_the_loop(encoder.encode, rows)
        yield encoder.end()


@blueprint.route("/teams/<uuid:team_id>/activity/export")
class ActivityExportStream(Resource):
    stream: Stream | None = None

    def dispatch_request(self, **path: Any) -> Any:
        """The request's transaction is over, and its events are committed, before the first byte is read."""
        try:
            response = super().dispatch_request(**path)
            if self.stream is not None:
                self.stream.begin()
        except BaseException:
            if self.stream is not None:
                self.stream.close()
            raise
        return response

    @requires(Permission.activity_read)
    @blueprint.query(ExportQuery)
    @blueprint.sends("application/x-ndjson", "text/csv")
    def get(self, query: dict[str, Any]) -> Response:
        """
        The log, streamed; every filter narrows it. A connection that ends before the body does means that it is not whole.
        """
        wanted, access = export_request(query), self.access
        gzip = request.accept_encodings["gzip"] > 0
        response = Response(content_type=CONTENT_TYPE[wanted.format])
        response.headers["Content-Disposition"] = (
            f'attachment; filename="{file_name(access.team_id, wanted.format, datetime.now(UTC))}"'
        )
        response.vary.add("Accept-Encoding")
        if gzip:
            response.content_encoding = "gzip"
        if request.method != "HEAD":
            self.stream = Stream(lambda: export_bytes(access, wanted, gzip=gzip))
            note_read(self.session, access)
            operations.record_export(self.session, access, wanted)
            response.response = self.stream
        return response


class ExportResource(Resource):
    shown_as = ActivityExportSchema

    def with_link(self, made: WithLink) -> WithLink:
        self.secret_of = made.export.id
        return made


@blueprint.route("/teams/<uuid:team_id>/activity/exports")
class ActivityExports(ExportResource):
    @requires(Permission.activity_read)
    @blueprint.query(PageQuery)
    @blueprint.lists(ActivityExportSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """The caller's exports, newest first; the team's, for its owner."""
        return envelope(activity_exports.in_team(self.session, self.access, page_from(query)))

    @requires(Permission.activity_read)
    @blueprint.body(ActivityExportCreateSchema)
    @blueprint.shows(NewActivityExportSchema, 201)
    def post(self, body: dict[str, Any]) -> WithLink:
        """Have the log written to a gzip file, with the rights that the caller has when it is written."""
        wanted = export_request(body)
        note_read(self.session, self.access)
        team = teams.get(self.session, self.access, for_update=True)
        return self.with_link(operations.create(self.session, self.access, team, wanted))


@blueprint.route("/teams/<uuid:team_id>/activity/exports/<uuid:export_id>")
class ActivityExport(ExportResource):
    @requires(Permission.activity_read)
    @blueprint.shows(ActivityExportSchema)
    def get(self, export_id: UUID) -> ActivityExportRow:
        """One of the caller's exports, and how far it is."""
        return activity_exports.get(self.session, self.access, export_id)

    @requires(Permission.activity_read)
    @blueprint.shows_nothing()
    def delete(self, export_id: UUID) -> None:
        """Cancel it, or remove its file; the link is dead at once."""
        export = activity_exports.get(self.session, self.access, export_id, for_update=True)
        self.check_match(export)
        operations.delete(self.session, self.access, export)


@blueprint.route("/teams/<uuid:team_id>/activity/exports/<uuid:export_id>/link")
class ActivityExportLink(ExportResource):
    @requires(Permission.activity_read)
    @blueprint.shows(NewActivityExportSchema)
    def post(self, export_id: UUID) -> WithLink:
        """A new download link, which ends the old one."""
        export = activity_exports.get(self.session, self.access, export_id, for_update=True)
        return self.with_link(operations.renew_link(self.session, export))


@blueprint.route("/exports/<uuid:export_id>")
class Download(Resource):
    @requires(PUBLIC)
    @blueprint.query(DownloadQuery)
    @blueprint.sends("application/gzip")
    @blueprint.alt_response(206, description="The range that was asked for.")  # type: ignore[untyped-decorator]  # flask-smorest has no types
    @blueprint.alt_response(304, description="It is as `If-None-Match` knows it.")  # type: ignore[untyped-decorator]
    @blueprint.refuses(416)
    def get(self, query: dict[str, Any], export_id: UUID) -> Response:
        """The file of an export, for whoever has its link; in ranges too."""
        export = operations.fetchable(self.session, export_id, query["token"])
        if export.attempt_id is None or export.sha256 is None or export.completed_at is None:
            raise NotFound("export")
        try:
            return send_file(
                operations.path_of(export.attempt_id).absolute(),
                mimetype="application/gzip",
                as_attachment=True,
                download_name=file_name(export.team_id, export.format, export.completed_at) + ".gz",
                etag=export.sha256.hex(),
            )
        except FileNotFoundError as error:
            raise NotFound("export") from error

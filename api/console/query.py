"""What a page's address says besides its path. A value that is none is as if it weren't there: people mend addresses by hand."""

from uuid import UUID

from flask import request

from api.pagination import page_from
from models.queries.paging import Page

ROWS = 50


def uuid_argument(name: str) -> UUID | None:
    try:
        return UUID(request.args.get(name, ""))
    except ValueError:
        return None


def cursor_page(limit: int = ROWS) -> Page:
    """The page of a list that `?cursor=` names; raises Invalid for one that is none."""
    return page_from({"limit": limit, "cursor": request.args.get("cursor") or None})

"""The plans, paged like every list."""

from models.plans import PLANS, Plan
from models.queries.paging import Page, Slice, bad_cursor


def listed(page: Page) -> Slice[Plan]:
    """The plans, the smallest first; raises Invalid for a cursor that names none."""
    begin = 0
    if page.after is not None:
        if len(page.after) != 1 or page.after[0] not in PLANS:
            raise bad_cursor()
        begin = list(PLANS).index(page.after[0]) + 1
    rest = list(PLANS.values())[begin:]
    items = rest[: page.limit]
    return Slice(items, (items[-1].name,) if len(rest) > page.limit else None)

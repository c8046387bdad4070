"""Folding the ledger into `usage_stats`, and finding what nobody settled."""

import time

from models.database import transaction
from models.metrics import FOLD_SECONDS, USAGE_FOLDED
from models.operations import reservations, usage
from workers.app import app

BATCH = 5_000


@app.task(name="usage.fold")
def fold() -> None:
    """Folds until nothing is pending. A read is exact without it; this keeps the pending rows few."""
    while fold_batch():
        pass


def fold_batch() -> int:
    """How many ledger rows one transaction folded."""
    begun = time.perf_counter()
    with transaction() as session:
        folded = usage.fold(session, BATCH)
    if folded:
        USAGE_FOLDED.inc(folded)
        FOLD_SECONDS.observe(time.perf_counter() - begun)
    return folded


@app.task(name="usage.mark_unsettled")
def mark_unsettled() -> None:
    """Marks every reservation that expired. A read is exact without it; this tells the team."""
    while unsettled_batch():
        pass


def unsettled_batch() -> int:
    """How many reservations one transaction marked."""
    with transaction() as session:
        return reservations.mark_unsettled(session, BATCH)

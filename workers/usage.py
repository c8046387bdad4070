"""Folding the ledger into `usage_stats`."""

from models.database import transaction
from models.operations import usage
from workers.app import app

BATCH = 5_000


@app.task(name="usage.fold")
def fold() -> None:
    """Folds until nothing is pending. A read is exact without it; this keeps the pending rows few."""
    while fold_batch():
        pass


def fold_batch() -> int:
    """How many ledger rows one transaction folded."""
    with transaction() as session:
        return usage.fold(session, BATCH)

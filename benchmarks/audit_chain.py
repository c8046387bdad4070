"""
The chain of the activity log: rows verified per second in the database and offline, and what hashing costs the drain.

`python -m benchmarks.audit_chain [--rows N]`. It starts its own PostgreSQL, as durable as `make run`'s. The log is filled in one
statement with the product's own functions; the drain is `models.operations.activity.project` without Redis, beside its own
statement with digests, commitments and chain taken out, in turns, each with teams of its own.
"""

import argparse
import base64
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from sqlalchemy import text

from benchmarks.measuring import print_table, servers
from benchmarks.pipeline import make_team
from models.access.credentials import Credential
from models.database import engine, transaction
from models.operations import activity
from models.queries import chain
from models.queries.chain import DIGEST
from models.signing import Signer, signed_bytes
from models.tables import Checkpoint

ROUNDS = 3
BATCH = 500
TEAMS = 20
VERIFY = Path(__file__).resolve().parent.parent / "docs" / "verify.py"
FILL = f"""
INSERT INTO activity_logs (team_id, seq, created_at, id, user_id, action, resource_type, resource_id, resource_name,
                           workspace_id, metadata, request_id, ip_address, user_agent, origin_salt, origin_hash, hash)
SELECT l.team_id, seq, created_at, id, user_id, action, resource_type, resource_id, resource_name, workspace_id, metadata,
       request_id, ip_address, user_agent, origin_salt, origin_hash,
       activity_chain(activity_genesis(l.team_id), {DIGEST}) OVER (ORDER BY seq)
FROM (
  SELECT r.*, activity_origin_digest(origin_salt, ip_address, user_agent) AS origin_hash FROM (
    SELECT t.id AS team_id, n AS seq, now() - (:rows - n) * interval '1 ms' AS created_at, uuid7() AS id, t.owner_id AS user_id,
           NULL::uuid AS agent_id, NULL::uuid AS api_key_id, 'task_created' AS action, 1 AS schema_version,
           'success' AS outcome, 'task' AS resource_type, uuid7() AS resource_id, 'Read the price list' AS resource_name,
           uuid7() AS workspace_id,
           jsonb_build_object('task_id', uuid7(), 'workspace_id', uuid7(), 'title', 'Read the price list', 'status', 'pending',
                              'assignee_id', NULL) AS metadata,
           'a1b2c3d4e5f6' AS request_id, '192.0.2.7'::inet AS ip_address, 'Mozilla/5.0 (X11; Linux x86_64)' AS user_agent,
           uuid_send(gen_random_uuid()) AS origin_salt
    FROM generate_series(1, :rows) n, teams t WHERE t.id = :team OFFSET 0
  ) r OFFSET 0
) l
"""
FILL_OUTBOX = """
INSERT INTO outbox (event_id, team_id, action, user_id, resource_type, resource_id, resource_name, details, ip_address, user_agent)
SELECT uuid7(), t.id, 'task_created', t.owner_id, 'task', uuid7(), 'Read the price list',
       jsonb_build_object('task_id', uuid7(), 'workspace_id', uuid7(), 'title', 'Read the price list', 'status', 'pending',
                          'assignee_id', NULL), '192.0.2.7', 'Mozilla/5.0 (X11; Linux x86_64)'
FROM generate_series(1, :events / cardinality(CAST(:teams AS uuid[]))) AS n, teams t WHERE t.id = ANY(:teams) ORDER BY n
"""
EXPORT = """
SELECT l.seq, l.id::text, l.team_id::text, l.user_id::text, l.agent_id::text, l.api_key_id::text, l.action, l.outcome,
       l.schema_version, l.resource_type, l.resource_id::text, l.resource_name, l.workspace_id::text, l.metadata::text AS metadata,
       host(l.ip_address) AS ip_address, l.user_agent, l.request_id, l.created_at,
       encode(coalesce(lag(l.hash) OVER (ORDER BY l.seq), activity_genesis(l.team_id)), 'hex') AS previous_hash,
       encode(l.hash, 'hex') AS hash, encode(l.origin_hash, 'hex') AS origin_hash, encode(l.origin_salt, 'hex') AS origin_salt
FROM activity_logs l WHERE l.team_id = :team ORDER BY l.seq
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="in the log that is verified")
    parser.add_argument("--events", type=int, default=10_000, help="in the backlog that is drained")
    arguments = parser.parse_args()
    with servers(durable=True):
        _, team_id = fill(arguments.rows)
        measure_verification(team_id, arguments.rows)
        measure_drain(arguments.events)


def fill(rows: int) -> tuple[Credential, UUID]:
    """A team with so many rows in its log, and its owner's credential."""
    credential, team_id, _ = make_team()
    parameters = {"rows": rows, "team": team_id}
    with transaction() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        session.execute(text("DELETE FROM outbox"))
        session.execute(text(FILL), parameters)
        session.execute(
            text(
                "UPDATE activity_heads h SET seq = l.seq, hash = l.hash FROM activity_logs l"
                " WHERE h.team_id = :team AND l.team_id = :team AND l.seq = :rows"
            ),
            parameters,
        )
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE activity_logs"))
    return credential, team_id


# Verifying


def measure_verification(team_id: UUID, rows: int) -> None:
    longest: list[float] = []
    with tempfile.TemporaryDirectory(prefix="agenthq-bench-") as directory:
        offline = write_export(Path(directory), team_id)
        took: dict[str, list[float]] = {
            "in the database": [],
            "docs/verify.py": [],
            "docs/verify.py, gzip": [],
        }
        for _ in range(ROUNDS):
            took["in the database"].append(timed(lambda: longest.append(check(team_id))))
            took["docs/verify.py"].append(timed(lambda: run_verifier(offline, "export.ndjson")))
            took["docs/verify.py, gzip"].append(timed(lambda: run_verifier(offline, "export.ndjson.gz")))
    print(
        f"\nVerifying {rows:,} rows, {ROUNDS} rounds; the longest statement took {max(longest) * 1000:.0f} ms"
    )
    print_table(
        ("way", "median rows/s", "worst rows/s"),
        [
            [way, f"{rows / statistics.median(each):,.0f}", f"{rows / max(each):,.0f}"]
            for way, each in took.items()
        ],
    )


def check(team_id: UUID) -> float:
    """Every row, as GET …/activity/verify does; the seconds of the longest statement."""
    longest = 0.0
    with transaction() as session:
        head = chain.head(session, team_id)
        assert head is not None
        seq, hash_ = head.purged_seq, head.purged_hash
        while seq < head.seq:
            begun = time.perf_counter()
            stretch = chain.check(session, team_id, seq=seq, hash_=hash_, up_to=head.seq)
            longest = max(longest, time.perf_counter() - begun)
            assert stretch is not None
            assert not stretch.unchained
            assert not stretch.unproven
            seq, hash_ = stretch.seq, stretch.hash
        assert hash_ == head.hash
    return longest


def write_export(directory: Path, team_id: UUID) -> Path:
    """The log as an export with proof, plain and gzipped, with a checkpoint of its end and the key to it."""
    with transaction() as session, (directory / "export.ndjson").open("w") as file:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        found = session.execute(text(EXPORT), {"team": team_id}, execution_options={"yield_per": 1000})
        for row in found.mappings():
            shown = dict(row) | {"created_at": row["created_at"].isoformat().replace("+00:00", "Z")}
            metadata = shown.pop("metadata")
            file.write(f'{json.dumps(shown)[:-1]}, "metadata": {metadata}}}\n')
        head = chain.head(session, team_id)
    assert head is not None
    with (
        (directory / "export.ndjson").open("rb") as file_,
        gzip.open(directory / "export.ndjson.gz", "wb") as zipped,
    ):
        zipped.writelines(file_)
    signer = Signer(bytes(32))
    made = Checkpoint(
        team_id=team_id, seq=head.seq, hash=head.hash, key_id=signer.key_id, created_at=head.read_at
    )
    signature = signer.sign(signed_bytes(made))
    item = {
        "team_id": str(team_id),
        "seq": made.seq,
        "hash": made.hash.hex(),
        "key_id": made.key_id,
        "signature": base64.b64encode(signature).decode(),
        "created_at": made.created_at.isoformat().replace("+00:00", "Z"),
    }
    (directory / "checkpoints.json").write_text(json.dumps([item]))
    (directory / "key").write_text(signer.public_key.hex())
    return directory


def run_verifier(directory: Path, name: str) -> None:
    key = (directory / "key").read_text()
    command: list[str | Path] = [
        sys.executable,
        VERIFY,
        directory / name,
        "--checkpoints",
        directory / "checkpoints.json",
        "--key",
        key,
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Signed up to" in ran.stdout


# Hashing in the drain


def without_chain(statement: str) -> str:
    """The drain's statement with the same rows in and out, and no digest, commitment or chain."""
    plain = statement
    for old, new in (
        ("CASE WHEN t.ip_address IS NOT NULL OR t.user_agent IS NOT NULL THEN uuid_send(gen_random_uuid()) END", "NULL::bytea"),
        ("CASE WHEN origin_salt IS NOT NULL THEN activity_origin_digest(origin_salt, ip_address, user_agent) END", "NULL::bytea"),
    ):  # fmt: skip
        assert old in plain
        plain = plain.replace(old, new)
    begin, end = plain.index("activity_chain("), plain.index(" AS hash\n  FROM committed")
    return plain[:begin] + "'\\x00'::bytea" + plain[end:]


def measure_drain(events: int) -> None:
    ways = {
        "with the chain": str(activity.PROJECT.text),
        "without": without_chain(str(activity.PROJECT.text)),
    }
    team_ids = {way: [make_team()[1] for _ in range(TEAMS)] for way in ways}
    drain_all(text(ways["with the chain"]))
    took: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(2 * ROUNDS):
        for way in list(ways) if number % 2 else list(reversed(ways)):
            with transaction() as session:
                session.execute(text(FILL_OUTBOX), {"events": events, "teams": team_ids[way]})
            statement = text(ways[way])
            took[way].append(timed(lambda statement=statement: drain_all(statement)))  # type: ignore[misc]
    medians = {way: statistics.median(each) for way, each in took.items()}
    overhead = medians["with the chain"] / medians["without"] - 1
    print(f"\nDrain of {events:,} events of {TEAMS} teams, batches of {BATCH}, {2 * ROUNDS} rounds in turns")
    print_table(
        ("way", "median events/s", "worst events/s", "µs an event"),
        [
            [
                way,
                f"{events / medians[way]:,.0f}",
                f"{events / max(each):,.0f}",
                f"{medians[way] / events * 1e6:.1f}",
            ]
            for way, each in took.items()
        ],
    )
    print(f"Digests, commitments and chain add {overhead:.0%}.")


def drain_all(statement: object) -> None:
    """As models.operations.activity.project does, with this statement."""
    while True:
        with transaction() as session:
            team_ids = list(session.scalars(activity.CLAIM, {"teams": 200}))
            if not team_ids:
                return
            session.execute(statement, {"team_ids": team_ids, "limit": BATCH}).all()  # type: ignore[call-overload]


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()

"""
How long a search of the activity log takes when the log is long, and what its indexes cost the drain.

`python -m benchmarks.activity_search [--rows 10000000] [--queries 200] [--seconds 10]`. It builds a log of 2,000 teams, one of
which has a fifth of all rows, over 12 months, and asks it through the product's own query functions: pages, every filter, text
by how common the word is, facets; of the big team, and of any team (each as likely as a row is its). Beside it the guide's
design on the same rows: one table with its two indexes, OFFSET and ILIKE. Then the drain, with and without the indexes.
All of it is read once before. Targets: p99 at most 50 ms for pages and filters, 75 ms for text. 10,000,000 rows take about 20 GB and the better part of an hour.
"""

import argparse
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import md5
from statistics import median
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from benchmarks.measuring import percentile, plain_url, print_table, servers
from models.access.credentials import Credential, hash_secret
from models.access.entry import Access, enter_team
from models.database import engine, transaction
from models.events.catalogue import CATALOGUE
from models.operations import activity as log_operations
from models.operations import activity_counts
from models.queries import activity, activity_facets
from models.queries.activity_filters import ActivityFilter
from models.queries.paging import Page
from models.settings import settings

TEAMS = 2_000
BIG = 0.2
"""The first team's part of all rows."""
DAYS = 365
WORDS = 20_000
MOST_USERS = 200
WORKSPACES, AGENTS = 10, 5
"""Of each team."""
ASKED = 40
"""Teams of which questions are asked."""
GUIDE_SECONDS = 3.0
"""For a kind of question to the guide's design, and at least three of them: it has some that take seconds."""
BATCH = 500
NAMES = ("Kim", "Noa", "Ada", "Ravi", "Ines", "Olu", "Yuki", "Lars", "Zoe", "Teo")

TEAMS_OF = """
CREATE TABLE bench_teams AS
SELECT n, md5('team ' || n)::uuid AS id,
       greatest(3, CASE WHEN n = 1 THEN %(rows)s * %(big)s ELSE %(rows)s * (1 - %(big)s) / n / (SELECT sum(1.0 / i) FROM generate_series(2, %(teams)s) i) END)::bigint AS size
FROM generate_series(1, %(teams)s) n;
ALTER TABLE bench_teams ADD users int, ADD seq bigint DEFAULT 0;
UPDATE bench_teams SET users = least(%(most)s, greatest(3, size / 50));
"""
PEOPLE = """
INSERT INTO users (id, email, email_normalized, name, password_hash)
SELECT md5('user ' || n || ' ' || u)::uuid, n || '.' || u || '@example.com', n || '.' || u || '@example.com',
       (%(names)s::text[])[1 + u %% 10] || ' ' || u, 'none'
FROM bench_teams, generate_series(1, users) u;
INSERT INTO teams (id, name, owner_id, plan, max_members)
SELECT id, 'Team ' || n, md5('user ' || n || ' 1')::uuid, 'enterprise', 100000 FROM bench_teams;
INSERT INTO team_members (id, team_id, user_id, role)
SELECT uuid7(), id, md5('user ' || n || ' ' || u)::uuid, CASE u WHEN 1 THEN 'admin' ELSE 'viewer' END
FROM bench_teams, generate_series(1, users) u;
INSERT INTO agents (id, team_id, name, role, created_by)
SELECT md5('agent ' || n || ' ' || a)::uuid, id, 'Agent ' || a, 'member', md5('user ' || n || ' 1')::uuid
FROM bench_teams, generate_series(1, %(agents)s) a;
INSERT INTO workspaces (id, team_id, name, created_by, visibility)
SELECT md5('workspace ' || n || ' ' || w)::uuid, id, 'Workspace ' || w, md5('user ' || n || ' 1')::uuid,
       CASE w WHEN 10 THEN 'private' ELSE 'team' END
FROM bench_teams, generate_series(1, %(workspaces)s) w;
"""
# A month's rows in the order of time. Ids are those of tasks with four events each, titles are of words as common as Zipf's.
ROWS = """
WITH drawn AS MATERIALIZED (
  SELECT g, t.n, t.id AS team_id, t.seq, t.size, %(first)s::timestamptz + %(length)s::interval * (g::float8 / %(rows)s) AS at,
         1 + width_bucket(random(), %(actions)s::float8[]) AS a, 1 + floor(t.users * random() ^ 2)::int AS u,
         1 + floor(%(workspaces)s * random() ^ 2)::int AS w, floor(random() * t.size / 4)::int AS task, random() AS r,
         w1.word || ' ' || w2.word || ' ' || w3.word AS title
  FROM (
    SELECT g, 1 + width_bucket(random(), %(teams)s::float8[]) AS n, ceil(%(vocabulary)s ^ random())::int AS r1,
           ceil(%(vocabulary)s ^ random())::int AS r2, ceil(%(vocabulary)s ^ random())::int AS r3
    FROM generate_series(0, %(rows)s - 1) g
  ) d
  JOIN bench_teams t ON t.n = d.n
  JOIN bench_words w1 ON w1.rank = r1 JOIN bench_words w2 ON w2.rank = r2 JOIN bench_words w3 ON w3.rank = r3
), described AS (
  SELECT *, (%(names)s::text[])[a] AS action, (%(types)s::text[])[a] AS resource_type,
         md5('workspace ' || n || ' ' || w)::uuid AS workspace, md5('task ' || n || ' ' || task)::uuid AS task_id,
         md5('user ' || n || ' ' || u)::uuid AS user_id, uuid_send(gen_random_uuid()) AS salt
  FROM drawn
), detailed AS (
  SELECT *, CASE resource_type WHEN 'task' THEN task_id WHEN 'workspace' THEN workspace WHEN 'team' THEN team_id
                 WHEN 'user' THEN user_id ELSE md5(resource_type || n || task)::uuid END AS resource_id,
         jsonb_build_object('task_id', task_id, 'workspace_id', workspace, 'title', title, 'status', 'pending',
                            'assignee_id', CASE WHEN r < 0.5 THEN user_id END) AS details
  FROM described
)
INSERT INTO {table} (team_id, seq, created_at, id, user_id, action, resource_type, resource_id, resource_name, agent_id,
  api_key_id, workspace_id, metadata, outcome, request_id, ip_address, user_agent, origin_salt, origin_hash, hash, words, mentions)
SELECT team_id, seq + row_number() OVER (PARTITION BY n ORDER BY g), at, gen_random_uuid(), user_id, action, resource_type,
       resource_id, CASE WHEN resource_type <> 'user' THEN title END,
       CASE WHEN r < 0.1 THEN md5('agent ' || n || ' ' || (1 + u %% %(agents)s))::uuid END,
       CASE WHEN r > 0.9 THEN md5('key ' || n || ' ' || (u %% 7))::uuid END,
       CASE WHEN resource_type IN ('task', 'workspace') THEN workspace END, details,
       CASE WHEN r BETWEEN 0.5 AND 0.502 THEN 'denied' ELSE 'success' END, gen_random_uuid()::text,
       ('10.' || n %% 256 || '.' || u %% 256 || '.' || floor(r * 4))::inet, 'Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0',
       salt, salt || salt, uuid_send(gen_random_uuid()) || salt,
       told.words, told.mentions
FROM detailed CROSS JOIN LATERAL activity_words(CASE WHEN resource_type <> 'user' THEN title END, action, details) AS told
ORDER BY g
"""
NUMBERED = """
UPDATE bench_teams t SET seq = l.seq FROM (SELECT team_id, max(seq) AS seq FROM activity_logs GROUP BY team_id) l
WHERE l.team_id = t.id
"""
GUIDE = """
CREATE TABLE guide_logs AS
SELECT id, team_id, user_id, action, resource_type, resource_id, metadata, created_at FROM activity_logs ORDER BY created_at;
CREATE INDEX ON guide_logs (team_id);
CREATE INDEX ON guide_logs (created_at);
"""
OUTBOX = """
INSERT INTO outbox (event_id, team_id, action, user_id, resource_type, resource_id, resource_name, workspace_id, details,
                    ip_address, user_agent, request_id)
SELECT gen_random_uuid(), team_id, action, user_id, resource_type, resource_id, resource_name, workspace_id, metadata,
       ip_address, user_agent, request_id
FROM activity_logs TABLESAMPLE SYSTEM (%(percent)s) ORDER BY random() LIMIT %(events)s
"""

# What is asked is measured, not the disk: a page deep in the log has rows of fifty blocks.
WARM = (
    "SELECT count(*), sum(length(words)), sum(length(metadata::text)) FROM activity_logs",
    "SELECT count(*), sum(length(metadata::text)) FROM guide_logs",
)
Connection = psycopg.Connection[tuple[Any, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--queries", type=int, default=200, help="of a kind, and team")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="after which a kind ends with fewer queries"
    )
    parser.add_argument("--events", type=int, default=10_000, help="that the drain moves in a round")
    arguments = parser.parse_args()
    with servers(durable=True):
        random.seed(1)
        with database() as connection:
            corpus = build(connection, arguments.rows)
        gc.freeze()
        report_queries(corpus, arguments.queries, arguments.seconds)
        report_drain(arguments.events)


@contextmanager
def database() -> Iterator[Connection]:
    with psycopg.connect(plain_url(settings().database_url), autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '1GB'")
        connection.execute("SET work_mem = '256MB'")
        yield connection


# The data


@dataclass(frozen=True, slots=True)
class Team:
    """Of which questions are asked."""

    id: UUID
    number: int
    size: int
    users: int
    tokens: tuple[str, str]
    """Of its owner, and of a viewer who does not see its private workspace."""


@dataclass(frozen=True, slots=True)
class Corpus:
    begins: datetime
    ends: datetime
    vocabulary: list[str]
    """The most common word first."""
    actions: list[str]
    big: Team
    any: list[Team]


def build(connection: Connection, rows: int) -> Corpus:
    begun = time.perf_counter()
    ends = datetime.now(UTC)
    begins = ends - timedelta(days=DAYS)
    vocabulary, actions = _vocabulary(), _actions()
    for statement in (TEAMS_OF % {"rows": rows, "big": BIG, "teams": TEAMS, "most": MOST_USERS}).split(";")[
        :-1
    ]:
        connection.execute(statement.encode())
    given = {"names": list(NAMES), "agents": AGENTS, "workspaces": WORKSPACES}
    with connection.transaction():
        for statement in PEOPLE.split(";")[:-1]:
            connection.execute(statement.encode(), given)
    connection.execute(
        "CREATE TABLE bench_words AS SELECT rank::int, word FROM unnest(%s::text[]) WITH ORDINALITY w (word, rank)",
        [vocabulary],
    )
    connection.execute("ANALYZE bench_words")
    connection.execute("ANALYZE bench_teams")
    connection.execute("SELECT ensure_activity_partitions(%s, 14)", [begins.date()])
    indexes, keys = _drop_indexes(connection), _drop_foreign_keys(connection)
    _fill(connection, rows, begins, ends, actions)
    filled = time.perf_counter()
    for made_again in (*indexes.values(), *keys):
        connection.execute(made_again.encode())
    connection.execute("INSERT INTO activity_heads (team_id, seq) SELECT id, seq FROM bench_teams")
    indexed = time.perf_counter()
    folded = 0
    while moved := _fold():
        folded += moved
    counted = time.perf_counter()
    for statement in GUIDE.split(";")[:-1]:
        connection.execute(statement.encode())
    connection.execute("VACUUM (ANALYZE) activity_logs")
    connection.execute("VACUUM (ANALYZE)")
    for statement in WARM:
        connection.execute(statement.encode())
    print(
        f"{folded:,} rows made in {filled - begun:,.0f} s, indexed in {indexed - filled:,.0f} s, counted in "
        f"{counted - indexed:,.0f} s ({folded / (counted - indexed):,.0f} rows/s); all else {time.perf_counter() - counted:,.0f} s"
    )
    _print_sizes(connection)
    teams = _asked(connection)
    return Corpus(begins, ends, vocabulary, actions, teams[0], teams[1:])


def _vocabulary() -> list[str]:
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvwz" for vowel in "aeiou"]
    words: dict[str, None] = {}
    while len(words) < WORDS:
        words["".join(random.choices(syllables, k=random.choice((2, 3, 3, 4))))] = None
    return list(words)


def _actions() -> list[str]:
    """The catalogue's, tasks' first: they are the most."""
    return sorted(CATALOGUE, key=lambda name: (CATALOGUE[name].resource_type != "task", name))[:40]


def _cumulative(weights: Sequence[float]) -> list[float]:
    """The upper bounds of all but the last, as width_bucket wants them."""
    total, bounds, reached = sum(weights), [], 0.0
    for weight in weights[:-1]:
        reached += weight / total
        bounds.append(reached)
    return bounds


def _fill(connection: Connection, rows: int, begins: datetime, ends: datetime, actions: list[str]) -> None:
    sizes = [float(size) for (size,) in connection.execute("SELECT size FROM bench_teams ORDER BY n")]
    parts = 12
    for part in range(parts):
        connection.execute(
            ROWS.replace("{table}", "activity_logs").encode(),
            {
                "first": begins + (ends - begins) * part / parts,
                "length": (ends - begins) / parts,
                "rows": rows // parts,
                "actions": _cumulative([1 / rank for rank in range(1, len(actions) + 1)]),
                "teams": _cumulative(sizes),
                "workspaces": WORKSPACES,
                "vocabulary": WORDS,
                "agents": AGENTS,
                "names": actions,
                "types": [CATALOGUE[name].resource_type for name in actions],
            },
        )
        connection.execute(NUMBERED)


def _drop_indexes(connection: Connection) -> dict[str, str]:
    """All of the log's but its primary key; how to make each again, by its name."""
    found = connection.execute(
        "SELECT indexname, replace(indexdef, ' ON ONLY ', ' ON ') FROM pg_indexes"
        " WHERE tablename = 'activity_logs' AND indexname NOT LIKE 'pk%' ORDER BY 1"
    ).fetchall()
    for name, _ in found:
        connection.execute(f'DROP INDEX "{name}"'.encode())
    return dict(found)


def _drop_foreign_keys(connection: Connection) -> list[str]:
    """All of the log's; how to make each again, which checks every row."""
    found = connection.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'activity_logs'::regclass AND contype = 'f'"
    ).fetchall()
    for name, _ in found:
        connection.execute(f'ALTER TABLE activity_logs DROP CONSTRAINT "{name}"'.encode())
    return [f'ALTER TABLE activity_logs ADD CONSTRAINT "{name}" {definition}' for name, definition in found]


def _fold() -> int:
    with transaction() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        return activity_counts.fold(session, limit=50_000)


def _print_sizes(connection: Connection) -> None:
    sizes = connection.execute("""
        SELECT coalesce(parent.relname, 'rows'), pg_size_pretty(sum(pg_relation_size(c.oid))), sum(pg_relation_size(c.oid))
        FROM pg_inherits t JOIN pg_class p ON p.oid = t.inhrelid AND t.inhparent = 'activity_logs'::regclass
        JOIN LATERAL (SELECT t.inhrelid AS oid, NULL::oid AS up
                      UNION ALL SELECT i.indexrelid, h.inhparent FROM pg_index i JOIN pg_inherits h ON h.inhrelid = i.indexrelid
                      WHERE i.indrelid = t.inhrelid) c ON true
        LEFT JOIN pg_class parent ON parent.oid = c.up GROUP BY 1 ORDER BY 3 DESC
    """).fetchall()
    print(", ".join(f"{name.removeprefix('ix_activity_logs_')} {size}" for name, size, _ in sizes))


def _asked(connection: Connection) -> list[Team]:
    """The big team, then others as often as they have rows."""
    teams = connection.execute("SELECT id, n, seq, users FROM bench_teams ORDER BY n").fetchall()
    chosen = [teams[0], *random.choices(teams[1:], [row[2] for row in teams[1:]], k=ASKED)]
    asked = []
    for position, (team_id, number, size, users) in enumerate(chosen):
        tokens = (f"ahq_search_{position}_owner", f"ahq_search_{position}_viewer")
        for token, user in zip(tokens, (1, 2), strict=True):
            connection.execute(
                "INSERT INTO sessions (id, user_id, token_hash, expires_at)"
                " VALUES (%s, md5(%s)::uuid, %s, now() + interval '1 day')",
                [uuid7(), f"user {number} {user}", hash_secret(token)],
            )
        asked.append(Team(team_id, number, size, users, tokens))
    return asked


# The questions


@dataclass(frozen=True, slots=True)
class Question:
    wanted: ActivityFilter
    page: Page = field(default_factory=Page)
    at: datetime | None = None


Ask = Callable[[Corpus, Team], Question]


def _id_of(what: str) -> UUID:
    return UUID(bytes=md5(what.encode(), usedforsecurity=False).digest())


def _user(team: Team) -> UUID:
    return _id_of(f"user {team.number} {1 + int(team.users * random.random() ** 2)}")


def _action(corpus: Corpus) -> str:
    return random.choice(corpus.actions)


def _moment(corpus: Corpus, days: float = DAYS - 8) -> datetime:
    return corpus.begins + timedelta(days=days * random.random())


def _week(corpus: Corpus) -> dict[str, Any]:
    since = _moment(corpus)
    return {"since": since, "until": since + timedelta(days=7)}


def _deep(team: Team) -> Page:
    return Page(after=(str(random.randint(1, team.size)),))


def _task(team: Team) -> UUID:
    return _id_of(f"task {team.number} {int(team.size / 4 * random.random())}")


def _word(corpus: Corpus, first: int, last: int) -> str:
    return corpus.vocabulary[random.randint(first, last) - 1]


FILTERS: dict[str, Callable[[Corpus, Team], dict[str, Any]]] = {
    "user": lambda _, team: {"user_id": _user(team)},
    "action": lambda corpus, _: {"action": [_action(corpus)]},
    "three actions": lambda corpus, _: {"action": random.sample(corpus.actions, 3)},
    "user and action": lambda corpus, team: {"user_id": _user(team), "action": [_action(corpus)]},
    "agent": lambda _, team: {"agent_id": _id_of(f"agent {team.number} {random.randint(1, AGENTS)}")},
    "API key": lambda _, team: {"api_key_id": _id_of(f"key {team.number} {random.randint(0, 6)}")},
    "resource": lambda _, team: {"resource_type": "task", "resource_id": _task(team)},
    "resource type": lambda _, __: {
        "resource_type": random.choice(["task", "team", "role", "agent", "user"])
    },
    "workspace": lambda _, team: {
        "workspace_id": _id_of(f"workspace {team.number} {random.randint(1, WORKSPACES)}")
    },
    "workspace and action": lambda corpus, team: {
        "workspace_id": _id_of(f"workspace {team.number} {random.randint(1, WORKSPACES)}"),
        "action": [_action(corpus)],
    },
    "refused": lambda _, __: {"outcome": "denied"},
    "IP": lambda _, team: {
        "ip_address": f"10.{team.number % 256}.{random.randint(1, team.users) % 256}.{random.randint(0, 3)}"
    },
    "a week": lambda corpus, _: _week(corpus),
    "user, a week": lambda corpus, team: {"user_id": _user(team), **_week(corpus)},
}
TEXTS: dict[str, Callable[[Corpus, Team], str]] = {
    "very common (1-10)": lambda corpus, _: _word(corpus, 1, 10),
    "common (50-200)": lambda corpus, _: _word(corpus, 50, 200),
    "mid (500-2,000)": lambda corpus, _: _word(corpus, 500, 2_000),
    "rare (10,000-20,000)": lambda corpus, _: _word(corpus, 10_000, 20_000),
    "absent": lambda _, __: "".join(random.choices("qxy", k=8)),
    "a person's name": lambda _, team: f"{NAMES[(n := random.randint(1, team.users)) % 10]} {n}",
    "an id": lambda _, team: str(_task(team)),
    "two letters, absent": lambda _, __: random.choice(["qx", "xq", "qy", "yx"]),
}
KINDS: dict[str, Ask] = {
    "newest page": lambda _, __: Question(ActivityFilter()),
    "page at any depth": lambda _, team: Question(ActivityFilter(), _deep(team)),
    "page back at any depth": lambda _, team: Question(
        ActivityFilter(), Page(after=_deep(team).after, backwards=True)
    ),
    "jump to a time": lambda corpus, _: Question(ActivityFilter(), at=_moment(corpus)),
    **{
        name: lambda corpus, team, made=made: Question(ActivityFilter(**made(corpus, team)))  # type: ignore[misc]
        for name, made in FILTERS.items()
    },
    **{
        f"{name}, at any depth": lambda corpus, team, made=FILTERS[name]: Question(  # type: ignore[misc]
            ActivityFilter(**made(corpus, team)), _deep(team)
        )
        for name in ("user", "action", "user and action", "workspace")
    },
    **{
        f"text, {name}": lambda corpus, team, made=made: Question(ActivityFilter(q=made(corpus, team)))  # type: ignore[misc]
        for name, made in TEXTS.items()
    },
    "text, mid, with a user": lambda corpus, team: Question(
        ActivityFilter(q=_word(corpus, 500, 2_000), user_id=_user(team))
    ),
    "text, mid, a week": lambda corpus, team: Question(
        ActivityFilter(q=_word(corpus, 500, 2_000), **_week(corpus))
    ),
}


def report_queries(corpus: Corpus, queries: int, seconds: float) -> None:
    head = ("ms", "big p50", "p99", "n", "any p50", "p99", "n", "guide's, big p50", "p99", "n")
    rows = []
    with Session(engine()) as session, database() as connection:
        accesses = {
            team.id: [enter_team(session, Credential(token), team.id) for token in team.tokens]
            for team in (corpus.big, *corpus.any)
        }
        for kind, ask in KINDS.items():
            cells = [kind]
            for teams in ([corpus.big], corpus.any):
                cells += _cells(_measure(_asking(session, corpus, teams, accesses, ask), queries, seconds))
            guide = _measure(_asking_guide(connection, corpus, ask), queries, GUIDE_SECONDS, least=3)
            rows.append([*cells, *_cells(guide)])
        for kind, given in (("facets", {}), ("facets, a week", None)):
            cells = [kind]
            for teams in ([corpus.big], corpus.any):
                cells += _cells(
                    _measure(_counting(session, corpus, teams, accesses, given), queries, seconds)
                )
            rows.append([*cells, "", "", ""])
    print_table(head, rows)


def _asking(
    session: Session, corpus: Corpus, teams: list[Team], accesses: dict[UUID, list[Access]], ask: Ask
) -> Iterator[Callable[[], object]]:
    number = 0
    while True:
        team = random.choice(teams)
        access, question = accesses[team.id][number % 2], ask(corpus, team)
        number += 1

        def call(access: Access = access, question: Question = question) -> None:
            activity.in_team(session, access, question.wanted, question.page, at=question.at)
            session.rollback()

        yield call


def _counting(
    session: Session,
    corpus: Corpus,
    teams: list[Team],
    accesses: dict[UUID, list[Access]],
    given: dict[str, Any] | None,
) -> Iterator[Callable[[], object]]:
    while True:
        access = random.choice(accesses[random.choice(teams).id])
        span = _week(corpus) if given is None else given

        def call(access: Access = access, span: dict[str, Any] = span) -> None:
            activity_facets.count(session, access, **span)
            session.rollback()

        yield call


def _asking_guide(connection: Connection, corpus: Corpus, ask: Ask) -> Iterator[Callable[[], object]]:
    """The big team's, as the guide asks: by OFFSET, and text by ILIKE."""
    while True:
        question = ask(corpus, corpus.big)
        given: dict[str, Any] = {"team_id": corpus.big.id}
        where = ["team_id = %(team_id)s"]
        wanted = question.wanted
        for name in ("user_id", "resource_type", "resource_id"):
            if (value := getattr(wanted, name)) is not None:
                where.append(f"{name} = %({name})s")
                given[name] = value
        if wanted.action:
            where.append("action = ANY(%(action)s)")
            given["action"] = list(wanted.action)
        if wanted.since:
            where.append("created_at >= %(since)s AND created_at < %(until)s")
            given |= {"since": wanted.since, "until": wanted.until}
        if question.at:
            where.append("created_at <= %(at)s")
            given["at"] = question.at
        if wanted.q:
            where.append("(metadata::text ILIKE %(q)s OR action ILIKE %(q)s)")
            given["q"] = f"%{wanted.q}%"
        given["offset"] = corpus.big.size - int(question.page.after[0]) if question.page.after else 0
        statement = f"SELECT * FROM guide_logs WHERE {' AND '.join(where)} ORDER BY created_at DESC LIMIT 50 OFFSET %(offset)s"
        unknown = (
            wanted.workspace_id or wanted.agent_id or wanted.api_key_id or wanted.outcome or wanted.ip_address
        )
        if unknown or question.page.backwards:  # of which the guide's table knows nothing
            return
        yield lambda statement=statement, given=given: connection.execute(
            statement.encode(), given
        ).fetchall()  # type: ignore[misc]


def _measure(
    calls: Iterator[Callable[[], object]], queries: int, seconds: float, least: int = 1
) -> list[float]:
    """The seconds of each call, the first few left out."""
    taken: list[float] = []
    until = time.monotonic() + seconds
    for number, call in enumerate(calls):
        begun = time.perf_counter()
        call()
        if number >= min(3, least - 1):
            taken.append(time.perf_counter() - begun)
        if len(taken) >= queries or (len(taken) >= least and time.monotonic() > until):
            break
    return taken


def _cells(taken: list[float]) -> list[str]:
    if not taken:
        return ["", "", ""]
    return [f"{percentile(taken, 50) * 1e3:,.1f}", f"{percentile(taken, 99) * 1e3:,.1f}", str(len(taken))]


# The drain


def report_drain(events: int) -> None:
    """Rows a second that the drain's statement appends, without each index in turn: in a transaction that is rolled back."""
    with database() as connection:
        connection.execute(OUTBOX, {"percent": 1, "events": events})
        connection.execute("VACUUM ANALYZE outbox")
        names = [
            name
            for (name,) in connection.execute(
                "SELECT indexname FROM pg_indexes WHERE tablename = 'activity_logs' AND indexname NOT LIKE 'pk%' ORDER BY 1"
            )
        ]
    rates: dict[str, list[float]] = {"all": [], **{f"without {name}": [] for name in names}, "none": []}
    for _ in range(3):
        for label, measured in rates.items():
            dropped = names if label == "none" else [name for name in names if label == f"without {name}"]
            measured.append(_drain_without(dropped))
    full = median(rates["all"])
    print(f"\nThe drain's statement, batches of {BATCH}, {events:,} events, medians of 3, not committed")
    print_table(
        ("indexes", "rows/s", "µs a row", "price µs"),
        [
            [
                label.replace("ix_activity_logs_", ""),
                f"{median(measured):,.0f}",
                f"{1e6 / median(measured):,.0f}",
                "" if label == "all" else f"{1e6 / full - 1e6 / median(measured):,.0f}",
            ]
            for label, measured in rates.items()
        ],
    )


def _drain_without(dropped: list[str]) -> float:
    with Session(engine()) as session:
        for name in dropped:
            session.execute(text(f'DROP INDEX "{name}"'))
        begun, moved = time.perf_counter(), 0
        while batch := len(log_operations.project(session, limit=BATCH)):
            moved += batch
        taken = time.perf_counter() - begun
        session.rollback()
        return moved / taken


if __name__ == "__main__":
    main()

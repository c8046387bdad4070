"""
The activity log as a hash chain that nobody rewrites: digests, the chain, append-only triggers, purge and erasure.

A row's digest is the SHA-256 of its fields as PostgreSQL's binary array of bytea: each length-prefixed, NULL told from empty,
nothing depending on the client's encoding, time zone or locale. Its hash is the SHA-256 of the hash before it and its digest.
"""

import sqlalchemy as sa
from alembic import op

revision = "b3d1c0a94f27"
down_revision = "e4511ad1a853"
branch_labels = None
depends_on = None

FORMAT = "agenthq.activity.1"
ORIGIN_DIGEST = """
CREATE FUNCTION activity_origin_digest(salt bytea, ip_address inet, user_agent text) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT sha256(array_send(ARRAY[salt, convert_to(host(ip_address), 'UTF8'), convert_to(user_agent, 'UTF8')]))
$$
"""
DIGEST = f"""
CREATE FUNCTION activity_digest(
  team_id uuid, seq bigint, id uuid, created_at timestamptz, user_id uuid, agent_id uuid, api_key_id uuid, action text,
  schema_version int, outcome text, resource_type text, resource_id uuid, resource_name text, workspace_id uuid,
  metadata jsonb, request_id text, origin_hash bytea
) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT sha256(array_send(ARRAY[
    '{FORMAT}'::bytea, uuid_send(team_id), int8send(seq), uuid_send(id), timestamptz_send(created_at),
    uuid_send(user_id), uuid_send(agent_id), uuid_send(api_key_id), convert_to(action, 'UTF8'),
    int4send(schema_version), convert_to(outcome, 'UTF8'), convert_to(resource_type, 'UTF8'), uuid_send(resource_id),
    convert_to(resource_name, 'UTF8'), uuid_send(workspace_id), convert_to(metadata::text, 'UTF8'),
    convert_to(request_id, 'UTF8'), origin_hash
  ]))
$$
"""
GENESIS = f"""
CREATE FUNCTION activity_genesis(team_id uuid) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT sha256('{FORMAT}'::bytea || uuid_send(team_id))
$$
"""
CHAIN = """
CREATE FUNCTION activity_link(state bytea, previous bytea, digest bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT sha256(coalesce(state, previous) || digest)
$$;
CREATE AGGREGATE activity_chain(previous bytea, digest bytea) (SFUNC = activity_link, STYPE = bytea);
"""
DIGEST_OF_ROW = """activity_digest(team_id, seq, id, created_at, user_id, agent_id, api_key_id, action, schema_version,
  outcome, resource_type, resource_id, resource_name, workspace_id, metadata, request_id, origin_hash)"""
# What was logged before: in the order of its numbers, as the drain would have.
CHAIN_THE_PAST = f"""
UPDATE activity_logs SET origin_salt = uuid_send(gen_random_uuid()) WHERE ip_address IS NOT NULL OR user_agent IS NOT NULL;
UPDATE activity_logs SET origin_hash = activity_origin_digest(origin_salt, ip_address, user_agent)
WHERE origin_salt IS NOT NULL;
WITH chained AS (
  SELECT team_id, seq, created_at,
         activity_chain(activity_genesis(team_id), {DIGEST_OF_ROW}) OVER (PARTITION BY team_id ORDER BY seq) AS hash
  FROM activity_logs
)
UPDATE activity_logs l SET hash = c.hash FROM chained c
WHERE c.team_id = l.team_id AND c.seq = l.seq AND c.created_at = l.created_at;
UPDATE activity_heads h SET hash = l.hash FROM activity_logs l WHERE l.team_id = h.team_id AND l.seq = h.seq;
"""  # noqa: S608

# Rows may only be moved to the partition of their month, purged from the log's beginning, or stripped of the origin that
# is personal data; each by its function, which says so in a setting.
REFUSE = """
CREATE FUNCTION refuse_activity_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  doing text := coalesce(current_setting('agenthq.activity_change', true), '');
  personal text[] := '{ip_address,user_agent,origin_salt}';
BEGIN
  IF TG_OP = 'DELETE' AND doing IN ('purge', 'move') THEN
    RETURN OLD;
  END IF;
  IF TG_OP = 'UPDATE' AND doing = 'erase' AND NEW.ip_address IS NULL AND NEW.user_agent IS NULL AND NEW.origin_salt IS NULL
     AND to_jsonb(NEW) - personal = to_jsonb(OLD) - personal THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'the activity log is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON activity_logs
FOR EACH ROW EXECUTE FUNCTION refuse_activity_change();
CREATE TRIGGER no_truncation BEFORE TRUNCATE ON activity_logs
FOR EACH STATEMENT EXECUTE FUNCTION refuse_activity_change();
"""
TRUNCATION_OF_PARTITIONS = """
DO $$ DECLARE partition regclass; BEGIN
  FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'activity_logs'::regclass LOOP
    EXECUTE format('CREATE TRIGGER no_truncation BEFORE TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION refuse_activity_change()', partition);
  END LOOP;
END $$
"""
# As before, with the triggers, and as the table's owner: whoever calls it need not be.
ENSURE_PARTITIONS = """
CREATE OR REPLACE FUNCTION ensure_activity_partitions(first_day date, months int) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  month date := date_trunc('month', first_day)::date;
  name text;
  starts timestamptz;
  ends timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(4117031978);  -- one maker at a time; another finds the tables made
  PERFORM set_config('agenthq.activity_change', 'move', true);
  FOR i IN 1..months LOOP
    name := to_char(month, '"activity_logs_y"YYYY"m"MM');
    IF to_regclass(name) IS NULL THEN
      starts := month::timestamp AT TIME ZONE 'UTC';
      ends := (month + interval '1 month') AT TIME ZONE 'UTC';
      -- Inserts wait here, and then find the new partition; past this point they would have chosen the default one.
      LOCK TABLE ONLY activity_logs IN SHARE ROW EXCLUSIVE MODE;
      EXECUTE format('CREATE TABLE %I (LIKE activity_logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
      LOCK TABLE activity_logs_default IN ACCESS EXCLUSIVE MODE;  -- as ATTACH will need it, but before the move
      EXECUTE format('WITH moved AS (DELETE FROM activity_logs_default WHERE created_at >= %L AND created_at < %L RETURNING *)
                      INSERT INTO %I SELECT * FROM moved', starts, ends, name);
      EXECUTE format('ALTER TABLE activity_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, starts, ends);
      EXECUTE format('CREATE TRIGGER no_truncation BEFORE TRUNCATE ON %I
                      FOR EACH STATEMENT EXECUTE FUNCTION refuse_activity_change()', name);
    END IF;
    month := (month + interval '1 month')::date;
  END LOOP;
  PERFORM set_config('agenthq.activity_change', '', true);
END
$$
"""
# Before this revision; for the downgrade.
ENSURE_PARTITIONS_BEFORE = ENSURE_PARTITIONS
for added in (
    "SECURITY DEFINER SET search_path = public, pg_temp ",
    "  PERFORM set_config('agenthq.activity_change', 'move', true);\n",
    "  PERFORM set_config('agenthq.activity_change', '', true);\n",
    """      EXECUTE format('CREATE TRIGGER no_truncation BEFORE TRUNCATE ON %I
                      FOR EACH STATEMENT EXECUTE FUNCTION refuse_activity_change()', name);
""",
):
    ENSURE_PARTITIONS_BEFORE = ENSURE_PARTITIONS_BEFORE.replace(added, "")
# Erases a team's rows from the log's beginning up to a number, at most so many at once, and keeps the hash that the first
# row that stays chains to. The caller holds the lock of the team's head.
PURGE = """
CREATE FUNCTION purge_activity(of_team uuid, up_to bigint, at_most int) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  last bigint;
  last_hash bytea;
  purged bigint;
BEGIN
  SELECT least(up_to, h.seq, h.purged_seq + at_most) INTO last FROM activity_heads h WHERE h.team_id = of_team FOR UPDATE;
  SELECT hash INTO last_hash FROM activity_logs l WHERE l.team_id = of_team AND l.seq = last;
  IF last_hash IS NULL THEN
    RETURN 0;
  END IF;
  PERFORM set_config('agenthq.activity_change', 'purge', true);
  DELETE FROM activity_logs l WHERE l.team_id = of_team AND l.seq <= last;
  GET DIAGNOSTICS purged = ROW_COUNT;
  PERFORM set_config('agenthq.activity_change', '', true);
  UPDATE activity_heads h SET purged_seq = last, purged_hash = last_hash WHERE h.team_id = of_team;
  RETURN purged;
END
$$
"""
# Forgets where a person's rows of a team came from; the commitments to it stay, and with them the chain.
ERASE = """
CREATE FUNCTION erase_activity_origin(of_team uuid, person uuid) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  erased bigint;
BEGIN
  PERFORM set_config('agenthq.activity_change', 'erase', true);
  UPDATE activity_logs l SET ip_address = NULL, user_agent = NULL, origin_salt = NULL
  WHERE l.team_id = of_team AND l.user_id = person AND l.origin_salt IS NOT NULL;
  GET DIAGNOSTICS erased = ROW_COUNT;
  PERFORM set_config('agenthq.activity_change', '', true);
  RETURN erased;
END
$$
"""


def run(statements: str) -> None:
    """Several statements in one, which the driver's extended protocol refuses."""
    op.get_bind().connection.driver_connection.execute(statements.encode())  # type: ignore[union-attr]


def upgrade() -> None:
    for table in ("outbox", "activity_logs"):
        op.add_column(table, sa.Column("schema_version", sa.Integer(), server_default="1", nullable=False))
        op.add_column(
            table, sa.Column("outcome", sa.String(length=20), server_default="success", nullable=False)
        )
        op.create_check_constraint(op.f(f"ck_{table}_outcome"), table, "outcome IN ('success', 'denied')")
    op.add_column(
        "activity_heads", sa.Column("purged_seq", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.add_column("activity_heads", sa.Column("purged_hash", sa.LargeBinary(), nullable=True))
    for function in (ORIGIN_DIGEST, DIGEST, GENESIS):
        op.execute(function)
    run(CHAIN)
    run(CHAIN_THE_PAST)
    op.alter_column("activity_logs", "hash", nullable=False)
    run(REFUSE)
    op.execute(TRUNCATION_OF_PARTITIONS)
    op.execute(ENSURE_PARTITIONS)
    op.execute(PURGE)
    op.execute(ERASE)


def downgrade() -> None:
    op.execute("DROP FUNCTION erase_activity_origin(uuid, uuid)")
    op.execute("DROP FUNCTION purge_activity(uuid, bigint, int)")
    op.execute("DROP FUNCTION refuse_activity_change() CASCADE")  # its triggers, those of the partitions too
    op.execute("DROP FUNCTION ensure_activity_partitions(date, int)")
    op.execute(ENSURE_PARTITIONS_BEFORE)
    op.alter_column("activity_logs", "hash", nullable=True)
    op.execute("UPDATE activity_logs SET hash = NULL, origin_hash = NULL, origin_salt = NULL")
    op.execute("UPDATE activity_heads SET hash = NULL")
    op.execute("DROP AGGREGATE activity_chain(bytea, bytea)")
    op.execute("DROP FUNCTION activity_link(bytea, bytea, bytea)")
    op.execute("DROP FUNCTION activity_genesis(uuid)")
    op.execute("""DROP FUNCTION activity_digest(uuid, bigint, uuid, timestamptz, uuid, uuid, uuid, text, int, text, text,
                                                uuid, text, uuid, jsonb, text, bytea)""")
    op.execute("DROP FUNCTION activity_origin_digest(bytea, inet, text)")
    op.drop_column("activity_heads", "purged_hash")
    op.drop_column("activity_heads", "purged_seq")
    for table in ("activity_logs", "outbox"):
        op.drop_column(table, "outcome")  # its check goes with it
        op.drop_column(table, "schema_version")

"""
What the application's role may do where the tables belong to another one: all that the product needs, and no change of what
is logged. A trigger alone guards the log from mistakes; with these grants, whoever has the application's password can't switch
that trigger off.
"""

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

APPEND_ONLY = ("activity_logs", "checkpoints", "signing_keys")
# Partitions are reached through their table, whose grants decide then.
GRANT = """
DO $$
DECLARE
  app text := current_setting('agenthq.grant_to');
  relation record;
  routine record;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', app);
  EXECUTE format('REVOKE CREATE ON SCHEMA public FROM PUBLIC, %I', app);
  FOR relation IN SELECT c.oid::regclass AS name, c.relname = ANY(string_to_array('{append_only}', ',')) AS append_only,
                         c.relispartition OR c.relname = 'alembic_version' AS apart
                  FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') LOOP
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, %I', relation.name, app);
    IF relation.append_only THEN
      EXECUTE format('GRANT SELECT, INSERT ON %s TO %I', relation.name, app);
    ELSIF NOT relation.apart THEN
      EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I', relation.name, app);
    END IF;
  END LOOP;
  EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO %I', app);
  FOR routine IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                 WHERE p.pronamespace = 'public'::regnamespace AND p.proowner = current_user::regrole LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', routine.name);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', routine.name, app);
  END LOOP;
END
$$
""".replace("{append_only}", ",".join(APPEND_ONLY))


class Refused(Exception):
    """Why there is nothing that could be granted."""


def grant(connection: Connection, *, of: str) -> None:
    """
    Grants the role of the URL `of` what the product needs, and nothing else; run as the tables' owner, any number of times.
    Raises Refused where that role could do as the owner does anyway.
    """
    role = make_url(of).username
    if not role:
        raise Refused("DATABASE_URL names no role, which DATABASE_OWNER_URL could grant anything.")
    if connection.scalar(text("SELECT pg_has_role(:role, current_user, 'MEMBER')"), {"role": role}):
        raise Refused(
            f"The role {role} of DATABASE_URL may do all that the one of DATABASE_OWNER_URL may; it must be another,"
            " no superuser and no member of the owner's."
        )
    connection.execute(text("SELECT set_config('agenthq.grant_to', :role, true)"), {"role": role})
    connection.execute(text(GRANT))

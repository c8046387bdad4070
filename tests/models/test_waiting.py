"""The wait of models/waiting.py in a process that gevent has patched, which this one is not."""

import os
import subprocess
import sys

import pytest
from psycopg import waiting

from models.database import engine
from models.settings import settings

BEFORE = """
from gevent import monkey
monkey.patch_all()
import os, time
import gevent, psycopg
from psycopg import waiting
from models.database import engine
from models.waiting import wait
engine()
assert waiting.wait is wait
connect = lambda: psycopg.connect(os.environ["DATABASE"], autocommit=True)
"""
CASES = {
    "greenlets wait together": """
def sleep():
    with connect() as connection:
        connection.execute("SELECT pg_sleep(0.5)")
begun = time.monotonic()
gevent.joinall([gevent.spawn(sleep) for _ in range(8)], raise_error=True)
assert 0.5 <= time.monotonic() - begun < 3, time.monotonic() - begun
""",
    "what is larger than any buffer goes out and comes in": """
text = "x" * 20_000_000
with connect() as connection:
    assert connection.execute("SELECT %s::text", (text,)).fetchone() == (text,)
""",
    "a connection that is ended says so": """
with connect() as ended, connect() as other:
    waits = gevent.spawn(ended.execute, "SELECT pg_sleep(60)")
    gevent.sleep(0.2)
    other.execute("SELECT pg_terminate_backend(%s)", (ended.info.backend_pid,))
    waits.join(10)
    assert isinstance(waits.exception, psycopg.OperationalError), waits.exception
    assert ended.closed
""",
    "a greenlet that gives up leaves the connection to be closed": """
connection = connect()
with gevent.Timeout(0.3, False):
    connection.execute("SELECT pg_sleep(60)")
    raise SystemExit("it did not give up")
connection.close()
with connect() as connection:
    assert connection.execute("SELECT 1").fetchone() == (1,)
""",
    "a time limit is kept": """
connection = connect()
begun = time.monotonic()
try:
    connection.wait(connection.cursor()._execute_gen("SELECT pg_sleep(60)"), timeout=0.3)
except psycopg.errors._WaitTimeout:
    assert 0.3 <= time.monotonic() - begun < 5
else:
    raise SystemExit("it waited for ever")
""",
}


@pytest.mark.parametrize("script", CASES.values(), ids=CASES)
def test_waiting_on_gevent(script: str) -> None:
    database = settings().database_url.replace("+psycopg", "", 1)
    ran = subprocess.run(
        [sys.executable, "-c", BEFORE + script],
        env=os.environ | {"DATABASE": database},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_elsewhere_psycopg_waits_as_it_does() -> None:
    engine()
    assert waiting.wait.__module__ != "models.waiting"

"""docs/verify.py, run as a customer runs it: it finds and names what was done to the log or to its export."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from models.database import transaction
from models.operations import activity
from tests.audit import LAST, SCENARIOS, Named, make_log, rechain, sign, tamper
from tests.exports import FORMATS, Rows, as_csv, as_ndjson, export_rows, run_verifier
from tests.factories import TeamSetting, drain, execute, fetch, make_team

LINE = re.compile(r"^row (\d+): (\w+): ", re.MULTILINE)


def make_signed(app: Flask) -> TeamSetting:
    """A team whose log ends at LAST, and is signed there."""
    team = make_team(app, roles=())
    drain()
    (head,) = fetch("SELECT seq FROM activity_heads WHERE team_id = :id", id=team.id)
    make_log(team, LAST - head.seq)
    made = sign(team.id)
    assert made is not None
    assert made.seq == LAST
    return team


class Evidence:
    """What a customer has: the public key, the checkpoints and exports."""

    def __init__(self, directory: Path, team: TeamSetting, client: FlaskClient) -> None:
        self.directory, self.team = directory, team
        self.keys = directory / "keys.json"
        self.keys.write_text(client.get("/api/v1/signing-keys").text)
        self.checkpoints = directory / "checkpoints.json"
        self.checkpoints.write_text(team.owner.get(f"{team.path}/activity/checkpoints").text)

    def write(self, data: bytes, name: str = "export") -> Path:
        path = self.directory / name
        path.write_bytes(data)
        return path

    def verify(self, data: bytes, *more: str, signed: bool = True) -> tuple[int, Named, str]:
        """The exit code, what it names, and all that it says."""
        signatures = ["--checkpoints", str(self.checkpoints), "--key", str(self.keys)] if signed else []
        ran = run_verifier(self.write(data), *signatures, *more)
        assert "Traceback" not in ran.stderr
        return (
            ran.returncode,
            {(int(seq), kind) for seq, kind in LINE.findall(ran.stdout)},
            ran.stdout + ran.stderr,
        )


@pytest.fixture
def evidence(tmp_path: Path, app: Flask, client: FlaskClient) -> Evidence:
    return Evidence(tmp_path, make_signed(app), client)


@pytest.fixture(scope="module")
def untouched(app: Flask, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """For the tests that bend an export and leave the log as it is."""
    return Evidence(tmp_path_factory.mktemp("evidence"), make_signed(app), app.test_client())


@pytest.mark.parametrize("form", FORMATS)
def test_an_untouched_export_is_valid(untouched: Evidence, form: str) -> None:
    code, named, said = untouched.verify(FORMATS[form](export_rows(untouched.team.id)))
    assert (code, named) == (0, set())
    assert f"Read {LAST} rows, from 1 to {LAST}." in said
    assert f"Signed up to row {LAST}" in said
    assert said.strip().endswith("VALID")
    assert "NOT VALID" not in said


@pytest.mark.parametrize("form", ["ndjson", "csv"])
@pytest.mark.parametrize("how", SCENARIOS)
def test_whatever_is_done_to_the_log_is_named(evidence: Evidence, how: str, form: str) -> None:
    statements, expected = SCENARIOS[how]
    for statement in statements:
        tamper(statement, id=evidence.team.id)
    code, named, _ = evidence.verify(FORMATS[form](export_rows(evidence.team.id)))
    signed = {(LAST, "checkpoint")} if how == "a changed last hash" else set()  # is not the signed one either
    assert (code, named) == (1, expected | signed)


def index(rows: Rows, seq: int) -> int:
    return next(number for number, row in enumerate(rows) if row["seq"] == seq)


def change(rows: Rows, seq: int, **values: Any) -> None:
    rows[index(rows, seq)] |= values


def swap_lines(rows: Rows, a: int, b: int) -> None:
    rows[a - 1], rows[b - 1] = rows[b - 1], rows[a - 1]


def swap_numbers(rows: Rows, a: int, b: int) -> None:
    swap_lines(rows, a, b)
    rows[a - 1]["seq"], rows[b - 1]["seq"] = a, b


BENT: dict[str, tuple[Any, Named]] = {
    "a changed name": (lambda rows: change(rows, 9, resource_name="else"), {(9, "changed")}),
    "another person": (lambda rows: change(rows, 9, user_id=rows[8]["id"]), {(9, "changed")}),
    "no person": (lambda rows: change(rows, 9, user_id=None), {(9, "changed")}),
    "another action": (lambda rows: change(rows, 9, action="task_created"), {(9, "changed")}),
    "another request": (lambda rows: change(rows, 9, request_id="x"), {(9, "changed")}),
    "another team": (lambda rows: change(rows, 9, team_id=rows[8]["id"]), {(9, "changed")}),
    "changed metadata": (lambda rows: change(rows, 9, metadata='{"a": 1}'), {(9, "changed")}),
    "another hash": (lambda rows: change(rows, 9, hash="0" * 64), {(9, "changed")}),
    "another previous hash": (lambda rows: change(rows, 9, previous_hash="0" * 64), {(9, "changed")}),
    "no previous hash": (lambda rows: change(rows, 9, previous_hash=None), {(9, "changed")}),
    "another address": (lambda rows: change(rows, 9, ip_address="203.0.113.9"), {(9, "origin")}),
    "another agent": (lambda rows: change(rows, 9, user_agent="x"), {(9, "origin")}),
    "another commitment": (lambda rows: change(rows, 9, origin_hash="0" * 64), {(9, "origin"), (9, "changed")}),
    "a removed line": (lambda rows: rows.pop(8), {(9, "missing")}),
    "a removed first line": (lambda rows: rows.pop(0), {(1, "missing")}),
    "a removed last line": (lambda rows: rows.pop(), {(LAST, "missing")}),
    "a removed end": (lambda rows: rows.__delitem__(slice(9, None)), {(10, "missing")}),
    "all removed": (lambda rows: rows.clear(), {(1, "missing")}),
    "swapped lines": (lambda rows: swap_lines(rows, 7, 14), {(7, "swapped"), (14, "swapped")}),
    "swapped neighbours": (lambda rows: swap_lines(rows, 7, 8), {(7, "swapped"), (8, "swapped")}),
    "swapped, renumbered": (lambda rows: swap_numbers(rows, 7, 14), {(7, "swapped"), (14, "swapped")}),
    "swapped neighbours, renumbered": (lambda rows: swap_numbers(rows, 7, 8), {(7, "swapped"), (8, "swapped")}),
    "a repeated line": (lambda rows: rows.insert(9, dict(rows[8])), {(9, "inserted")}),
    "a line from elsewhere": (lambda rows: rows.insert(15, dict(rows[3])), {(4, "inserted")}),
    "a made-up line": (lambda rows: rows.insert(9, {**rows[8], "resource_name": "else"}), {(9, "inserted")}),
    "a line moved on": (lambda rows: rows.insert(14, rows.pop(6)), {(7, "missing"), (7, "inserted")}),
}  # fmt: skip


@pytest.mark.parametrize("form", ["ndjson", "csv"])
@pytest.mark.parametrize("how", BENT)
def test_whatever_is_done_to_an_export_is_named(untouched: Evidence, how: str, form: str) -> None:
    bend, expected = BENT[how]
    rows = export_rows(untouched.team.id)
    bend(rows)
    code, named, _ = untouched.verify(FORMATS[form](rows))
    assert (code, named) == (1, expected)


def test_each_field_of_a_row_is_proven(untouched: Evidence) -> None:
    """No field that is hashed can be changed; the summary is none, and it says so."""
    rows = export_rows(untouched.team.id)
    others = {
        "agent_id": rows[0]["id"],
        "api_key_id": rows[0]["id"],
        "workspace_id": None,
        "schema_version": 2,
    }
    for name, value in {
        **others,
        "outcome": "denied",
        "resource_type": "x",
        "resource_id": rows[0]["id"],
    }.items():
        bent = export_rows(untouched.team.id)
        assert bent[8][name] != value
        change(bent, 9, **{name: value})
        assert untouched.verify(as_ndjson(bent))[1] == {(9, "changed")}, name
    change(rows, 9, summary="Nothing happened")
    code, _, said = untouched.verify(as_ndjson(rows))
    assert code == 0
    assert "Not checked: summaries" in said


def test_a_rewritten_log_is_found_by_its_checkpoint_alone(evidence: Evidence) -> None:
    tamper(
        "UPDATE activity_logs SET resource_name = 'else' WHERE team_id = :id AND seq = 9", id=evidence.team.id
    )
    rechain(evidence.team.id, 9)
    data = as_ndjson(export_rows(evidence.team.id))
    assert evidence.verify(data)[:2] == (1, {(LAST, "checkpoint")})
    code, named, said = evidence.verify(data, signed=False)
    assert (code, named) == (0, set())
    assert "Not checked: whether the log was rewritten as a whole" in said


@pytest.mark.parametrize(
    "forge",
    [
        {"hash": "0" * 64},
        {"signature": base64.b64encode(bytes(64)).decode()},
        {"signature": base64.b64encode(b"\xff" * 64).decode()},
        {"created_at": "2020-01-01T00:00:00Z"},
        {"key_id": "0123456789abcdef"},
        {"team_id": "0198c5f0-0000-7000-8000-000000000000"},
    ],
    ids=str,
)
def test_a_forged_checkpoint_proves_nothing(evidence: Evidence, forge: dict[str, str]) -> None:
    page = json.loads(evidence.checkpoints.read_text())
    page["items"][0] |= forge
    evidence.checkpoints.write_text(json.dumps(page))
    code, named, said = evidence.verify(as_ndjson(export_rows(evidence.team.id)))
    assert (code, named) == (1, {(LAST, "checkpoint")})
    assert "Signed" not in said


def test_another_key_vouches_for_nothing(untouched: Evidence) -> None:
    data = as_ndjson(export_rows(untouched.team.id))
    key = base64.b64encode(b"\x01" + bytes(31)).decode()
    ran = run_verifier(untouched.write(data), "--checkpoints", untouched.checkpoints, "--key", key)
    assert ran.returncode == 1
    assert "none of yours" in ran.stdout


def test_a_key_can_be_given_in_hexadecimal_digits(untouched: Evidence) -> None:
    ((public_key,),) = [
        fetch("SELECT encode(public_key, 'hex') AS k FROM signing_keys ORDER BY created_at LIMIT 1")[0]
    ]
    data = as_ndjson(export_rows(untouched.team.id))
    ran = run_verifier(untouched.write(data), "--checkpoints", untouched.checkpoints, "--key", public_key)
    assert (ran.returncode, "Signed up to" in ran.stdout) == (0, True)


def test_hidden_rows_keep_the_chain_whole_and_are_counted(untouched: Evidence) -> None:
    rows = export_rows(untouched.team.id, hidden=lambda row: row.seq in {1, 9, 10, LAST})
    for form in ("ndjson", "csv"):
        code, named, said = untouched.verify(FORMATS[form](rows))
        assert (code, named) == (0, set())
        assert "what 4 rows say" in said
    change(rows, 9, digest="0" * 64)
    assert untouched.verify(as_ndjson(rows))[:2] == (1, {(9, "changed")})


def test_an_export_of_hidden_rows_alone_is_followed(untouched: Evidence) -> None:
    rows = export_rows(untouched.team.id, hidden=lambda _: True)
    assert untouched.verify(as_ndjson(rows))[:2] == (0, set())


def test_erased_origins_are_valid_and_counted(evidence: Evidence) -> None:
    execute("SELECT erase_activity_origin(:id, :who)", id=evidence.team.id, who=evidence.team.owner.id)
    rows = export_rows(evidence.team.id)
    erased = sum(row["origin_hash"] is not None for row in rows)
    code, named, said = evidence.verify(as_ndjson(rows))
    assert (code, named) == (0, set())
    assert f"where {erased} rows came from" in said


def test_a_purged_beginning_is_valid_if_one_knows_of_it(evidence: Evidence) -> None:
    with transaction() as session:
        assert activity.purge(session, evidence.team.id, up_to=7, at_most=100) == 7
    data = as_ndjson(export_rows(evidence.team.id))
    assert evidence.verify(data)[:2] == (1, {(1, "missing")})
    code, named, said = evidence.verify(data, "--first", "8")
    assert (code, named) == (0, set())
    assert "the rows before 8" in said
    assert evidence.verify(data, "--first", "7")[:2] == (1, {(7, "missing")})


def test_the_checkpoint_of_a_purge_proves_what_the_rest_stands_on(evidence: Evidence) -> None:
    with transaction() as session:
        assert activity.purge(session, evidence.team.id, up_to=LAST, at_most=100) == LAST
    make_log(evidence.team, 3)
    rows = export_rows(evidence.team.id)
    assert evidence.verify(as_ndjson(rows), "--first", str(LAST + 1))[:2] == (0, set())
    page = json.loads(evidence.checkpoints.read_text())
    rows[0]["previous_hash"] = "0" * 64
    rows[0]["hash"] = "0" * 64
    code, named, _ = evidence.verify(as_ndjson(rows[:1]), "--first", str(LAST + 1))
    assert (code, named) == (1, {(LAST, "checkpoint"), (LAST + 1, "changed")})
    assert page["items"][0]["seq"] == LAST


def test_a_part_of_the_log_is_verified_as_such(untouched: Evidence) -> None:
    rows = export_rows(untouched.team.id)
    code, named, said = untouched.verify(as_ndjson(rows[4:12]), "--first", "5", "--last", "12")
    assert (code, named) == (0, set())
    assert "Not checked: whether the log was rewritten" in said
    assert untouched.verify(as_ndjson(rows[4:12]), "--first", "5", "--last", "13")[:2] == (
        1,
        {(13, "missing")},
    )


def test_rows_after_the_last_checkpoint_are_said_to_be_unsigned(evidence: Evidence) -> None:
    make_log(evidence.team, 2)
    code, named, said = evidence.verify(as_ndjson(export_rows(evidence.team.id)))
    assert (code, named) == (0, set())
    assert f"Not checked: rows after {LAST} against a signature" in said


AWKWARD: list[Any] = [
    {"name": "=1+1", "é": [1.50, 1e30, -0.0, 10**40, 0.000001], "aa": {}, "b": [], "long key": None},
    {"name": "tab\t, quote\", back\\, newline\n, \u2028, \x7f, \x01 and 𝄞", "true": True, "z": [[False]]},
    {"zz": 1, "é": 2, "a": 3, "aaa": 4, "ab": 5, "": 6, "B": 7},
]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_any_metadata_and_text_is_read_as_it_was_hashed(evidence: Evidence, form: str) -> None:
    for seq, metadata in enumerate(AWKWARD, 9):
        tamper(
            "UPDATE activity_logs SET metadata = CAST(:metadata AS jsonb), resource_name = CAST(:name AS text), user_agent = CAST(:name AS text),"
            " request_id = CAST(:name AS text),"
            " origin_hash = activity_origin_digest(origin_salt, ip_address, CAST(:name AS text))"
            " WHERE team_id = :id AND seq = :seq",
            id=evidence.team.id,
            seq=seq,
            metadata=json.dumps(metadata),
            name=["=cmd|' /C calc'!A0", "'quoted', \"so\"\r\nand on", "\tÄ, ö; 𝄞\n\n"][seq - 9],
        )
    rechain(evidence.team.id, 9)
    rows = export_rows(evidence.team.id)
    code, named, said = evidence.verify(FORMATS[form](rows), signed=False)
    assert (code, named) == (0, set()), said


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_empty_texts_and_no_texts_are_told_apart(evidence: Evidence, form: str) -> None:
    tamper(
        "UPDATE activity_logs SET resource_name = '', request_id = '', user_agent = '',"
        " origin_hash = activity_origin_digest(origin_salt, ip_address, '') WHERE team_id = :id AND seq = 9",
        id=evidence.team.id,
    )
    rechain(evidence.team.id, 9)
    assert evidence.verify(FORMATS[form](export_rows(evidence.team.id)), signed=False)[:2] == (0, set())


def test_the_name_of_a_person_is_not_logged_and_said_to_be_so(evidence: Evidence) -> None:
    tamper(
        "UPDATE activity_logs SET resource_name = NULL WHERE team_id = :id AND seq = 9", id=evidence.team.id
    )
    rechain(evidence.team.id, 9)
    rows = export_rows(evidence.team.id)
    change(rows, 9, resource_name="Kim")
    code, named, said = evidence.verify(as_ndjson(rows), signed=False)
    assert (code, named) == (0, set())
    assert "the resource_name of 1 rows" in said


@pytest.mark.parametrize("address", ["::ffff:192.0.2.1", "::192.0.2.1", "::1", "2001:db8::7", "192.0.2.1"])
def test_addresses_are_read_however_they_are_written(evidence: Evidence, address: str) -> None:
    import ipaddress

    tamper(
        "UPDATE activity_logs SET ip_address = CAST(:address AS inet),"
        " origin_hash = activity_origin_digest(origin_salt, CAST(:address AS inet), user_agent)"
        " WHERE team_id = :id AND seq = 9",
        id=evidence.team.id,
        address=address,
    )
    rechain(evidence.team.id, 9)
    rows = export_rows(evidence.team.id)
    for shown in (rows[8]["ip_address"], str(ipaddress.ip_address(address))):
        change(rows, 9, ip_address=shown)
        assert evidence.verify(as_ndjson(rows), signed=False)[:2] == (0, set())


def test_what_can_not_be_read_is_said_and_where(untouched: Evidence) -> None:
    rows = export_rows(untouched.team.id)
    whole, table = as_ndjson(rows), as_csv(rows)
    lines = whole.splitlines(keepends=True)
    del rows[8]["created_at"]
    unreadable = {
        whole[:-30]: f"row {LAST}",
        b"".join([*lines[:8], b"\n", *lines[8:]]): "row 9",
        b"".join([*lines[:8], b"[1]\n"]): "row 9",
        whole.replace(b'"seq": 9,', b'"seq": 9, "seq": 10,'): "twice",
        whole.replace(lines[8], lines[8].replace(b'"hash": "', b'"hash": "X')): "row 9",
        whole.replace("Rösearch".encode(), b"R\xf6search", 1): "UTF-8",
        as_ndjson(rows): "created_at",
        table[:-1000]: "cells",
        FORMATS["ndjson.gz"](export_rows(untouched.team.id))[:-40]: "cut off",
        b'{"seq": 1, "id": "x"}\n': "proof=true",
        b"seq,id\n1,x\n": "proof=true",
    }
    for data, said in unreadable.items():
        code, named, output = untouched.verify(data)
        assert (code, named) == (2, set()), output
        assert said in output


def test_files_that_are_not_there_and_keys_that_are_none_are_said(untouched: Evidence) -> None:
    data = untouched.write(as_ndjson(export_rows(untouched.team.id)))
    for arguments in (
        [Path("/nowhere")],
        [data, "--key", "short"],
        [data, "--checkpoints", "/nowhere", "--key", untouched.keys],
        [data, "--checkpoints", data, "--key", untouched.keys],
        [data, "--checkpoints", untouched.checkpoints],
    ):
        ran = run_verifier(*arguments)
        assert ran.returncode == 2
        assert ran.stderr
        assert "Traceback" not in ran.stderr

"""The programs of docs/webhooks.md, run on what a receiver really gets."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.operations import deliveries
from tests.factories import TeamSetting, execute, make_webhook
from tests.receiver import Received, receiving
from workers import webhooks

DOC = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
NODE = shutil.which("node")
Verify = Callable[[str, dict[str, str], bytes], bool]


def program(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOC, re.DOTALL)
    return str(found)


def by_python(secret: str, headers: dict[str, str], body: bytes) -> bool:
    namespace: dict[str, Any] = {}
    exec(program("python"), namespace)
    return bool(namespace["verify"](secret, headers, body))


def by_node(secret: str, headers: dict[str, str], body: bytes) -> bool:
    if NODE is None:
        pytest.skip("node is not installed")
    given = json.dumps([secret, headers, base64.b64encode(body).decode()])
    source = program("js") + "\nconst [secret, headers, body] = JSON.parse(process.argv[1]);\n"
    source += 'console.log(verify(secret, headers, Buffer.from(body, "base64")));'
    ran = subprocess.run(
        [NODE, "--input-type=module", "--eval", source, given],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {"true\n": True, "false\n": False}[ran.stdout]


@pytest.fixture
def sent(team: TeamSetting) -> Iterator[tuple[str, str, Received]]:
    """The secret before a rotation, the one after it, and what was sent then."""
    execute("UPDATE webhooks SET enabled = false")
    with receiving() as receiver:
        webhook = make_webhook(team, url=receiver.url)
        path = f"{team.path}/webhooks/{webhook['id']}"
        new = team.owner.post(f"{path}/rotate-secret").json["secret"]
        assert team.owner.post(f"{path}/test").json["delivered"]
        yield webhook["secret"], new, receiver.received[0]


@pytest.mark.parametrize("verify", [by_python, by_node])
def test_the_documents_programs_verify(verify: Verify, sent: tuple[str, str, Received]) -> None:
    old, new, received = sent
    headers = {name.lower(): value for name, value in received.headers.items()}
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    assert verify(new, headers, received.body)
    assert verify(old, headers, received.body)
    assert not verify(other, headers, received.body)
    assert not verify(new, headers, received.body + b" ")
    assert not verify(new, {**headers, "webhook-id": "other"}, received.body)
    late = str(int(headers["webhook-timestamp"]) - 400)
    signed = Received(received.path, {**headers, "webhook-timestamp": late}, received.body)
    stale = {**signed.headers, "webhook-signature": signed.signature_by(new)}
    assert not verify(new, stale, received.body)


def test_the_document_says_what_the_program_does() -> None:
    delays = [deliveries.delay_after(tries).total_seconds() for tries in range(1, 8)]
    assert delays[:3] == [5, 20, 80]
    assert [round(delay / 60) for delay in delays[3:6]] == [5, 21, 85]
    assert delays[6] == deliveries.LONGEST_DELAY.total_seconds() == 3 * 3600
    assert f"the {deliveries.MAXIMUM_ATTEMPTS}th try" in DOC
    assert f"for {deliveries.DISABLED_AFTER.days} days" in DOC
    assert f"{webhooks.THREADS} webhooks at a time" in DOC
    assert (deliveries.AT_ONCE_PER_TEAM, webhooks.SLOW_AT_ONCE) == (4, 8)

"""What the first visit costs: bytes, and round trips."""

import re
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from api import assets
from tests.console.conftest import ScreenOf
from tests.factories import TeamSetting

MOST = 100_000
"""Bytes, as they travel, heads included."""


@pytest.mark.parametrize("path", ["", "/tasks"])
def test_the_first_visit_is_light_and_one_round_trip_deep(
    team: TeamSetting, screen_of: ScreenOf, path: str, record_property: Callable[[str, object], None]
) -> None:
    for number in range(20):
        team.task(title=f"Answer the letter {number}")
    screen = screen_of(team.owner)
    network = screen.context.new_cdp_session(screen.page)
    network.send("Network.enable")
    sizes: dict[str, int] = {}
    urls: dict[str, str] = {}
    network.on(
        "Network.requestWillBeSent", lambda sent: urls.update({sent["requestId"]: sent["request"]["url"]})
    )
    network.on(
        "Network.loadingFinished",
        lambda done: sizes.update({urls[done["requestId"]]: int(done["encodedDataLength"])}),
    )
    page = screen.open(f"/teams/{team.id}{path}")
    screen.live()
    page.wait_for_load_state("networkidle")
    loaded = {url.removeprefix(screen.address): size for url, size in sizes.items() if "/api/" not in url}
    files = {url for url in loaded if url.startswith("/static/")}
    html = page.request.get(screen.address + f"/teams/{team.id}{path}").text()
    report = ", ".join(f"{url.partition('?')[0]} {size:,}" for url, size in sorted(loaded.items()))
    record_property("first_load_bytes", sum(loaded.values()))
    print(f"first load: {sum(loaded.values()):,} bytes in {len(loaded)} answers: {report}")  # noqa: T201  # the report
    assert sum(loaded.values()) < MOST
    assert {"/static/console.js", "/static/console.css"} <= {url.partition("?")[0] for url in files}
    # Nothing waits for another file to name it.
    assert {url for url in files if url not in html} == set()
    assert all("?v=" in url for url in files)


def test_a_second_page_fetches_no_file_again(team: TeamSetting, screen_of: ScreenOf) -> None:
    screen = screen_of(team.owner)
    page = screen.open(f"/teams/{team.id}")
    screen.live()
    again: list[str] = []
    page.on("response", lambda answer: again.append(answer.url) if not answer.from_service_worker else None)
    page.goto(f"{screen.address}/teams/{team.id}/tasks")
    screen.live()
    transferred = page.evaluate(
        "performance.getEntriesByType('resource').filter((one) => one.name.includes('/static/') && one.transferSize > 0).map((one) => one.name)"
    )
    assert any("/static/" in url for url in again)
    assert transferred == []


def test_a_file_is_kept_for_good_under_its_own_version_alone(client: FlaskClient) -> None:
    address = assets.address("console.css")
    kept = client.get(address, headers={"Accept-Encoding": "gzip"})
    assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert kept.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in kept.headers["Vary"]
    plain = client.get(address)
    assert "Content-Encoding" not in plain.headers
    assert len(kept.data) < len(plain.data)
    assert kept.headers["ETag"] != plain.headers["ETag"]
    for other in ("/static/console.css", "/static/console.css?v=0123456789ab"):
        assert client.get(other).headers["Cache-Control"] == "no-cache"


def test_a_module_imports_the_version_that_the_page_preloads(client: FlaskClient) -> None:
    script = client.get(assets.address("console.js")).text
    assert f'from "{assets.address("realtime.js")}"' in script


def test_what_is_absent_has_no_address() -> None:
    with pytest.raises(KeyError):
        assets.address("../assets.py")


def test_pages_name_files_by_version_alone() -> None:
    folder = assets.DIRECTORY.parent / "console" / "templates"
    plain = [
        path.name for path in folder.rglob("*.html") if re.search(r"[\"']/static/", path.read_text("utf-8"))
    ]
    assert plain == []


def test_a_page_is_compressed_for_those_who_take_it_so(client: FlaskClient) -> None:
    compressed = client.get("/sign-in", headers={"Accept-Encoding": "gzip"})
    plain = client.get("/sign-in")
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert compressed.content_length < len(plain.data)
    assert {"Cookie", "Accept-Encoding", "Accept-Language"} <= set(plain.vary)

"""
What an export of a long log takes: rows per second and memory, streamed and written by a worker.

`python -m benchmarks.exports [--rows 1000000]`. It starts the product as `make run` does, on a log of one team that is filled in one
statement, and exports the whole of it over HTTP: as NDJSON, as CSV and with a proof, each beside as many rows read from a bare
server-side cursor; then as a file. Memory is the most that any of the product's processes grew by from the first tenth of an export to its end.
"""

import argparse
import gzip
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx
import psycopg

from benchmarks.audit_chain import fill
from benchmarks.measuring import plain_url, print_table, servers
from benchmarks.pipeline import product
from models.settings import settings

STREAMS = {"NDJSON": "format=ndjson", "CSV": "format=csv", "NDJSON with proof": "proof=true"}
ROWS_AT_ONCE = 500
EVERY_S = 0.1
MIB = 1024


class Memory:
    """Resident memory of the product's processes while something runs, by process."""

    def __init__(self, address: str) -> None:
        self._mark = f"PORT={httpx.URL(address).port}".encode()
        self._over = threading.Event()
        self._seen: dict[int, list[int]] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            for pid in self._pids():
                self._seen.setdefault(pid, []).append(_resident(pid))

    def _pids(self) -> Iterator[int]:
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and self._mark in (process / "environ").read_bytes().split(b"\0"):
                    yield int(process.name)
            except OSError:  # ended meanwhile
                continue

    def end(self) -> tuple[int, int]:
        """The most that a process had, and the most that one grew by after the first tenth of the time; both in MiB."""
        self._over.set()
        self._thread.join()
        grown = [max(kib) - max(kib[: max(1, len(kib) // 10)]) for kib in self._seen.values()]
        return max(map(max, self._seen.values())) // MIB, max(grown) // MIB


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with servers(durable=True):
        credential, team_id = fill(rows)
        bare = rows_of_a_cursor(team_id)
        with (
            product() as url,
            httpx.Client(
                base_url=f"{url}/api/v1/teams/{team_id}/activity",
                headers={"Authorization": f"Bearer {credential.secret}"},
                timeout=60,
            ) as client,
        ):
            measured = [measure(name, url, partial(stream, client, query)) for name, query in STREAMS.items()]
            measured.append(measure("NDJSON as a file", url, lambda: write(client)))
    print(f"\nExports of a log of {rows:,} rows; a bare cursor reads {bare:,.0f} rows/s")
    print_table(
        ("way", "rows", "seconds", "rows/s", "of the cursor", "most MiB", "grew by MiB"),
        [
            [
                name,
                f"{n:,}",
                f"{took:.1f}",
                f"{n / took:,.0f}",
                f"{n / took / bare:.2f}",
                str(most),
                str(grew),
            ]
            for name, n, took, most, grew in measured
        ],
    )


def measure(name: str, url: str, export: Callable[[], int]) -> tuple[str, int, float, int, int]:
    """The name, rows, seconds, and what Memory says."""
    memory, begun = Memory(url), time.perf_counter()
    rows = export()
    took = time.perf_counter() - begun
    return name, rows, took, *memory.end()


def stream(client: httpx.Client, query: str) -> int:
    """How many lines came, a CSV's head not counted."""
    lines = 0
    with client.stream("GET", f"/export?{query}", headers={"Accept-Encoding": "identity"}) as answer:
        answer.raise_for_status()
        for part in answer.iter_bytes():
            lines += part.count(b"\n")
    return lines - ("csv" in query)


def write(client: httpx.Client) -> int:
    """How many lines the file has that a worker wrote."""
    made = client.post("/exports", json={"format": "ndjson"}).raise_for_status().json()
    while (shown := client.get(f"/exports/{made['id']}").raise_for_status().json())["state"] in (
        "pending",
        "running",
    ):
        time.sleep(EVERY_S)
    if shown["state"] != "completed":
        raise RuntimeError(shown["error"])
    file = gzip.decompress(httpx.get(made["download_url"], timeout=60).raise_for_status().content)
    return file.count(b"\n")


def rows_of_a_cursor(team_id: UUID) -> float:
    """The same rows a second, unprocessed."""
    begun, rows = time.perf_counter(), 0
    with (
        psycopg.connect(plain_url(settings().database_url)) as connection,
        connection.cursor("bare") as cursor,
    ):
        cursor.execute("SELECT * FROM activity_logs WHERE team_id = %s ORDER BY seq DESC", [team_id])
        while part := cursor.fetchmany(ROWS_AT_ONCE):
            rows += len(part)
    return rows / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()

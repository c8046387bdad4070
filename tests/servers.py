"""The servers that the tests run on: the embedded ones, or with SERVERS=oldest the oldest that the product supports, of Debian."""

import os
from collections.abc import Mapping
from pathlib import Path

from api.embedded import PostgresServer, StackError, ValkeyServer


class Postgres15(PostgresServer):
    """Debian's package postgresql-15."""

    @property
    def binary(self) -> Path:
        return _installed(Path("/usr/lib/postgresql/15/bin/postgres"), "postgresql-15")

    def _locale(self) -> Mapping[str, str]:
        return {"locale": "C.UTF-8"}  # the built-in provider came with 17


class Redis7(ValkeyServer):
    """Debian's package redis-server."""

    name = "redis"

    @property
    def binary(self) -> Path:
        return _installed(Path("/usr/bin/redis-server"), "redis-server")


def _installed(binary: Path, package: str) -> Path:
    if not binary.exists():
        raise StackError(f"SERVERS=oldest needs Debian's package {package} (no {binary})")
    return binary


def server_classes() -> tuple[type[PostgresServer], type[ValkeyServer]]:
    """Those that SERVERS names."""
    chosen = os.environ.get("SERVERS", "embedded")
    return {"embedded": (PostgresServer, ValkeyServer), "oldest": (Postgres15, Redis7)}[chosen]

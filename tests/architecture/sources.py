"""The product's own source files, and what the rules look for in them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "models", "realtime", "workers")


def sources() -> Iterator[tuple[str, str]]:
    """Each module of the product: its path from the root, and its text."""
    paths = [ROOT / "wsgi.py", ROOT / "celeryconfig.py"]
    for package in PACKAGES:
        paths += sorted((ROOT / package).rglob("*.py"))
    for path in paths:
        yield path.relative_to(ROOT).as_posix(), path.read_text()


def calls_of(method: str, source: str) -> list[int]:
    """The lines that call a method of this name on anything."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
    ]


def reads_environment(source: str) -> list[int]:
    """The lines that name `os.environ`, `os.getenv` or environs' `Env`, however they are imported."""
    names, modules = {"environ", "environb", "getenv", "getenvb", "Env"}, {"os", "environs"}
    found = []
    for node in ast.walk(ast.parse(source)):
        imported = isinstance(node, ast.ImportFrom) and node.module in modules
        if imported and isinstance(node, ast.ImportFrom) and names & {each.name for each in node.names}:
            found.append(node.lineno)
        if isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) in modules:
            found.append(node.lineno)
    return found


INSERTERS = {"insert", "pg_insert", "bulk_insert_mappings", "bulk_save_objects"}


def makes_rows(of: str, table: str, source: str) -> list[int]:
    """The lines that make rows of a mapped class: by its constructor, by an insert of it or its table, or in SQL."""
    in_sql = re.compile(rf"\b(insert\s+into|merge\s+into|copy)\s+(only\s+)?{table}\b", re.IGNORECASE)
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            named = {name for each in node.args for name in ast.unparse(each).split(".")}
            if called == of or (called in INSERTERS and of in named):
                found.append(node.lineno)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and in_sql.search(node.value):
            found.append(node.lineno)
    return found

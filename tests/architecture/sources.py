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


SECRET = re.compile(r"(^|_)(token|secret|password|signature|otp|csrf)$")
UNEXPLAINED = re.compile(r"# nosec(?! B\d+$)|^[^#]*#\s*nosec|# noqa: \w+\s+# nosec", re.MULTILINE)


def compares_secrets(source: str) -> list[int]:
    """The lines that compare by `==` or `!=` what is named like a secret: how long that takes tells how much of it was right."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
        and any(SECRET.search(_last_name(side)) for side in (node.left, *node.comparators))
    ]


def _last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def unexplained_exceptions(source: str) -> list[str]:
    """What bandit is told to pass over without naming the check, or without a reason before it on the line."""
    return UNEXPLAINED.findall(source)

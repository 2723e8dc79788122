"""The one direction of imports that import-linter cannot express: a submodule of an external package."""

import ast
from pathlib import Path

import pytest

import webhook

ROOT = Path(webhook.__file__).parent
OUTSIDE_SERVER = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "server"]


def imports(path):
    """Every module and name a file imports, as dotted paths."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", OUTSIDE_SERVER, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_server_imports_aiohttp_web(path):
    assert [name for name in imports(path) if name.startswith("aiohttp.web")] == []


def test_server_does_import_it_so_the_check_can_fail():
    server = [name for path in (ROOT / "server").rglob("*.py") for name in imports(path)]
    assert any(name.startswith("aiohttp.web") for name in server)

"""Build the small distribution for training images: the package ``weightlock`` and the modules that it needs.

    python scripts/readerwheel.py DIRECTORY

It depends on ``cryptography`` only. Its modules have the same names as in the full distribution, so install one of the
two in an environment, not both.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ROOT / "webhook" / "reader" / "weightlock"
ROOTS = ("webhook.cli.key",)
PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "weightlock-reader"
version = "{version}"
description = "Read model weights that Weightlock sealed"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = ["{cryptography}"]

[project.scripts]
weightlock-key = "webhook.cli.key:main"

[project.entry-points."vllm.general_plugins"]
weightlock = "weightlock.vllm:register"

[project.optional-dependencies]
fuse = ["mfusepy>=3.1"]

[tool.setuptools]
packages.find = {{ namespaces = false }}
package-data = {{ weightlock = ["py.typed"], webhook = ["py.typed"] }}
"""


def modules() -> list[Path]:
    """The modules of `webhook` that the reader imports, directly or not, with their packages."""
    pending = [*ROOTS, *(name for path in PUBLIC.glob("*.py") for name in imports(path))]
    matches: set[Path] = set()
    while pending:
        name = pending.pop()
        path = source(name)
        if path is None or path in matches:
            continue
        matches.add(path)
        pending += imports(path)
        pending += [name.rpartition(".")[0]]
    return sorted(matches)


def imports(path: Path) -> list[str]:
    """The modules of `webhook` that a file imports at run time."""
    names = []
    for node in runtime(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.startswith("webhook")]


def runtime(tree: ast.AST) -> list[ast.AST]:
    """All nodes except those in ``if TYPE_CHECKING`` blocks."""
    nodes, pending = [], [tree]
    while pending:
        node = pending.pop()
        nodes.append(node)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)
    return nodes


def source(name: str) -> Path | None:
    """The file of a module or package; None if there is none."""
    base = ROOT / name.replace(".", "/")
    return next(
        (path for path in (base.with_suffix(".py"), base / "__init__.py") if name and path.is_file()), None
    )


def build(output: Path) -> None:
    """Build the wheel into ``output``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (cryptography,) = (item for item in project["dependencies"] if item.startswith("cryptography"))
    with tempfile.TemporaryDirectory() as directory:
        stage = Path(directory)
        for path in modules():
            target = stage / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        shutil.copytree(PUBLIC, stage / "weightlock", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(ROOT / "webhook" / "py.typed", stage / "webhook" / "py.typed")
        content = PROJECT.format(version=project["version"], cryptography=cryptography)
        (stage / "pyproject.toml").write_text(content)
        words = ["wheel", "--quiet", "--no-deps", f"--wheel-dir={output}", str(stage)]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "dist").resolve())

"""The small distribution: it needs cryptography only, and reads a sealed directory in an environment of its own."""

from __future__ import annotations

import ast
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from webhook.keys.sealed import operations
from webhook.keys.sealed.operations import KeyService, Work
from webhook.keys.sealed.transfer import NoProgress

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import readerwheel

OPTIONAL = {"fsspec", "rich"}  # imported inside a function, with a message if they are missing


def test_its_modules_import_the_standard_library_and_cryptography_only():
    modules = readerwheel.modules()
    assert 15 < len(modules) < 40
    for path in modules:
        for node in readerwheel.runtime(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                existing = top in sys.stdlib_module_names or top in {"webhook", "cryptography"} | OPTIONAL
                assert existing, f"{path} imports {name}"


def test_the_wheel_reads_sealed_weights_in_an_environment_with_cryptography_only(tmp_path):
    readerwheel.build(tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").glob("weightlock_reader-*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site), str(wheel)]
    if subprocess.run(words, check=False).returncode:
        pytest.skip("pip cannot install cryptography here")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/config.json").write_text("{}")
    service = KeyService(f"local://{tmp_path}/keyset.json")
    work = Work(1, NoProgress(), "2026-11-23T00:00:00Z")
    manifest = operations.seal(tmp_path / "plain", tmp_path / "sealed", service, "m", "k1", work)
    with service.unwrap(manifest.key, "m") as key, key.view() as view:
        (tmp_path / "key").write_bytes(view)
    sealed, key_file = str(tmp_path / "sealed"), str(tmp_path / "key")
    code = (
        "import weightlock, sys\n"
        f"with weightlock.open_weights({sealed!r}, key_file={key_file!r}) as weights:\n"
        "    print(weights.read('config.json').decode(), 'orjson' in sys.modules, weightlock.__file__)\n"
    )
    python = tmp_path / "venv/bin/python"
    done = subprocess.run(
        [python, "-I", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    content, orjson, file = done.stdout.split()
    assert (content, orjson) == ("{}", "False")
    assert file.startswith(str(tmp_path / "venv"))

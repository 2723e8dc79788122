"""docs/loaders.md: its program opens a sealed directory, and its bindings are those that Weightlock sends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from webhook.keys.kms import PROVIDERS, KeyContext
from webhook.keys.sealed import operations
from webhook.keys.sealed.operations import KeyService, Work
from webhook.keys.sealed.transfer import NoProgress

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "loaders.md").read_text()


def test_the_program_on_the_page_opens_a_sealed_directory(tmp_path):
    source = tmp_path / "source"
    (source / "shards").mkdir(parents=True)
    for name, size in (("config.json", 17), ("empty", 0), ("shards/w.bin", 3_000_000)):
        (source / name).write_bytes(os.urandom(size))
    service = KeyService(f"local://{tmp_path}/keyset.json")
    work = Work(1, NoProgress(), "2026-11-23T00:00:00Z")
    operations.seal(source, tmp_path / "sealed", service, "atlas-70b", "2026-11", work)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (program,) = (block for block in blocks if "AESGCM" in block)
    assert "webhook" not in program
    assert "weightlock." not in program.replace("weightlock.json", "").replace("weightlock.dev", "")
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    for path in source.rglob("*"):
        if path.is_file():
            assert (tmp_path / "plain" / path.relative_to(source)).read_bytes() == path.read_bytes()


def test_the_bindings_on_the_page_are_those_that_are_sent():
    context = KeyContext("MODEL", "KEY-ID")
    assert context.encode() == b"weightlock.dev/key/v1\nMODEL\nKEY-ID"
    assert r"`weightlock.dev/key/v1\nMODEL\nKEY-ID`" in PAGE
    pairs = ", ".join(f'"{name}": {value}' for name, value in context.mapping().items())
    assert f"{{{pairs}}}" in PAGE
    for provider in PROVIDERS:
        assert f"| `{provider}` |" in PAGE

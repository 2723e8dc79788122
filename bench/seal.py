"""Seal and unseal, tmpfs to tmpfs, against ``cp`` of the same bytes in the same run, and against tink and pyrage.

The row "signed" seals with a check of the model's signature: it needs one read of the files, and without it two.
Each contender runs in a process of its own, in turns, several rounds; the best of each counts.
Ratios are speeds: 2x tink is twice as fast as tink at the same work.
CPU seconds are those of all threads; on a busy machine they are the steadier figure.
Run it alone with ``python -m bench.seal [--size GIB] [--rounds N] [--dir DIR]``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from webhook.cli.main import main as weightlock

GIB = 1 << 30
FILES = 4
PEERS = {"cp": "cp", "tink": "tink", "age": "pyrage (age)"}

_PRELUDE = """
import json, os, resource, shutil, sys, time
from pathlib import Path
source, target, home = (Path(word) for word in sys.argv[1:4])
"""
_REPORT = """
print(json.dumps({"seconds": time.perf_counter() - start, "cpu": sum(os.times()[:4]) - cpu,
                  "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""
OURS = """
from webhook.keys.sealed import operations
from webhook.keys.sealed.operations import KeyService, Work
from webhook.keys.sealed.transfer import NoProgress
service = KeyService(f"local://{home}/keyset.json")
work = Work(JOBS, NoProgress(), "2026-01-01T00:00:00Z")
"""
SEAL = """
operations.seal(source, target, service, "bench", "k1", work)
"""
SIGNED = """
from datetime import UTC, datetime
from webhook.cli.images.signatures import signed_content
from webhook.provenance.models import ModelTrust
from webhook.provenance.signatures import load_public_key
from webhook.provenance.trust import Trust, TrustedKey
key = TrustedKey(load_public_key((home / "signer.pub").read_bytes()))
content, _ = signed_content(home / "model.sig", ModelTrust(Trust(keys=(key,))), [], source)
operations.seal(source, target, service, "bench", "k1", work, content=content)
"""
_UNSEAL = """
with operations.open_sealed(source, service) as sealed:
    operations.unseal(sealed, target, [], work, mode=0o600, replace=False)
"""
_TINK = """
import os
from tink import proto_keyset_format, secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2
streaming_aead.register()
key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(key_value=bytes(32))
key.params.ciphertext_segment_size, key.params.derived_key_size = 1 << 20, 32
key.params.hkdf_hash_type = common_pb2.SHA256
keyset = tink_pb2.Keyset(primary_key_id=1)
entry = keyset.key.add(key_id=1, status=tink_pb2.ENABLED, output_prefix_type=tink_pb2.RAW)
entry.key_data.type_url = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"
entry.key_data.value = key.SerializeToString()
entry.key_data.key_material_type = tink_pb2.KeyData.SYMMETRIC
handle = proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
primitive = handle.primitive(streaming_aead.StreamingAead)
target.mkdir()
"""
_TINK_SEAL = """
for path in source.iterdir():
    with path.open("rb") as reader, primitive.new_encrypting_stream((target / path.name).open("wb"), b"bench") as out:
        while chunk := reader.read(1 << 20):
            out.write(chunk)
"""
_TINK_UNSEAL = """
for path in source.iterdir():
    with primitive.new_decrypting_stream(path.open("rb"), b"bench") as reader, (target / path.name).open("wb") as out:
        while chunk := reader.read(1 << 20):
            out.write(chunk)
"""
_AGE = """
import pyrage
identity = pyrage.x25519.Identity.from_str((home / "age.key").read_text())
target.mkdir()
"""
_AGE_SEAL = """
for path in source.iterdir():
    pyrage.encrypt_file(str(path), str(target / path.name), [identity.to_public()])
"""
_AGE_UNSEAL = """
for path in source.iterdir():
    pyrage.decrypt_file(str(path), str(target / path.name), [identity])
"""
_CP = """
import subprocess
"""
_CP_RUN = """
subprocess.run(["cp", "-r", str(source), str(target)], check=True)
"""


def _contenders(jobs: int) -> dict[str, tuple[str, str, str]]:
    """Name to set-up code, sealing code, unsealing code."""
    matches = {
        "cp": (_CP, _CP_RUN, _CP_RUN),
        f"weightlock, {jobs} threads": (OURS.replace("JOBS", str(jobs)), SEAL, _UNSEAL),
        f"signed, {jobs} threads": (OURS.replace("JOBS", str(jobs)), SIGNED, _UNSEAL),
        "weightlock, 1 thread": (OURS.replace("JOBS", "1"), SEAL, _UNSEAL),
        "signed, 1 thread": (OURS.replace("JOBS", "1"), SIGNED, _UNSEAL),
    }
    if importlib.util.find_spec("tink"):
        matches["tink"] = (_TINK, _TINK_SEAL, _TINK_UNSEAL)
    if importlib.util.find_spec("pyrage"):
        matches["pyrage (age)"] = (_AGE, _AGE_SEAL, _AGE_UNSEAL)
    return matches


def timed(setup: str, code: str, *paths: Path) -> dict[str, float]:
    """Run code in a new process; return its seconds, its CPU seconds and its peak of memory."""
    script = f"{_PRELUDE}{setup}\ncpu, start = sum(os.times()[:4]), time.perf_counter()\n{code}{_REPORT}"
    words = [sys.executable, "-c", script, *(str(path) for path in paths)]
    output = subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout
    result: dict[str, float] = json.loads(output)
    return result


def make(directory: Path, size: int, files: int = FILES) -> None:
    """Write so many files of random bytes."""
    directory.mkdir()
    for number in range(files):
        with (directory / f"model-{number}.safetensors").open("wb") as stream:
            left = size // files
            while left:
                left -= stream.write(os.urandom(min(left, 1 << 20)))


def sign(home: Path) -> None:
    """Sign the files, as `weightlock weights sign` does."""
    key = ec.generate_private_key(ec.SECP256R1())
    encoded = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (home / "signer.pem").write_bytes(encoded)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (home / "signer.pub").write_bytes(public)
    words = ["weights", "sign", "-q", str(home / "plain"), "--signing-key", str(home / "signer.pem")]
    with contextlib.redirect_stdout(io.StringIO()):
        weightlock([*words, "--signature", str(home / "model.sig")])


def _round(
    home: Path, name: str, parts: tuple[str, str, str], best: dict[tuple[str, str], dict[str, float]]
) -> None:
    setup, seal, unseal = parts
    sealed, plain = home / "sealed", home / "unsealed"
    for what, code, source, target in (
        ("seal", seal, home / "plain", sealed),
        ("unseal", unseal, sealed, plain),
    ):
        print(f"  {what} with {name} …", end="", file=sys.stderr, flush=True)
        result = timed(setup, code, source, target, home)
        print(f" {result['seconds']:.2f} s", file=sys.stderr, flush=True)
        key = what, name
        rss = max(result["rss"], best.get(key, result)["rss"])
        seconds = min(result["seconds"], best.get(key, result)["seconds"])
        cpu = min(result["cpu"], best.get(key, result)["cpu"])
        best[key] = {"seconds": seconds, "rss": rss, "cpu": cpu}
    shutil.rmtree(sealed)
    shutil.rmtree(plain)


def _ratios(best: dict[tuple[str, str], dict[str, float]], what: str, label: str) -> str:
    """How often as fast as each of the others, by name; a dash where that one is not installed."""
    seconds = best[what, label]["seconds"]
    peers = {peer: best.get((what, name)) for peer, name in PEERS.items()}
    existing = (
        f"{matches['seconds'] / seconds:5.2f}x" if matches else "    - " for matches in peers.values()
    )
    return "".join(f"   {ratio} {peer}" for ratio, peer in zip(existing, peers, strict=True))


def main(arguments: list[str] | None = None) -> int:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(prog="bench.seal", description=__doc__)
    parser.add_argument("--size", type=float, default=2.0, help="GiB of weights (2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="a tmpfs (/dev/shm)")
    options = parser.parse_args(arguments or [])
    size = int(options.size * GIB)
    free = shutil.disk_usage(options.dir).free
    if free < size * 3.2:
        print(
            f"seal: {options.dir} has {free / GIB:.1f} GiB free and {size * 3.2 / GIB:.1f} are needed; skipped"
        )
        return 0
    best: dict[tuple[str, str], dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="weightlock-bench-") as name:
        home = Path(name)
        make(home / "plain", size)
        sign(home)
        contenders = _contenders(options.jobs)
        if "pyrage (age)" in contenders:
            import pyrage  # noqa: PLC0415 - only where it is installed

            (home / "age.key").write_text(str(pyrage.x25519.Identity.generate()))
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for label, parts in contenders.items():
                _round(home, label, parts, best)
    print(f"\n{options.size:g} GiB in {FILES} files, {options.dir} to itself, best of {options.rounds}")
    print("ratios: speed against cp, tink and age (pyrage) at the same work in the same run")
    for what in ("seal", "unseal"):
        for label in contenders:
            if what == "unseal" and label.startswith("signed"):
                continue  # unsealing does not check the signature again
            result = best[what, label]
            memory = "" if label == "cp" else f"   peak {result['rss'] / (1 << 20):4.0f} MiB"
            rate = size / result["seconds"] / GIB
            speed = f"{rate:6.2f} GiB/s{_ratios(best, what, label)}"
            print(f"{what:7} {label:24} {speed}   {result['cpu'] / size * GIB:5.2f} CPU s/GiB{memory}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

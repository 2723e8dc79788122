"""Sources, destinations and storage that an attacker controls: each results in one sentence, and nothing outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from harness.waiting import slowness

from webhook.cli.main import main
from webhook.keys.errors import BadInputError, SealedDataError, WrongKeyError, printable
from webhook.keys.sealed import operations
from webhook.keys.sealed.format.manifest import MAX_BYTES, parse
from webhook.keys.sealed.format.paths import JOURNAL_NAME, MANIFEST_NAME
from webhook.keys.sealed.format.pins import Pins
from webhook.keys.sealed.storage import tree as tree_module
from webhook.keys.sealed.storage.tree import Tree
from webhook.keys.sealed.unsealing import verify
from webhook.keys.secret import Secret


@pytest.fixture
def run(capfd, service):
    def command(*words):
        code = main(["weights", *map(str, words), "--kms", service.url, "-q"])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return command


def sentence(err):
    assert err.startswith("weightlock: ")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    return err


def unseal(directory, destination, service, work, **options):
    with operations.open_sealed(directory, service) as sealed:
        return operations.unseal(
            sealed, destination, [], work, **({"mode": 0o600, "replace": False} | options)
        )


# --- sources


def deep(path, levels):
    """Create a path that is too long for one system call."""
    fd = os.open(path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("w", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def test_a_tree_of_1500_levels(tmp_path, run):
    (tmp_path / "plain").mkdir()
    deep(tmp_path / "plain", 1500)
    code, _, err = run("seal", tmp_path / "plain", tmp_path / "s", "--model", "m")
    assert (code, "levels deep" in sentence(err)) == (2, True)
    assert not (tmp_path / "s").exists()
    subprocess.run(["rm", "-rf", str(tmp_path / "plain")], check=True)


def test_a_name_that_is_not_utf_8(tmp_path, run):
    (tmp_path / "plain").mkdir()
    with open(os.fsencode(tmp_path / "plain") + b"/\xff\xfe", "wb"):  # noqa: PTH123 - bytes
        pass
    code, _, err = run("seal", tmp_path / "plain", tmp_path / "s", "--model", "m")
    assert (code, "is not UTF-8" in sentence(err)) == (2, True)


@pytest.mark.parametrize(("size", "good"), [(228, True), (229, False), (255, False)])
def test_long_names(tmp_path, service, work, same, size, good):
    plain, sealed = tmp_path / "plain", tmp_path / "s"
    plain.mkdir()
    (plain / ("é" * (size // 2) + "x" * (size % 2))).write_bytes(b"1")
    if not good:
        with pytest.raises(BadInputError, match="bytes long: at most 228"):
            operations.seal(plain, sealed, service, "m", "k1", work)
        assert not sealed.exists()
        return
    operations.seal(plain, sealed, service, "m", "k1", work)
    next(plain.iterdir()).write_bytes(b"2")
    operations.seal(plain, sealed, service, "m", "k1", work, update=True)
    operations.reencrypt(sealed, service, service, "k2", work)
    unseal(sealed, tmp_path / "back", service, work)
    assert same(plain, tmp_path / "back")


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory link"])
def test_a_source_of_another_kind(tmp_path, run, kind):
    plain = tmp_path / "plain"
    plain.mkdir()
    if kind == "fifo":
        os.mkfifo(plain / "x")
    elif kind == "socket":
        os.mknod(plain / "x", 0o140600)
    else:
        (plain / "x").symlink_to(tmp_path)
    code, _, err = run("seal", plain, tmp_path / "s", "--model", "m")
    assert code == 2
    sentence(err)


# --- destinations


def test_a_file_system_that_ignores_case_is_rejected_before_a_byte_is_written(
    tree, tmp_path, service, work, sealed, monkeypatch
):
    (tree / "Config.json").write_bytes(b"other")
    (tree / "shards/STRASSE").write_bytes(b"1")
    (tree / "shards/straße").write_bytes(b"2")
    out = tmp_path / "out"
    operations.seal(tree, out, service, "m", "k1", work)  # this file system distinguishes them
    assert unseal(out, tmp_path / "back", service, work) == 8
    monkeypatch.setattr(tree_module.Tree, "_same_name", lambda *_: True)
    with pytest.raises(BadInputError, match="differ only in case or Unicode normalisation"):
        unseal(out, tmp_path / "other", service, work)
    assert list((tmp_path / "other").iterdir()) == []
    with pytest.raises(BadInputError, match="differ only in case"):
        operations.seal(tree, tmp_path / "again", service, "m", "k1", work)
    assert list((tmp_path / "again").iterdir()) == []


def test_a_real_file_system_that_ignores_case(tree, tmp_path, service, work):
    mount = tmp_path / "mount"
    mount.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "casefold=utf8-12.1.0", "none", str(mount)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("this machine cannot mount a case-insensitive tmpfs")
    try:
        (mount / "dest").mkdir()
        if subprocess.run(["chattr", "+F", mount / "dest"], capture_output=True, check=False).returncode:
            pytest.skip("this machine cannot make a directory case-insensitive")
        (tree / "CONFIG.json").write_bytes(b"other")
        operations.seal(tree, tmp_path / "out", service, "m", "k1", work)
        with pytest.raises(BadInputError, match="differ only in case"):
            unseal(tmp_path / "out", mount / "dest", service, work)
        assert list((mount / "dest").iterdir()) == []
    finally:
        subprocess.run(["umount", str(mount)], check=False)


def test_the_probe_leaves_nothing(tmp_path):
    with Tree(tmp_path) as tree:
        tree.refuse_ambiguous(["a/B", "a/b", "A/b", "é", "é"])
    assert list(tmp_path.iterdir()) == []


def test_a_planted_symbolic_link_to_a_directory_is_not_followed(sealed, tmp_path, service, work):
    outside, back = tmp_path / "outside", tmp_path / "back"
    outside.mkdir()
    back.mkdir()
    (back / "shards").symlink_to(outside)
    with pytest.raises(BadInputError, match="shards is a file or a symbolic link"):
        unseal(sealed, back, service, work)
    with pytest.raises(BadInputError, match="shards is a file or a symbolic link"):
        unseal(sealed, back, service, work, replace=True)
    assert list(outside.iterdir()) == []


def test_a_planted_link_in_a_sealed_directory_is_not_followed(tree, sealed, tmp_path, service, work):
    outside = tmp_path / "outside"
    shutil.move(sealed / "shards", outside)
    (sealed / "shards").symlink_to(outside)
    before = sorted(outside.rglob("*"))
    (tree / "shards/new.bin").write_bytes(b"new")
    with pytest.raises(BadInputError, match="symbolic link"):
        operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    assert sorted(outside.rglob("*")) == before


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_planted_link_instead_of_a_file_is_replaced_only_with_force(sealed, tmp_path, service, work, link):
    back, target = tmp_path / "back", tmp_path / "target"
    back.mkdir()
    target.write_bytes(b"x" * 17)
    if link == "symbolic":
        (back / "config.json").symlink_to(target)
    else:
        (back / "config.json").hardlink_to(target)
    with pytest.raises(BadInputError, match="exists with other content"):
        unseal(sealed, back, service, work)
    unseal(sealed, back, service, work, replace=True)
    assert target.read_bytes() == b"x" * 17
    assert not (back / "config.json").is_symlink()


# --- storage


@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
@pytest.mark.parametrize("name", [MANIFEST_NAME, JOURNAL_NAME])
def test_a_manifest_or_journal_of_another_kind(sealed, tree, run, kind, name):
    path = sealed / name
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    started = time.monotonic()
    for words in (
        ("unseal", sealed, sealed.parent / "back"),
        ("seal", tree, sealed, "--model", "atlas-70b", "--update"),
        ("rotate", sealed),
    ):
        code, _, err = run(*words)
        if name == JOURNAL_NAME and words[0] == "unseal":
            assert code == 0  # a reader does not use the journal of the sealed directory
        else:
            assert code in {1, 2}, words
            sentence(err)
    assert time.monotonic() - started < 20 * slowness()


@pytest.mark.parametrize("version", [1, 2])
def test_a_huge_manifest_with_a_wrong_mac(sealed, version, service):
    """Its files are not parsed before the MAC is verified."""
    raw = (sealed / MANIFEST_NAME).read_bytes()
    first, rest = raw.split(b"\n", 1)
    line = b'{"path":"a","size":1,"file":"b","digest":"c"},\n'
    huge = first + b"\n" + line * ((MAX_BYTES - len(raw)) // len(line) - 1) + rest
    if version == 1:
        huge = huge.replace(b"sealed/v2", b"sealed/v1", 1)
    (sealed / MANIFEST_NAME).write_bytes(huge)
    code = (
        "import time\n"
        "from pathlib import Path\n"
        "from webhook.keys.sealed import operations\n"
        "started = time.monotonic()\n"
        "try:\n"
        f"    with operations.open_sealed(Path({str(sealed)!r}), operations.KeyService({service.url!r})): pass\n"
        "except operations.BadInputError.__base__ as error:\n"
        "    print(type(error).__name__, error)\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(status.split('VmHWM:')[1].split()[0]) >> 10, time.monotonic() - started)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    message, figures = done.stdout.splitlines()
    expected = "WrongKeyError" if version == 2 else "SealedDataError the manifest is damaged: it is too large"
    assert message.startswith(expected)
    memory, seconds = figures.split()
    assert int(memory) < 400, "MiB: the file itself, and little more"
    assert float(seconds) < 15


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"mac":"","format":"weightlock.dev/sealed/v1","generation":' + b"9" * 10_000 + b"}",
        b'{"mac":"\xff"}',
        b'{"format":"weightlock.dev/sealed/v2"\n],"mac":"',
    ],
)
def test_manifests_that_are_none(raw):
    with pytest.raises(SealedDataError, match="the manifest is damaged"):
        parse(raw)


FAKE = "x\nsealed is sound: model \u202e\x1b[2K\x9b"


def test_names_from_storage_reach_a_terminal_escaped(sealed, run):
    (sealed / FAKE).write_bytes(b"")
    for words in (("verify", sealed), ("verify", sealed, "-o", "json")):
        code, out, _ = run(*words)
        assert code == 1
        assert all(line.isprintable() for line in out.splitlines())
        assert not any(line.startswith("sealed is sound") for line in out.splitlines())
    code = main(["weights", "inspect", str(sealed), "-o", "json"])
    assert code == 0


def test_names_that_are_not_utf_8_in_storage_are_reported(sealed, run, capfd):
    with open(os.fsencode(sealed) + b"/\xff", "wb"):  # noqa: PTH123 - bytes
        pass
    for words in (("verify", sealed), ("verify", sealed, "-o", "json")):
        code, out, _ = run(*words)
        assert (code, "xff" in out) == (1, True)
    assert main(["weights", "inspect", str(sealed)]) == 0
    assert r"not in the manifest: \xff" in capfd.readouterr().out


def test_printable():
    assert printable("a é 日本") == "a é 日本"
    assert printable("a\nb\x1b\x9b\u202e\udcff\U000e0001") == r"a\x0ab\x1b\x9b\u202e\xff\U000e0001"


def test_a_deep_tree_in_storage_is_reported(sealed, run):
    deep(sealed, 1500)
    code, out, _ = run("verify", sealed)
    assert (code, "is not in the manifest" in out) == (1, True)
    subprocess.run(["rm", "-rf", str(sealed / "d")], check=True)


# --- repeated and interrupted runs


def test_a_repeated_seal_and_unseal_succeed(tree, sealed, tmp_path, run):
    back = tmp_path / "back"
    for _ in range(2):
        code, out, _ = run("unseal", sealed, back)
        assert code == 0
    assert "5 of 5 files were already there, with the same content" in out
    code, out, _ = run("seal", tree, sealed, "--model", "atlas-70b", "--key-id", "k1")
    assert (code, "nothing changed" in out) == (0, True)
    (back / "config.json").write_bytes(b"changed")
    code, _, err = run("unseal", sealed, back)
    assert (code, "exists with other content" in sentence(err)) == (2, True)
    assert (back / "config.json").read_bytes() == b"changed"
    (tree / "config.json").write_bytes(b"changed")
    code, _, err = run("seal", tree, sealed, "--model", "atlas-70b")
    assert (code, "--update" in sentence(err)) == (2, True)


def test_an_unseal_killed_before_it_removed_its_journal_finishes(sealed, tmp_path, service, work, crash):
    back = tmp_path / "back"
    crash(
        "from webhook.keys.sealed import journal\n"
        "journal.Journal.remove = lambda self: (os.ftruncate(self._fd, 0), os._exit(9))\n"
        f"with operations.open_sealed(Path({str(sealed)!r}), service) as sealed:\n"
        f"    operations.unseal(sealed, Path({str(back)!r}), [], work, mode=0o600, replace=False)\n",
        1 << 40,
    )
    assert (back / JOURNAL_NAME).stat().st_size == 0
    assert unseal(sealed, back, service, work) == 5
    assert not (back / JOURNAL_NAME).exists()


# --- pins


@pytest.fixture
def signing_key(tmp_path):
    path = tmp_path / "signing.pem"
    words = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    return path


def test_a_signature_binds_a_manifest_to_its_signer(sealed, run, signing_key, tree, service, work):
    code, out, _ = run("sign", sealed, "--signing-key", signing_key, "-o", "json")
    assert code == 0
    signer = json.loads(out)["signer"]
    other = "A" * 43 + "="
    assert run("verify", sealed, "--signer", signer)[0] == 0
    code, _, err = run("verify", sealed, "--signer", other)
    assert (code, "is signed by a key that the ModelWeights does not pin" in sentence(err)) == (1, True)
    assert run("verify", sealed, "--signer", other, "--signer", signer)[0] == 0
    (tree / "config.json").write_bytes(b"changed")
    code, out, _ = run("seal", tree, sealed, "--model", "atlas-70b", "--update")
    assert (code, "this one is not: sign it" in out) == (0, True)
    code, _, err = run("verify", sealed, "--signer", signer)
    assert (code, "has an unsigned manifest" in sentence(err)) == (1, True)
    assert run("rotate", sealed, "--signing-key", signing_key)[0] == 0
    assert run("verify", sealed, "--signer", signer)[0] == 0


def test_a_reader_with_the_key_cannot_forge_a_signed_manifest(sealed, run, signing_key, service):
    run("sign", sealed, "--signing-key", signing_key)
    path = sealed / MANIFEST_NAME
    signed = path.read_bytes()
    with operations.open_sealed(sealed, service) as opened:
        forged = opened.manifest.rewrapped(opened.manifest.key).encode(opened.key)
        pins = Pins(signers=(opened.manifest.signer,))
        digest = Pins(digest=opened.manifest.digest)
    tail = signed[signed.rindex(b'],"mac"') :]
    for content, error in (
        (forged, "unsigned manifest"),
        (forged[: forged.rindex(b'],"mac"')] + tail, "signature is not valid"),
    ):
        path.write_bytes(content)
        with pytest.raises(SealedDataError, match=error), operations.open_sealed(sealed, service, pins=pins):
            pass
    path.write_bytes(forged)
    pinned = pytest.raises(SealedDataError, match="does not contain the manifest that the ModelWeights pins")
    with pinned, operations.open_sealed(sealed, service, pins=digest):
        pass
    path.write_bytes(signed)
    with operations.open_sealed(sealed, service, pins=digest):
        pass


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {"minGeneration": -1},
        {"minGeneration": "3"},
        {"minGeneration": True},
        {"manifestDigest": 3},
        {"signers": "x"},
        {"signers": ["x"]},
        {"signers": ["A" * 43]},
        {"signers": ["A" * 44] * 17},
    ],
)
def test_pins_that_cannot_be_read_are_not_ignored(fields):
    with pytest.raises(ValueError, match=r".*"):
        Pins.parse(fields)


def test_pins_survive_their_file():
    pins = Pins(3, "sha256:aa", ("A" * 43 + "=",))
    assert Pins.parse(json.loads(pins.encode())) == pins
    assert Pins.parse({}) == Pins()


def test_files_of_version_0_2_stay_readable(tree, sealed, tmp_path, service, work, same):
    """Its manifest has another form, and its files have no tag lists."""
    with operations.open_sealed(sealed, service) as opened:
        document = version_1(opened.manifest, opened.key)
    for path in sealed.rglob("*.tags"):
        path.unlink()
    (sealed / MANIFEST_NAME).write_bytes(document)
    unseal(sealed, tmp_path / "back", service, work)
    assert same(tree, tmp_path / "back")
    with operations.open_sealed(sealed, service) as opened:
        assert (opened.manifest.version, verify(opened, 2, work.progress)) == (1, [])
    (sealed / MANIFEST_NAME).write_bytes(document.replace(b"config.json.sealed", b"config.json.sealeD"))
    with pytest.raises(WrongKeyError):
        unseal(sealed, tmp_path / "other", service, work)
    (sealed / MANIFEST_NAME).write_bytes(document)
    (tree / "config.json").write_bytes(b"changed")
    after = operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    assert after.generation == 2
    unseal(sealed, tmp_path / "new", service, work)
    assert same(tree, tmp_path / "new")


def version_1(manifest, key):
    """The manifest as version 0.2 wrote it."""
    import base64
    import hmac

    from webhook.keys.sealed.format.manifest import manifest_key

    ref = manifest.key
    document = {
        "format": "weightlock.dev/sealed/v1",
        "model": manifest.model,
        "generation": manifest.generation,
        "created": manifest.created,
        "segmentSize": 1 << 20,
        "key": {"id": ref.id, "kms": ref.kms, "wrapped": base64.b64encode(ref.wrapped).decode()},
        "files": [
            {"path": entry.path, "size": entry.size, "file": entry.file, "digest": entry.digest}
            for entry in manifest.files
        ],
    }
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    mac = hmac.digest(manifest_key(key, manifest.model), canonical, "sha256")
    return json.dumps(document | {"mac": base64.b64encode(mac).decode()}, indent=2).encode()


def test_no_secret_is_printed(sealed, run, service):
    with operations.open_sealed(sealed, service) as opened, opened.key.view() as view:
        material = bytes(view)
    for words in (("verify", sealed), ("unseal", sealed, sealed.parent / "b"), ("rotate", sealed)):
        _, out, err = run(*words)
        assert material.hex() not in out + err
    assert "secret bytes" in repr(Secret(b"x" * 32))

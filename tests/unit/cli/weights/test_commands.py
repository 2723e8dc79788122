"""The commands as a person types them: what is printed where, and with which exit code."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

import orjson
import pytest
from harness.waiting import slowness

from webhook.cli.weights import commands as weights


@pytest.fixture
def run(capsys):
    def command(*words):
        parser = argparse.ArgumentParser()
        weights.add_parser(parser.add_subparsers(required=True))
        args = parser.parse_args(["weights", *(str(word) for word in words)])
        code = args.run(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def tree(tmp_path):
    source = tmp_path / "plain"
    (source / "shards").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "shards/w.bin").write_bytes(os.urandom(2_500_000))
    return source


@pytest.fixture
def kms(tmp_path):
    return f"local://{tmp_path}/keyset.json"


@pytest.fixture
def sealed(run, tree, tmp_path, kms):
    code, _, err = run(
        "seal", tree, tmp_path / "sealed", "--model", "atlas-70b", "--kms", kms, "--key-id", "k1"
    )
    assert (code, err) == (0, "")
    return tmp_path / "sealed"


def test_sealing_prints_the_fields_of_the_object(run, tree, tmp_path, kms):
    code, out, _ = run(
        "seal", tree, tmp_path / "s", "--model", "atlas-70b", "--kms", kms, "--key-id", "2026-11"
    )
    assert code == 0
    first, second, *entry = out.splitlines()
    assert first == 'Sealed model "atlas-70b", generation 1: 2 files, 2.4 MiB'
    assert second == "In the ModelWeights object:"
    assert entry[0] == "  keys:"
    assert entry[1] == '  - id: "2026-11"'
    assert entry[2] == f'    kms: "{kms}"'
    assert entry[3].startswith("    wrapped: ")


def test_the_printed_entry_is_one_that_the_type_accepts(run, sealed, kms):
    from webhook.api.modelweights import WrappedKey

    _, out, _ = run("inspect", sealed, "-o", "json")
    key = WrappedKey.model_validate(orjson.loads(out)["key"])
    assert (key.id, key.kms) == ("k1", kms)


def test_there_and_back(run, tree, sealed, tmp_path, kms):
    code, out, err = run("unseal", sealed, tmp_path / "back", "--kms", kms, "--mode", "440")
    assert (code, out, err) == (0, 'Unsealed model "atlas-70b", generation 1: 2 files, 2.4 MiB\n', "")
    assert (tmp_path / "back/shards/w.bin").read_bytes() == (tree / "shards/w.bin").read_bytes()
    assert (tmp_path / "back/config.json").stat().st_mode & 0o777 == 0o440


def test_the_kms_from_the_environment(run, sealed, monkeypatch, kms):
    monkeypatch.setenv("WEIGHTLOCK_KMS", kms)
    assert run("verify", sealed)[0] == 0


def test_without_a_kms_the_error_names_the_one_of_the_manifest(run, sealed, kms, monkeypatch):
    monkeypatch.delenv("WEIGHTLOCK_KMS", raising=False)
    code, out, err = run("verify", sealed)
    assert (code, out) == (2, "")
    assert f"the manifest names {kms}, so pass that if you trust it" in err


@pytest.mark.parametrize("place", ["XDG_CONFIG_HOME", "HOME"])
def test_without_a_kms_a_local_keyset_is_used_and_reported(run, tree, tmp_path, monkeypatch, place):
    monkeypatch.delenv("WEIGHTLOCK_KMS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg") if place == "XDG_CONFIG_HOME" else "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    base = tmp_path / "xdg" if place == "XDG_CONFIG_HOME" else tmp_path / "home" / ".config"
    keyset, out = base / "weightlock" / "keyset.json", tmp_path / "s"
    output = f"weightlock: no --kms, using the local keyset local://{keyset}\n"
    code, _, err = run("seal", tree, out, "--model", "atlas-70b")
    assert (code, err) == (0, output)
    assert keyset.stat().st_mode & 0o777 == 0o600
    assert keyset.parent.stat().st_mode & 0o777 == 0o700
    code, _, err = run("unseal", out, tmp_path / "back")
    assert (code, err) == (0, output)
    assert run("rotate", out, "--key-id", "k2")[0] == 0
    code, _, err = run("verify", out, "--production")
    assert code == 2
    assert err == (
        "weightlock: name the KMS with --kms URL or WEIGHTLOCK_KMS: "
        "the default is a local keyset, which is not allowed in production\n"
    )
    assert run("seal", tree, tmp_path / "p", "--model", "m", "--production")[0] == 2
    assert not (tmp_path / "p").exists()


def test_no_service_and_no_home(run, tree, tmp_path, monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    for name in ("WEIGHTLOCK_KMS", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(weights.Path, "home", homeless)
    code, _, err = run("seal", tree, tmp_path / "s", "--model", "m")
    assert code == 2
    assert "cannot find a home directory for a local keyset" in err


def test_a_directory_that_is_not_there_is_said_to_be_missing(run, tmp_path, kms):
    for command in (("rotate",), ("rotate", "--reencrypt"), ("verify",), ("inspect",)):
        words = () if command == ("inspect",) else ("--kms", kms)
        code, _, err = run(*command, tmp_path / "missing", *words)
        assert (code, err) == (
            2,
            f"weightlock: {tmp_path}/missing does not exist: name a directory of sealed weights\n",
        )


def test_verify_removes_leftovers_of_a_run(run, tree, sealed, kms, monkeypatch):
    (tree / "config.json").write_text("[]")

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("webhook.keys.sealed.sealing.clean_up", cut)
    words = ("seal", tree, sealed, "--model", "atlas-70b", "--kms", kms, "--update")
    assert run(*words)[0] == 3
    assert (sealed / "config.json.sealed").exists()
    monkeypatch.undo()
    assert run("verify", sealed, "--kms", kms)[0] == 0
    assert not (sealed / "config.json.sealed").exists()


def test_verify_speaks_of_every_fault(run, sealed, kms):
    assert run("verify", sealed, "--kms", kms)[1] == (
        f'{sealed} is sound: model "atlas-70b", generation 1, 2 files, 2.4 MiB; checked every byte\n'
    )
    (sealed / "config.json.sealed").unlink()
    (sealed / "new").write_text("x")
    code, out, _ = run("verify", sealed, "--kms", kms)
    assert code == 1
    assert out.splitlines()[-1] == f"{sealed} is not sound: 2 faults"
    code, out, _ = run("verify", sealed, "--kms", kms, "--quick", "-o", "json")
    document = orjson.loads(out)
    assert (code, document["sound"], len(document["faults"])) == (1, False, 2)


def test_inspect_needs_no_key_and_promises_nothing(run, sealed, kms):
    code, out, _ = run("inspect", sealed)
    assert code == 0
    assert "model       atlas-70b" in out
    assert "  2.4 MiB  shards/w.bin" in out
    assert "This manifest is not verified" in out
    document = orjson.loads(run("inspect", sealed, "-o", "json")[1])
    assert [entry["path"] for entry in document["entries"]] == ["config.json", "shards/w.bin"]
    assert document["unlisted"] == []


def test_rotate(run, tree, sealed, tmp_path, kms):
    new = f"local://{tmp_path}/new.json"
    code, out, _ = run("rotate", sealed, "--kms", kms, "--new-kms", new, "--key-id", "k2")
    assert code == 0
    assert f'kms: "{new}"' in out
    code, out, _ = run("rotate", sealed, "--kms", new, "--reencrypt", "--key-id", "k3", "-o", "json")
    document = orjson.loads(out)
    assert (code, document["generation"], document["key"]["id"]) == (0, 3, "k3")
    assert run("unseal", sealed, tmp_path / "back", "--kms", new, "--only", "*.json")[0] == 0
    assert (tmp_path / "back/config.json").read_text() == "{}"


def test_update(run, tree, sealed, kms):
    (tree / "config.json").write_text("[]")
    words = ("seal", tree, sealed, "--model", "atlas-70b", "--kms", kms)
    code, _, err = run(*words)
    assert code == 2
    assert "add --update" in err
    assert '"generation": 2' in run(*words, "--update", "-o", "json")[1]


def test_exit_codes(run, tree, sealed, tmp_path, kms):
    with (sealed / "shards/w.bin.sealed").open("r+b") as stream:
        stream.seek(500)
        stream.write(b"spoilt")
    for code, words in (
        (1, ("unseal", sealed, tmp_path / "x", "--kms", kms)),
        (1, ("verify", sealed, "--kms", kms)),
        (1, ("verify", sealed, "--kms", kms, "--generation", "2")),
        (2, ("verify", tree, "--kms", kms)),
        (2, ("verify", sealed, "--kms", "nonsense")),
        (2, ("verify", sealed, "--kms", kms, "--production")),
        (2, ("verify", sealed, "--kms", kms, "--model", "other")),
        (2, ("verify", sealed, "--key-file", tmp_path / "missing")),
        (2, ("seal", tmp_path / "missing", tmp_path / "y", "--model", "m", "--kms", kms)),
        (2, ("seal", tree, tmp_path / "y", "--model", "Not A Name", "--kms", kms)),
    ):
        got, _, err = run(*words)
        assert got == code, words
        assert not err or (err.startswith("weightlock: ") and err.count("\n") == 1), err


def test_a_system_error_is_one_line(run, tmp_path, kms):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/w").write_text("w")
    code, _, err = run("seal", tmp_path / "plain", blocked / "inside", "--model", "m", "--kms", kms)
    assert (code, err) == (2, f"weightlock: {blocked} is not a directory\n")


@pytest.mark.parametrize(
    "words", [("--jobs", "0"), ("--jobs", "257"), ("--jobs", "x"), ("--mode", "9"), ("--mode", "1777")]
)
def test_bad_numbers_are_refused_by_the_parser(run, sealed, tmp_path, kms, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("unseal", sealed, tmp_path / "b", "--kms", kms, *words)
    assert stopped.value.code == 2
    assert "invalid _" not in capsys.readouterr().err, "no name of a function"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_how_to_go_on(tmp_path, kms, number, run):
    source = tmp_path / "plain"
    source.mkdir()
    with (source / "w.bin").open("wb") as stream:
        stream.truncate(400 << 30)  # a hole: long to seal, no disk needed
    code = (
        "import argparse, os, sys\n"
        "from webhook.cli.weights import commands as weights\n"
        "from webhook.keys.sealed import files, sealing\n"
        "sealing.require_space = lambda *_: None\n"
        "files.write_at = lambda fd, data, offset: None\n"
        "parser = argparse.ArgumentParser()\n"
        "weights.add_parser(parser.add_subparsers())\n"
        "args = parser.parse_args(sys.argv[1:])\n"
        "print('started', flush=True)\n"
        "sys.exit(args.run(args))\n"
    )
    words = ["weights", "seal", str(source), str(tmp_path / "s"), "--model", "m", "--kms", kms]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell inherits an ignored SIGINT, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        assert process.stdout.readline() == "started\n"
        while not (tmp_path / "s" / ".weightlock.journal").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=30 * slowness())
    assert process.returncode == 3
    assert err == "weightlock: interrupted: complete files stay, run the same command again to resume\n"
    assert not (tmp_path / "s/weightlock.json").exists()


def test_help_of_every_command(run, capsys):
    for command in ("seal", "unseal", "verify", "inspect", "rotate"):
        with pytest.raises(SystemExit) as stopped:
            run(command, "--help")
        assert stopped.value.code == 0
        assert "usage:" in capsys.readouterr().out

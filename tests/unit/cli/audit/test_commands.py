"""``weightlock audit``: exit codes and what is printed."""

from __future__ import annotations

import json

import pytest

from tests.unit.audit.conftest import write
from webhook.cli.main import main


@pytest.fixture
def place(tmp_path):
    signer = write(tmp_path / "logs" / "webhook" / "a", 20)
    (tmp_path / "logs" / "webhook" / "a" / "keys.txt").write_text(
        "".join(f"{key.render()}\n" for key in signer.keys)
    )
    return tmp_path / "logs"


def test_verify_exits_0_1_and_2(place, tmp_path, capsys):
    """0 for a whole log, 1 for a flipped byte with its place, 2 for bad input."""
    assert main(["audit", "verify", str(place)]) == 0
    output = capsys.readouterr().out
    assert "cluster/webhook/a: WHOLE, 22 entries" in output
    assert "truncation to an older checkpoint cannot be detected" in output
    bundle = place / "webhook/a/tile/entries/000.p/22"
    data = bundle.read_bytes()
    position = data.index(b"train-7") + 6
    bundle.write_bytes(data[:position] + b"8" + data[position + 1 :])
    assert main(["audit", "verify", str(place)]) == 1
    assert "first fault: tile/entries/000.p/22, byte" in capsys.readouterr().out
    assert main(["audit", "verify", str(tmp_path / "none")]) == 2
    (tmp_path / "bad").write_text("not a key")
    assert main(["audit", "verify", str(place), "--keys", str(tmp_path / "bad")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_search_tail_and_export(place, capsys):
    """A search finds by user and code, its index can be rebuilt, and nothing found is exit code 1."""
    assert main(["audit", "search", str(place), "--user", "user-2", "-o", "json"]) == 0
    matches = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["data"]["name"] for entry in matches] == ["train-2", "train-7", "train-12", "train-17"]
    index = place / "webhook/a/index/search.sqlite"
    index.write_bytes(b"x" * 5000)
    assert main(["audit", "search", str(place), "--code", "WL101", "--user", "user-2"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert main(["audit", "search", str(place), "--user", "nobody"]) == 1
    assert (
        main(["audit", "search", str(place), "--pod", "research/train-3", "--type", "verdict", "--index"])
        == 0
    )
    assert main(["audit", "tail", str(place), "-n", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("log  stop")
    assert main(["audit", "export", str(place), "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 23
    assert main(["audit", "export", str(place), "--to-target", "gopher://x"]) == 2


def test_prove_one_entry(place, tmp_path, capsys):
    """One file proves an entry to a third party who has the keys only."""
    assert main(["audit", "prove", str(place), "uid-5"]) == 0
    proof = tmp_path / "entry.tlog-proof"
    proof.write_text(capsys.readouterr().out)
    keys = str(place / "webhook/a/keys.txt")
    assert main(["audit", "verify", str(proof), "--keys", keys]) == 0
    assert '"name":"train-5"' in capsys.readouterr().out
    proof.write_text(proof.read_text().replace("index 6", "index 7"))
    assert main(["audit", "verify", str(proof), "--keys", keys]) == 1
    assert main(["audit", "verify", str(proof)]) == 2
    assert main(["audit", "prove", str(place), "none"]) == 1


def test_evidence_is_recomputed(place, tmp_path, capsys):
    """Evidence of a log can be recomputed, and differs for another log."""
    results = tmp_path / "results.json"
    period = ["--from", "2026-11-18T00:00:00Z", "--to", "2026-11-19T00:00:00Z"]
    code = main(
        ["evidence", "--log", str(place), *period, "-o", str(results), "--html", str(tmp_path / "r.html")]
    )
    assert code == 1
    assert main(["evidence", "verify", str(results), "--log", str(place)]) == 0
    write(place / "webhook" / "a", 1)
    assert main(["evidence", "verify", str(results), "--log", str(place)]) == 1
    assert "DIFFERS" in capsys.readouterr().out
    assert main(["evidence", "verify", str(tmp_path / "none"), "--log", str(place)]) == 2
    assert main(["evidence", "--log", str(place)]) == 2


def test_keys(tmp_path, capsys):
    """A generated key has verifier keys for each origin."""
    assert main(["audit", "key"]) == 0
    path = tmp_path / "log.key"
    path.write_text(capsys.readouterr().out)
    assert main(["audit", "key", "--of", str(path), "--origin", "east/broker/b"]) == 0
    assert [line.partition("+")[0] for line in capsys.readouterr().out.splitlines()] == ["east/broker/b"] * 2
    assert main(["audit", "key", "--of", str(path)]) == 2

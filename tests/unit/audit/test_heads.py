"""The log of heads: other logs cannot be truncated or replaced, and a killed writer is reported."""

from __future__ import annotations

import shutil

import pytest

from tests.unit.audit.conftest import KEY, settle, verdict, write
from webhook.audit.check import verify_directory
from webhook.audit.errors import AuditError
from webhook.audit.heads import Heads
from webhook.audit.keys import signer_of
from webhook.audit.storage import Directory
from webhook.audit.writer import LogWriter

OWN = "cluster/controller/c"


def heads(root):
    return Heads(root, OWN, lambda origin: signer_of(KEY, origin, "").keys)


def record(root, observer):
    """Write one controller run with everything that the observer reports."""
    signer = signer_of(KEY, OWN, "")
    writer = LogWriter(Directory(root / "controller" / "c", fsync=False), signer, limit=100, interval=0.01)
    writer.open()
    changes = list(observer.changes())
    for data in changes:
        writer.submit(writer.entry("log", data))
    writer.close()
    (root / "controller" / "c" / "keys.txt").write_text(signer.keys[0].render())
    return changes


def publish(root, signer):
    (root / "webhook" / "a" / "keys.txt").write_text("\n".join(key.render() for key in signer.keys))


def test_a_recorded_head_contradicts_a_truncated_log(tmp_path):
    """Verification compares each log with the heads that the controller recorded."""
    root = tmp_path / "logs"
    signer = write(root / "webhook" / "a", 3)
    shutil.copytree(root / "webhook" / "a", tmp_path / "old")
    write(root / "webhook" / "a", 3)
    publish(root, signer)
    (change,) = record(root, heads(root))
    assert change["event"] == "head"
    assert all(each.report.whole for each in verify_directory(root))
    shutil.rmtree(root / "webhook" / "a")
    shutil.copytree(tmp_path / "old", root / "webhook" / "a")
    publish(root, signer)
    faults = [str(fault) for each in verify_directory(root) for fault in each.report.faults]
    assert any("truncated: the checkpoint in entry 1 of cluster/controller/c" in fault for fault in faults), (
        faults
    )
    shutil.rmtree(root / "webhook")
    faults = [str(fault) for each in verify_directory(root) for fault in each.report.faults]
    assert any("log cluster/webhook/a is missing" in fault for fault in faults), faults


def test_a_replaced_log_is_reported_once(tmp_path):
    """A log that is not the continuation of its recorded head is reported."""
    write(tmp_path / "webhook" / "a", 3)
    observer = heads(tmp_path)
    assert [data["event"] for data in observer.changes()] == ["head"]
    assert list(observer.changes()) == []
    shutil.rmtree(tmp_path / "webhook" / "a")
    write(tmp_path / "webhook" / "a", 2)
    (change,) = observer.changes()
    assert "not a continuation" in change["detail"]
    assert list(observer.changes()) == []


def test_a_killed_writer_is_reported(tmp_path):
    """A log without a writer and without a stop entry is silent."""
    signer = signer_of(KEY, "cluster/webhook/a", "")
    writer = LogWriter(Directory(tmp_path / "webhook" / "a", fsync=False), signer, limit=9, interval=0.01)
    writer.open()
    writer.submit(verdict(writer, 1))
    settle(writer, 2)
    observer = heads(tmp_path)
    assert [data["event"] for data in observer.changes()] == ["head"]
    writer._storage.unlock()
    assert [data["event"] for data in observer.changes()] == ["silent"]
    assert list(observer.changes()) == []


def test_copies_are_compared(tmp_path):
    """Another copy shows where two logs differ."""
    signer = write(tmp_path / "a", 3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "a", 1)
    write(tmp_path / "b", 2)
    keys = signer.keys
    (checked,) = verify_directory(tmp_path / "a", keys, against=tmp_path / "b")
    assert "the copies are forked: entry 5 differs" in str(checked.report.faults[0]) or checked.report.faults
    with pytest.raises(AuditError, match="no log to compare"):
        verify_directory(tmp_path / "a", keys, against=tmp_path / "none")

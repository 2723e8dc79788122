"""``audit join``: events from a file and from the webhook backend end in a log that can be verified."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
import orjson
import pytest
import trustme

from tests.unit.core.audit.test_kubernetes import EXEC
from webhook.api.audit import AuditSettings
from webhook.app import audit_join
from webhook.app.audit import audit_log
from webhook.app.audit_join import COMPONENT, Joiner, follow
from webhook.audit.check import verify_directory
from webhook.audit.errors import NotLoggedError
from webhook.cli.main import main
from webhook.server.audit_backend import audit_backend


def event(number, **changes):
    return {**EXEC, "auditID": f"id-{number}", **changes}


def joined(directory):
    """The ids of the events in the log, in order."""
    ids = []
    (checked,) = verify_directory(
        directory,
        on_entry=lambda _, __, entry: ids.append(entry["id"]) if "kubernetes" in entry["type"] else None,
    )
    assert checked.report.whole, checked.report.faults
    return ids


def test_a_file_is_joined_once(tmp_path, capsys):
    """A second run writes only what is new, and a line other than an event is counted."""
    path, logs = tmp_path / "audit.log", tmp_path / "logs"
    path.write_bytes(b"".join(orjson.dumps(event(number)) + b"\n" for number in range(1200)))
    command = ["audit", "join", "--kubernetes-audit", str(path), "--audit-log", str(logs), "--once"]
    assert main(command) == 0
    with path.open("ab") as stream:
        stream.write(orjson.dumps(event(1200)) + b"\nnot an event\n")
    assert main(command) == 1
    assert capsys.readouterr().err == "lines that are not audit events: 1\n"
    assert joined(logs) == [f"id-{number}/ResponseComplete" for number in range(1201)]
    assert main(["audit", "search", str(logs), "--user", "mallory", "--type", "kubernetes"]) == 0
    assert capsys.readouterr().out.count("\n") == 1000


@pytest.mark.parametrize(
    "arguments",
    [
        ("--kubernetes-audit", "none", "--once"),
        ("--listen", "127.0.0.1:1"),
        ("--listen", "127.0.0.1", "--certificate", "x", "--private-key", "x", "--client-ca", "x"),
        ("--listen", "127.0.0.1:0", "--certificate", "x", "--private-key", "x", "--client-ca", "x"),
    ],
)
def test_bad_input(arguments, tmp_path, capsys):
    assert main(["audit", "join", *arguments, "--audit-log", str(tmp_path / "logs")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error


async def test_a_log_that_cannot_be_written_is_tried_again(tmp_path, monkeypatch):
    path = tmp_path / "audit.log"
    path.write_bytes(orjson.dumps(event(1)) + b"\n")
    add, failures = Joiner.add, [NotLoggedError("no space"), NotLoggedError("no space")]

    async def failing(self, events):
        if failures:
            raise failures.pop()
        await add(self, events)

    monkeypatch.setattr(Joiner, "add", failing)
    monkeypatch.setattr(audit_join, "_POLL_SECONDS", 0.01)
    settings = AuditSettings(directory=str(tmp_path / "logs"), interval_seconds=0.01, fsync=False)
    assert await follow(settings, path, asyncio.Event(), once=True) == 0
    assert failures == []
    assert joined(tmp_path / "logs") == ["id-1/ResponseComplete"]


async def test_the_webhook_backend(tmp_path):
    """A client with a certificate of the CA delivers; without one, the handshake fails. A full log is 503."""
    authority, stranger = trustme.CA(), trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    server.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    other = ssl.create_default_context()
    authority.configure_trust(other)
    stranger.issue_cert("client").configure_cert(other)
    authority.issue_cert("client").configure_cert(client)
    settings = AuditSettings(directory=str(tmp_path / "logs"), interval_seconds=0.01, fsync=False)
    with audit_log(settings, COMPONENT) as writer:
        joiner = Joiner(writer)
        async with (
            audit_backend(("127.0.0.1", 0), server, joiner.add) as port,
            aiohttp.ClientSession() as session,
        ):
            url = f"https://localhost:{port}/"
            document = {
                "kind": "EventList",
                "apiVersion": "audit.k8s.io/v1",
                "items": [event(1), event(2), {}],
            }
            async with session.post(url, json=document, ssl=client) as response:
                assert response.status == 200
            for bad in ({"kind": "EventList"}, {"kind": "PodList", "items": []}, []):
                async with session.post(url, json=bad, ssl=client) as response:
                    assert response.status == 400
            with pytest.raises(aiohttp.ClientError):
                await session.post(url, json=document, ssl=other)
            writer._broken = "no space"
            async with session.post(url, json=document, ssl=client) as response:
                assert (response.status, await response.text()) == (
                    503,
                    "the queue of the audit log is full\n",
                )
            writer._broken = ""
        assert joiner.rejected == 2
    assert joined(tmp_path / "logs") == ["id-1/ResponseComplete", "id-2/ResponseComplete"]


def test_hostile_lines_are_counted_and_hide_nothing(tmp_path, capsys):
    """Repeated audit IDs are separate events: a client chooses its own."""
    path, logs = tmp_path / "audit.log", tmp_path / "logs"
    lines = [
        b"null", b"[]", b"7", b'"x"', b"{}", b"\xff\xfe", b"[" * 100_000, b"\0", b'{"kind": "Event"}',
        orjson.dumps(event(1, auditID=["x"])), orjson.dumps(event(1, kind="EventList")),
        orjson.dumps(event(1, apiVersion="v2")), orjson.dumps(event(1, stage=5)),
    ]  # fmt: skip
    good = [
        event(1), event(1), event(1, requestURI="/other"), event(2, user=[], objectRef="x", sourceIPs={"a": 1}),
        event(3, responseStatus={"code": 10**15}, requestURI="/" + "u" * 100_000), event(4, auditID="\u2028" * 500),
    ]  # fmt: skip
    path.write_bytes(
        b"\n".join([*lines, *map(orjson.dumps, good), b"x" * (3 << 20), orjson.dumps(event(5))]) + b"\n"
    )
    assert main(["audit", "join", "--kubernetes-audit", str(path), "--audit-log", str(logs), "--once"]) == 1
    assert capsys.readouterr().err == f"lines that are not audit events: {len(lines)}\n"
    ids = joined(logs)
    assert ids.count("id-1/ResponseComplete") == 3
    assert ids[-1] == "id-5/ResponseComplete"
    assert len(ids) == len(good) + 1

"""Receivers of others read the export: rsyslog over TLS, and OpenTelemetry's own messages of the logs protocol."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest
import trustme
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.support.witness import free_port, wait_for
from tests.unit.audit.conftest import write
from webhook.audit.errors import AuditError
from webhook.audit.export import export
from webhook.audit.storage import Directory
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.export import FORMATS
from webhook.core.audit.verify import entries_of

TOOL = Path(__file__).resolve().parents[2] / "tools" / "debpackages.py"
PACKAGES = ("rsyslog", "rsyslog-openssl", "libestr0", "libfastjson4")
RSYSLOG = """
global(workDirectory="{place}" defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{place}/ca.pem"
  defaultNetstreamDriverCertFile="{place}/cert.pem" defaultNetstreamDriverKeyFile="{place}/key.pem"
  maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="fields" type="string" string="%pri%|%app-name%|%msgid%|%timereported:::date-rfc3339%|%msg%\\n")
action(type="omfile" file="{place}/received" template="fields")
"""


@pytest.fixture
def entries(tmp_path):
    """The entries of a log with more of them than one batch."""
    write(tmp_path / "log", 520)
    reader = Directory(tmp_path / "log")
    size = parse_checkpoint(reader.read("checkpoint")).checkpoint.size
    return [orjson.loads(raw) for _, raw in entries_of(reader, size)]


@pytest.fixture
def rsyslog(tmp_path):
    """A running rsyslog that serves TLS: its port, its CA and the file that it writes."""
    find = subprocess.run(
        [sys.executable, TOOL, "--find", *PACKAGES], capture_output=True, text=True, check=False
    )
    if find.returncode:
        pytest.skip(find.stderr.strip())
    root, place, port = Path(find.stdout.strip()), tmp_path / "rsyslog", free_port()
    place.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(place / "ca.pem"))
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.private_key_pem.write_to_path(str(place / "key.pem"))
    server.cert_chain_pems[0].write_to_path(str(place / "cert.pem"))
    (place / "rsyslog.conf").write_text(RSYSLOG.format(place=place, port=port))
    (library,) = root.glob("usr/lib/*/rsyslog")
    command = [
        root / "usr/sbin/rsyslogd",
        "-n",
        "-f",
        place / "rsyslog.conf",
        "-i",
        place / "pid",
        "-M",
        library,
    ]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
    with (place / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None, (place / "log").read_text()
        yield port, place / "ca.pem", place / "received"
    finally:
        process.terminate()
        process.wait(10)


def listens(port):
    """Whether a TCP socket of this machine listens on the port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


def test_rsyslog_reads_every_entry_over_tls(rsyslog, entries):
    port, ca, received = rsyslog
    assert export(entries, "cloudevents", f"syslog+tls://localhost:{port}", ca) == len(entries)
    wait_for(lambda: received.exists() and received.read_bytes().count(b"\n") == len(entries))
    for line, entry in zip(received.read_text("utf-8-sig").splitlines(), entries, strict=True):
        priority, name, kind, _, message = line.split("|", 4)
        denied = entry["data"].get("decision") == "denied"
        # Facility 13 is log audit. Severity 5 is notice, 6 is informational.
        assert (divmod(int(priority), 8), name) == ((13, 5 if denied else 6), "weightlock")
        assert entry["type"] == f"dev.weightlock.{kind}"
        assert message.lstrip("\ufeff ") == FORMATS["cloudevents"](entry).decode()


def test_syslog_rejects_a_server_of_another_authority(rsyslog, entries, tmp_path):
    port, _, received = rsyslog
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with pytest.raises(AuditError, match="certificate verify failed"):
        export(entries, "cef", f"syslog+tls://localhost:{port}", other)
    assert not received.exists()


class Collector:
    """Reads OTLP requests with OpenTelemetry's own messages, as a collector does, and can answer with an error."""

    def __init__(self, status=200):
        collector = self
        self.requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests.append((self.path, json_format.Parse(body, ExportLogsServiceRequest())))
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def url(self):
        return f"otlp+http://127.0.0.1:{self.server.server_port}"


def test_opentelemetry_reads_every_entry(entries):
    with Collector() as collector:
        assert export(entries, "ocsf", collector.url) == len(entries)
    assert {path for path, _ in collector.requests} == {"/v1/logs"}
    records = [
        record
        for _, request in collector.requests
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    assert [record.body.string_value for record in records] == [
        FORMATS["ocsf"](each).decode() for each in entries
    ]
    for record, entry in zip(records, entries, strict=True):
        attributes = {each.key: each.value.string_value for each in record.attributes}
        assert attributes["event.id"] == entry["id"]
        assert record.time_unix_nano > 1_700_000_000_000_000_000


def test_a_collector_that_rejects_is_an_error(entries):
    with Collector(503) as collector, pytest.raises(AuditError, match="status 503"):
        export(entries, "cloudevents", collector.url)
    assert len(collector.requests) == 1

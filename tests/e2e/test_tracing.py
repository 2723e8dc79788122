"""Traces that begin in the API server go on in Weightlock: a real API server, and a collector that both send to."""

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from harness.controlplane import ControlPlane, Options
from harness.installed import PROBE
from harness.waiting import eventually
from harness.weightlock import Weightlock
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(http.server.ThreadingHTTPServer):
    """An OTLP/HTTP collector on a free port; `spans` holds what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receive)
        self.spans: list[Span] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1/traces"


class Receive(http.server.BaseHTTPRequestHandler):
    """Keeps the spans of one request."""

    server: Collector

    def do_POST(self) -> None:
        """Read and thank."""
        requests = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in requests.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def traced(
    new_control_plane: Callable[[Options], ControlPlane], collector: Collector, tmp_path: Path
) -> Iterator[Weightlock]:
    """Weightlock before an API server that begins a trace with every request, and exports no spans itself."""
    file = tmp_path / "tracing.yaml"
    configuration = {
        "apiVersion": "apiserver.config.k8s.io/v1beta1",
        "kind": "TracingConfiguration",
        "endpoint": "127.0.0.1:9",
        "samplingRatePerMillion": 1_000_000,
    }
    file.write_text(yaml.safe_dump(configuration))
    options = Options(controllers=False, apiserver_arguments=[f"--tracing-config-file={file}"])
    cluster = new_control_plane(options)
    weightlock = Weightlock(cluster, config={"tracing": {"endpoint": collector.url, "flushSeconds": 0.2}})
    weightlock.install()
    yield weightlock
    weightlock.stop()


def test_mutation_and_validation_are_spans_of_the_api_servers_trace(
    traced: Weightlock, collector: Collector
) -> None:
    namespace = traced.cluster.new_namespace()
    pod = {**PROBE, "metadata": {"name": "traced"}}
    created = traced.cluster.client().post(f"/api/v1/namespaces/{namespace}/pods", pod, dryRun="All")
    assert created.status == 201, created.message

    def pods() -> list[Span]:
        return [span for span in collector.spans if _attribute(span, "weightlock.name") == "traced"]

    eventually(lambda: len(pods()) >= 2, "the spans of a pod")
    first, second = pods()
    assert {first.name, second.name} == {"admission mutate", "admission validate"}
    assert first.trace_id == second.trace_id
    # Each is below a span that is not Weightlock's own: the API server's call.
    ours = {span.span_id for span in collector.spans}
    for span in (first, second):
        assert len(span.parent_span_id) == 8
        assert span.parent_span_id not in ours
        assert _attribute(span, "weightlock.decision") == "allowed"
    assert f'"traceId":"{first.trace_id.hex()}"' in traced.logs()


def _attribute(span: Span, name: str) -> str:
    return next((item.value.string_value for item in span.attributes if item.key == name), "")

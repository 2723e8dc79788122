"""Traces as a collector receives them: children of the API server's spans, with the fields of the log."""

import asyncio
import logging

import orjson
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from webhook.api.config import Tracing
from webhook.core.admission.provider import FetchedData, NotReadyError
from webhook.server.admission import AdmissionService
from webhook.server.admission_queue import AdmissionQueue
from webhook.server.metrics.metrics import AdmissionMetrics
from webhook.server.tracing import Tracer, TracingUnavailableError

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
ENDPOINT = "http://127.0.0.1:9/v1/traces"


@pytest.fixture
async def traced(make_source):
    """Asks a service with tracing on; the spans that came of it."""
    tracers = []

    async def ask(body, parent, *, source=None, ratio=0.0, phase="validate"):
        exporter = InMemorySpanExporter()
        tracer = Tracer.of(Tracing(endpoint=ENDPOINT, sample_ratio=ratio), "webhook", exporter)
        tracers.append(tracer)
        queue = AdmissionQueue(max_queued=10, max_lookups=10)
        service = AdmissionService(source or make_source(), queue, AdmissionMetrics(), tracer=tracer)
        await getattr(service, phase)(body, 5.0, trusted_caller=False, parent=parent)
        await asyncio.to_thread(tracer.close)
        return exporter.get_finished_spans()

    return ask


async def test_a_review_is_a_span_of_the_api_servers_trace(traced, make_source, make_policy, review):
    (span,) = await traced(review(), SAMPLED, source=make_source(make_policy("false")))
    assert span.name == "admission validate"
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    attributes = dict(span.attributes)
    assert attributes["weightlock.decision"] == "denied"
    assert attributes["weightlock.codes"] == ("WL500",)
    assert attributes["weightlock.uid"] == "uid-1"
    assert span.status.is_unset
    assert span.resource.attributes["service.name"] == "weightlock-webhook"


@pytest.mark.parametrize(
    "parent", [NOT_SAMPLED, "", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", SAMPLED * 9]
)
async def test_an_unsampled_trace_is_not_a_span(traced, review, parent):
    assert await traced(review(), parent) == ()


async def test_the_ratio_is_for_requests_without_a_trace(traced, review):
    assert len(await traced(review(), "", ratio=1.0)) == 1
    assert await traced(review(), NOT_SAMPLED, ratio=1.0) == ()


async def test_questions_to_the_api_server_are_a_step(traced, make_source, make_policy, review):
    source = make_source(make_policy("authorizer.group('').resource('pods').check('get').allowed()"))

    async def allow(needs):
        return FetchedData(
            decisions=dict.fromkeys(needs.decisions, (True, "")), objects=dict.fromkeys(needs.objects)
        )

    source.answers = allow
    step, span = await traced(review(), SAMPLED, source=source)
    assert (step.name, step.parent.span_id) == ("query the API server", span.context.span_id)


async def test_a_fault_of_ours_is_an_error(traced, make_source, review):
    source = make_source()
    source.snapshot = lambda: (_ for _ in ()).throw(NotReadyError("not yet"))
    (span,) = await traced(review(), SAMPLED, source=source)
    assert not span.status.is_ok
    assert not span.status.is_unset


async def test_a_refused_document_is_a_span_too(traced, review):
    (span,) = await traced(review(name="a\0b"), SAMPLED)
    assert span.attributes["weightlock.decision"] == "denied"


async def test_no_span_holds_anything_of_the_object(traced, make_source, make_policy, review):
    secret = "hf_0123456789"
    pod = {
        "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "c", "env": [{"name": "T", "value": secret}]}]},
    }
    (span,) = await traced(review(object=pod), SAMPLED, source=make_source(make_policy("false")))
    assert secret not in span.to_json()


def test_without_an_endpoint_there_is_none():
    assert Tracer.of(Tracing(), "webhook") is None


def test_a_missing_file_is_reported_in_one_line(tmp_path):
    with pytest.raises(TracingUnavailableError, match="no-such-file: No such file"):
        Tracer.of(Tracing(endpoint=ENDPOINT, headers_file=str(tmp_path / "no-such-file")), "webhook")


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://x", "http://"])
def test_an_endpoint_other_than_a_url_is_rejected(endpoint):
    with pytest.raises(ValueError, match="endpoint"):
        Tracing(endpoint=endpoint)


class Collector:
    """An OTLP/HTTP collector that keeps what it is sent."""

    def __init__(self):
        self.spans, self.headers, self.status = [], [], 200
        self.came = asyncio.Event()

    async def receive(self, request):
        self.headers.append(request.headers.copy())
        requests = ExportTraceServiceRequest.FromString(await request.read())
        for resource in requests.resource_spans:
            names = {item.key: item.value.string_value for item in resource.resource.attributes}
            self.spans += [
                (names["service.name"], span) for scope in resource.scope_spans for span in scope.spans
            ]
        self.came.set()
        return web.Response(status=self.status)


@pytest.fixture
async def collector():
    matches = Collector()
    application = web.Application()
    application.router.add_post("/v1/traces", matches.receive)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    matches.endpoint = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1/traces"
    yield matches
    await runner.cleanup()


async def test_a_collector_receives_the_webhooks_spans(serve, collector, review, tmp_path, caplog):
    headers = tmp_path / "headers"
    headers.write_text("Authorization: Bearer of-the-collector\n")
    tracing = Tracing(endpoint=collector.endpoint, headers_file=str(headers), flush_seconds=0.05)
    client = await serve(tracing=tracing)
    with caplog.at_level(logging.INFO):
        status, text = await client.post("/validate", review(), traceparent=SAMPLED)
    assert (status, orjson.loads(text)["response"]["allowed"]) == (200, True)
    async with asyncio.timeout(30):
        await collector.came.wait()
    ((service, span),) = collector.spans
    assert (service, span.name) == ("weightlock-webhook", "admission validate")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert collector.headers[0]["Authorization"] == "Bearer of-the-collector"


async def test_a_collector_that_fails_harms_no_review(serve, collector, review):
    collector.status = 400
    client = await serve(tracing=Tracing(endpoint=collector.endpoint, flush_seconds=0.05))
    for _ in range(3):
        status, _ = await client.post("/validate", review(), traceparent=SAMPLED)
        assert status == 200
    async with asyncio.timeout(30):
        await collector.came.wait()

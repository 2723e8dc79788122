"""Traces over OTLP: one span for each review or key request, under the trace that the API server began.

Off unless an endpoint is configured, and then OpenTelemetry is not even imported. A span carries what the log line of
the same request carries, never an object; and no fault of the collector may reach a request.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span
    from opentelemetry.trace import Tracer as SpanMaker

    from webhook.api.config import Tracing

# A version 00 traceparent has 55 characters (W3C Trace Context, section 3.2.2); a later one may be longer.
_MAX_PARENT = 256
_QUEUE, _BATCH = 2048, 512
_EXPORT_SECONDS = 5.0


class TracingUnavailableError(Exception):
    """Tracing is asked for and cannot be had; the message is one line."""


class Trace:
    """The span of one request. `end` must be called once."""

    __slots__ = ("_maker", "_span", "id")

    def __init__(self, maker: SpanMaker, span: Span) -> None:
        self._maker, self._span = maker, span
        self.id = f"{span.get_span_context().trace_id:032x}"

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A span below this one, for as long as the block lasts."""
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - only where tracing is on

        span = self._maker.start_span(name, set_span_in_context(self._span))
        try:
            yield
        finally:
            span.end()

    def end(self, fields: Mapping[str, object], *, failed: bool) -> None:
        """End it, with what is known of the request by then. ``failed``: through a fault of ours."""
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        for name, value in fields.items():
            if isinstance(value, str | bool | int | float | list):
                self._span.set_attribute(f"weightlock.{name}", value)
        if failed:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Tracer:
    """Begins traces, and sends those that ended in the background. Made by `Tracer.of`."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        self._provider = provider
        self._maker = provider.get_tracer("weightlock")
        self._kind = SpanKind.SERVER
        self._context = TraceContextTextMapPropagator()

    @classmethod
    def of(cls, config: Tracing, part: str, exporter: SpanExporter | None = None) -> Tracer | None:
        """What a configuration asks for; None: nothing. ``part`` is the process's name in the traces.

        Raises `TracingUnavailableError` where OpenTelemetry is not installed or a file cannot be read.
        """
        if not config.endpoint:
            return None
        try:
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

            sink = exporter or _exporter(config)
        except ImportError:
            raise TracingUnavailableError(
                "tracing.endpoint is set and OpenTelemetry is not installed: pip install 'weightlock[tracing]'"
            ) from None
        except OSError as error:
            raise TracingUnavailableError(f"tracing: {error.filename}: {error.strerror or error}") from None
        # The client that began a trace decides whether it is recorded. The ratio applies to requests without a trace.
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(config.sample_ratio)),
            resource=Resource.create({"service.name": f"weightlock-{part}"}),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(
            BatchSpanProcessor(
                sink,
                max_queue_size=_QUEUE,
                max_export_batch_size=_BATCH,
                schedule_delay_millis=config.flush_seconds * 1000,
            )
        )
        return cls(provider)

    def begin(self, name: str, parent: str) -> Trace | None:
        """A span under ``parent``, a traceparent header as it came or empty; None where it is not recorded."""
        context: Context | None = None
        if 0 < len(parent) <= _MAX_PARENT:
            context = self._context.extract({"traceparent": parent})
        span = self._maker.start_span(name, context, self._kind)
        return Trace(self._maker, span) if span.is_recording() else None

    def close(self) -> None:
        """Send what is held, within some seconds, and stop."""
        self._provider.shutdown()


def _exporter(config: Tracing) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    headers = {}
    if config.headers_file:
        with open(config.headers_file, encoding="utf-8") as stream:  # noqa: PTH123 - its error names the file
            for line in stream.read(65536).splitlines():
                name, colon, value = line.partition(":")
                if colon:
                    headers[name.strip()] = value.strip()
    return OTLPSpanExporter(
        endpoint=config.endpoint,
        headers=headers,
        certificate_file=config.ca_file or None,
        timeout=_EXPORT_SECONDS,
    )

"""Spans of requests, made in the form in which they are sent (OTLP), and sent by OpenTelemetry's own exporter.

A request that has ended is put into OpenTelemetry's bounded queue as a whole, which drops what nobody takes. A thread
of OpenTelemetry's own makes the spans of many requests at a time, as messages of the protocol at once: spans of the SDK
first would cost ten times as much, and that thread and the event loop share one interpreter.

This imports OpenTelemetry, so only `service/process/spans.py` imports it, where spans are wanted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from model.runtime.installing import PROJECT
from service.process.spans import EndedRequest
from service.process.trace import Stage, Trace

_AT_EXIT = 1.0  # seconds that the last spans have to be sent
# Of a span: whether its parent is in another process, and that this is known.
_LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_ids = RandomIdGenerator()


@dataclass(slots=True)
class _Sampled:
    """A request that has ended and whose spans are wanted, as it lies in the queue."""

    context: SpanContext  # of its span; OpenTelemetry's queue asks for it
    parent: SpanContext  # which is invalid where there is none
    name: str
    request: EndedRequest
    trace: Trace
    timeline: tuple[tuple[Stage, float, float], ...]
    offset: float  # from the trace's clock to seconds since 1970


class OtlpSpans:
    """Sends requests that have ended."""

    def __init__(self, processor: SpanProcessor, sampler: Sampler) -> None:
        """Send spans by a processor, of the requests that a sampler takes."""
        self._processor = processor
        self._sampler = sampler
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def from_environment(cls) -> OtlpSpans:
        """As OpenTelemetry's own variables say."""
        provider = TracerProvider(shutdown_on_exit=False)  # which reads the variables of samplers and resources
        resource = provider.resource
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": PROJECT}))
        return cls(BatchSpanProcessor(RequestExporter(resource)), provider.sampler)

    def note(self, trace: Trace, request: EndedRequest) -> str:
        """Have the spans sent of a request that has just ended, and return the id of its trace (`Spans.note`)."""
        context = self._propagator.extract(request.headers, Context())
        parent = get_current_span(context).get_span_context()
        trace_id = parent.trace_id if parent.is_valid else _ids.generate_trace_id()
        name = request.method if request.route == "other" else f"{request.method} {request.route}"
        sampling = self._sampler.should_sample(context, trace_id, name, SpanKind.SERVER)
        if sampling.decision is Decision.RECORD_AND_SAMPLE:
            flags = TraceFlags(TraceFlags.SAMPLED)
            own = SpanContext(trace_id, _ids.generate_span_id(), False, flags, sampling.trace_state)
            offset = time.time() - trace.clock()  # noqa: TID251  # it is told
            # A copy, because a stage whose request was given up may still be running in its thread.
            ended = _Sampled(own, parent, name, request, trace, tuple(trace.timeline), offset)
            self._processor.on_end(cast("ReadableSpan", ended))
        return f"{trace_id:032x}"

    def close(self) -> None:
        """Send what waits, for a second at most (`Spans.close`)."""
        last = threading.Thread(target=self._processor.shutdown, name="spans", daemon=True)
        last.start()
        last.join(_AT_EXIT)


class RequestExporter(OTLPSpanExporter):
    """Sends requests as spans, to where and how OpenTelemetry's variables say."""

    def __init__(self, resource: Resource) -> None:
        """Send the spans of a resource."""
        super().__init__()
        # What all messages begin with, of a span that is thrown away.
        context = SpanContext(1, 1, False)
        scope = InstrumentationScope(PROJECT)
        self._empty = encode_spans([ReadableSpan("", context, resource=resource, instrumentation_scope=scope)])
        del self._empty.resource_spans[0].scope_spans[0].spans[:]

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Send what the queue has: not spans, but a `_Sampled` for each request."""
        message = ExportTraceServiceRequest()
        message.CopyFrom(self._empty)
        for ended in spans:
            _add_spans(message.resource_spans[0].scope_spans[0].spans, ended)
        # Its export() would encode spans of the SDK first.
        sent = self._client.export(message.SerializeToString())
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


def _add_spans(spans: Any, ended: _Sampled) -> None:
    """Add one for the request and one for each stage to the spans of a message."""
    context, parent, request, offset = ended.context, ended.parent, ended.request, ended.offset
    trace_id, span_id = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
    state = context.trace_state.to_header()
    for stage, began, end in ended.timeline:
        spans.add(
            trace_id=trace_id, span_id=_ids.generate_span_id().to_bytes(8, "big"), parent_span_id=span_id,
            trace_state=state, flags=_LOCAL, name=stage, kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=round((began + offset) * 1e9), end_time_unix_nano=round((end + offset) * 1e9),
        )  # fmt: skip
    span = spans.add(
        trace_id=trace_id, span_id=span_id, trace_state=state, name=ended.name, kind=Span.SPAN_KIND_SERVER,
        parent_span_id=parent.span_id.to_bytes(8, "big") if parent.is_valid else b"",
        flags=_REMOTE if parent.is_valid else _LOCAL,
        start_time_unix_nano=round((request.began + offset) * 1e9),
        end_time_unix_nano=round((request.ended + offset) * 1e9),
    )  # fmt: skip
    if request.status >= 500:
        span.status.code = Status.STATUS_CODE_ERROR
    for key, value in _attributes(ended.trace, request).items():
        attribute = span.attributes.add(key=key)
        if isinstance(value, int):
            attribute.value.int_value = value
        else:
            attribute.value.string_value = value


def _attributes(trace: Trace, request: EndedRequest) -> dict[str, str | int]:
    """In the words of OpenTelemetry's conventions for HTTP servers, where they have some."""
    attributes: dict[str, str | int] = {
        "http.request.method": request.method,
        "http.route": request.route,
        "http.response.status_code": request.status,
        "http.request.body.size": trace.received_bytes,
        "detr.request_id": trace.request_id,
    }
    if trace.batch_size is not None:
        attributes["detr.batch_size"] = trace.batch_size
    if trace.error_code is not None:
        attributes["error.type"] = trace.error_code
    return attributes

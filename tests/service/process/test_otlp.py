"""What is sent to a collector is what OpenTelemetry's own encoder makes of the same spans."""

from __future__ import annotations

from typing import Any, cast

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.trace import Status as SpanStatus

from service.process.otlp import OtlpSpans, RequestExporter
from service.process.spans import EndedRequest
from service.process.trace import Trace

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RESOURCE = Resource({"service.name": "detr-serve", "answer": 42})


class Client:
    """Takes what the exporter sends."""

    def __init__(self, *, success: bool) -> None:
        self.messages: list[ExportTraceServiceRequest] = []
        self.success = success

    def export(self, data: bytes) -> Client:
        self.messages.append(ExportTraceServiceRequest.FromString(data))
        return self


class Queue(SpanProcessor):
    """Keeps what is put into it."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def on_end(self, span: Any) -> None:
        self.items.append(span)


def sent(items: list[Any], *, success: bool = True) -> tuple[ExportTraceServiceRequest, SpanExportResult]:
    exporter, client = RequestExporter(RESOURCE), Client(success=success)
    exporter._client = cast("Any", client)
    result = exporter.export(items)
    return client.messages[0], result


def as_the_sdk_has_it(span: Span, attributes: dict[str, str | int]) -> ReadableSpan:
    """The same span, made by the SDK."""

    def context(span_id: bytes, *, is_remote: bool) -> SpanContext:
        ids = (int.from_bytes(span.trace_id, "big"), int.from_bytes(span_id, "big"))
        return SpanContext(*ids, is_remote, TraceFlags(1), TraceState.from_header([span.trace_state]))

    is_root = span.kind == Span.SPAN_KIND_SERVER
    return ReadableSpan(
        span.name,
        context(span.span_id, is_remote=False),
        context(span.parent_span_id, is_remote=is_root) if span.parent_span_id else None,
        resource=RESOURCE,
        attributes=attributes if is_root else None,
        kind=SpanKind.SERVER if is_root else SpanKind.INTERNAL,
        status=SpanStatus(StatusCode.ERROR if is_root and attributes.get("error.type") else StatusCode.UNSET),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
        instrumentation_scope=InstrumentationScope("detr-serve"),
    )


@pytest.mark.parametrize("headers", [{}, {"traceparent": TRACEPARENT, "tracestate": "shop=1,other=a"}])
@pytest.mark.parametrize("status", [200, 503])
def test_a_message_is_the_one_that_opentelemetrys_encoder_makes(headers: dict[str, str], status: int) -> None:
    trace = Trace("a-request")
    trace.add("decode", 0.002)
    trace.add("infer", 0.01)
    trace.batch_size, trace.received_bytes = 3, 1234
    trace.error_code = "queue_full" if status == 503 else None
    queue = Queue()
    now = trace.clock()
    OtlpSpans(queue, ALWAYS_ON).note(trace, EndedRequest("POST", "/detect", status, headers, now - 1, now))
    message, result = sent(queue.items)
    assert result is SpanExportResult.SUCCESS
    attributes: dict[str, str | int] = {
        "http.request.method": "POST",
        "http.route": "/detect",
        "http.response.status_code": status,
        "http.request.body.size": 1234,
        "detr.request_id": "a-request",
        "detr.batch_size": 3,
    }
    if status == 503:
        attributes["error.type"] = "queue_full"
    spans = message.resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == ["decode", "infer", "POST /detect"]
    expected = encode_spans([as_the_sdk_has_it(span, attributes) for span in spans])
    # Where nothing is said of a status, the encoder writes down one that says nothing.
    for span in expected.resource_spans[0].scope_spans[0].spans:
        if not span.status.code:
            span.ClearField("status")
    assert message == expected


def test_each_message_has_its_own_spans_and_what_did_not_arrive_is_a_failure() -> None:
    queue = Queue()
    trace = Trace()
    OtlpSpans(queue, ALWAYS_ON).note(trace, EndedRequest("GET", "/model", 200, {}, 0.0, 1.0))
    first, _ = sent(queue.items)
    second, result = sent(queue.items * 2, success=False)
    assert len(first.resource_spans[0].scope_spans[0].spans) == 1
    assert len(second.resource_spans[0].scope_spans[0].spans) == 2
    assert result is SpanExportResult.FAILURE

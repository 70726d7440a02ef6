"""Requests as spans of OpenTelemetry: one of the server, and in it one for each stage, sent to a collector (OTLP).

Spans are made when a request has ended, of what its Trace has noted, so a request under way costs nothing more. They
are sent by a thread of OpenTelemetry's own from a bounded queue, which drops what nobody takes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.runtime.installing import PROJECT, install_command
from service.process.trace import Trace
from service.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import Status

# OpenTelemetry's own variables: the first two say where spans go, and switch all of this on.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"
_AT_EXIT = 1.0  # seconds that the last spans have to be sent


@dataclass(frozen=True)
class EndedRequest:
    """A request that is over, as its span tells it; none of this but the headers is a client's to choose."""

    method: str
    route: str
    status: int
    headers: Mapping[str, str]  # of the request, in which traceparent and tracestate count
    began: float  # by its trace's clock
    ended: float


class Spans:
    """Makes spans of requests. Only the event loop's thread uses it, but for the end."""

    def __init__(self, processor: BatchSpanProcessor, sampler: Sampler, resource: Resource) -> None:
        """Send spans by a processor, of the requests that a sampler takes."""
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._processor = processor
        self._sampler = sampler
        self._common: dict[str, Any] = {
            "resource": resource,
            "instrumentation_scope": InstrumentationScope(PROJECT),
        }
        self._ids = RandomIdGenerator()
        self._propagator = TraceContextTextMapPropagator()

    def note(self, trace: Trace, request: EndedRequest) -> str:
        """Send the spans of a request that has just ended, if it is sampled.

        Returns:
            The id of its trace, 32 hexadecimal digits: the caller's, where it sent one (W3C Trace Context).
        """
        from opentelemetry.context import Context
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.trace.sampling import Decision
        from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, get_current_span

        context = self._propagator.extract(request.headers, Context())
        parent = get_current_span(context).get_span_context()
        trace_id = parent.trace_id if parent.is_valid else self._ids.generate_trace_id()
        name = request.method if request.route == "other" else f"{request.method} {request.route}"
        sampling = self._sampler.should_sample(context, trace_id, name, SpanKind.SERVER)
        if sampling.decision is not Decision.RECORD_AND_SAMPLE:
            return f"{trace_id:032x}"

        def new_context() -> SpanContext:
            flags = TraceFlags(TraceFlags.SAMPLED)
            return SpanContext(trace_id, self._ids.generate_span_id(), False, flags, sampling.trace_state)

        offset = time.time() - trace.clock()  # noqa: TID251  # it is told

        def times(began: float, ended: float) -> dict[str, Any]:
            return {"start_time": round((began + offset) * 1e9), "end_time": round((ended + offset) * 1e9)}

        own = new_context()
        for stage, began, ended in tuple(trace.timeline):
            span = ReadableSpan(stage, new_context(), own, **times(began, ended), **self._common)
            self._processor.on_end(span)
        span = ReadableSpan(
            name,
            own,
            parent if parent.is_valid else None,
            kind=SpanKind.SERVER,
            attributes=_attributes(trace, request),
            status=_status(request.status),
            **times(request.began, request.ended),
            **self._common,
        )
        self._processor.on_end(span)
        return f"{trace_id:032x}"

    def close(self) -> None:
        """Send what waits, for as long as that takes but a second, and no more."""
        last = threading.Thread(target=self._processor.shutdown, name="spans", daemon=True)
        last.start()
        last.join(_AT_EXIT)


def open_spans(environment: Mapping[str, str] = os.environ) -> Spans | None:
    """What sends spans, if OpenTelemetry's variables name a collector; else None, and nothing is imported.

    Raises:
        SettingsError: OpenTelemetry is not installed, or is to speak a protocol that is not.
    """
    endpoint = next((name for name in _ENDPOINTS if environment.get(name)), None)
    is_off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if endpoint is None or is_off or environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    for name in _PROTOCOLS:
        if environment.get(name, _SPOKEN) != _SPOKEN:
            raise SettingsError(f"{name}: spans are sent by {_SPOKEN} only (port 4318 of a collector)")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        command = install_command(f"{PROJECT}[otel]")
        raise SettingsError(f"{endpoint}: to send spans, OpenTelemetry has to be installed: {command}") from None
    provider = TracerProvider(shutdown_on_exit=False)  # which reads the variables of samplers and resources
    resource = provider.resource
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": PROJECT}))
    return Spans(BatchSpanProcessor(OTLPSpanExporter()), provider.sampler, resource)


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


def _status(http_status: int) -> Status:
    from opentelemetry.trace import Status, StatusCode

    return Status(StatusCode.ERROR if http_status >= 500 else StatusCode.UNSET)

"""An OTLP receiver: it takes spans over HTTP and keeps them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class SpanSink:
    """What has arrived."""

    url: str
    bodies: list[bytes] = field(default_factory=list)
    open: Event = field(default_factory=Event)  # cleared, it keeps whoever sends spans waiting

    @property
    def requests(self) -> list[ExportTraceServiceRequest]:
        """All that has arrived, read only now, so that whoever measures is not held up."""
        return [ExportTraceServiceRequest.FromString(body) for body in tuple(self.bodies)]

    @property
    def spans(self) -> list[Span]:
        """All spans, in the order of their arrival."""
        scopes = [scope for request in self.requests for group in request.resource_spans for scope in group.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    @property
    def roots(self) -> list[Span]:
        """Those of requests."""
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]

    def children(self, root: Span) -> list[Span]:
        """Those of a request's stages."""
        return [span for span in self.spans if span.parent_span_id == root.span_id]


@contextmanager
def span_sink() -> Iterator[SpanSink]:
    """A receiver on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sink.open.wait(60)
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            sink.bodies.append(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        sink = SpanSink(f"http://127.0.0.1:{server.server_port}")
        sink.open.set()
        Thread(target=server.serve_forever, daemon=True).start()
        yield sink
        sink.open.set()
        server.shutdown()

"""Whether requests become spans of OpenTelemetry, by its own variables, and what a span tells of a request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from model.runtime.installing import PROJECT, install_command
from service.process.trace import Trace
from service.settings import SettingsError

# The first two say where spans go, and switch all of this on.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"


@dataclass(slots=True)
class EndedRequest:
    """A request that is over, as its span tells it; none of this but the headers is a client's to choose."""

    method: str
    route: str
    status: int
    headers: Mapping[str, str]  # of the request, in which traceparent and tracestate count
    began: float  # by its trace's clock
    ended: float


class Spans(Protocol):
    """What takes requests that have ended. Only the event loop's thread uses it, but for the end."""

    def note(self, trace: Trace, request: EndedRequest) -> str:
        """Have the spans sent of a request that has just ended, if it is sampled.

        Returns:
            The id of its trace, 32 hexadecimal digits: the caller's, where it sent one (W3C Trace Context).
        """

    def close(self) -> None:
        """Send what waits, for as long as that takes but a second, and no more."""


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
        from service.process.otlp import OtlpSpans
    except ModuleNotFoundError:
        command = install_command(f"{PROJECT}[otel]")
        raise SettingsError(f"{endpoint}: to send spans, OpenTelemetry has to be installed: {command}") from None
    return OtlpSpans.from_environment()

"""Spans of a real server arrive at a real OTLP receiver, and whoever receives them holds up nothing."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from service.process.trace import Stage
from tests.processes import free_port, until
from tests.reliability.scripted_engine import picture
from tests.server_process import REPOSITORY, environment, scripted, start_in_vain
from tests.span_sink import SpanSink, span_sink

CALLER = "0af7651916cd43dd8448eb211c80319c"
CALLERS_SPAN = "b7ad6b7169203331"
STAGES = set(get_args(Stage))


@pytest.fixture
def sink() -> Iterator[SpanSink]:
    with span_sink() as sink:
        yield sink


def sent_to(sink: SpanSink, **more: str) -> dict[str, str]:
    """The environment of a server that sends its spans there, soon."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_BSP_SCHEDULE_DELAY": "50"} | more


def attributes(span: Any) -> dict[str, Any]:
    return {entry.key: entry.value.string_value or entry.value.int_value for entry in span.attributes}


def test_each_request_is_a_span_with_its_stages_and_their_times(
    panoptic_artifact: Path, sink: SpanSink, tmp_path: Path
) -> None:
    script = {"delay_ms": 40}
    with scripted(panoptic_artifact, tmp_path, script=script, env=sent_to(sink)) as server:
        traceparent = {"traceparent": f"00-{CALLER}-{CALLERS_SPAN}-01"}
        headers = {"content-type": "image/png"}
        answer = server.lonely.post(f"{server.url}/detect", content=picture(1), headers=headers | traceparent)
        assert answer.status_code == 200
        assert server.post("/segment", b"no picture").status_code == 400
        assert server.status("/health/live") == 200
        until(lambda: len(sink.roots) == 2)
        lines = [line for line in server.lines() if line["message"] == "request" and "trace_id" in line]
    detect, segment = sink.roots
    assert (detect.name, segment.name) == ("POST /detect", "POST /segment")
    assert (detect.trace_id.hex(), detect.parent_span_id.hex()) == (CALLER, CALLERS_SPAN)
    assert segment.parent_span_id == b""
    assert [line["trace_id"] for line in lines] == [CALLER, segment.trace_id.hex()]
    said = attributes(detect)
    assert (said["http.route"], said["http.response.status_code"], said["detr.batch_size"]) == ("/detect", 200, 1)
    assert said["detr.request_id"] == answer.headers["x-request-id"]
    assert attributes(segment)["error.type"] == "not_an_image"
    children = sink.children(detect)
    assert {span.name for span in children} == STAGES
    assert len(children) == len(STAGES)
    by_name = {span.name: span for span in children}
    for span in children:
        assert span.trace_id == detect.trace_id
        assert detect.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= detect.end_time_unix_nano
        milliseconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
        assert milliseconds == pytest.approx(lines[0]["stages_ms"][span.name], abs=0.02)
    order = ["decode", "preprocess", "queue", "infer", "postprocess", "encode"]
    starts = [by_name[name].start_time_unix_nano for name in order]
    assert starts == sorted(starts)
    (resource,) = {entry.value.string_value for request in sink.requests for group in request.resource_spans
                   for entry in group.resource.attributes if entry.key == "service.name"}  # fmt: skip
    assert resource == "detr-serve"


def test_each_of_several_pictures_has_spans_of_its_own(panoptic_artifact: Path, sink: SpanSink, tmp_path: Path) -> None:
    images = [base64.b64encode(picture(number)).decode() for number in (1, 2)]
    with scripted(panoptic_artifact, tmp_path, script={"delay_ms": 20}, env=sent_to(sink)) as server:
        answer = server.post("/detect", json.dumps({"images": images}).encode(), "application/json")
        assert len(answer.json()["results"]) == 2
        until(lambda: bool(sink.roots))
    (root,) = sink.roots
    children = sink.children(root)
    # To find them in the body is a part of decoding as well.
    assert sorted(span.name for span in children) == sorted([*STAGES, *STAGES, "decode"])
    last_infer = max(span.end_time_unix_nano for span in children if span.name == "infer")
    assert all(span.end_time_unix_nano < last_infer for span in children if span.name == "decode")
    assert all(root.start_time_unix_nano <= span.start_time_unix_nano for span in children)


def test_samplers_and_names_are_set_by_opentelemetrys_own_variables(
    panoptic_artifact: Path, sink: SpanSink, tmp_path: Path
) -> None:
    more = {
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    with scripted(panoptic_artifact, tmp_path, env=sent_to(sink, **more)) as server:
        assert server.post("/detect", picture(1)).status_code == 200
        headers = {"content-type": "image/png", "traceparent": f"00-{CALLER}-{CALLERS_SPAN}-01"}
        assert server.lonely.post(f"{server.url}/detect", content=picture(1), headers=headers).status_code == 200
        until(lambda: bool(sink.roots))
    assert [span.trace_id.hex() for span in sink.roots] == [CALLER]
    values = {entry.value.string_value for entry in sink.requests[0].resource_spans[0].resource.attributes}
    assert "shop" in values


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{CALLERS_SPAN}-01", "00-" + "f" * 5000])
def test_a_caller_that_sends_nonsense_gets_an_id_of_its_own(
    panoptic_artifact: Path, sink: SpanSink, tmp_path: Path, traceparent: str
) -> None:
    with scripted(panoptic_artifact, tmp_path, env=sent_to(sink)) as server:
        headers = {"content-type": "image/png", "traceparent": traceparent, "tracestate": "=,=;" * 100}
        assert server.lonely.post(f"{server.url}/detect", content=picture(1), headers=headers).status_code == 200
        until(lambda: bool(sink.roots))
    assert sink.roots[0].parent_span_id == b""


def test_a_collector_that_hangs_holds_up_neither_answers_nor_the_end(
    panoptic_artifact: Path, sink: SpanSink, tmp_path: Path
) -> None:
    sink.open.clear()
    with scripted(panoptic_artifact, tmp_path, env=sent_to(sink, OTEL_BSP_MAX_QUEUE_SIZE="600")) as server:
        with server.client() as client:
            headers = {"content-type": "image/png"}
            answers = [client.post("/detect", content=picture(1), headers=headers) for _ in range(150)]
        assert {answer.status_code for answer in answers} == {200}
        server.signal(signal.SIGTERM)
        # It would wait for a minute.
        assert server.popen.wait(timeout=30) == 0


def test_a_collector_that_is_not_there_is_told_of_and_nothing_else(panoptic_artifact: Path, tmp_path: Path) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with scripted(panoptic_artifact, tmp_path, env=env) as server:
        assert server.post("/detect", picture(1)).status_code == 200
        until(lambda: any(line["logger"].startswith("opentelemetry") for line in server.lines()))
        assert server.post("/detect", picture(1)).status_code == 200
        server.signal(signal.SIGTERM)
        assert server.popen.wait(timeout=30) == 0
        assert server.error_log.read_text() == ""


def test_a_protocol_that_is_not_spoken_is_a_bad_setting(panoptic_artifact: Path) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    ended = start_in_vain("--model", panoptic_artifact, env=env)
    assert ended.code == 2
    assert "OTEL_EXPORTER_OTLP_PROTOCOL: spans are sent by http/protobuf only" in ended.errors
    assert len(ended.errors.splitlines()) == 1


WITHOUT = """
import sys
from service.process.spans import open_spans
{before}
try:
    print(open_spans({environment!r}))
except Exception as error:
    print(type(error).__name__, error)
print([name for name in sys.modules if name.startswith("opentelemetry") and sys.modules[name]])
"""


@pytest.mark.parametrize(
    ("before", "env", "told"),
    [
        ("", {}, "None"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "None"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_SDK_DISABLED": "true"}, "None"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_TRACES_EXPORTER": "none"}, "None"),
        ("sys.modules['opentelemetry'] = None", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"},
         "SettingsError OTEL_EXPORTER_OTLP_ENDPOINT: to send spans, OpenTelemetry has to be installed: "),
    ],
)  # fmt: skip
def test_nothing_is_imported_that_is_not_switched_on_and_what_is_missing_is_told_in_one_line(
    before: str, env: dict[str, str], told: str
) -> None:
    program = WITHOUT.format(before=before, environment=env)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=True
    )
    said, imported = done.stdout.splitlines()
    assert said.startswith(told)
    assert imported == "[]"
    assert "otel" in said or told == "None"

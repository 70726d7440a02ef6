"""Metrics count the truth, and every request leaves one line in the log that says enough and no more."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import pytest
from PIL import Image

from model.runtime import decode
from service.process.logs import JsonFormatter, configure_logging
from tests.service.conftest import JPEG, Serving, red_png
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.mark.api
async def test_metrics_count_what_was_answered(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        for _ in range(3):
            await app.detect(jpeg)
        await app.segment(jpeg)
        await app.detect(b"nonsense")
        await app.client.get("/nowhere")
        samples = await app.samples()
    assert samples['detr_requests_total{endpoint="detect",status="200"}'] == 3
    assert samples['detr_requests_total{endpoint="detect",status="400"}'] == 1
    assert samples['detr_requests_total{endpoint="segment",status="200"}'] == 1
    assert samples['detr_requests_total{endpoint="other",status="404"}'] == 1
    assert samples['detr_request_duration_seconds_count{endpoint="detect"}'] == 4
    assert samples['detr_rejected_total{reason="not_an_image"}'] == 1
    assert samples['detr_stage_duration_seconds_count{stage="decode"}'] == 5
    for stage in ("preprocess", "queue", "postprocess", "encode"):
        assert samples[f'detr_stage_duration_seconds_count{{stage="{stage}"}}'] == 4
    assert samples['detr_stage_duration_seconds_count{device="cpu",stage="infer"}'] == 4
    assert samples['detr_batch_size_sum{device="cpu"}'] == samples['detr_batch_size_count{device="cpu"}'] == 4
    assert samples['detr_batch_dispatch_total{device="cpu",reason="idle"}'] == 4
    assert 0 < samples['detr_batch_padding_ratio_sum{device="cpu"}'] < 4
    assert samples['detr_engine_up{device="cpu"}'] == 1
    assert samples["detr_queue_depth"] == 0
    assert samples["detr_requests_in_flight"] == 1, "the scrape itself"
    model = {"device": "cpu", "format_version": "3", "name": "tiny", "padding": "exact", "task": "panoptic"}
    labels = ",".join(f'{key}="{value}"' for key, value in sorted({**model, "precision": "float32"}.items()))
    assert samples[f"detr_model_info{{{labels}}}"] == 1


@pytest.mark.api
async def test_no_client_can_make_a_new_series(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        await app.client.get("/nothing-yet")
        await app.client.request("BREW", "/detect")
        await app.samples()
        before = await app.samples()
        for number in range(50):
            await app.client.request(f"M{number}", "/detect")
            await app.client.get(f"/path/{number}?query={number}", headers={"x-request-id": f"id-{number}"})
        after = await app.samples()
    assert before.keys() == after.keys()
    assert len(after) < 300


async def test_two_apps_do_not_share_metrics(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as one, serving(FakeEngine()) as other:
        await one.detect(red_png(1))
        assert 'detr_requests_total{endpoint="detect",status="200"}' in await one.samples()
        assert 'detr_requests_total{endpoint="detect",status="200"}' not in await other.samples()


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The log as it is written, by request."""
    written = [JsonFormatter().format(record) for record in caplog.records if record.name == "service.request"]
    assert all(len(line) < 2048 and line.isascii() and line.isprintable() for line in written)
    return [json.loads(line) for line in written]


async def test_each_request_is_one_line(serving: Serving, jpeg: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as app:
        response = await app.client.post("/detect", content=jpeg, headers=JPEG | {"x-request-id": "mine"})
        await app.detect(b"nonsense")
    good, bad = lines(caplog)
    assert good["request_id"] == "mine"
    assert (good["method"], good["route"], good["status"]) == ("POST", "/detect", 200)
    assert good["received_bytes"] == len(jpeg)
    assert good["sent_bytes"] == len(response.content)
    assert good["batch_size"] == 1
    assert good["duration_ms"] > 0
    assert good["stages_ms"].keys() == {"decode", "preprocess", "queue", "infer", "postprocess", "encode"}
    assert (bad["status"], bad["error"], bad["level"]) == (400, "not_an_image", "info")


async def test_nothing_a_client_sends_is_written_as_it_is(
    serving: Serving, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    evil = "a\r\nERROR forged \x1b[31m"
    async with serving(engine) as app:
        await app.client.get("/secret%0d%0aERROR-path")
        await app.client.get("/health/live", headers={"x-request-id": evil, "user-agent": "agent-" + "x" * 5000})
        await app.client.post("/detect", files={"image": (evil, b"content-of-a-picture", "image/jpeg")})
        await app.client.post("/detect?threshold=forged-value", content=b"content-of-a-picture", headers=JPEG)
    ours = [record for record in caplog.records if record.name.startswith("service")]
    text = "".join(JsonFormatter().format(record) for record in ours)
    assert len(lines(caplog)) == 4
    for part in ("forged", "secret", "ERROR-path", "agent-", "content-of-a-picture", "\x1b"):
        assert part not in text


async def test_a_failure_nobody_foresaw_is_logged_with_its_traceback(
    serving: Serving, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.faults.append(RuntimeError("why it failed"))
    async with serving(engine) as app:
        await app.detect(red_png(1))
    (record,) = (record for record in caplog.records if record.name == "service.batching.engine_runner")
    line = json.loads(JsonFormatter().format(record))
    assert line["level"] == "error"
    assert "RuntimeError: why it failed" in line["exception"]


@pytest.mark.usefixtures("logging_as_before")
def test_log_lines_go_to_standard_output_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    writer, _ = configure_logging("info")
    logging.getLogger("service.anything").info("one\nline %s", "\u2028 ü")
    logging.getLogger("service.anything").debug("too much")
    logging.getLogger("uvicorn.error").info("too much")
    logging.getLogger("PIL.PngImagePlugin").info("too much")
    writer.close()
    captured = capfd.readouterr()
    assert captured.err == ""
    (line,) = captured.out.splitlines()
    assert json.loads(line)["message"] == "one\nline \u2028 ü"


@pytest.mark.usefixtures("logging_as_before")
async def test_of_what_libraries_say_during_a_request_the_log_has_one_line_without_paths(
    serving: Serving,
    engine: FakeEngine,
    jpeg: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def odd(image: Image.Image) -> Image.Image:
        for number in range(500):
            warnings.warn(f"odd value {number}", stacklevel=1)
            logging.getLogger("PIL.Image").warning("as odd: %d", number)
        return image.convert("RGB")

    monkeypatch.setattr(decode, "to_rgb", odd)
    warnings.resetwarnings()  # in tests they are errors
    writer, libraries = configure_logging("info")
    async with serving() as app:
        libraries.on_warning = app.service.metrics.library_warnings.inc
        assert (await app.detect(jpeg)).status_code == 200
        assert (await app.samples())["detr_library_warnings_total"] == 1000
    writer.close()
    captured = capfd.readouterr()
    assert captured.err == ""
    (line,) = (line for line in captured.out.splitlines() if "odd" in line)
    assert json.loads(line)["library_warnings"] == 1000
    assert json.loads(line)["library_warning"] == "UserWarning: odd value 0"
    assert __file__ not in line

"""Each row of the error table, over HTTP: its status, its code, its one shape, and that it gives nothing
away.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from service.http.error_answers import TABLE
from tests.service.conftest import JPEG, App, Serving, check_error, encode, red_png, until
from tests.service.fakes import FakeEngine

pytestmark = [pytest.mark.anyio, pytest.mark.api]

Scenario = Callable[[App, FakeEngine, bytes], Awaitable[httpx.Response]]


def posting(body: bytes, content_type: str = "image/jpeg", **options: Any) -> Scenario:
    async def scenario(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
        return await app.client.post("/detect", content=body, headers={"content-type": content_type}, **options)

    return scenario


async def form_without_field(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    return await app.client.post("/detect", files={"picture": jpeg})


async def bad_threshold(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    return await app.detect(jpeg, params={"threshold": "much"})


async def stalled_upload(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    async def body() -> Any:
        yield jpeg[:100]
        await asyncio.sleep(60)

    return await app.detect(body())


async def no_room_for_uploads(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    app.service.upload_memory.take(app.service.upload_memory.max_bytes)
    return await app.detect(jpeg)


async def engine_raises(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    engine.faults.append(RuntimeError("Traceback: /usr/lib at 0x7f0c12345678"))
    return await app.detect(red_png(9))


async def service_breaks(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    app.service.answer = None  # type: ignore[method-assign, assignment]
    return await app.detect(jpeg)


async def still_starting(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    app.service.admission.current = None
    return await app.detect(jpeg)


async def draining(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    app.service.begin_drain()
    return await app.detect(jpeg)


async def stalled_engine(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    engine.hold()
    waiting = asyncio.create_task(app.detect(red_png(1)))
    await until(lambda: engine.seen == [1])
    await asyncio.sleep(0.06)
    response = await app.client.get("/health/ready")
    engine.release()
    await waiting
    return response


async def stalled_decoders(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    end = threading.Event()
    decoding = asyncio.create_task(app.service._cpu.run(end.wait))
    await until(lambda: app.service._cpu.overdue == 1)
    response = await app.detect(jpeg)
    end.set()
    await decoding
    return response


async def reopened_engine(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    app.service.admission.pipeline().batcher.engines.runners["fake"]._reopening.is_under_way = True
    return await app.detect(jpeg)


async def full_device(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    engine.largest = 0
    return await app.detect(jpeg)


async def full_queue(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    engine.hold()
    waiting = [asyncio.create_task(app.detect(red_png(red))) for red in range(2)]
    await until(lambda: app.service.admission.in_flight.count == 2)
    response = await app.detect(jpeg)
    engine.release()
    await asyncio.gather(*waiting)
    return response


async def too_slow(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    engine.hold()
    response = await app.detect(red_png(1))
    engine.release()
    return response


LARGE = encode(Image.new("1", (400, 300)), "PNG")
PROGRESSIVE = encode(Image.new("RGB", (16, 16)), "JPEG", progressive=True)
GIF = encode(Image.new("P", (4, 4)), "GIF")


async def long_query(app: App, engine: FakeEngine, jpeg: bytes) -> httpx.Response:
    return await app.detect(jpeg, params={"threshold": "1" * 40_000})


FORM = "multipart/form-data; boundary=x"
BASE = {"max_pixels": 100_000, "max_body_bytes": 100_000}

ROWS: dict[str, tuple[int, Scenario, dict[str, Any]]] = {
    "empty_upload": (400, posting(b""), {}),
    "broken_multipart": (400, posting(b"--x\r\nnonsense", FORM), {}),
    "broken_json": (400, posting(b"{}", "application/json"), {}),
    "not_an_image": (400, posting(b"hello, world"), {}),
    "broken_image": (400, posting(b"\xff\xd8\xff\xe0 and no more"), {}),
    "upload_timeout": (408, stalled_upload, {"body_timeout_ms": 30}),
    "upload_too_large": (413, posting(b"x" * 100_001), {}),
    "too_many_images": (413, posting(b'{"images": ["", ""]}', "application/json"), {"max_images_per_request": 1}),
    "image_too_large": (413, posting(LARGE), {}),
    "image_too_complex": (413, posting(PROGRESSIVE), {"max_image_scans": 3}),
    "media_type_not_accepted": (415, posting(b"{}", "text/plain"), {}),
    "image_format_not_accepted": (415, posting(GIF, "image/gif"), {}),
    "bad_parameter": (422, bad_threshold, {}),
    "bad_field": (422, form_without_field, {}),
    "headers_too_large": (431, long_query, {}),
    "engine_error": (500, engine_raises, {}),
    "internal_error": (500, service_breaks, {}),
    "starting": (503, still_starting, {}),
    "draining": (503, draining, {}),
    "engine_stalled": (503, stalled_engine, {"engine_stall_ms": 50}),
    "decoders_stalled": (503, stalled_decoders, {"cpu_threads": 1, "request_timeout_ms": 50}),
    "engine_restarting": (503, reopened_engine, {}),
    "device_memory_full": (503, full_device, {}),
    "queue_full": (503, full_queue, {"max_batch_size": 1, "max_queue_size": 1}),
    "uploads_full": (503, no_room_for_uploads, {}),
    "deadline_passed": (504, too_slow, {"request_timeout_ms": 50}),
}  # fmt: skip

# Shown elsewhere: it takes another model, another protocol (those of Label Studio), or a client that goes away.
ELSEWHERE = {
    "bad_infer_request",
    "unknown_model",
    "model_has_no_masks",
    "model_has_no_attention",
    "outlines_too_long",
    "client_gone",
    "memory_full",
    "model_refused",
    "reload_running",
    "bad_request",
    "unauthorized",
    "forbidden",
    "origin_not_allowed",
    "nothing_to_label",
    "picture_not_fetched",
    "too_many_connections",
}


@pytest.mark.parametrize("code", ROWS)
async def test_each_failure_has_its_answer(code: str, serving: Serving, engine: FakeEngine, jpeg: bytes) -> None:
    status, scenario, settings = ROWS[code]
    async with serving(engine, **(BASE | settings)) as app:
        response = await scenario(app, engine, jpeg)
    check_error(response, status, code)
    assert ("retry-after" in response.headers) == (status == 503)
    if status == 503:
        assert int(response.headers["retry-after"]) >= 1


def test_every_row_of_the_table_is_shown() -> None:
    assert {row.code for row in TABLE.values()} == ROWS.keys() | ELSEWHERE


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "not_found"),
        ("GET", "/detect/", 404, "not_found"),
        ("GET", "/detect", 405, "method_not_allowed"),
        pytest.param("BREW", "/detect", 405, "method_not_allowed", marks=pytest.mark.protocol),
        ("POST", "/metrics", 405, "method_not_allowed"),
        ("GET", "/redoc", 404, "not_found"),
    ],
)
async def test_what_the_framework_refuses_has_the_same_shape(
    serving: Serving, engine: FakeEngine, method: str, path: str, status: int, code: str
) -> None:
    async with serving(engine) as app:
        response = await app.client.request(method, path)
    check_error(response, status, code)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    "query",
    ["threshold=nan", "threshold=inf", "threshold=1e309", "threshold=-1", "threshold=1.01", "threshold=", "threshold=٠",
     "threshold=0.1&threshold=0.2", "threshold=" + "1" * 10_000, "treshold=0.5", "0xdeadbeef=1", "overlay=maybe"],
)  # fmt: skip
async def test_a_bad_parameter_is_named(serving: Serving, engine: FakeEngine, query: str, jpeg: bytes) -> None:
    async with serving(engine) as app:
        response = await app.client.post(f"/segment?{query}", content=jpeg, headers=JPEG)
    check_error(response, 422, "bad_parameter")


@pytest.mark.parametrize(
    ("query", "named"),
    [("treshold=0.5", ": treshold"), ("threshold[]=1", ": threshold[]"), ("x" * 40 + "=1", ": " + "x" * 40),
     ("x" * 41 + "=1", ""), ("<b>=1", ""), ("%1b[31m=1", ""), ("%0aERROR=1", ""), ("a%00=1", ""), ("t%C3%A9=1", ""),
     ("a\"b=1", ""), ("/usr/a=1", "")],
)  # fmt: skip
async def test_an_unknown_parameter_is_told_by_its_name_if_that_is_a_plain_word(
    serving: Serving, engine: FakeEngine, query: str, named: str, jpeg: bytes
) -> None:
    async with serving(engine) as app:
        response = await app.client.post(f"/detect?{query}", content=jpeg, headers=JPEG)
    check_error(response, 422, "bad_parameter")
    assert response.json()["error"]["message"] == f"unknown query parameter{named}"
    assert len(response.text) < 300
    assert "parameter" in response.text or query.partition("=")[0] in response.text


async def test_numbers_that_are_not_finite_fail_their_own_image_only(serving: Serving, engine: FakeEngine) -> None:
    engine.not_finite = {2}
    async with serving(engine, max_queue_delay_ms=5000, max_batch_size=4) as app:
        responses = await asyncio.gather(*(app.detect(red_png(red)) for red in (1, 2, 3, 4)))
    assert len(engine.batches) == 1
    assert [response.status_code for response in responses] == [200, 500, 200, 200]
    check_error(responses[1], 500, "engine_error")


async def test_a_failed_batch_is_followed_by_one_that_works(serving: Serving, engine: FakeEngine) -> None:
    engine.faults.append(RuntimeError("scripted"))
    async with serving(engine) as app:
        check_error(await app.detect(red_png(1)), 500, "engine_error")
        assert (await app.detect(red_png(1))).status_code == 200


async def test_two_hundred_broken_files_leave_the_service_as_it_was(serving: Serving, jpeg: bytes) -> None:
    png = encode(Image.new("RGB", (64, 64), "red"), "PNG")
    webp = encode(Image.new("RGB", (64, 64), "red"), "WEBP")
    broken = [whole[: len(whole) * part // 100] for whole in (jpeg, png, webp) for part in range(0, 80, 2)]
    broken += [bytes([value]) * 50 for value in range(100)]
    broken += [jpeg[:20] + bytes([value]) * 200 for value in range(10)]
    assert len(broken) >= 200
    async with serving() as app:
        before = (await app.detect(jpeg)).json()
        for body in broken:
            response = await app.detect(body)
            check_error(response, response.status_code, response.json()["error"]["code"])
            assert response.status_code in (400, 415)
        assert (await app.detect(jpeg)).json() == before
        assert app.service.upload_memory.used_bytes == 0
        assert app.service.admission.in_flight.count == 0


async def test_exactly_the_requests_beyond_batch_and_queue_are_refused(serving: Serving, engine: FakeEngine) -> None:
    batch, queue, extra = 3, 5, 7
    engine.hold()
    async with serving(engine, max_batch_size=batch, max_queue_size=queue, request_timeout_ms=120_000) as app:
        tasks = [asyncio.create_task(app.detect(red_png(red))) for red in range(batch + queue + extra)]
        await until(lambda: sum(task.done() for task in tasks) == extra)
        for _ in range(50):
            await asyncio.sleep(0)
        assert sum(task.done() for task in tasks) == extra
        engine.release()
        responses = await asyncio.gather(*tasks)
        samples = await app.samples()
    statuses = [response.status_code for response in responses]
    assert statuses.count(503) == extra
    assert statuses.count(200) == batch + queue
    assert all(response.headers["retry-after"] == "1" for response in responses if response.status_code == 503)
    assert samples['detr_rejected_total{reason="queue_full"}'] == extra
    assert samples["detr_queue_depth"] == 0


async def test_a_request_past_its_deadline_is_not_computed(serving: Serving, engine: FakeEngine) -> None:
    engine.hold()
    async with serving(engine, max_batch_size=1, request_timeout_ms=200) as app:
        responses = await asyncio.gather(*(app.detect(red_png(red)) for red in (1, 2, 3)))
        engine.release()
        assert [response.status_code for response in responses] == [504] * 3
        app.service.admission.pipeline()._timeout = 600
        assert (await app.detect(red_png(4))).status_code == 200
    assert len(engine.seen) <= 2, "the one in the engine when time ran out, and the one after"
    assert engine.seen[-1] == 4


@pytest.mark.usefixtures("inside")
async def test_out_of_memory_is_not_blamed_on_the_image(
    serving: Serving, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    body = red_png(1)
    monkeypatch.setattr(Image.Image, "load", no_memory)
    async with serving(engine) as app:
        response = await app.detect(body)
        check_error(response, 503, "memory_full")
        assert response.headers["retry-after"] == "1"

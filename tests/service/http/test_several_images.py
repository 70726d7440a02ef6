"""Several images in one request: answered in their order, each as if alone."""

from __future__ import annotations

import asyncio
import base64
from functools import partial
from typing import Any

import httpx
import pytest

from service.images.responses import Outliner
from tests.service.conftest import App, Serving, check_error, red_png, until
from tests.service.fakes import FakeEngine

pytestmark = [pytest.mark.anyio, pytest.mark.api]


def in_json(*pictures: bytes) -> dict[str, Any]:
    return {"json": {"images": [base64.b64encode(picture).decode() for picture in pictures]}}


def in_form(*pictures: bytes) -> dict[str, Any]:
    return {"files": [("image", (f"{number}.png", picture)) for number, picture in enumerate(pictures)]}


async def post(app: App, path: str, sent: dict[str, Any], **options: Any) -> httpx.Response:
    return await app.client.post(path, **sent, **options)


def without_id(error: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in error["error"].items() if name != "request_id"}


@pytest.mark.parametrize("send", [in_json, in_form])
@pytest.mark.parametrize("path", ["/detect", "/segment"])
async def test_each_is_answered_as_if_alone_the_bad_ones_too(
    serving: Serving, engine: FakeEngine, path: str, send: Any
) -> None:
    pictures = [red_png(3), b"no image", red_png(1), b"GIF89a", b"", red_png(2)[:-20], red_png(2)]
    async with serving(engine) as app:
        answer = await post(app, path, send(*pictures))
        alone = [await post(app, path, in_form(picture)) for picture in pictures]
        assert app.service.admission.in_flight.count == app.service.upload_memory.used_bytes == 0
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert "image-orientation" not in answer.headers
    results = answer.json()["results"]
    assert len(results) == len(pictures)
    for number, (found, expected) in enumerate(zip(results, (each.json() for each in alone), strict=True)):
        if number == 4 and send is in_json:
            assert found["error"]["code"] == "empty_upload"
        elif "error" in expected:
            assert without_id(found) == without_id(expected)
            assert found["error"]["request_id"] == answer.headers["x-request-id"]
        else:
            assert found == expected


async def test_one_image_that_fails_in_the_engine_fails_alone(serving: Serving, engine: FakeEngine) -> None:
    engine.poison, engine.not_finite = {2}, {3}
    async with serving(engine) as app:
        results = (await post(app, "/detect", in_form(red_png(1), red_png(2), red_png(3), red_png(4)))).json()[
            "results"
        ]
        metrics = app.service.metrics.text().decode()
    assert ["error" in result for result in results] == [False, True, True, False]
    assert {result["error"]["code"] for result in results[1:3]} == {"engine_error"}
    assert 'detr_failed_images_total{reason="engine_error",status="500"} 2.0' in metrics
    assert 'detr_failed_images_total{reason="deadline_passed",status="504"} 0.0' in metrics
    assert 'detr_requests_total{endpoint="detect",status="200"} 1.0' in metrics


@pytest.mark.usefixtures("inside")
async def test_one_image_with_too_long_outlines_fails_alone(
    serving: Serving, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(engine) as app:
        few = await post(app, "/segment?polygons=true", in_form(red_png(1), red_png(2)))
        monkeypatch.setattr("service.images.responses.Outliner", partial(Outliner, 1))
        many = await post(app, "/segment?polygons=true", in_form(red_png(1), b"no image"))
        check_error(await post(app, "/segment?polygons=true", in_form(red_png(1))), 413, "outlines_too_long")
    assert all("segments" in result for result in few.json()["results"])
    assert [result["error"]["code"] for result in many.json()["results"]] == ["outlines_too_long", "not_an_image"]


async def test_one_image_in_a_list_is_one_image(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        assert "detections" in (await post(app, "/detect", in_json(red_png(1)))).json()


@pytest.mark.parametrize(
    ("sent", "headers"), [({"overlay": "true"}, {}), ({}, {"accept": "image/png"})], ids=["overlay", "PNG of ids"]
)
async def test_pictures_are_answered_one_a_request(
    serving: Serving, engine: FakeEngine, sent: dict[str, str], headers: dict[str, str]
) -> None:
    async with serving(engine) as app:
        answer = await post(app, "/segment", in_form(red_png(1), red_png(2)), params=sent, headers=headers)
    check_error(answer, 422, "bad_parameter")
    assert not engine.seen


async def test_each_image_has_a_place(serving: Serving, engine: FakeEngine) -> None:
    engine.hold()
    async with serving(engine, max_batch_size=1, max_queue_size=3, max_images_per_request=8) as app:
        first = asyncio.create_task(post(app, "/detect", in_form(red_png(1), red_png(2))))
        await until(lambda: app.service.admission.in_flight.count == 2)
        check_error(await post(app, "/detect", in_form(*[red_png(1)] * 3)), 503, "queue_full")
        check_error(await post(app, "/detect", in_form(*[red_png(1)] * 5)), 413, "too_many_images")
        second = asyncio.create_task(post(app, "/detect", in_json(red_png(3), red_png(4))))
        await until(lambda: app.service.admission.in_flight.count == 4)
        check_error(await app.detect(red_png(5)), 503, "queue_full")
        engine.release()
        assert [len((await each).json()["results"]) for each in (first, second)] == [2, 2]
        assert app.service.admission.in_flight.count == 0


async def test_each_image_has_the_requests_deadline(serving: Serving, engine: FakeEngine) -> None:
    engine.hold()
    async with serving(engine, request_timeout_ms=100) as app:
        results = (await post(app, "/detect", in_form(red_png(1), b"no image"))).json()["results"]
        assert [result["error"]["code"] for result in results] == ["deadline_passed", "not_an_image"]
        engine.release()


async def test_more_than_the_setting_says_are_refused(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine, max_images_per_request=2) as app:
        answer = await post(app, "/detect", in_json(*[red_png(1)] * 3))
        check_error(answer, 413, "too_many_images")
        assert "more than 2 images" in answer.text
    assert not engine.seen


@pytest.mark.parametrize("content_type", ["application/octet-stream", None, ""])
async def test_bytes_without_a_type_are_read_by_their_beginning(
    serving: Serving, engine: FakeEngine, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    async with serving(engine) as app:
        assert (await app.client.post("/detect", content=red_png(1), headers=headers)).status_code == 200
        check_error(await app.client.post("/detect", content=b"hello", headers=headers), 400, "not_an_image")

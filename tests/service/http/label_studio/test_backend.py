"""The routes of an ML backend, with a scripted engine and pictures that come in the request or from a small server."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any

import pytest

from tests.service.conftest import App, Serving, check_error, encode, red_png, scene, until
from tests.service.fakes import FakeEngine
from tests.service.http.label_studio.test_pictures import Site, home

__all__ = ["home"]
pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:9"  # where nobody listens


def config(shape: str = "RectangleLabels", *labels: str) -> str:
    inside = "".join(f'<Label value="{label}"/>' for label in labels or ("Heart",))
    return f'<View><Image name="i" value="$picture"/><{shape} name="c" toName="i">{inside}</{shape}></View>'


def data_url(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def tasks(*pictures: Any) -> list[dict[str, Any]]:
    return [{"id": number, "data": {"picture": picture}} for number, picture in enumerate(pictures)]


async def predict(app: App, found: list[dict[str, Any]], labelling: str | None = None) -> Any:
    sent = {"tasks": found, "label_config": labelling or labels_of(app), "project": "1.2", "params": {"context": None}}
    return await app.client.post("/label-studio/predict", json=sent)


def labels_of(app: App, shape: str = "RectangleLabels") -> str:
    """A configuration with all classes of the model that an app serves."""
    names = [category.name.upper() for category in app.service.admission.pipeline().metadata.categories]
    return config(shape, *names)


async def test_it_is_closed_without_the_setting(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        check_error(await app.client.get("/label-studio/health"), 404, "not_found")
        check_error(await predict(app, tasks(data_url(red_png(1)))), 404, "not_found")


async def test_setup_health_and_versions_answer_as_label_studio_reads_them(
    serving: Serving, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(engine, label_studio_url=URL) as app:
        assert (await app.client.get("/label-studio/health")).json()["status"] == "UP"
        name = app.service.admission.pipeline().metadata.categories[0].name
        sent = {
            "project": "1.2",
            "schema": config("RectangleLabels", name.title(), "Unicorn"),
            "access_token": "secret",
        }
        version = (await app.client.post("/label-studio/setup", json=sent)).json()["model_version"]
        assert (await app.client.get("/label-studio/versions")).json() == {"versions": [version]}
        assert version.startswith(app.service.admission.pipeline().metadata.name)
        for wrong in (config("RectangleLabels", "Unicorn"), "<View/>"):
            refused = await app.client.post("/label-studio/setup", json={"project": "1.2", "schema": wrong})
            check_error(refused, 422, "nothing_to_label")
        check_error(await app.client.post("/label-studio/setup", json={"project": "1.2"}), 400, "broken_json")
    (line,) = [line for line in caplog.messages if "has no class" in line]
    assert line.endswith("has no class for the labels 'Unicorn'")
    assert "secret" not in caplog.text


async def test_pictures_are_labelled_in_the_order_of_their_tasks(
    serving: Serving, engine: FakeEngine, home: Site
) -> None:
    home.pictures = {"/data/upload/1.png": red_png(102)}
    async with serving(engine, label_studio_url=home.url, label_studio_api_key="token") as app:
        answer = await predict(app, tasks(data_url(red_png(51)), "/data/upload/1.png", data_url(red_png(204))))
        assert app.service.admission.in_flight.count == app.service.upload_memory.used_bytes == 0
    assert answer.status_code == 200
    regions = [prediction["result"][0] for prediction in answer.json()["results"]]
    # The scripted engine's box is a quarter of the picture, around where the red is.
    assert [region["value"]["x"] for region in regions] == [7.5, 27.5, 67.5]
    for region in regions:
        assert (region["from_name"], region["to_name"], region["type"]) == ("c", "i", "rectanglelabels")
        assert (region["original_width"], region["original_height"], region["image_rotation"]) == (64, 64, 0)
        assert (region["value"]["y"], region["value"]["width"], region["value"]["height"]) == (12.5, 25, 25)
        assert region["score"] > 0.9
    assert len({region["id"] for region in regions}) == 3
    assert {prediction["model_version"] for prediction in answer.json()["results"]} == {answer.json()["model_version"]}


@pytest.mark.parametrize("shape", ["BrushLabels", "PolygonLabels"])
async def test_masks_are_regions_too(serving: Serving, shape: str) -> None:
    picture = data_url(encode(scene(), "PNG"))
    async with serving(label_studio_url=URL) as app:
        (prediction,) = (await predict(app, tasks(picture), labels_of(app, shape))).json()["results"]
    assert prediction["result"]
    for region in prediction["result"]:
        assert region["type"] == shape.lower()
        assert (
            region["value"].keys()
            >= {"brushlabels": {"format", "rle"}, "polygonlabels": {"points", "closed"}}[shape.lower()]
        )


async def test_a_picture_that_fails_has_no_prediction_and_the_others_have(
    serving: Serving, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.poison = {9}
    good, poison = data_url(red_png(1)), data_url(red_png(9))
    async with serving(engine, label_studio_url=URL) as app:
        found = tasks(data_url(b"no picture"), good, "http://elsewhere/a.jpg", 7, poison, "data:,x", good)
        answer = await predict(app, [*found, {"id": 9}, {"data": None}])
        samples = await app.samples()
        assert app.service.upload_memory.used_bytes == 0
    results = answer.json()["results"]
    assert [bool(result) for result in results] == [False, True, False, False, False, False, True, False, False]
    assert [result for result in results if not result] == [[]] * 7
    assert samples['detr_failed_images_total{reason="picture_not_fetched",status="422"}'] == 1
    (line,) = [line for line in caplog.messages if "have no prediction" in line]
    assert line.startswith("7 pictures")


async def test_where_no_picture_is_labelled_the_first_failure_is_the_answer(
    serving: Serving, engine: FakeEngine
) -> None:
    async with serving(engine, label_studio_url=URL) as app:
        check_error(await predict(app, tasks(data_url(b"no picture"))), 400, "not_an_image")
        check_error(await predict(app, tasks("http://elsewhere/a.jpg")), 422, "picture_not_fetched")
        check_error(await predict(app, tasks(f"{URL}/a.jpg")), 422, "picture_not_fetched")
        check_error(await predict(app, tasks(7)), 422, "nothing_to_label")
        check_error(await predict(app, tasks(data_url(red_png(1))), config()), 422, "nothing_to_label")
        assert (await predict(app, [])).json()["results"] == []


async def test_what_is_not_done_in_time_is_left_for_the_next_time(
    serving: Serving, engine: FakeEngine, home: Site
) -> None:
    async with serving(engine, label_studio_url=home.url, label_studio_timeout_ms=3000) as app:
        answer = await predict(app, tasks("/never", data_url(red_png(1))))
        assert [bool(result) for result in answer.json()["results"]] == [False, True]
        assert app.service.admission.in_flight.count == app.service.upload_memory.used_bytes == 0
    async with serving(engine, label_studio_url=home.url, label_studio_timeout_ms=50) as app:
        check_error(await predict(app, tasks("/never")), 504, "deadline_passed")


async def test_a_request_of_many_tasks_takes_a_batch_of_places(serving: Serving, engine: FakeEngine) -> None:
    engine.hold()
    async with serving(engine, label_studio_url=URL, max_batch_size=2, max_queue_size=3) as app:
        asking = asyncio.create_task(predict(app, tasks(*(data_url(red_png(red)) for red in range(20)))))
        await until(lambda: app.service.admission.in_flight.count == 2)
        await asyncio.sleep(0.05)
        assert app.service.admission.in_flight.count == 2
        engine.release()
        assert all((await asking).json()["results"])


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"tasks": {}, "label_config": ""}', b'{"tasks": [1], "label_config": ""}', b"\xff"]
)
async def test_what_is_no_request_is_refused(serving: Serving, engine: FakeEngine, body: bytes) -> None:
    json = {"content-type": "application/json"}
    async with serving(engine, label_studio_url=URL) as app:
        for path in ("predict", "setup"):
            refused = await app.client.post(f"/label-studio/{path}", content=body, headers=json)
            check_error(refused, 400, "broken_json" if body else "empty_upload")
        wrong = await app.client.post("/label-studio/predict", content=body, headers={"content-type": "text/plain"})
        check_error(wrong, 415, "media_type_not_accepted")


async def test_events_are_taken_and_a_training_is_not(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine, label_studio_url=URL) as app:
        event = {"action": "ANNOTATION_CREATED", "task": {"id": 1}}
        assert (await app.client.post("/label-studio/webhook", json=event)).status_code == 201
        check_error(
            await app.client.post("/label-studio/webhook", json={"action": "START_TRAINING"}), 422, "bad_parameter"
        )


async def test_a_model_without_masks_gives_rectangles_only(
    serving: Serving, engine: FakeEngine, detection_artifact: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with serving(engine, model=detection_artifact, label_studio_url=URL) as app:
        check_error(
            await predict(app, tasks(data_url(red_png(1))), labels_of(app, "BrushLabels")), 422, "nothing_to_label"
        )
        assert (await predict(app, tasks(data_url(red_png(1))))).json()["results"][0]["result"]

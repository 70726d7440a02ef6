"""The HTTP contract: what goes in, what comes out, and that it is what the runtime says."""

from __future__ import annotations

import asyncio
import base64
import io

import httpx
import numpy as np
import pycocotools.mask
import pytest
from PIL import Image

from service.schemas import DetectResponse, EdgesInfo, InstanceResponse, ModelResponse, SegmentResponse
from tests.coco_segments import read_id_png
from tests.server_process import total
from tests.service.conftest import App, Serving, check_error, encode, red_png, scene
from tests.service.fakes import FakeEngine

pytestmark = [pytest.mark.anyio, pytest.mark.api]


async def test_detect_answers_boxes_in_pixels_best_first(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        response = await app.detect(jpeg)
    assert response.status_code == 200
    body = response.json()
    assert body.keys() == {"model", "image", "detections"}
    assert body["model"] == "tiny"
    assert body["image"] == {"width": 128, "height": 96}
    assert [found["label"] for found in body["detections"]] == ["red", "ground", "sky"]
    assert [found["category_id"] for found in body["detections"]] == [1, 92, 95]
    scores = [found["score"] for found in body["detections"]]
    assert scores == sorted(scores, reverse=True)
    for found in body["detections"]:
        assert found.keys() == {"label", "category_id", "isthing", "score", "box"}
        box = found["box"]
        assert 0 <= box["x1"] < box["x2"] <= 128
        assert 0 <= box["y1"] < box["y2"] <= 96
    DetectResponse.model_validate_json(response.content)


async def test_a_form_and_a_raw_body_are_answered_alike(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        raw = await app.detect(jpeg)
        form = await app.client.post("/detect", files={"image": ("any name.jpg", jpeg, "image/jpeg")})
        untyped = await app.client.post("/detect", files={"image": ("x", jpeg, "application/octet-stream")})
    assert raw.status_code == 200
    assert raw.json() == form.json() == untyped.json()


async def test_the_bytes_count_and_not_what_the_header_calls_them(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        right = await app.detect(jpeg)
        wrong = await app.client.post("/detect", content=jpeg, headers={"content-type": "IMAGE/PNG; q=1"})
    assert wrong.json() == right.json()


async def test_the_threshold_is_a_score_to_pass(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        counts = [
            len((await app.detect(jpeg, params={"threshold": threshold})).json()["detections"])
            for threshold in (0, 0.9, 1)
        ]
    assert counts == [4, 2, 0]


async def test_no_detection_is_an_empty_list(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        response = await app.detect(jpeg, params={"threshold": 1})
    assert (response.status_code, response.json()["detections"]) == (200, [])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
async def test_segment_answers_masks_that_agree_with_each_other(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        response = await app.segment(jpeg)
    assert response.status_code == 200
    body = response.json()
    assert body.keys() == {"model", "image", "segments", "panoptic_png"}
    id_map = read_id_png(base64.b64decode(body["panoptic_png"]))
    assert id_map.shape == (96, 128)
    assert [found["label"] for found in body["segments"]] == ["red", "ground"]
    assert sum(found["area"] for found in body["segments"]) == 96 * 128
    for found in body["segments"]:
        assert found.keys() == {"id", "label", "category_id", "isthing", "score", "area", "box", "rle"}
        mask = pycocotools.mask.decode(found["rle"]).astype(bool)
        assert (mask == (id_map == found["id"])).all()
        assert found["area"] == mask.sum()
        rows, columns = np.nonzero(mask)
        box = {"x1": columns.min(), "y1": rows.min(), "x2": columns.max() + 1, "y2": rows.max() + 1}
        assert found["box"] == box
    assert [found["isthing"] for found in body["segments"]] == [True, False]
    SegmentResponse.model_validate_json(response.content)


async def test_segment_answers_the_id_png_to_who_prefers_it(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        told = (await app.segment(jpeg)).json()
        headers = {"content-type": "image/jpeg", "accept": "image/png"}
        response = await app.client.post("/segment", content=jpeg, headers=headers)
    assert response.headers["content-type"] == "image/png"
    assert response.content == base64.b64decode(told["panoptic_png"])


async def test_the_overlay_is_the_picture_with_its_segments(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        response = await app.segment(jpeg, params={"overlay": "true"})
    assert response.headers["content-type"] == "image/png"
    overlay = Image.open(io.BytesIO(response.content))
    assert (overlay.format, overlay.size) == ("PNG", (128, 96))
    assert np.asarray(overlay).std(axis=(0, 1)).max() > 0


async def test_a_detection_model_has_no_segments_to_give(
    serving: Serving, jpeg: bytes, detection_artifact: str
) -> None:
    async with serving(model=detection_artifact) as app:
        check_error(await app.segment(jpeg), 422, "model_has_no_masks")
        assert (await app.detect(jpeg)).status_code == 200
        assert (await app.client.get("/model")).json()["task"] == "detection"


async def test_model_describes_the_artifact(serving: Serving) -> None:
    async with serving() as app:
        response = await app.client.get("/model")
    body = ModelResponse.model_validate_json(response.content)
    assert (body.name, body.task, body.device, body.precision) == ("tiny", "panoptic", "cpu", "float32")
    assert body.resize == EdgesInfo(rule="edges", shortest_edge=64, longest_edge=107, rounding="published")
    assert body.categories[0].color == (220, 40, 40)
    assert body.provenance == {"source": "tests"}
    assert body.formats == ["jpeg", "png", "webp"]


async def test_each_stage_is_timed_in_a_header(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        header = (await app.detect(jpeg)).headers["server-timing"]
    stages = [part.split(";dur=") for part in header.split(", ")]
    assert [name for name, _ in stages] == ["decode", "preprocess", "queue", "infer", "postprocess", "encode"]
    assert all(float(milliseconds) >= 0 for _, milliseconds in stages)


async def test_a_header_tells_how_the_image_was_turned(serving: Serving, jpeg: bytes) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    async with serving() as app:
        answers = [await app.detect(jpeg), await app.detect(encode(scene(), exif=turned)), await app.detect(b"none")]
        health = await app.client.get("/health/live")
    assert [answer.headers.get("image-orientation") for answer in (*answers, health)] == ["1", "6", None, None]


async def test_a_detect_request_asks_for_no_masks(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        await app.detect(red_png(1))
        await app.segment(red_png(2), params={"threshold": 0.25})
    assert engine.thresholds == [[2.0], [0.25]]


async def test_sharing_a_batch_does_not_change_an_answer(serving: Serving, jpeg: bytes) -> None:
    sizes = [(40, 90), (128, 96), (300, 61), (64, 64), (90, 200)]
    crowd = [encode(scene(*size), "PNG") for size in sizes * 4]
    async with serving() as app:
        alone = await app.detect(jpeg)
        crowd.insert(10, jpeg)
        responses = await asyncio.gather(*(app.detect(body) for body in crowd))
        samples = await app.samples()
    assert total(samples, "detr_batch_size_sum") == 22
    assert total(samples, "detr_batch_size_count") < 22, "some shared a batch"
    lonely, crowded = alone.json()["detections"], responses[10].json()["detections"]
    assert [found["label"] for found in lonely] == [found["label"] for found in crowded]
    for one, other in zip(lonely, crowded, strict=True):
        # The tiny model sums whole canvases, so padding moves its last digits; a real one's error is smaller.
        assert one["score"] == pytest.approx(other["score"], abs=2e-4)
        assert one["box"] == pytest.approx(other["box"], abs=0.021)


async def test_callers_get_their_own_answers(serving: Serving, engine: FakeEngine) -> None:
    async def center_of(app: App, red: int) -> float:
        box = (await app.detect(red_png(red))).json()["detections"][0]["box"]
        return float(box["x1"] + box["x2"]) / 2

    # The box's centre is red / 255 of 64 pixels, and near the middle it is not clipped.
    reds = list(range(100, 160))
    async with serving(engine) as app:
        centers = await asyncio.gather(*(center_of(app, red) for red in reds))
    assert sorted(engine.seen) == reds
    assert centers == pytest.approx([64 * red / 255 for red in reds], abs=0.01)


@pytest.mark.parametrize(
    ("size", "status"),
    [
        ((1, 1), 200),
        ((3, 3), 200),
        ((1, 3), 200),
        ((3, 4000), 200),
        ((16384, 1), 200),
        ((1, 20000), 413),
        ((65500, 1), 413),
    ],
)
async def test_odd_shapes_get_an_answer_or_a_clear_refusal(
    serving: Serving, size: tuple[int, int], status: int
) -> None:
    body = encode(Image.new("RGB", size, "red"), "PNG")
    async with serving() as app:
        for response in (await app.detect(body), await app.segment(body)):
            assert response.status_code == status, response.text
            if status == 200:
                assert response.json()["image"] == {"width": size[0], "height": size[1]}
            else:
                check_error(response, 413, "image_too_large")


async def test_requests_that_come_twice_on_one_connection_are_both_answered(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        first, second = await app.detect(jpeg), await app.detect(jpeg)
    assert first.json() == second.json()
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


async def test_a_sane_request_id_is_kept(serving: Serving) -> None:
    async with serving() as app:
        response: httpx.Response = await app.client.get("/health/live", headers={"x-request-id": "Abc-12.3_z"})
    assert response.headers.get_list("x-request-id") == ["Abc-12.3_z"]


@pytest.mark.usefixtures("inside")  # others add the client's own to their answers
async def test_any_other_request_id_is_replaced(serving: Serving) -> None:
    async with serving() as app:
        for odd in ("", "a b", "x" * 65, "a;b", '{"a":1}'):
            response: httpx.Response = await app.client.get("/health/live", headers={"x-request-id": odd})
            assert response.headers["x-request-id"] not in ("", odd)


async def test_only_the_classes_that_are_asked_for_are_answered(serving: Serving, jpeg: bytes) -> None:
    async with serving() as app:
        for asked in ("red,sky", "1, 95", "RED,95"):
            body = (await app.detect(jpeg, params={"classes": asked})).json()
            assert [found["label"] for found in body["detections"]] == ["red", "sky"]
        whole = (await app.segment(jpeg)).json()
        some = (await app.segment(jpeg, params={"classes": "ground"})).json()
    (ground,) = some["segments"]
    (same,) = [segment for segment in whole["segments"] if segment["label"] == "ground"]
    assert {**same, "id": 1} == ground, "it has the pixels that it has in the whole answer"
    ids = read_id_png(base64.b64decode(some["panoptic_png"]))
    assert ((ids == 1) == (read_id_png(base64.b64decode(whole["panoptic_png"])) == same["id"])).all()
    assert set(np.unique(ids)) == {0, 1}


@pytest.mark.parametrize("route", ["/detect", "/segment", "/segment?mode=instance"])
@pytest.mark.parametrize("picture", ["png", "jpeg", "webp"])
async def test_what_is_found_is_drawn_in_the_format_that_is_accepted(
    serving: Serving, jpeg: bytes, route: str, picture: str
) -> None:
    headers = {"content-type": "image/jpeg", "accept": f"image/{picture}"}
    async with serving() as app:
        drawn = await app.client.post(
            httpx.URL(route).copy_merge_params({"overlay": "true"}), content=jpeg, headers=headers
        )
    assert drawn.headers["content-type"] == f"image/{picture}"
    with Image.open(io.BytesIO(drawn.content)) as read:
        assert (read.format, read.size) == (picture.upper(), (128, 96))


async def test_instances_are_json_even_to_who_prefers_png_because_masks_overlap(serving: Serving, jpeg: bytes) -> None:
    headers = {"content-type": "image/jpeg", "accept": "image/png"}
    async with serving() as app:
        answer = await app.client.post("/segment?mode=instance", content=jpeg, headers=headers)
        named = await app.client.post("/segment?format=coco", content=jpeg, headers=headers)
    InstanceResponse.model_validate_json(answer.content)
    assert named.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("format=yolo", "format: Input should be 'json' or 'coco'"),
        ("mode=semantic", "mode: Input should be 'panoptic' or 'instance'"),
        ("overlay=maybe", "overlay: Input should be true or false"),
        ("polygons=", "polygons: Input should be true or false"),
        ("image_id=-1", "image_id: Input should be greater than or equal to 0"),
        ("image_id=x.jpg", "image_id: Input should be a valid integer, unable to parse string as an integer"),
        ("image_id=9007199254740992", "image_id: Input should be less than or equal to 9007199254740991"),
    ],
)
async def test_a_wrong_value_is_told_with_what_would_be_right(
    serving: Serving, jpeg: bytes, query: str, message: str
) -> None:
    async with serving() as app:
        answer = await app.client.post(f"/segment?{query}", content=jpeg, headers={"content-type": "image/jpeg"})
    check_error(answer, 422, "bad_parameter")
    assert answer.json()["error"]["message"] == message


@pytest.mark.parametrize("asked", ["cow", "red,cow", "", "red,", "2"])
async def test_a_class_that_the_model_does_not_have_is_named(serving: Serving, jpeg: bytes, asked: str) -> None:
    async with serving() as app:
        for answer in (
            await app.detect(jpeg, params={"classes": asked}),
            await app.segment(jpeg, params={"classes": asked}),
        ):
            check_error(answer, 422, "bad_parameter")
            message = answer.json()["error"]["message"]
            assert message.startswith(f"the model has no class {asked.split(',')[-1]!r}; it knows red, green, blue")

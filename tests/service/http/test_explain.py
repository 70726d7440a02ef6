"""What was looked at, over HTTP: its forms, its bounds, and who cannot be asked."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.images.explanations import ExplainResponse
from tests.service.conftest import JPEG, App, Serving, check_error, red_png
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio


async def explained(app: App, picture: bytes, **query: str | int | float) -> ExplainResponse:
    answer = await app.client.post("/explain", content=picture, headers=JPEG, params=query)
    assert answer.status_code == 200, answer.text
    return ExplainResponse.model_validate_json(answer.content)


def refusal(answer: httpx.Response, code: str) -> str:
    """The message of an error that is the client's."""
    check_error(answer, 422, code)
    message: str = answer.json()["error"]["message"]
    return message


async def test_objects_are_those_of_detect_each_with_a_map_of_the_picture(
    serving: Serving, attentive_artifact: Path, jpeg: bytes
) -> None:
    async with serving(model=attentive_artifact) as app:
        detections = (await app.detect(jpeg)).json()["detections"]
        answer = await explained(app, jpeg)
    assert [one.model_dump(exclude={"query", "attention"}) for one in answer.objects] == detections
    assert len({one.query for one in answer.objects}) == len(detections)
    # 128 x 96 pixels are seen as 85 x 64, in cells of 32.
    assert (answer.cell.width, answer.cell.height) == pytest.approx((32 * 128 / 85, 32 * 96 / 64), abs=1e-4)
    for one in answer.objects:
        assert np.shape(one.attention) == (2, 3)
        assert np.sum(one.attention) == pytest.approx(1, abs=1e-5)
    assert answer.points == []


async def test_points_are_explained_beside_objects_or_alone(
    serving: Serving, attentive_artifact: Path, jpeg: bytes
) -> None:
    async with serving(model=attentive_artifact) as app:
        answer = await explained(app, jpeg, points="0,0; 128,96;50.5,70", threshold=1)
        one = await explained(app, jpeg, points="3,4")
    assert answer.objects == []
    assert [(point.x, point.y) for point in answer.points] == [(0, 0), (128, 96), (50.5, 70)]
    assert all(np.sum(point.attention) == pytest.approx(1, abs=1e-5) for point in answer.points)
    assert one.points[0].attention == answer.points[0].attention
    assert one.objects


async def test_one_query_is_explained_whatever_its_score(
    serving: Serving, attentive_artifact: Path, jpeg: bytes
) -> None:
    async with serving(model=attentive_artifact) as app:
        every = await explained(app, jpeg, threshold=0)
        for one in every.objects:
            assert (await explained(app, jpeg, query=one.query)).objects == [one]
        picture = await app.client.post("/explain?query=4", content=jpeg, headers=JPEG)
    assert "0 to 3" in refusal(picture, "bad_parameter")


@pytest.mark.parametrize("query", [{}, {"points": "20,30;100,90"}, {"threshold": 1}])
async def test_the_overlay_is_a_picture_of_the_same_size(
    serving: Serving, attentive_artifact: Path, jpeg: bytes, query: dict[str, str]
) -> None:
    async with serving(model=attentive_artifact) as app:
        answer = await app.client.post("/explain", content=jpeg, headers=JPEG, params={**query, "overlay": "true"})
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (128, 96)


@pytest.mark.parametrize("points", ["here", "1", "1,2,3", "-1,2", "1;2", "nan,1", "1,2;", ";".join(["1,1"] * 21)])
async def test_what_are_no_points_is_refused(
    serving: Serving, attentive_artifact: Path, jpeg: bytes, points: str
) -> None:
    async with serving(model=attentive_artifact) as app:
        answer = await app.client.post("/explain", content=jpeg, headers=JPEG, params={"points": points})
    assert "points" in refusal(answer, "bad_parameter")


async def test_a_point_beside_the_picture_is_refused(serving: Serving, attentive_artifact: Path, jpeg: bytes) -> None:
    async with serving(model=attentive_artifact) as app:
        answer = await app.client.post("/explain?points=128.5,3", content=jpeg, headers=JPEG)
    assert "128 x 96 pixels" in refusal(answer, "bad_parameter")


async def test_a_model_without_attention_says_how_to_have_one_with_it(
    serving: Serving, engine: FakeEngine, jpeg: bytes
) -> None:
    async with serving(engine) as app:
        answer = await app.client.post("/explain", content=red_png(1), headers=JPEG)
    assert "detr export --attention" in refusal(answer, "model_has_no_attention")
    assert engine.seen == []

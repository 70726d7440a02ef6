"""Batching never changes an answer, over HTTP: the same picture alone and amid others of other sizes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from model.checkpoint.saving import save_checkpoint
from model.data.shapes.command import CATEGORIES, FIRST_INDEX
from model.data.shapes.scene import draw_scene, sample_scene
from service.cli import main
from tests.coco_segments import read_id_png
from tests.model.networks import SMALL, filled
from tests.server_process import serving

COMPANY = 20
ROUNDS = 4


def scene_jpeg(index: int, size: int, width: int | None = None) -> bytes:
    buffer = io.BytesIO()
    picture = draw_scene(sample_scene(1, FIRST_INDEX["val"] + index), size).image[:, :width]
    Image.fromarray(picture).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


# Pictures wait for others here, so that they share batches.
# Not timed: a CPU gains nothing by batches, and here there have to be some.
OPTIONS = ("--max-queue-delay-ms", "200", "--request-timeout-ms", "60000", "--batch-timing-ms", "0")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(None, tmp_path_factory.mktemp("serve"), *OPTIONS) as server, server.client() as connected:
        yield connected


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server of a network whose padding leaks into the picture, as in the published code."""
    folder = tmp_path_factory.mktemp("leaking")
    save_checkpoint(folder / "small.safetensors", filled(SMALL).state_dict(), SMALL, CATEGORIES, {})
    artifact = folder / "published.onnx"
    main(["export", str(folder / "small.safetensors"), "--out", str(artifact), "--padding", "published"])
    with serving(artifact, folder, *OPTIONS) as server, server.client() as connected:
        yield connected


def post(client: httpx.Client, path: str, picture: bytes) -> httpx.Response:
    response = client.post(path, content=picture, headers={"Content-Type": "image/jpeg"})
    response.raise_for_status()
    return response


def amid_others(
    client: httpx.Client, path: str, wanted: bytes, others: Sequence[bytes] | None = None
) -> list[httpx.Response]:
    """The answers to the wanted picture, each sent at once with `COMPANY` others, to either endpoint."""
    others = others or [scene_jpeg(1 + i, 60 + 13 * i) for i in range(COMPANY)]
    answers = []
    with ThreadPoolExecutor(COMPANY + 1) as pool:
        for turn in range(ROUNDS):
            sent = [pool.submit(post, client, ("/detect", "/segment")[i % 2], other) for i, other in enumerate(others)]
            sent.insert(turn * 5, pool.submit(post, client, path, wanted))
            answers.append(sent[turn * 5].result())
            for future in sent:
                future.result()
    return answers


def largest_batch(client: httpx.Client) -> float:
    """Upper bound of the largest batch so far."""
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    buckets = [s for s in families["detr_batch_size"].samples if s.name.endswith("_bucket")]
    total = max(s.value for s in buckets)
    return min(float(s.labels["le"]) for s in buckets if s.value == total)


def id_map(answer: dict[str, Any]) -> NDArray[np.int32]:
    return read_id_png(base64.b64decode(answer["panoptic_png"]))


def assert_same_detections(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [d["label"] for d in found] == [d["label"] for d in expected]
    for a, b in zip(found, expected, strict=True):
        # One unit of the digits that are answered: a value on the edge may be rounded either way.
        assert a["score"] == pytest.approx(b["score"], abs=1.01e-4)
        assert a["box"] == pytest.approx(b["box"], abs=1.01e-2)


def test_a_picture_is_detected_the_same_alone_and_amid_twenty_others(client: httpx.Client) -> None:
    wanted = scene_jpeg(0, 240)
    alone = post(client, "/detect", wanted).json()["detections"]
    assert alone, "an answer without detections would prove nothing"
    for answer in amid_others(client, "/detect", wanted):
        assert_same_detections(answer.json()["detections"], alone)
    assert largest_batch(client) > 1


def test_a_picture_is_segmented_the_same_alone_and_amid_twenty_others(client: httpx.Client) -> None:
    wanted = scene_jpeg(0, 240)
    alone = post(client, "/segment", wanted).json()
    ids = id_map(alone)
    assert len(alone["segments"]) > 1
    for answer in amid_others(client, "/segment", wanted):
        segments = answer.json()["segments"]
        assert [(s["id"], s["label"]) for s in segments] == [(s["id"], s["label"]) for s in alone["segments"]]
        # A pixel between two masks of equal logits may fall to either.
        assert (id_map(answer.json()) != ids).mean() < 1e-3
        assert np.allclose([s["score"] for s in segments], [s["score"] for s in alone["segments"]], atol=1.01e-4)


def test_a_model_whose_padding_leaks_answers_the_same_alone_and_amid_twenty_others(leaking: httpx.Client) -> None:
    wanted = scene_jpeg(0, 240)
    others = [scene_jpeg(1 + i, 240, width=None if i % 2 else 100 + 5 * i) for i in range(COMPANY)]
    path = "/detect?threshold=0"
    alone = post(leaking, path, wanted).json()["detections"]
    assert len(alone) == SMALL.num_queries
    for answer in amid_others(leaking, path, wanted, others):
        assert_same_detections(answer.json()["detections"], alone)
    assert largest_batch(leaking) > 1

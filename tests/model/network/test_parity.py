"""The network, matcher, criterion and post-processing against numbers of the published implementation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.loss.criterion import SetCriterion
from model.loss.matcher import HungarianMatcher
from model.network.config import PRESETS
from model.network.detr import Predictions
from model.network.nested_tensor import NestedTensor, normalize, pad_images
from model.network.segmentation import DETRsegm
from model.runtime.answers.detections import best_real_class, scored_boxes
from model.runtime.answers.panoptic import PanopticResult, panoptic
from model.runtime.artifact.metadata import Padding
from model.runtime.categories import Category
from model.runtime.engines.raw_outputs import ImageOutputs
from tests.model.networks import filled

NUMBERS = np.load(Path(__file__).parents[2] / "parity" / "detr_resnet50_panoptic.npz")
PADDINGS: tuple[Padding, ...] = ("exact", "published")
TOLERANCE = 1e-4  # of each array's spread

IMAGES = [torch.from_numpy(NUMBERS[f"image_{i}"]).permute(2, 0, 1) for i in (0, 1)]
CATEGORIES = tuple(Category(i, f"class {i}", i <= 90, (0, 0, 0)) for i in range(250))


@pytest.fixture(scope="module")
def networks() -> dict[str, DETRsegm]:
    return {padding: _network(padding) for padding in PADDINGS}


def _network(padding: Padding) -> DETRsegm:
    network = filled(replace(PRESETS["detr-resnet-50-panoptic"], padding=padding))
    assert isinstance(network, DETRsegm)
    return network


@pytest.fixture(scope="module")
def solo(networks: dict[str, DETRsegm]) -> dict[tuple[str, int], Predictions]:
    """Each image alone, with either padding."""
    return {(padding, i): answer(networks[padding], padding, [IMAGES[i]]) for padding in networks for i in (0, 1)}


@pytest.fixture(scope="module")
def together(networks: dict[str, DETRsegm]) -> dict[str, Predictions]:
    """Both images in one batch."""
    return {padding: answer(networks[padding], padding, IMAGES) for padding in networks}


def answer(network: DETRsegm, padding: str, images: list[Tensor]) -> Predictions:
    with torch.no_grad():
        outputs: Predictions = network(padded(images, padding))
    return outputs


def padded(images: list[Tensor], padding: str) -> NestedTensor:
    """On a canvas of 32s, which exact padding needs, or on the reference's: as large as the largest image."""
    return normalize(*pad_images(images, 32 if padding == "exact" else 1))


def assert_close(found: Tensor | NDArray[Any], array: str) -> None:
    expected = NUMBERS[array]
    found = np.asarray(found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.ptp(expected)


@pytest.mark.parametrize("i", [0, 1])
@pytest.mark.parametrize("padding", PADDINGS)
def test_an_image_alone_gives_the_published_outputs(
    solo: dict[tuple[str, int], Predictions], padding: str, i: int
) -> None:
    outputs = solo[padding, i]
    assert_close(outputs["pred_logits"][0], f"solo_{i}_pred_logits")
    assert_close(outputs["pred_boxes"][0], f"solo_{i}_pred_boxes")
    assert_close(outputs["aux_outputs"][0]["pred_logits"][0], f"solo_{i}_aux0_pred_logits")
    rows, cols = NUMBERS[f"solo_{i}_pred_masks"].shape[1:]
    assert_close(outputs["pred_masks"][:12, :rows, :cols], f"solo_{i}_pred_masks")


def test_published_padding_reproduces_the_leak_of_a_padded_batch(together: dict[str, Predictions]) -> None:
    assert_close(together["published"]["pred_logits"], "batch_pred_logits")
    assert_close(together["published"]["pred_boxes"], "batch_pred_boxes")


@pytest.mark.parametrize("i", [0, 1])
def test_exact_padding_answers_in_a_batch_as_alone(together: dict[str, Predictions], i: int) -> None:
    outputs = together["exact"]
    assert_close(outputs["pred_logits"][i], f"solo_{i}_pred_logits")
    assert_close(outputs["pred_boxes"][i], f"solo_{i}_pred_boxes")
    assert_close(outputs["aux_outputs"][0]["pred_logits"][i], f"solo_{i}_aux0_pred_logits")
    rows, cols = NUMBERS[f"solo_{i}_pred_masks"].shape[1:]
    assert_close(outputs["pred_masks"].unflatten(0, (2, 100))[i, :12, :rows, :cols], f"solo_{i}_pred_masks")


def test_published_padding_is_far_from_the_answer_alone(together: dict[str, Predictions]) -> None:
    """Without this the comparison of the two would prove nothing."""
    for i in (0, 1):
        alone = NUMBERS[f"solo_{i}_pred_logits"]
        assert np.abs(together["published"]["pred_logits"][i].numpy() - alone).max() > 100 * TOLERANCE * np.ptp(alone)


def targets() -> list[dict[str, Tensor]]:
    return [
        {
            "labels": torch.from_numpy(NUMBERS[f"target_{i}_labels"]),
            "boxes": torch.from_numpy(NUMBERS[f"target_{i}_boxes"]),
            "masks": torch.from_numpy(NUMBERS[f"target_{i}_masks"]).bool(),
        }
        for i in (0, 1)
    ]


def test_the_matcher_finds_the_published_assignment(together: dict[str, Predictions]) -> None:
    for i, (query, target) in enumerate(HungarianMatcher()(together["published"], targets())):
        assert query.tolist() == NUMBERS[f"match_{i}_query"].tolist()
        assert target.tolist() == NUMBERS[f"match_{i}_target"].tolist()


def test_every_loss_is_the_published_one(together: dict[str, Predictions]) -> None:
    expected = json.loads(str(NUMBERS["losses"]))
    found = SetCriterion(250, HungarianMatcher())(together["published"], targets())
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=TOLERANCE), name


@pytest.mark.parametrize("i", [0, 1])
def test_detections_are_the_published_ones(solo: dict[tuple[str, int], Predictions], i: int) -> None:
    outputs = solo["exact", i]
    height, width = IMAGES[i].shape[1:]
    found = scored_boxes(outputs["pred_logits"][0].numpy(), outputs["pred_boxes"][0].numpy(), (2 * height, 2 * width))
    assert_close(found.scores, f"solo_{i}_post_scores")
    assert_close(found.boxes_xyxy, f"solo_{i}_post_boxes")
    assert found.labels.tolist() == NUMBERS[f"solo_{i}_post_labels"].tolist()


@pytest.mark.parametrize("i", [0, 1])
def test_the_kept_queries_are_the_published_ones(solo: dict[tuple[str, int], Predictions], i: int) -> None:
    logits = solo["exact", i]["pred_logits"][0].numpy()
    scores, _ = best_real_class(logits)
    kept = np.flatnonzero((logits.argmax(-1) < 250) & (scores > 0.5))
    assert kept.tolist() == NUMBERS[f"solo_{i}_kept"].tolist()


def segmented(outputs: Predictions, i: int, queries: NDArray[np.int64]) -> PanopticResult:
    """The panoptic result at twice the size, as if only `queries` had masks."""
    height, width = IMAGES[i].shape[1:]
    of_image = ImageOutputs(
        outputs["pred_logits"][0].numpy(),
        outputs["pred_boxes"][0].numpy(),
        outputs["pred_masks"].numpy()[queries],
        queries,
    )
    return panoptic(of_image, (height, width), (2 * height, 2 * width), CATEGORIES, 0.5, 4)


def survivors(outputs: Predictions, i: int) -> NDArray[np.int64]:
    """The queries that the reference is left with: of each stuff class only the first.

    It merges the stuff of a class into its first query, finds the others with no pixel, drops them as too small, and
    shares out the image again without them and without merging, which is the error that this project does not repeat.
    """
    kept = NUMBERS[f"solo_{i}_kept"].astype(np.int64)
    labels = outputs["pred_logits"][0].argmax(-1).numpy()[kept]
    first = [n for n, label in enumerate(labels) if label <= 90 or label not in labels[:n]]
    return kept[first]


def logits_at_the_image(outputs: Predictions, i: int, queries: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mask logits [k, h, w] of the queries, resized by torch as the reference does."""
    height, width = IMAGES[i].shape[1:]
    masks = outputs["pred_masks"][queries, None, : -(-height // 4), : -(-width // 4)]
    return functional.interpolate(masks, size=(height, width), mode="bilinear")[:, 0].numpy()


@pytest.mark.parametrize("i", [0, 1])
def test_panoptic_segments_are_the_published_ones(solo: dict[tuple[str, int], Predictions], i: int) -> None:
    """Each pixel has the published segment, or one whose logit there is as high to within the tolerance.

    The untrained masks of image 0 nearly coincide: in 6 % of its pixels the two best differ by less than 1e-6.
    """
    outputs, queries = solo["exact", i], survivors(solo["exact", i], i)
    found = segmented(outputs, i, queries)
    expected = json.loads(str(NUMBERS[f"solo_{i}_panoptic_info"]))
    assert [(s.id - 1, s.isthing, s.label) for s in found.segments] == [  # ids start at 0 there; here 0 is void
        (e["id"], e["isthing"], e["category_id"]) for e in expected
    ]
    logits = logits_at_the_image(outputs, i, queries).repeat(2, 1).repeat(2, 2)
    ours = np.take_along_axis(logits, found.id_map[None] - 1, axis=0)
    theirs = np.take_along_axis(logits, NUMBERS[f"solo_{i}_panoptic_id"][None].astype(np.int64), axis=0)
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.ptp(logits)
    assert (found.id_map - 1 == NUMBERS[f"solo_{i}_panoptic_id"]).mean() > 0.9
    for segment in found.segments:
        assert segment.area == (found.id_map == segment.id).sum()


def test_stuff_of_one_class_keeps_every_pixel_that_any_of_its_queries_won(
    solo: dict[tuple[str, int], Predictions],
) -> None:
    """Where the reference is in error: image 0 has 52 queries of one stuff class and two of things."""
    outputs, kept = solo["exact", 0], NUMBERS["solo_0_kept"].astype(np.int64)
    ours = segmented(outputs, 0, np.arange(100))
    logits = logits_at_the_image(outputs, 0, kept).repeat(2, 1).repeat(2, 2)
    labels = np.array([segment.label for segment in ours.segments])[ours.id_map - 1]
    of_query = outputs["pred_logits"][0].argmax(-1).numpy()[kept]
    won = np.where(of_query[:, None, None] == labels, logits, -np.inf).max(axis=0)
    assert (logits.max(axis=0) - won).max() <= TOLERANCE * np.ptp(logits)
    stuff = [segment for segment in ours.segments if not segment.isthing]
    assert len(stuff) == 1
    theirs = sum(e["area"] for e in json.loads(str(NUMBERS["solo_0_panoptic_info"])) if not e["isthing"])
    assert stuff[0].area > 1.5 * theirs

"""Batching never changes an answer: the exported file, through the code that serves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.runtime.artifact.file import read_artifact
from model.runtime.engines.engine import Engine
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS, ImageOutputs
from model.runtime.preprocess import Batch, make_batch
from tests.model.conftest import ARTIFACTS

TOLERANCE = 1e-4
STRIDE = 4

sizes = st.tuples(st.integers(1, 100), st.integers(1, 100))
# Nobody asks for masks, everybody for all of them, or each for those above some score.
thresholds = st.sampled_from([NO_MASKS, ALL_MASKS, 0.3, 0.5, 0.7])


@pytest.fixture(scope="module", params=ARTIFACTS)
def engine(request: pytest.FixtureRequest) -> Engine:
    return open_engine(read_artifact(request.getfixturevalue(request.param)), "cpu", threads=1)


@pytest.fixture(scope="module")
def with_masks(panoptic_artifact: Path) -> Engine:
    return open_engine(read_artifact(panoptic_artifact), "cpu", threads=1)


def picture(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """Blocks of random colours under noise: something to see at every scale. uint8 [h, w, 3]."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (-(-size[0] // 16), -(-size[1] // 16), 3), dtype=np.uint8)
    image = blocks.repeat(16, axis=0).repeat(16, axis=1)[: size[0], : size[1]]
    return image + rng.integers(0, 56, image.shape, dtype=np.uint8)


def alone(engine: Engine, image: NDArray[np.uint8], threshold: float) -> ImageOutputs:
    return engine.infer(make_batch([image]), np.array([threshold], np.float32)).image(0)


def on_larger_canvas(batch: Batch, rows: int, columns: int) -> Batch:
    """The same batch with more padding, in multiples of 32."""
    extra = ((0, 0), (0, 32 * rows), (0, 32 * columns))
    images = np.pad(batch.images, (*extra, (0, 0)))
    return Batch(images, np.pad(batch.padding_mask, extra, constant_values=True), batch.sizes)


def assert_close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert found.shape == expected.shape
    worst = np.abs(found - expected).max(initial=0.0)
    assert worst <= TOLERANCE * max(1.0, np.abs(expected).max(initial=0.0))


def assert_same(found: ImageOutputs, expected: ImageOutputs, size: tuple[int, int]) -> None:
    """Equal to 1e-4; masks where the image is, for beyond it each has the canvas of its batch."""
    assert_close(found.pred_logits, expected.pred_logits)
    assert_close(found.pred_boxes, expected.pred_boxes)
    if expected.mask_logits is None or expected.query_index is None:
        assert found.mask_logits is None
        return
    assert found.mask_logits is not None
    assert found.query_index is not None
    assert found.query_index.tolist() == expected.query_index.tolist()
    rows, columns = (-(-side // STRIDE) for side in size)
    assert_close(found.mask_logits[:, :rows, :columns], expected.mask_logits[:, :rows, :columns])


@settings(max_examples=20)
@given(
    size=sizes,
    neighbours=st.lists(st.tuples(sizes, thresholds), max_size=3),
    place=st.integers(0, 3),
    threshold=thresholds,
    extra=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_an_image_answers_in_any_batch_as_alone(
    engine: Engine,
    size: tuple[int, int],
    neighbours: list[tuple[tuple[int, int], float]],
    place: int,
    threshold: float,
    extra: tuple[int, int],
) -> None:
    place = min(place, len(neighbours))
    wanted = picture(size, seed=1)
    images = [picture(neighbour, seed=2 + i) for i, (neighbour, _) in enumerate(neighbours)]
    images.insert(place, wanted)
    asked = [theirs for _, theirs in neighbours]
    asked.insert(place, threshold)
    batch = on_larger_canvas(make_batch(images), *extra)
    company = engine.infer(batch, np.array(asked, np.float32)).image(place)
    assert_same(company, alone(engine, wanted, threshold), size)


def test_neighbours_that_want_no_masks_cost_none(with_masks: Engine) -> None:
    images = [picture((64, 96), seed=1), picture((80, 50), seed=2), picture((33, 33), seed=3)]
    outputs = with_masks.infer(make_batch(images), np.array([NO_MASKS, ALL_MASKS, NO_MASKS], np.float32))
    queries = outputs.pred_logits.shape[1]
    assert outputs.pred_masks is not None
    assert outputs.mask_index is not None
    assert outputs.mask_index.tolist() == [[1, query] for query in range(queries)]
    assert outputs.pred_masks.shape == (queries, 80 // STRIDE + 4, 96 // STRIDE)  # the canvas is 96 by 96
    assert_same(outputs.image(1), alone(with_masks, images[1], ALL_MASKS), (80, 50))


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_without_any_mask_is_an_answer_like_any_other(with_masks: Engine, count: int) -> None:
    images = [picture((40 + 20 * i, 90 - 20 * i), seed=i) for i in range(count)]
    none = with_masks.infer(make_batch(images), np.full(count, NO_MASKS, np.float32))
    every = with_masks.infer(make_batch(images), np.full(count, ALL_MASKS, np.float32))
    assert none.pred_masks is not None
    assert none.mask_index is not None
    assert none.pred_masks.shape[0] == 0
    assert none.mask_index.shape == (0, 2)
    assert_close(none.pred_logits, every.pred_logits)
    assert_close(none.pred_boxes, every.pred_boxes)


@settings(max_examples=10)
@given(threshold=st.floats(0, 1, width=32))
def test_exactly_the_queries_above_the_threshold_have_a_mask(with_masks: Engine, threshold: float) -> None:
    output = alone(with_masks, picture((64, 64), seed=1), threshold)
    powers = np.exp(output.pred_logits - output.pred_logits.max(-1, keepdims=True))
    best = (powers / powers.sum(-1, keepdims=True))[:, :-1].max(-1)
    assert output.query_index is not None
    kept = np.isin(np.arange(len(best)), output.query_index)
    # The graph's softmax may round differently in the last digit.
    assert ((best > threshold) == kept)[np.abs(best - threshold) > 1e-6].all()


def test_the_smallest_and_the_longest_images_are_answered(engine: Engine) -> None:
    images = [picture(size, seed=i) for i, size in enumerate([(1, 1), (1, 300), (300, 1)])]
    together = engine.infer(make_batch(images), np.full(3, ALL_MASKS, np.float32))
    assert np.isfinite(together.pred_logits).all()
    for i, image in enumerate(images):
        assert_same(together.image(i), alone(engine, image, ALL_MASKS), (image.shape[0], image.shape[1]))

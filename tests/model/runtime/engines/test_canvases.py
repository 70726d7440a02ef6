from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.runtime.artifact.file import read_artifact
from model.runtime.engines.canvases import GPU_CANVAS_MULTIPLE, canvas_multiple, canvases_of
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.engine import Engine
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import ALL_MASKS
from model.runtime.preprocess import make_batch
from model.runtime.resize_rule import Edges, ResizeRule
from tests.tiny_artifact import tiny_metadata

PUBLISHED = Edges(800, 1333)
RULES = st.tuples(st.integers(1, 300), st.integers(0, 300)).map(lambda edges: Edges(edges[0], sum(edges)))


@settings(max_examples=300)
@given(RULES, st.integers(1, 6).map(lambda n: 32 * n), st.integers(1, 3000), st.integers(1, 3000))
def test_every_image_gets_one_of_the_canvases(rule: ResizeRule, multiple: int, height: int, width: int) -> None:
    size = rule.size(height, width)
    batch = make_batch([np.zeros((*size, 3), np.uint8)], multiple)
    assert batch.padding_mask.shape[1:] in canvases_of(rule, multiple)


@settings(max_examples=300)
@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_every_image_gets_one_of_the_published_canvases(height: int, width: int) -> None:
    sides = [-(-side // 128) * 128 for side in PUBLISHED.size(height, width)]
    assert tuple(sides) in ON_GPU


ON_GPU = canvases_of(PUBLISHED, GPU_CANVAS_MULTIPLE)


def test_there_are_few_and_the_largest_comes_first() -> None:
    assert ON_GPU[0] == (896, 1408)
    assert set(ON_GPU) == {(width, height) for height, width in ON_GPU}
    assert len({canvas for canvas in ON_GPU if 896 in canvas}) == 9 + 2  # photos, and strips
    assert len(ON_GPU) < 60
    pixels = [height * width for height, width in ON_GPU]
    assert pixels == sorted(pixels, reverse=True)


def test_a_gpu_gets_coarser_canvases_unless_told_otherwise() -> None:
    metadata = tiny_metadata()
    assert canvas_multiple(None, metadata, on_gpu=False) == 32
    assert canvas_multiple(None, metadata, on_gpu=True) == 128
    assert canvas_multiple(64, metadata, on_gpu=True) == canvas_multiple(64, metadata, on_gpu=False) == 64


@pytest.mark.parametrize("asked", [0, -32, 16, 33, 100])
def test_only_multiples_of_the_models_own_are_taken(asked: int) -> None:
    with pytest.raises(DeviceError, match=rf"canvas_multiple {asked}: this model takes multiples of 32 pixels"):
        canvas_multiple(asked, tiny_metadata(), on_gpu=False)


def test_published_padding_keeps_its_canvas_because_answers_depend_on_it() -> None:
    published = replace(tiny_metadata(), padding="published")
    assert canvas_multiple(None, published, on_gpu=True) == canvas_multiple(32, published, on_gpu=True) == 32
    with pytest.raises(DeviceError, match="published padding, whose answers change with the canvas; use 32"):
        canvas_multiple(128, published, on_gpu=True)


@pytest.fixture(scope="module")
def demo_engine() -> Engine:
    artifact = read_artifact(Path(__file__).parents[4] / "model" / "demo" / "detr-demo.onnx")
    return open_engine(artifact, "cpu", threads=1)


@settings(max_examples=10)
@given(
    st.lists(st.tuples(st.integers(1, 130), st.integers(1, 130)), min_size=1, max_size=3),
    st.sampled_from([64, 96, 128, 160]),
)
def test_a_coarser_canvas_changes_no_answer(demo_engine: Engine, sizes: list[tuple[int, int]], multiple: int) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    fine, coarse = (
        demo_engine.infer(make_batch(images, sides), np.full(len(images), ALL_MASKS, np.float32))
        for sides in (32, multiple)
    )
    np.testing.assert_allclose(coarse.pred_logits, fine.pred_logits, rtol=0, atol=1e-3)
    np.testing.assert_allclose(coarse.pred_boxes, fine.pred_boxes, rtol=0, atol=1e-4)
    assert fine.mask_index is not None
    assert fine.pred_masks is not None
    assert coarse.pred_masks is not None
    np.testing.assert_array_equal(coarse.mask_index, fine.mask_index)
    for (image, _), expected, found in zip(fine.mask_index, fine.pred_masks, coarse.pred_masks, strict=True):
        cells = np.s_[: -(-sizes[image][0] // 4), : -(-sizes[image][1] // 4)]
        np.testing.assert_allclose(found[cells], expected[cells], rtol=0, atol=1e-4 * np.ptp(expected))

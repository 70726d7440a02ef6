"""The panoptic graph as two: together they are the whole, whatever the number of masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from openvino import opset13

from model.runtime.artifact.file import Artifact, read_artifact
from model.runtime.engines import openvino_engine
from model.runtime.engines.engine import Engine
from model.runtime.engines.opening import open_engine
from model.runtime.engines.openvino_engine import openvino_core
from model.runtime.engines.openvino_graph import split_at_pairs
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS, RawOutputs
from model.runtime.preprocess import Batch, make_batch

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def demo() -> Artifact:
    return read_artifact(ROOT / "model" / "demo" / "detr-demo.onnx")


@pytest.fixture(scope="module")
def engine(demo: Artifact) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino_engine, "_CELLS_AT_A_TIME", 8 * 16 * 32)  # eight masks of `two_pictures`
        yield open_engine(demo, "openvino", precision="float32", threads=1)


@pytest.fixture(scope="module")
def whole(demo: Artifact) -> Any:
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return openvino_core().compile_model(openvino_core().read_model(demo.data), "CPU", options)


def two_pictures() -> Batch:
    rng = np.random.default_rng(0)
    return make_batch([rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 90), (50, 128))])


def thresholds_that_keep(logits: NDArray[np.float32], masks: int) -> NDArray[np.float32]:
    """The same for every image, float32 [B], so that so many of all queries have a mask."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    best = np.sort((powers / powers.sum(-1, keepdims=True))[..., :-1].max(-1).ravel())[::-1]
    between = (best[masks - 1] + best[masks]) / 2
    return np.full(len(logits), between, dtype=np.float32)


@pytest.mark.parametrize("masks", [1, 7, 8, 9, 16, 19])
def test_masks_a_few_at_a_time_are_those_of_the_whole_graph(engine: Engine, whole: Any, masks: int) -> None:
    batch = two_pictures()
    logits = engine.infer(batch, np.full(2, NO_MASKS, np.float32)).pred_logits
    threshold = thresholds_that_keep(logits, masks)
    found = engine.infer(batch, threshold)
    feed = {"images": batch.images, "padding_mask": batch.padding_mask, "mask_threshold": threshold}
    expected = whole(feed)
    assert found.mask_index is not None
    assert len(found.mask_index) == masks
    for name in ("pred_logits", "pred_boxes", "pred_masks", "mask_index"):
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=1e-5, atol=1e-4, err_msg=name)


def test_no_masks_have_the_usual_size_and_run_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(engine, "_of_pairs")
    with pytest.raises(AttributeError):
        engine.infer(two_pictures(), np.full(2, ALL_MASKS, np.float32))
    found = engine.infer(two_pictures(), np.full(2, NO_MASKS, np.float32))
    assert found.pred_masks is not None
    assert found.mask_index is not None
    assert found.pred_masks.shape == (0, 16, 32)
    assert found.mask_index.shape == (0, 2)


def test_the_head_never_has_more_masks_than_it_is_given_at_a_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    class Watched:
        def __init__(self, request: Any) -> None:
            self.set_input_tensor = request.set_input_tensor
            self._infer = request.infer

        def infer(self, feed: dict[int, Any], **options: bool) -> Any:
            given.append(len(feed[0]))
            return self._infer(feed, **options)

    class Compiled:
        def create_infer_request(self) -> Watched:
            return Watched(compiled.create_infer_request())

    compiled = engine._of_pairs  # type: ignore[attr-defined]
    monkeypatch.setattr(engine, "_of_pairs", Compiled())
    outputs: RawOutputs = engine.infer(two_pictures(), np.full(2, ALL_MASKS, np.float32))
    total = 2 * outputs.pred_logits.shape[1]
    assert given == [8] * (total // 8) + [total % 8] * (total % 8 > 0)


def test_what_an_engine_answered_stays_when_it_runs_again(engine: Engine) -> None:
    every = np.full(2, ALL_MASKS, np.float32)
    first = engine.infer(two_pictures(), every)
    names = ("pred_logits", "pred_boxes", "pred_masks", "mask_index")
    copies = {name: getattr(first, name).copy() for name in names}
    engine.infer(make_batch([np.zeros((64, 90, 3), np.uint8), np.zeros((50, 128, 3), np.uint8)]), every)
    for name in names:
        np.testing.assert_array_equal(getattr(first, name), copies[name])


def test_weights_stay_constants_of_the_head(demo: Artifact) -> None:
    of_images, of_pairs = split_at_pairs(openvino_core().read_model(demo.data))
    nodes = [*of_images.get_ops(), *of_pairs.get_ops()]
    convolutions = [node for node in nodes if node.get_type_name() == "Convolution"]
    weights = {node.input_value(1).get_node().get_type_name() for node in convolutions}
    assert len(convolutions) == 24
    assert "Parameter" not in weights
    assert [output.any_name for output in of_images.outputs[:3]] == ["pred_logits", "pred_boxes", "mask_index"]
    assert len(of_pairs.inputs) == len(of_images.outputs) - 2


def test_a_graph_that_chooses_pairs_in_two_ways_is_refused() -> None:
    images = opset13.parameter([-1, -1], np.float32)
    pairs = opset13.transpose(opset13.non_zero(images, output_type="i64"), np.array([1, 0]))
    pairs.output(0).set_names({"mask_index"})
    beside = opset13.non_zero(images, output_type="i64")
    masks = opset13.add(
        opset13.gather(pairs, np.array(0), np.array(1)), opset13.gather(beside, np.array(0), np.array(0))
    )
    masks.output(0).set_names({"pred_masks"})
    scores = opset13.relu(images)
    scores.output(0).set_names({"pred_logits", "pred_boxes"})
    model = openvino.Model([opset13.result(node) for node in (scores, masks, pairs)], [images], "two")
    with pytest.raises(ValueError, match="depends on the choice of pairs, beside mask_index"):
        split_at_pairs(model)

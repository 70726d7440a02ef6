"""The golden sample on the device: what rounding explains passes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from model.runtime.artifact.file import Artifact, ArtifactError, read_artifact
from model.runtime.engines.engine import Engine
from model.runtime.engines.golden_replay import GOLDEN_MEAN, GOLDEN_SPREAD, GOLDEN_TOLERANCE, replay_golden
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import Batch

DEMO = Path(__file__).parents[4] / "model" / "demo" / "detr-demo.onnx"

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def panoptic_engine(panoptic_artifact: Artifact) -> Engine:
    return open_engine(panoptic_artifact, "cpu", threads=1)


@pytest.fixture(scope="module")
def detection_engine(detection_artifact: Artifact) -> Engine:
    return open_engine(detection_artifact, "cpu", threads=1)


@pytest.mark.parametrize("task", ["panoptic", "detection"])
def test_the_golden_sample_replays(task: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(f"{task}_artifact")
    assert replay_golden(request.getfixturevalue(f"{task}_engine"), artifact) <= 1e-5


class Tampering:
    """An engine whose outputs pass through a function."""

    device = "cpu"
    precision = "float32"

    def __init__(self, inner: Engine, change: Callable[[RawOutputs], RawOutputs]) -> None:
        self.inner = inner
        self.change = change

    def infer(self, batch: Batch, mask_threshold: Floats, attention: bool = False) -> RawOutputs:
        return self.change(self.inner.infer(batch, mask_threshold, attention))


def spoiled(array: Floats | None, value: float) -> Floats:
    assert array is not None
    copy = array.copy()
    copy.flat[-1] += np.float32(value)
    return copy


@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes", "pred_masks"])
@pytest.mark.parametrize("value", [2 * GOLDEN_TOLERANCE, np.nan, np.inf])
def test_a_device_that_computes_something_else_is_refused(
    name: str, value: float, panoptic_engine: Engine, panoptic_artifact: Artifact
) -> None:
    def change(outputs: RawOutputs) -> RawOutputs:
        arrays: dict[str, Any] = {name: spoiled(getattr(outputs, name), value)}
        return replace(outputs, **arrays)

    with pytest.raises(ArtifactError, match=rf"tiny.onnx: on cpu, the golden sample's {name} is off by"):
        replay_golden(Tampering(panoptic_engine, change), panoptic_artifact)


def test_the_worst_difference_is_returned(panoptic_engine: Engine, panoptic_artifact: Artifact) -> None:
    def change(outputs: RawOutputs) -> RawOutputs:
        return replace(outputs, pred_boxes=spoiled(outputs.pred_boxes, GOLDEN_TOLERANCE / 2))

    worst = replay_golden(Tampering(panoptic_engine, change), panoptic_artifact)
    assert worst == pytest.approx(GOLDEN_TOLERANCE / 2, rel=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda outputs: replace(outputs, mask_index=outputs.mask_index[:-1]),
        lambda outputs: replace(outputs, mask_index=outputs.mask_index[::-1]),
        lambda outputs: replace(outputs, mask_index=None),
    ],
)
def test_other_masks_than_expected_are_refused(
    change: Callable[[RawOutputs], RawOutputs],
    panoptic_engine: Engine,
    panoptic_artifact: Artifact,
) -> None:
    with pytest.raises(ArtifactError, match="gives other masks"):
        replay_golden(Tampering(panoptic_engine, change), panoptic_artifact)


def test_outputs_of_another_shape_are_refused(panoptic_engine: Engine, panoptic_artifact: Artifact) -> None:
    def change(outputs: RawOutputs) -> RawOutputs:
        return replace(outputs, pred_logits=outputs.pred_logits[..., :1])

    with pytest.raises(ArtifactError, match="pred_logits is off by inf"):
        replay_golden(Tampering(panoptic_engine, change), panoptic_artifact)


def as_if(precision: str, inner: Engine, change: Callable[[RawOutputs], RawOutputs]) -> Tampering:
    """An engine of a reduced precision whose outputs are known."""
    engine = Tampering(inner, change)
    engine.precision = precision
    return engine


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes", "pred_masks"])
def test_reduced_precision_may_not_be_off_by_as_much_everywhere(
    precision: str, name: str, panoptic_engine: Engine, panoptic_artifact: Artifact
) -> None:
    share = GOLDEN_MEAN * GOLDEN_SPREAD[precision]
    allowed = GOLDEN_TOLERANCE + share * float(np.ptp(getattr(panoptic_artifact.golden, name)))

    def off_by(value: float) -> Tampering:
        def change(outputs: RawOutputs) -> RawOutputs:
            arrays: dict[str, Any] = {name: getattr(outputs, name) + np.float32(value)}
            return replace(outputs, **arrays)

        return as_if(precision, panoptic_engine, change)

    replay_golden(off_by(0.9 * allowed), panoptic_artifact)
    with pytest.raises(ArtifactError, match=f"{name} is off by .* on average"):
        replay_golden(off_by(1.1 * allowed), panoptic_artifact)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes", "pred_masks"])
def test_reduced_precision_may_be_off_by_a_share_of_the_spread_and_no_more(
    precision: str, name: str, panoptic_engine: Engine, panoptic_artifact: Artifact
) -> None:
    allowed = GOLDEN_TOLERANCE + GOLDEN_SPREAD[precision] * float(np.ptp(getattr(panoptic_artifact.golden, name)))

    def off_by(value: float) -> Tampering:
        def change(outputs: RawOutputs) -> RawOutputs:
            arrays: dict[str, Any] = {name: spoiled(getattr(outputs, name), value)}
            return replace(outputs, **arrays)

        return as_if(precision, panoptic_engine, change)

    replay_golden(off_by(0.98 * allowed), panoptic_artifact)
    for value in (1.05 * allowed, np.nan):
        with pytest.raises(ArtifactError, match=f"{name} is off by"):
            replay_golden(off_by(value), panoptic_artifact)


def without_first_mask(outputs: RawOutputs) -> RawOutputs:
    assert outputs.mask_index is not None
    assert outputs.pred_masks is not None
    return replace(outputs, mask_index=outputs.mask_index[1:], pred_masks=outputs.pred_masks[1:])


def with_score_at_threshold(artifact: Artifact, distance: float) -> Artifact:
    """The same sample, whose first mask's threshold lies that far below its query's score."""
    golden = artifact.golden
    assert golden.mask_index is not None
    assert golden.mask_threshold is not None
    image, query = golden.mask_index[0]
    powers = np.exp(golden.pred_logits[image, query])
    threshold = golden.mask_threshold.copy()
    threshold[image] = (powers / powers.sum())[:-1].max() - distance
    return replace(artifact, golden=replace(golden, mask_threshold=threshold))


@pytest.mark.parametrize(
    ("precision", "distance", "passes"),
    [("bfloat16", 0.04, True), ("bfloat16", 0.06, False), ("float16", 0.04, False), ("float32", 1e-6, False)],
)
def test_a_query_near_the_threshold_may_lose_its_mask_where_precision_is_reduced(
    precision: str, distance: float, passes: bool, panoptic_engine: Engine, panoptic_artifact: Artifact
) -> None:
    near = with_score_at_threshold(panoptic_artifact, distance)
    golden = near.golden
    whole = RawOutputs(golden.pred_logits, golden.pred_boxes, golden.pred_masks, golden.mask_index)
    engine = as_if(precision, panoptic_engine, lambda _: without_first_mask(whole))
    if passes:
        assert replay_golden(engine, near) == 0
    else:
        with pytest.raises(ArtifactError, match="gives other masks than expected"):
            replay_golden(engine, near)


@pytest.mark.parametrize("kind", ["Conv", "MatMul"])
def test_a_corrupted_weight_is_noticed_in_bfloat16_as_well(kind: str) -> None:
    """A tensor of weights of the demo model in the wrong order, or at twice its size; of every kind, early and late."""
    artifact = read_artifact(DEMO)
    model = onnx.load_from_string(artifact.data)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    users = [node for node in model.graph.node if node.op_type == kind and node.input[1] in weights]
    for node in (users[0], users[len(users) // 2]):
        for step, factor in ((-1, 1), (1, 2)):
            changed = onnx.load_from_string(artifact.data)
            tensor = next(tensor for tensor in changed.graph.initializer if tensor.name == node.input[1])
            values = factor * np.ascontiguousarray(numpy_helper.to_array(tensor)[::step])
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            engine = open_engine(replace(artifact, data=changed.SerializeToString()), "openvino", threads=1)
            with pytest.raises(ArtifactError, match="golden sample"):
                replay_golden(engine, artifact)

import ctypes
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from model.runtime import engine
from model.runtime.artifact import Artifact, ArtifactError
from model.runtime.cores import available_cores
from model.runtime.cuda import missing_for_cuda
from model.runtime.engine import (
    ALL_MASKS,
    GOLDEN_TOLERANCE,
    NO_MASKS,
    DeviceError,
    OnnxRuntimeEngine,
    RawOutputs,
    open_engine,
    replay_golden,
)
from model.runtime.preprocess import Batch, make_batch
from tests.tiny_artifact import CATEGORIES, MASK_STRIDE, QUERIES, tiny_model

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def panoptic_engine(panoptic_artifact: Artifact) -> OnnxRuntimeEngine:
    return open_engine(panoptic_artifact, "cpu", threads=1)


@pytest.fixture(scope="module")
def detection_engine(detection_artifact: Artifact) -> OnnxRuntimeEngine:
    return open_engine(detection_artifact, "cpu", threads=1)


def image_of(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def thresholds(*values: float) -> Floats:
    return np.array(values, dtype=np.float32)


def test_outputs_have_the_shapes_of_the_contract(panoptic_engine: OnnxRuntimeEngine) -> None:
    batch = make_batch([image_of(40, 50), image_of(70, 30)])
    outputs = panoptic_engine.infer(batch, thresholds(ALL_MASKS, NO_MASKS))
    assert outputs.pred_logits.shape == (2, QUERIES, len(CATEGORIES) + 1)
    assert outputs.pred_boxes.shape == (2, QUERIES, 4)
    assert outputs.pred_masks is not None
    assert outputs.mask_index is not None
    assert outputs.pred_masks.shape == (QUERIES, 96 // MASK_STRIDE, 64 // MASK_STRIDE)
    assert outputs.mask_index.tolist() == [[0, query] for query in range(QUERIES)]
    assert outputs.pred_masks.dtype == outputs.pred_logits.dtype == outputs.pred_boxes.dtype == np.float32
    assert outputs.mask_index.dtype == np.int64


def test_no_masks_asked_for_gives_none(panoptic_engine: OnnxRuntimeEngine) -> None:
    outputs = panoptic_engine.infer(make_batch([image_of(40, 50)]), thresholds(NO_MASKS))
    assert outputs.pred_masks is not None
    assert outputs.pred_masks.shape == (0, 64 // MASK_STRIDE, 64 // MASK_STRIDE)


def test_a_detection_model_ignores_mask_thresholds(detection_engine: OnnxRuntimeEngine) -> None:
    outputs = detection_engine.infer(make_batch([image_of(40, 50)]), thresholds(ALL_MASKS))
    assert outputs.pred_masks is None
    assert outputs.mask_index is None
    assert outputs.image(0).mask_logits is None


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=2, max_size=4),
    st.floats(-1, 1),
    st.data(),
)
def test_an_image_gets_the_same_answer_alone_and_in_company(
    panoptic_engine: OnnxRuntimeEngine, sizes: list[tuple[int, int]], threshold: float, draw: st.DataObject
) -> None:
    images = [image_of(*size, seed=index) for index, size in enumerate(sizes)]
    index = draw.draw(st.integers(0, len(images) - 1))
    (h, w), image = sizes[index], images[index]
    alone = panoptic_engine.infer(make_batch([image]), thresholds(threshold)).image(0)
    others = np.full(len(images), ALL_MASKS, dtype=np.float32)
    others[index] = threshold
    among = panoptic_engine.infer(make_batch(images), others).image(index)
    np.testing.assert_allclose(among.pred_logits, alone.pred_logits, atol=1e-4)
    np.testing.assert_allclose(among.pred_boxes, alone.pred_boxes, atol=1e-5)
    np.testing.assert_array_equal(among.query_index, alone.query_index)
    assert among.mask_logits is not None
    assert alone.mask_logits is not None
    cells = np.s_[:, : -(-h // MASK_STRIDE), : -(-w // MASK_STRIDE)]
    np.testing.assert_allclose(among.mask_logits[cells], alone.mask_logits[cells], atol=1e-4)


def test_each_image_gets_its_own_masks() -> None:
    index = np.array([[0, 1], [0, 3], [2, 0]], dtype=np.int64)
    masks = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), dtype=np.float32)
    outputs = RawOutputs(np.zeros((3, 4, 6), np.float32), np.zeros((3, 4, 4), np.float32), masks, index)
    found = [outputs.image(image) for image in range(3)]
    assert [part.query_index.tolist() for part in found if part.query_index is not None] == [[1, 3], [], [0]]
    assert [part.mask_logits[:, 0, 0].tolist() for part in found if part.mask_logits is not None] == [
        [0, 1],
        [],
        [2],
    ]


@pytest.mark.parametrize("task", ["panoptic", "detection"])
def test_the_golden_sample_replays(task: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(f"{task}_artifact")
    assert replay_golden(request.getfixturevalue(f"{task}_engine"), artifact) <= 1e-5


class Tampering:
    """An engine whose outputs pass through a function."""

    device = "cpu"

    def __init__(self, inner: OnnxRuntimeEngine, change: Callable[[RawOutputs], RawOutputs]) -> None:
        self.inner = inner
        self.change = change

    def infer(self, batch: Batch, mask_threshold: Floats) -> RawOutputs:
        return self.change(self.inner.infer(batch, mask_threshold))


def spoiled(array: Floats | None, value: float) -> Floats:
    assert array is not None
    copy = array.copy()
    copy.flat[-1] += np.float32(value)
    return copy


@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes", "pred_masks"])
@pytest.mark.parametrize("value", [2 * GOLDEN_TOLERANCE, np.nan, np.inf])
def test_a_device_that_computes_something_else_is_refused(
    name: str, value: float, panoptic_engine: OnnxRuntimeEngine, panoptic_artifact: Artifact
) -> None:
    def change(outputs: RawOutputs) -> RawOutputs:
        arrays: dict[str, Any] = {name: spoiled(getattr(outputs, name), value)}
        return replace(outputs, **arrays)

    with pytest.raises(ArtifactError, match=rf"tiny.onnx: on cpu, the golden sample's {name} is off by"):
        replay_golden(Tampering(panoptic_engine, change), panoptic_artifact)


def test_the_worst_difference_is_returned(panoptic_engine: OnnxRuntimeEngine, panoptic_artifact: Artifact) -> None:
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
    panoptic_engine: OnnxRuntimeEngine,
    panoptic_artifact: Artifact,
) -> None:
    with pytest.raises(ArtifactError, match="gives other masks"):
        replay_golden(Tampering(panoptic_engine, change), panoptic_artifact)


def test_outputs_of_another_shape_are_refused(panoptic_engine: OnnxRuntimeEngine, panoptic_artifact: Artifact) -> None:
    def change(outputs: RawOutputs) -> RawOutputs:
        return replace(outputs, pred_logits=outputs.pred_logits[..., :1])

    with pytest.raises(ArtifactError, match="pred_logits is off by inf"):
        replay_golden(Tampering(panoptic_engine, change), panoptic_artifact)


def without_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this a machine without an NVIDIA driver, if it is not one."""

    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)


class CpuOnlySession:
    """What ONNX Runtime gives when the libraries of the CUDA provider do not load: a session without it."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_auto_takes_the_cpu_where_there_is_no_gpu_and_says_so(
    panoptic_artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    without_driver(monkeypatch)
    with caplog.at_level(logging.INFO):
        opened = open_engine(panoptic_artifact)
    assert opened.device == "cpu"
    assert "tiny.onnx runs on cpu (asked for auto)" in caplog.text
    # ONNX Runtime was not even asked for CUDA: it would have complained on stderr.
    assert capfd.readouterr() == ("", "")


def test_cuda_without_a_driver_is_an_error_that_says_what_to_do(
    panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_driver(monkeypatch)
    with pytest.raises(DeviceError, match=r"device cuda: .*(NVIDIA driver|onnxruntime-gpu).*use device cpu") as caught:
        open_engine(panoptic_artifact, "cuda")
    assert "\n" not in str(caught.value)


def test_cuda_that_onnx_runtime_leaves_out_is_an_error_that_names_the_libraries(
    panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "missing_for_cuda", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", CpuOnlySession)
    monkeypatch.setattr(engine, "missing_libraries", lambda: ["libcudart.so.13", "libcudnn.so.9"])
    with pytest.raises(DeviceError, match=r"want of libcudart\.so\.13, libcudnn\.so\.9; .*detr-serve\[cuda\]"):
        open_engine(panoptic_artifact, "cuda")


def test_cuda_that_fails_to_start_is_an_error_with_the_reason_in_one_line(
    panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory\n  at somewhere")

    monkeypatch.setattr(engine, "missing_for_cuda", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(DeviceError, match=r"device cuda: .*out of memory$"):
        open_engine(panoptic_artifact, "cuda")


def test_auto_warns_when_a_gpu_is_there_but_cuda_does_not_load(
    panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = onnxruntime.InferenceSession

    def session(data: bytes, **options: Any) -> Any:
        wants_cuda = options["providers"][0][0] == "CUDAExecutionProvider"
        return CpuOnlySession() if wants_cuda else real(data, **options)

    monkeypatch.setattr(engine, "missing_for_cuda", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with caplog.at_level(logging.WARNING):
        assert open_engine(panoptic_artifact, "auto").device == "cpu"
    assert "CUDA does not load, so the CPU is taken" in caplog.text


def test_cuda_on_this_machine_is_cuda_or_an_error(panoptic_artifact: Artifact) -> None:
    if missing_for_cuda() is not None:
        with pytest.raises(DeviceError, match="use device cpu"):
            open_engine(panoptic_artifact, "cuda")
        return
    opened = open_engine(panoptic_artifact, "cuda")
    assert opened.device == "cuda"
    assert opened.session.get_providers()[0] == "CUDAExecutionProvider"
    replay_golden(opened, panoptic_artifact)


@pytest.mark.parametrize("device", ["tensorrt", "openvino"])
def test_devices_to_come_are_refused(device: str, panoptic_artifact: Artifact) -> None:
    with pytest.raises(DeviceError, match=f"device {device} is not available in this version"):
        open_engine(panoptic_artifact, device)


@pytest.mark.parametrize("device", ["gpu", "", "CPU", "cuda:0"])
def test_an_unknown_device_is_refused(device: str, panoptic_artifact: Artifact) -> None:
    with pytest.raises(DeviceError, match="use one of auto, cpu, cuda"):
        open_engine(panoptic_artifact, device)


def test_threads_are_those_asked_for_and_by_default_every_core(panoptic_artifact: Artifact) -> None:
    def threads(opened: OnnxRuntimeEngine) -> int:
        return int(opened.session.get_session_options().intra_op_num_threads)

    assert threads(open_engine(panoptic_artifact, "cpu", threads=3)) == 3
    assert threads(open_engine(panoptic_artifact, "cpu")) == available_cores()
    with pytest.raises(ValueError, match="threads"):
        open_engine(panoptic_artifact, "cpu", threads=0)


def test_bytes_that_onnx_runtime_cannot_load_are_refused(panoptic_artifact: Artifact) -> None:
    # A right digest over a wrong graph: only a faulty export does that.
    with pytest.raises(ArtifactError, match=r"tiny.onnx: ONNX Runtime cannot load it: .+") as caught:
        open_engine(replace(panoptic_artifact, data=b"\x08\x09"), "cpu")
    assert "\n" not in str(caught.value)


def renamed(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for value in [*model.graph.input, *model.graph.output]:
        value.name = new if value.name == old else value.name


def input_named_otherwise(model: ModelProto) -> None:
    renamed(model, "padding_mask", "pixel_mask")


def output_named_otherwise(model: ModelProto) -> None:
    renamed(model, "pred_boxes", "boxes")


def one_output_less(model: ModelProto) -> None:
    del model.graph.output[-1]


def images_as_floats(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def fixed_batch(model: ModelProto) -> None:
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 1


def four_channels(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (input_named_otherwise, "inputs are images, mask_threshold, pixel_mask, not images, padding_mask"),
        (output_named_otherwise, "outputs are boxes, "),
        (one_output_less, "outputs are pred_boxes, pred_logits, pred_masks, not"),
        (images_as_floats, r"input images is tensor\(float\) .*, not tensor\(uint8\)"),
        (fixed_batch, r"input images is .*\[1, .*not .*\[\?, "),
        (four_channels, r"images is .*, 4\], not .*, 3\]"),
    ],
)
def test_a_graph_with_other_inputs_or_outputs_is_refused(
    change: Callable[[ModelProto], None], message: str, panoptic_artifact: Artifact
) -> None:
    model = tiny_model()
    change(model)
    with pytest.raises(ArtifactError, match=rf"^tiny\.onnx: its graph's .*{message}"):
        open_engine(replace(panoptic_artifact, data=model.SerializeToString()), "cpu")


def test_a_graph_with_other_numbers_than_its_metadata_is_refused(panoptic_artifact: Artifact) -> None:
    for change in ({"num_queries": 100}, {"categories": CATEGORIES[:2]}):
        metadata = replace(panoptic_artifact.metadata, **change)
        with pytest.raises(ArtifactError, match="its graph's output pred_logits is"):
            open_engine(replace(panoptic_artifact, metadata=metadata), "cpu")


def test_a_detection_graph_is_no_panoptic_model(panoptic_artifact: Artifact, detection_artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="inputs are images, padding_mask, not"):
        open_engine(replace(panoptic_artifact, data=detection_artifact.data), "cpu")

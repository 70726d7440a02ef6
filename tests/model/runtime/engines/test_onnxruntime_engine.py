"""ONNX Runtime's sessions: what they are told, and what is refused."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto

from model.runtime.artifact.file import Artifact, ArtifactError
from model.runtime.engines import onnxruntime_engine
from model.runtime.engines.cuda import missing_for_cuda
from model.runtime.engines.device_errors import DeviceError, DeviceMemoryError
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.onnxruntime_engine import GpuOptions, OnnxRuntimeEngine
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import make_batch
from tests.model.runtime.engines.test_opening import CpuOnlySession
from tests.tiny_artifact import CATEGORIES, tiny_model


def without_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this a machine without an NVIDIA driver, if it is not one."""

    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)


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
    monkeypatch.setattr(onnxruntime_engine, "missing_for_cuda", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", CpuOnlySession)
    monkeypatch.setattr(onnxruntime_engine, "missing_libraries", lambda: ["libcudart.so.13", "libcudnn.so.9"])
    with pytest.raises(DeviceError, match=r"want of libcudart\.so\.13, libcudnn\.so\.9; .*detr-serve\[cuda\]"):
        open_engine(panoptic_artifact, "cuda")


def test_cuda_that_fails_to_start_is_an_error_with_the_reason_in_one_line(
    panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory\n  at somewhere")

    monkeypatch.setattr(onnxruntime_engine, "missing_for_cuda", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(DeviceError, match=r"device cuda: .*out of memory$"):
        open_engine(panoptic_artifact, "cuda")


def test_cuda_on_this_machine_is_cuda_or_an_error(panoptic_artifact: Artifact) -> None:
    if missing_for_cuda() is not None:
        with pytest.raises(DeviceError, match="use device cpu"):
            open_engine(panoptic_artifact, "cuda")
        return
    opened = open_engine(panoptic_artifact, "cuda")
    assert isinstance(opened, OnnxRuntimeEngine)
    assert opened.device == "cuda"
    assert opened.session.get_providers()[0] == "CUDAExecutionProvider"
    replay_golden(opened, panoptic_artifact)


class Recorder:
    """Stands for a session, and keeps what it was opened with."""

    opened: list[dict[str, Any]] = []  # noqa: RUF012  # emptied by the fixture

    def __init__(self, data: bytes, **options: Any) -> None:
        self.opened.append(options)
        self._session = onnxruntime_session(data, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return [name for name, _ in self.opened[-1]["providers"]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


onnxruntime_session = onnxruntime.InferenceSession


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What sessions are opened with, on a machine that seems to have a GPU and all libraries."""
    Recorder.opened = []
    monkeypatch.setattr(onnxruntime_engine, "missing_for_cuda", lambda: None)
    monkeypatch.setattr(onnxruntime_engine, "load_tensorrt", lambda: None)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorder)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    return Recorder.opened


def test_cuda_is_told_what_varying_sizes_need(panoptic_artifact: Artifact, opened: list[dict[str, Any]]) -> None:
    open_engine(panoptic_artifact, "cuda", gpu=GpuOptions(memory_bytes=2**30))
    (name, options), (last, _) = opened[0]["providers"]
    assert (name, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options == {
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "gpu_mem_limit": str(2**30),
    }
    assert opened[0]["enable_fallback"] == 0


def test_without_a_limit_cuda_may_take_all_memory(panoptic_artifact: Artifact, opened: list[dict[str, Any]]) -> None:
    open_engine(panoptic_artifact, "cuda")
    assert "gpu_mem_limit" not in opened[0]["providers"][0][1]


def test_tensorrt_comes_before_cuda_and_keeps_its_engines_where_it_is_told(
    panoptic_artifact: Artifact, opened: list[dict[str, Any]], tmp_path: Path
) -> None:
    engine = open_engine(panoptic_artifact, "tensorrt", gpu=GpuOptions(tensorrt_cache=tmp_path, memory_bytes=2**30))
    names = [name for name, _ in opened[0]["providers"]]
    assert names == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    options = opened[0]["providers"][0][1]
    assert options["trt_fp16_enable"] == "False"
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "True"
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(tmp_path)
    assert opened[0]["providers"][1][1]["gpu_mem_limit"] == str(2**30)
    assert (engine.device, engine.precision) == ("tensorrt", "float32")


@pytest.mark.parametrize(("device", "providers"), [("cuda:1", 1), ("tensorrt:1", 2)])
def test_a_gpu_by_its_number_is_the_one_that_every_provider_takes(
    device: str,
    providers: int,
    panoptic_artifact: Artifact,
    opened: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxruntime_engine, "gpu_count", lambda: 2)
    assert open_engine(panoptic_artifact, device).device == device
    *of_gpus, (_, of_cpu) = opened[0]["providers"]
    assert [options["device_id"] for _, options in of_gpus] == ["1"] * providers
    assert of_cpu == {}


def test_a_gpu_that_is_not_there_is_named(
    panoptic_artifact: Artifact, opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_engine, "gpu_count", lambda: 1)
    with pytest.raises(DeviceError, match=r"^device cuda:3: the NVIDIA driver has 1 GPU here, from number 0 on$"):
        open_engine(panoptic_artifact, "cuda:3")
    assert opened == []


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_float16_file_runs_as_it_is_on_a_gpu(
    device: str, panoptic_artifact: Artifact, opened: list[dict[str, Any]]
) -> None:
    stored = replace(panoptic_artifact, metadata=replace(panoptic_artifact.metadata, precision="float16"))
    for asked in ("auto", "float16"):
        assert open_engine(stored, device, precision=asked).precision == "float16"
    assert opened[0]["providers"][0][1].get("trt_fp16_enable", "True") == "True"
    with pytest.raises(DeviceError, match="detr export --precision float16"):
        open_engine(panoptic_artifact, device, precision="float16")


def test_tensorrt_that_is_not_there_is_an_error_that_says_what_to_do(
    panoptic_artifact: Artifact, opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_engine, "load_tensorrt", lambda: "TensorRT is not installed")
    with pytest.raises(DeviceError, match=r"^device tensorrt: TensorRT is not installed; or use device cuda$"):
        open_engine(panoptic_artifact, "tensorrt")


def test_memory_that_runs_out_is_told_from_other_errors(panoptic_artifact: Artifact) -> None:
    class Full:
        def run(self, *_: object) -> None:
            raise RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 99")

    engine = OnnxRuntimeEngine("cuda", "float32", Full(), has_masks=False)
    with pytest.raises(DeviceMemoryError, match=r"^device cuda: memory ran out: .*size 99$"):
        engine.infer(make_batch([np.zeros((8, 8, 3), np.uint8)]), np.array([NO_MASKS], np.float32))


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

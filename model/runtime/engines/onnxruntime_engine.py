"""ONNX Runtime sessions: on the CPU, on CUDA and on TensorRT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.runtime.artifact.file import Artifact, ArtifactError
from model.runtime.artifact.graph_contract import ATTENTION_OUTPUTS, check_graph
from model.runtime.artifact.metadata import AttentionShape
from model.runtime.engines.cores import available_cores
from model.runtime.engines.cuda import gpu_count, missing_for_cuda, missing_libraries
from model.runtime.engines.device_errors import DeviceError, first_line, memory_errors
from model.runtime.engines.engine import device_kind
from model.runtime.engines.raw_outputs import RawAttention, RawOutputs
from model.runtime.engines.tensorrt import load_tensorrt, tensorrt_options
from model.runtime.installing import install_command
from model.runtime.preprocess import Batch

_Provider = tuple[str, dict[str, str]]


@dataclass(frozen=True)
class GpuOptions:
    """What a GPU session is told beyond the precision."""

    memory_bytes: int | None = None  # the most that ONNX Runtime's arena takes on the GPU; None is all there is
    tensorrt_cache: Path | None = None  # folder where TensorRT's engines are kept between starts; None keeps none


@dataclass(frozen=True)
class OnnxRuntimeEngine:
    """The graph in an ONNX Runtime session, which any number of threads may run at once."""

    device: str
    precision: str
    session: Any  # onnxruntime.InferenceSession, which carries no types
    has_masks: bool
    attention: AttentionShape | None = None

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        """Run a batch. Raises DeviceMemoryError where memory ran out, and otherwise what ONNX Runtime raises."""
        feed = {"images": batch.images, "padding_mask": batch.padding_mask}
        names = ["pred_logits", "pred_boxes"]
        if self.has_masks:
            feed["mask_threshold"] = np.ascontiguousarray(mask_threshold, dtype=np.float32)
            names += ["pred_masks", "mask_index"]
        gives = self.attention if attention else None
        # What is not asked for is not computed.
        with memory_errors(self.device):
            outputs = self.session.run([*names, *(ATTENTION_OUTPUTS if gives else ())], feed)
        logits, boxes, *of_masks = outputs[: len(names)]
        masks, index = of_masks or (None, None)
        found = (
            None
            if gives is None
            else RawAttention.of(outputs[len(names) :], batch.padding_mask.shape[1:], gives.stride)
        )
        return RawOutputs(logits, boxes, masks, index, found)


def open_onnxruntime(
    artifact: Artifact, device: str, precision: str, threads: int, gpu: GpuOptions
) -> OnnxRuntimeEngine:
    """A session whose first provider is the device's: "cpu", "cuda" or "tensorrt", these two with a number or without.

    Raises DeviceError where the device cannot be used, ArtifactError where the graph does not load or is not the one
    its metadata promise.
    """
    if device != "cpu":
        _load_gpu_libraries(device)
    providers = _providers(device, precision, gpu)
    try:
        session = onnxruntime.InferenceSession(
            artifact.data,
            sess_options=_session_options(threads),
            providers=providers,
            enable_fallback=0,  # a provider that breaks later must fail loudly, not hand over to the CPU
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this one
        if device != "cpu":
            reason = f"device {device}: ONNX Runtime cannot open a session on it: {first_line(error)}"
            raise DeviceError(reason) from error
        raise ArtifactError(f"{artifact.path.name}: ONNX Runtime cannot load it: {first_line(error)}") from error
    # A provider whose libraries do not load is left out with a line on stderr and no error.
    if session.get_providers()[0] != providers[0][0]:
        raise DeviceError(_why_not_loaded(device))
    check_graph(
        {node.name: (node.type, tuple(node.shape)) for node in session.get_inputs()},
        {node.name: (node.type, tuple(node.shape)) for node in session.get_outputs()},
        artifact,
    )
    metadata = artifact.metadata
    return OnnxRuntimeEngine(device, precision, session, metadata.task == "panoptic", metadata.attention)


def open_on_cpu(model: bytes, has_masks: bool) -> OnnxRuntimeEngine:
    """A graph that is no artifact yet, a serialized ModelProto, on the CPU. Raises what ONNX Runtime raises."""
    options = _session_options(available_cores())
    session = onnxruntime.InferenceSession(model, sess_options=options, providers=_providers("cpu", "", GpuOptions()))
    return OnnxRuntimeEngine("cpu", "float32", session, has_masks)


def _load_gpu_libraries(device: str) -> None:
    if missing := missing_for_cuda():
        raise DeviceError(f"device {device}: {missing}; or use device cpu")
    _, _, index = device.partition(":")
    if index and int(index) >= (count := gpu_count()):
        gpus = "GPU" if count == 1 else "GPUs"
        raise DeviceError(f"device {device}: the NVIDIA driver has {count} {gpus} here, from number 0 on")
    # Finds the CUDA and cuDNN libraries that were installed as Python packages.
    onnxruntime.preload_dlls()
    if device_kind(device) == "tensorrt" and (missing := load_tensorrt()):
        raise DeviceError(f"device {device}: {missing}; or use device cuda")


def _providers(device: str, precision: str, gpu: GpuOptions) -> list[_Provider]:
    """ONNX Runtime's providers in order of preference, with their documented options."""
    # Behind a GPU's provider too: ONNX Runtime puts shape arithmetic on the CPU on purpose.
    cpu: _Provider = ("CPUExecutionProvider", {})
    if device == "cpu":
        return [cpu]
    kind, _, index = device.partition(":")
    # Both providers have this option, and both have to be told: what TensorRT leaves runs on the other one's GPU.
    which = {"device_id": index} if index else {}
    cuda: _Provider = ("CUDAExecutionProvider", _cuda_options(gpu) | which)
    if kind == "cuda":
        return [cuda, cpu]
    return [("TensorrtExecutionProvider", tensorrt_options(precision, gpu.tensorrt_cache) | which), cuda, cpu]


def _cuda_options(gpu: GpuOptions) -> dict[str, str]:
    options = {
        # For each new input shape, a convolution looks for its algorithm. The default times every candidate, 300 to
        # 1300 ms a shape for six convolutions (PaddlePaddle/PaddleX#5057); asking cuDNN's heuristics takes 2 ms and
        # runs as fast afterwards. Since ONNX Runtime 1.20 a convolution keeps its last shape's plan only
        # (microsoft/onnxruntime#23006), so there are few canvases (see `model/runtime/engines/canvases.py`), and many
        # requests in a row that have the same.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Workspace is what makes the fast algorithms of large images possible; without it they are left out. It is
        # taken from the arena, so the limit below bounds it as well.
        "cudnn_conv_use_max_workspace": "1",
        # The default doubles the memory it takes from the GPU each time it grows.
        "arena_extend_strategy": "kSameAsRequested",
        # TF32 keeps 10 bits of mantissa; answers are promised to be float32's.
        "use_tf32": "0",
    }
    return options if gpu.memory_bytes is None else options | {"gpu_mem_limit": str(gpu.memory_bytes)}


def _why_not_loaded(device: str) -> str:
    libraries = ", ".join(missing_libraries()) or "a library that ONNX Runtime named on stderr"
    return (
        f"device {device}: its ONNX Runtime provider does not load, for want of {libraries}; "
        f"install them ({install_command('detr-serve[cuda]')}), or use device cpu"
    )


def _session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Fatal ones only: its warnings tell of placement choices that are meant, and its errors come as exceptions, too.
    options.log_severity_level = 4
    # Waiting threads spin by default, for a few percent of latency. Here the same cores decode the next
    # images and answer requests while a batch runs, and an idle service should use no CPU.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A memory plan is kept for every input size ever seen; with images of all sizes that only grows.
    options.enable_mem_pattern = False
    return options

"""OpenVINO on a CPU, which knows bfloat16. The package is an extra, imported where an engine is opened."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.artifact.file import Artifact
from model.runtime.artifact.graph_contract import ATTENTION_OUTPUTS, check_graph
from model.runtime.artifact.metadata import AttentionShape
from model.runtime.engines.device_errors import DeviceError, first_line, memory_errors
from model.runtime.engines.openvino_bfloat16 import convolve_in_bfloat16
from model.runtime.engines.openvino_graph import outputs_of_images, split_at_pairs
from model.runtime.engines.precision import precision_in_force
from model.runtime.engines.raw_outputs import RawAttention, RawOutputs
from model.runtime.installing import install_command
from model.runtime.preprocess import Batch

# Kernels that are kept, over all layers. The default of 5000 is 20 MB and more for every new canvas, without an end in
# sight: 1.4 GB after 200 canvases of the demo model, against 0.8 GB with this, at the same speed.
_KEPT_KERNELS = 64

# ONNX's words for the types of a graph's inputs and outputs.
_TYPES = {"u8": "uint8", "boolean": "bool", "f32": "float", "i64": "int64"}


# Masks that are computed at a time, and their cells: four at 800 x 1066 pixels, which take 0.2 GB for R50. The first
# bounds them on small images, so that what a batch takes still grows with its pixels, as the memory budget counts on.
_MASKS_AT_A_TIME = 16
_CELLS_AT_A_TIME = 4 * 200 * 272


class OpenVinoEngine:
    """The graph compiled by OpenVINO. Any number of threads may run it; OpenVINO lines them up."""

    device = "openvino"

    def __init__(
        self,
        of_images: Any,
        of_pairs: Any,
        precision: str,
        mask_stride: int | None,
        attention: AttentionShape | None = None,
    ) -> None:
        """Take openvino.CompiledModels, which carry no types here; see `split_at_pairs`.

        A detection model has no second one, and no mask stride.
        """
        self.precision = precision
        self._of_images = of_images
        self._of_pairs = of_pairs
        self._mask_stride = mask_stride
        self._attention = attention

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        """Run a batch. Raises DeviceMemoryError where memory ran out, and otherwise what OpenVINO raises."""
        feed: dict[str, Any] = {"images": batch.images, "padding_mask": batch.padding_mask}
        if self._mask_stride is not None:
            feed["mask_threshold"] = np.ascontiguousarray(mask_threshold, dtype=np.float32)
        with memory_errors(self.device):
            # A request of its own for every batch, at a few microseconds: one cannot be shared between threads, and
            # one that is kept holds on to the last batch. Inputs and outputs are used where they are.
            request = self._of_images.create_infer_request()
            outputs = request.infer(feed, share_inputs=True, share_outputs=True)
            logits, boxes = outputs["pred_logits"].copy(), outputs["pred_boxes"].copy()
            found, canvas = None, batch.padding_mask.shape[1:]
            # They are there whether they are asked for or not: values on the way, where it leaves them.
            if attention and self._attention is not None:
                of_attention = [outputs[name].copy() for name in ATTENTION_OUTPUTS]
                found = RawAttention.of(of_attention, canvas, self._attention.stride)
            if self._mask_stride is None:
                return RawOutputs(logits, boxes, None, None, found)
            named = len(outputs_of_images(self._attention is not None))
            pairs, handed_on = outputs["mask_index"].copy(), request.output_tensors[named:]
            shape = [side // self._mask_stride for side in canvas]
            return RawOutputs(logits, boxes, self._masks(pairs, handed_on, shape), pairs, found)

    def _masks(self, pairs: NDArray[np.int64], handed_on: list[Any], shape: list[int]) -> NDArray[np.float32]:
        """Mask logits [K, h, w] of the pairs [K, 2], a few at a time."""
        masks = np.empty((len(pairs), *shape), dtype=np.float32)
        if not len(pairs):
            return masks
        request = self._of_pairs.create_infer_request()
        for index, tensor in enumerate(handed_on, start=1):
            request.set_input_tensor(index, tensor)
        step = max(1, min(_MASKS_AT_A_TIME, _CELLS_AT_A_TIME // (shape[0] * shape[1])))
        for start in range(0, len(pairs), step):
            some = slice(start, start + step)
            masks[some] = request.infer({0: pairs[some]}, share_inputs=True, share_outputs=True)[0]
        return masks


def missing_for_openvino() -> str | None:
    """What OpenVINO lacks here, in words and with what to do about it; None if it loads."""
    try:
        _import_openvino()
        openvino_core()
    except ImportError as error:
        if error.name == "openvino":
            return f"OpenVINO is not installed; {install_command('detr-serve[openvino]')}"
        return f"OpenVINO does not load: {first_line(error)}"
    except Exception as error:
        return f"OpenVINO does not load: {first_line(error)}"
    return None


def open_openvino(artifact: Artifact, asked_precision: str, threads: int) -> OpenVinoEngine:
    """Compile an artifact for the CPU.

    Raises DeviceError where OpenVINO is not there, cannot load the graph, or cannot compute in that precision, and
    ArtifactError where the graph is not the one its metadata promise.
    """
    if missing := missing_for_openvino():
        raise DeviceError(f"device openvino: {missing}; or use device cpu")
    core = openvino_core()
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    native = ("float32", "bfloat16") if has_bfloat16 else ("float32",)
    precision = precision_in_force(asked_precision, artifact.metadata.precision, "openvino", native)
    try:
        model = core.read_model(artifact.data)
    except Exception as error:  # OpenVINO raises RuntimeError and others
        raise _not_loaded(artifact, error) from error
    check_graph(_ports(model.inputs), _ports(model.outputs), artifact)
    stride = artifact.metadata.mask_stride
    try:
        models = (model,) if stride is None else split_at_pairs(model, artifact.metadata.attention is not None)
        if precision == "bfloat16":
            for part in models:
                convolve_in_bfloat16(part)
        compiled = [core.compile_model(part, "CPU", _options(threads)) for part in models]
    except Exception as error:
        raise _not_loaded(artifact, error) from error
    return OpenVinoEngine(compiled[0], compiled[-1], precision, stride, artifact.metadata.attention)


def _not_loaded(artifact: Artifact, error: Exception) -> DeviceError:
    return DeviceError(f"device openvino: it cannot load {artifact.path.name}: {first_line(error)}")


@cache
def openvino_core() -> Any:
    """The one openvino.Core of this process, which is never given up. Raises what importing and starting it raise.

    Each one gives the thread that makes it a stack for signal handlers, and takes it away when it ends, whatever thread
    uses it by then: of two that end in the order in which they began, the second brings back the stack of the first,
    which is gone, and the next signal ends the process.
    """
    return _import_openvino().Core()


def _options(threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",  # all threads work on one batch
        "INFERENCE_NUM_THREADS": threads,
        # Its own choice would be bfloat16, everywhere, on processors that have it, and float16 on Arm.
        "INFERENCE_PRECISION_HINT": "f32",
        # Two containers on one host would pin their threads to the same cores.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _KEPT_KERNELS,
    }


def _ports(ports: Any) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Inputs or outputs of a model as `check_graph` takes them."""
    found = {}
    for port in ports:
        sizes = tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
        dtype = port.element_type.get_type_name()
        found[port.any_name] = (f"tensor({_TYPES.get(dtype, dtype)})", sizes)
    return found


def _import_openvino() -> Any:
    """The package, without its telemetry.

    To import it reports that over the network, and leaves an identifier in the home folder, unless the package that
    does so cannot be found; then OpenVINO takes an empty one of its own.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is "cannot be imported"
    import openvino

    return openvino

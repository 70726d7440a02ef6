"""Runs the exported graph, on the device that was asked for and on no other."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.runtime.artifact import Artifact, ArtifactError
from model.runtime.cores import available_cores
from model.runtime.cuda import missing_for_cuda, missing_libraries
from model.runtime.graph_contract import check_graph
from model.runtime.preprocess import Batch
from model.runtime.raw_outputs import ALL_MASKS, NO_MASKS, ImageOutputs, RawOutputs

logger = logging.getLogger(__name__)

__all__ = [
    "ALL_MASKS",
    "DEVICES",
    "GOLDEN_TOLERANCE",
    "NO_MASKS",
    "DeviceError",
    "Engine",
    "ImageOutputs",
    "OnnxRuntimeEngine",
    "RawOutputs",
    "open_engine",
    "replay_golden",
]

# Absolute, for logits of classes and masks and for boxes alike. Right float32 implementations of this network
# differ by about 1e-5 of an array's spread, because they add in different orders; logits spread over some
# tens, mask logits over a hundred at most. A wrong kernel, a corrupted weight or silently reduced precision
# (TF32 keeps three decimal digits) is off by more than this.
GOLDEN_TOLERANCE = 5e-3

DEVICES = ("auto", "cpu", "cuda", "tensorrt", "openvino")

# One table for all devices: ONNX Runtime's providers in order of preference, with their documented options.
_PROVIDERS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "cpu": [("CPUExecutionProvider", {})],
    "cuda": [
        (
            "CUDAExecutionProvider",
            {
                # The default times every algorithm again for each new input size; requests bring many.
                "cudnn_conv_algo_search": "HEURISTIC",
                # The default doubles the memory it takes from the GPU each time it grows.
                "arena_extend_strategy": "kSameAsRequested",
                # TF32 keeps 10 bits of mantissa; answers are promised to be float32's.
                "use_tf32": "0",
            },
        ),
        # ONNX Runtime puts shape arithmetic on the CPU on purpose.
        ("CPUExecutionProvider", {}),
    ],
}


class DeviceError(Exception):
    """The device that was asked for cannot be used; one line says what is missing and what to do."""


class Engine(Protocol):
    """Anything that can run the graph; `infer` may be called from any thread."""

    @property
    def device(self) -> str:
        """What the graph runs on, such as "cpu" or "cuda": the device taken, not the one asked for."""

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32]) -> RawOutputs:
        """Run a batch. `mask_threshold` is [B]; a detection model ignores it."""


@dataclass(frozen=True)
class OnnxRuntimeEngine:
    """The graph in an ONNX Runtime session."""

    device: str
    session: Any  # onnxruntime.InferenceSession, which carries no types
    has_masks: bool

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32]) -> RawOutputs:
        """Run a batch. Raises what ONNX Runtime raises."""
        feed = {"images": batch.images, "padding_mask": batch.padding_mask}
        if not self.has_masks:
            logits, boxes = self.session.run(["pred_logits", "pred_boxes"], feed)
            return RawOutputs(logits, boxes, None, None)
        feed["mask_threshold"] = np.ascontiguousarray(mask_threshold, dtype=np.float32)
        return RawOutputs(*self.session.run(["pred_logits", "pred_boxes", "pred_masks", "mask_index"], feed))


def open_engine(artifact: Artifact, device: str = "auto", *, threads: int | None = None) -> OnnxRuntimeEngine:
    """Open an artifact on a device.

    Args:
        artifact: what `read_artifact` returned.
        device: "cpu", "cuda", or "auto": CUDA if it loads, otherwise the CPU. The log says which was taken.
        threads: CPU threads of one inference; by default every core the process may use.

    Raises:
        DeviceError: the device is unknown, not available in this version, or does not load.
        ArtifactError: the graph does not load, or is not the one its metadata promise.
        ValueError: threads is less than 1.
    """
    if device not in DEVICES:
        raise DeviceError(f"there is no device {device!r}; use one of {', '.join(DEVICES)}")
    if device in ("tensorrt", "openvino"):
        raise DeviceError(f"device {device} is not available in this version; use auto, cpu or cuda")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    threads = threads or available_cores()
    engine = _open_auto(artifact, threads) if device == "auto" else _open_on(artifact, device, threads)
    check_graph(engine.session, artifact)
    logger.info("%s runs on %s (asked for %s), %d threads", artifact.path.name, engine.device, device, threads)
    return engine


def replay_golden(engine: Engine, artifact: Artifact) -> float:
    """Run the artifact's golden sample and return the worst absolute difference from its expected output.

    Raises ArtifactError if that exceeds GOLDEN_TOLERANCE, or other queries than expected got a mask.
    """
    golden, where = artifact.golden, f"{artifact.path.name}: on {engine.device}, the golden sample"
    sizes = tuple((int((~mask[:, 0]).sum()), int((~mask[0]).sum())) for mask in golden.padding_mask)
    threshold = golden.mask_threshold
    if threshold is None:
        threshold = np.full(len(golden.images), NO_MASKS, dtype=np.float32)
    outputs = engine.infer(Batch(golden.images, golden.padding_mask, sizes), threshold)
    if golden.mask_index is not None and (
        outputs.mask_index is None or not np.array_equal(outputs.mask_index, golden.mask_index)
    ):
        raise ArtifactError(f"{where} gives other masks than expected")
    worst = 0.0
    for name in ("pred_logits", "pred_boxes", "pred_masks"):
        expected, found = getattr(golden, name), getattr(outputs, name)
        if expected is None:
            continue
        same_shape = found is not None and found.shape == expected.shape
        difference = float(np.abs(found - expected).max(initial=0.0)) if same_shape else np.inf
        # Written so that NaN, which compares false with everything, does not pass.
        if not difference <= GOLDEN_TOLERANCE:
            raise ArtifactError(f"{where}'s {name} is off by {difference:.2g}, more than {GOLDEN_TOLERANCE:g}")
        worst = max(worst, difference)
    return worst


def _open_auto(artifact: Artifact, threads: int) -> OnnxRuntimeEngine:
    """CUDA if it works, else the CPU, and a log line with the reason."""
    missing = missing_for_cuda()
    if missing is None:
        try:
            return _open_on(artifact, "cuda", threads)
        except DeviceError as error:
            missing = str(error)
            logger.warning("a GPU is present but CUDA does not load, so the CPU is taken: %s", missing)
    else:
        logger.info("CUDA is not used: %s", missing)
    return _open_on(artifact, "cpu", threads)


def _open_on(artifact: Artifact, device: str, threads: int) -> OnnxRuntimeEngine:
    """A session whose first provider is the device's. Raises DeviceError or ArtifactError."""
    if device == "cuda":
        if missing := missing_for_cuda():
            raise DeviceError(f"device cuda: {missing}; or use device cpu")
        # Finds the CUDA and cuDNN libraries that were installed as Python packages.
        onnxruntime.preload_dlls()
    try:
        session = onnxruntime.InferenceSession(
            artifact.data,
            sess_options=_session_options(threads),
            providers=_PROVIDERS[device],
            enable_fallback=0,  # a provider that breaks later must fail loudly, not hand over to the CPU
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this one
        reason = str(error).partition("\n")[0][:300]
        if device == "cuda":
            raise DeviceError(f"device cuda: ONNX Runtime cannot open a session on it: {reason}") from error
        raise ArtifactError(f"{artifact.path.name}: ONNX Runtime cannot load it: {reason}") from error
    # A provider whose libraries do not load is left out with a line on stderr and no error.
    if session.get_providers()[0] != _PROVIDERS[device][0][0]:
        raise DeviceError(_why_not_loaded(device))
    return OnnxRuntimeEngine(device, session, artifact.metadata.task == "panoptic")


def _why_not_loaded(device: str) -> str:
    libraries = ", ".join(missing_libraries()) or "a library that ONNX Runtime named on stderr"
    return (
        f"device {device}: its ONNX Runtime provider does not load, for want of {libraries}; "
        "install them (pip install 'detr-serve[cuda]'), or use device cpu"
    )


def _session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors: its warnings tell of placement choices that are meant
    # Waiting threads spin by default, for a few percent of latency. Here the same cores decode the next
    # images and answer requests while a batch runs, and an idle service should use no CPU.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A memory plan is kept for every input size ever seen; with images of all sizes that only grows.
    options.enable_mem_pattern = False
    return options

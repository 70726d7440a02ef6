"""Opening an artifact on the device that was asked for, and on no other."""

from __future__ import annotations

import logging

from model.runtime.artifact.file import Artifact
from model.runtime.engines.cores import available_cores
from model.runtime.engines.cuda import missing_for_cuda
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.devices import check_device
from model.runtime.engines.engine import Engine, device_kind
from model.runtime.engines.onnxruntime_engine import GpuOptions, open_onnxruntime
from model.runtime.engines.openvino_engine import missing_for_openvino, open_openvino
from model.runtime.engines.precision import precision_in_force

logger = logging.getLogger(__name__)


def open_engine(
    artifact: Artifact,
    device: str = "auto",
    *,
    precision: str = "auto",
    threads: int | None = None,
    gpu: GpuOptions | None = None,
) -> Engine:
    """Open an artifact on a device.

    Args:
        artifact: what `read_artifact` returned.
        device: one of `DEVICES`, of GPUs with a number or without ("cuda:1"). "auto" is CUDA if it loads, otherwise
            OpenVINO if it is installed, otherwise ONNX Runtime on the CPU. The log says which was taken, and why not
            another.
        precision: one of `PRECISIONS`; see `precision_in_force`.
        threads: CPU threads of one inference; by default every core the process may use.
        gpu: for devices that are one.

    Raises:
        DeviceError: the device or the precision is unknown, or does not work here.
        ArtifactError: the graph does not load, or is not the one its metadata promise.
        ValueError: threads is less than 1.
    """
    check_device(device)
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    threads, gpu = threads or available_cores(), gpu or GpuOptions()
    if device == "auto":
        engine = _open_auto(artifact, precision, threads, gpu)
    else:
        engine = _open_on(device, artifact, precision, threads, gpu)
    logger.info(
        "%s runs on %s in %s (asked for %s in %s), %d threads",
        artifact.path.name, engine.device, engine.precision, device, precision, threads,
    )  # fmt: skip
    return engine


def _open_auto(artifact: Artifact, precision: str, threads: int, gpu: GpuOptions) -> Engine:
    """The best device that works, and log lines with the reasons."""
    for device in ("cuda", "openvino"):
        if missing := missing_for_cuda() if device == "cuda" else missing_for_openvino():
            logger.info("device %s is not used: %s", device, missing)
            continue
        try:
            return _open_on(device, artifact, precision, threads, gpu)
        except DeviceError as error:
            logger.warning("device %s is there but cannot be used, so another is taken: %s", device, error)
    return _open_on("cpu", artifact, precision, threads, gpu)


def _open_on(device: str, artifact: Artifact, precision: str, threads: int, gpu: GpuOptions) -> Engine:
    if device == "openvino":
        return open_openvino(artifact, precision, threads)
    in_force = precision_in_force(precision, artifact.metadata.precision, device_kind(device), ("float32",))
    return open_onnxruntime(artifact, device, in_force, threads, gpu)

"""What an engine is: an artifact on the device that was asked for. Imports no runtime; `opening` does."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import Batch

DEVICES = ("auto", "cpu", "cuda", "tensorrt", "openvino")
GPUS = ("cuda", "tensorrt")


def device_kind(device: str) -> str:
    """Which of `DEVICES` a device is, without its number: "cuda" of "cuda:1"."""
    return device.partition(":")[0]


def is_gpu(device: str) -> bool:
    """Whether a device is a GPU."""
    return device_kind(device) in GPUS


class Engine(Protocol):
    """Anything that can run the graph; `infer` may be called from any thread, and by several at once."""

    @property
    def device(self) -> str:
        """What the graph runs on, such as "cpu", "cuda" or "cuda:1": the device taken, not the one asked for."""

    @property
    def precision(self) -> str:
        """What it is computed in, such as "float32" or "bfloat16": again what was taken."""

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        """Run a batch. `mask_threshold` is [B]; a detection model ignores it.

        With `attention` the outputs have it, of a model whose metadata say that its graph gives it.

        The outputs are the caller's own. Raises DeviceMemoryError where the device's memory ran out, and otherwise
        what the runtime raises.
        """

"""Running a network in torch where an engine is expected: batches and outputs are those of the runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from model.exporting.served_network import ServedNetwork
from model.runtime.artifact.graph_contract import ATTENTION_OUTPUTS
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.raw_outputs import RawAttention, RawOutputs
from model.runtime.preprocess import Batch


class TorchEngine:
    """A network in torch, in float32, on the device that was asked for."""

    precision = "float32"

    def __init__(self, network: ServedNetwork, device: str = "cpu") -> None:
        """Move the network to a device, "cpu" or "cuda"; see `torch_device`."""
        self.device = device
        self.network = network.to(device)

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        """Run a batch; see Engine."""
        # By default cuDNN's convolutions round to TF32, of 10 bits; what is served is float32.
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            outputs = run_torch(self.network, batch, mask_threshold)
        return outputs if attention else replace(outputs, attention=None)


def run_torch(network: ServedNetwork, batch: Batch, mask_threshold: NDArray[np.float32]) -> RawOutputs:
    """The network's own answer, in the form an engine gives, whatever device its weights are on."""
    device = next(network.parameters()).device
    inputs = (batch.images, batch.padding_mask, mask_threshold)[: len(network.inputs)]
    with torch.no_grad():
        outputs = [x.cpu().numpy() for x in network(*(torch.from_numpy(x).to(device) for x in inputs))]
    masks, index = outputs[2:4] if network.has_masks else (None, None)
    attention = None
    if network.attention is not None:
        canvas = batch.padding_mask.shape[1:]
        attention = RawAttention.of(outputs[-len(ATTENTION_OUTPUTS) :], canvas, network.attention.stride)
    return RawOutputs(outputs[0], outputs[1], masks, index, attention)


def torch_device(asked: str) -> str:
    """The device to run a checkpoint on, "cpu" or "cuda": "auto" takes CUDA if torch has it.

    Raises DeviceError where the device is not there, or is one that only artifacts run on.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda: torch finds no CUDA device; use device cpu")
    if asked not in ("cpu", "cuda"):
        raise DeviceError(f"a checkpoint runs on cpu or cuda; export it to evaluate it on {asked}")
    return asked

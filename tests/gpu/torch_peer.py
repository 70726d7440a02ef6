"""The same network in PyTorch, eager and compiled, in half precision, as one would serve it without an export."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch

from model.exporting.served_network import ServedNetwork
from model.network.config import PRESETS
from model.runtime.preprocess import Batch
from tests.gpu.models import PARITY_SEED, Model
from tests.gpu.session import DRY_RUN, either
from tests.model.networks import SMALL, filled

_WARM_UPS, _RUNS = either(5, 1), either(30, 2)


def eager_seconds(model: Model, batch: Batch, device: str) -> float:
    """Median seconds of a batch, its copies to the device and back among them."""
    return _measured(_network(model).to(device), batch, device)


def compiled_seconds(model: Model, batch: Batch, device: str) -> float:
    """The same of `torch.compile`, once it has compiled; in a dry run nothing is generated."""
    network: Any = torch.compile(_network(model).to(device), backend=either("inductor", "eager"))
    return _measured(network, batch, device)


def _network(model: Model) -> ServedNetwork:
    # A CPU would compile a whole one for minutes.
    return ServedNetwork(filled(SMALL if DRY_RUN else PRESETS[model], PARITY_SEED)).folded()


def _measured(network: Callable[..., tuple[torch.Tensor, ...]], batch: Batch, device: str) -> float:
    inputs = [batch.images, batch.padding_mask]
    threshold = torch.full((len(batch.sizes),), 2.0)
    took = []
    with torch.inference_mode(), torch.autocast(device, torch.float16, enabled=device == "cuda"):
        for _ in range(_WARM_UPS + _RUNS):
            began = perf_counter()
            given = [torch.from_numpy(array).to(device) for array in inputs]
            if getattr(network, "has_masks", False):
                given.append(threshold.to(device))
            logits, boxes, *_ = network(*given)
            logits.float().cpu(), boxes.float().cpu()
            took.append(perf_counter() - began)
    return median(took[_WARM_UPS:])

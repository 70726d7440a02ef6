"""Checkpoints of the presets' networks with weights by which an answer shows them, for tests of the templates."""

from __future__ import annotations

from pathlib import Path

import torch

from model.categories.names import named_category
from model.checkpoint.saving import save_checkpoint
from model.network.build import build_model
from model.network.config import ModelConfig
from model.network.detr import DETR
from model.network.segmentation import DETRsegm


def network_of(config: ModelConfig, seed: int = 0) -> DETR | DETRsegm:
    """A network in eval mode whose weights are all different, none of them what it began with."""
    with torch.random.fork_rng(), torch.no_grad():
        generator = torch.manual_seed(seed)
        network = build_model(config)
        for key, tensor in network.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif tensor.ndim == 1:
                tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)
            elif "query_embed" in key:
                tensor.normal_(generator=generator)
    return network.eval()


def saved_checkpoint(folder: Path, network: DETR | DETRsegm, config: ModelConfig) -> Path:
    """An own checkpoint with named classes."""
    categories = tuple(named_category(index, f"class {index}") for index in range(config.num_classes))
    save_checkpoint(folder / "saved.safetensors", network.state_dict(), config, categories, {"trained": "never"})
    return folder / "saved.safetensors"

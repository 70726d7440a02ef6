"""Networks with fixed weights, for tests: filled by a rule, so that nothing has to be shipped or trained."""

from __future__ import annotations

from dataclasses import replace

import torch

from model.network.build import build_model
from model.network.config import PRESETS, ModelConfig
from model.network.detr import DETR
from model.network.segmentation import DETRsegm
from tests.parity.parity_weights import value

# The demo's structure, with a width that keeps a forward pass at a few milliseconds.
SMALL = replace(
    PRESETS["detr-demo"],
    hidden_dim=64,
    dim_feedforward=128,
    encoder_layers=2,
    decoder_layers=2,
    num_queries=10,
)


def filled(config: ModelConfig, seed: int = 7) -> DETR | DETRsegm:
    """A network in eval mode whose every weight is `value(key, shape, seed)`, batch statistics included."""
    network = build_model(config)
    state = {
        key: torch.from_numpy(value(key, tuple(tensor.shape), seed))
        for key, tensor in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    network.load_state_dict(state, strict=False)
    return network.eval()


def small_panoptic_network() -> DETRsegm:
    """`SMALL` with fixed weights, whose queries have masks of their own."""
    network = filled(SMALL)
    assert isinstance(network, DETRsegm)
    sharpen_masks(network)
    return network


def sharpen_masks(network: DETRsegm) -> None:
    """Give every query a mask of its own: without training, attention maps are faint beside features and all alike."""
    of_query = network.mask_head.get_parameter("lay1.weight")[:, network.mask_head.hidden_dim :]
    with torch.no_grad():
        of_query *= 1000
        for linear in (network.bbox_attention.q_linear, network.bbox_attention.k_linear):
            linear.weight *= 3

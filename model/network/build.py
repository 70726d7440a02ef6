"""From a config to a network: the one place where its parts are put together."""

from __future__ import annotations

from torch import nn

from model.network.config import ModelConfig
from model.network.detr import DETR
from model.network.segmentation import DETRsegm


def build_model(config: ModelConfig) -> DETR | DETRsegm:
    """A `DETR`, or a `DETRsegm` around one where the config has masks, with fresh weights."""
    detr = DETR(config)
    return DETRsegm(detr, config) if config.masks else detr


def detector_of(network: nn.Module) -> DETR:
    """The `DETR` of a network, which a `DETRsegm` wraps."""
    detr = network.detr if isinstance(network, DETRsegm) else network
    assert isinstance(detr, DETR)
    return detr

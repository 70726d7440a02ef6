"""What a DETR is made of, and the presets of the published models and of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.runtime.artifact.metadata import Padding
from model.runtime.preprocess import IMAGENET_NORMALIZATION, Normalization
from model.runtime.resize_rule import PUBLISHED_EDGES, Bounds, Edges, ResizeRule


@dataclass(frozen=True)
class ModelConfig:
    """Everything `model.network.build.build_model` needs. The defaults are the published DETR-R50.

    `backbone` is a torchvision model name; `stages` is how many levels of its pyramid (strides 4, 8, 16, 32) are
    used, the last of which feeds the transformer. `dilation` is DC5: the last ResNet stage keeps stride 16.
    `num_classes` counts the real classes, without no-object. `padding="published"` keeps the leak of the reference
    through the padding, for comparison. `resize` and `normalization` are how the weights were trained to see an image;
    `segment_threshold` and `detect_threshold` (probabilities) what serving starts from.
    """

    backbone: str = "resnet50"
    stages: int = 4
    dilation: bool = False
    frozen_batch_norm: bool = True
    position_embedding: Literal["sine", "learned"] = "sine"
    hidden_dim: int = 256
    nheads: int = 8
    dim_feedforward: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    pre_norm: bool = False
    num_queries: int = 100
    num_classes: int = 91
    masks: bool = False
    padding: Padding = "exact"
    resize: ResizeRule = PUBLISHED_EDGES
    normalization: Normalization = IMAGENET_NORMALIZATION
    detect_threshold: float = 0.7
    segment_threshold: float = 0.85

    def __post_init__(self) -> None:
        if self.hidden_dim % self.nheads or self.hidden_dim % 4:
            raise ValueError(
                f"hidden_dim={self.hidden_dim} must be a multiple of nheads={self.nheads} and of 4 "
                "(half of it encodes each axis, in sine-cosine pairs)"
            )
        if not 2 <= self.stages <= 4:
            raise ValueError(f"stages={self.stages} must be 2, 3 or 4")
        if self.masks and ((self.hidden_dim + self.nheads) % 8 or self.hidden_dim % (8 * 2**self.stages)):
            raise ValueError(
                f"hidden_dim={self.hidden_dim} must be a multiple of {8 * 2**self.stages}, and of 8 with nheads="
                f"{self.nheads} added: the mask head halves it {self.stages} times and normalises in 8 groups"
            )
        if self.dilation and self.stages < 4:
            raise ValueError("dilation (DC5) dilates the fourth stage, so it needs stages=4")


PRESETS: dict[str, ModelConfig] = {
    "detr-resnet-50": ModelConfig(),
    "detr-resnet-50-dc5": ModelConfig(dilation=True),
    "detr-resnet-101": ModelConfig(backbone="resnet101"),
    "detr-resnet-101-dc5": ModelConfig(backbone="resnet101", dilation=True),
    "detr-resnet-50-panoptic": ModelConfig(num_classes=250, masks=True),
    "detr-resnet-50-dc5-panoptic": ModelConfig(num_classes=250, masks=True, dilation=True),
    "detr-resnet-101-panoptic": ModelConfig(backbone="resnet101", num_classes=250, masks=True),
    # Two models of one network: 15 queries find tables on a page, and 125 with 6 classes the rows and columns of one.
    "table-transformer": ModelConfig(
        backbone="resnet18",
        pre_norm=True,
        num_queries=15,
        num_classes=2,
        resize=Bounds(800, 800),
        detect_threshold=0.5,
    ),
    # Small enough to learn on a CPU in two hours: stride 16, 128 pixels, trained from scratch with live batch norm.
    "detr-demo": ModelConfig(
        backbone="resnet18",
        stages=3,
        frozen_batch_norm=False,
        hidden_dim=128,
        dim_feedforward=512,
        encoder_layers=3,
        decoder_layers=3,
        dropout=0.0,
        num_queries=25,
        num_classes=12,
        masks=True,
        resize=Edges(128, 160),
        detect_threshold=0.5,
        segment_threshold=0.5,
    ),
}

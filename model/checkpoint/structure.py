"""What a state dict's keys and shapes tell about the network that it belongs to."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from model.checkpoint.errors import CheckpointError
from model.network.config import ModelConfig

# Blocks a stage and whether they are bottlenecks, for each ResNet (He et al. 2016, table 1).
RESNETS: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}

# The fields that a checkpoint and a preset must agree on; fine-tuned models differ in class and query counts.
STRUCTURE = (
    "backbone",
    "stages",
    "dilation",
    "position_embedding",
    "hidden_dim",
    "nheads",
    "dim_feedforward",
    "encoder_layers",
    "decoder_layers",
    "pre_norm",
    "masks",
)


class Shaped(Protocol):
    """A torch tensor, or a numpy array."""

    @property
    def ndim(self) -> int:
        """The number of axes."""

    @property
    def shape(self) -> Sequence[int]:
        """The length of each axis."""


def infer_config(state: Mapping[str, Shaped], base: ModelConfig) -> ModelConfig:
    """`base` with everything that keys and shapes say replaced by what they say.

    Keys are the published ones. Dilation never shows; the number of heads shows only in a mask head. What a
    missing key would have said stays as in `base`: the strict check names that key. CheckpointError if the
    keys are no DETR's, or describe one that cannot be built.
    """
    masks = any(key.startswith("mask_head.") for key in state)
    prefix = "detr." if masks else ""
    if not any(key.startswith(f"{prefix}transformer.") for key in state):
        first = ", ".join(list(state)[:3]) or "none"
        raise CheckpointError(f"its keys are not those of a DETR (the first are: {first})")

    def size(key: str, axis: int, default: int) -> int:
        return _size(state, prefix + key, axis, default)

    layer = r"transformer\.{}\.layers\.(\d+)\."
    # Two keys say the width, so that one that is missing does not make all the others look wrong.
    hidden_dim = size("input_proj.weight", 0, size("query_embed.weight", 1, base.hidden_dim))
    backbone, stages = _backbone(state, prefix, base)
    try:
        return replace(
            base,
            backbone=backbone,
            stages=stages,
            position_embedding="learned" if f"{prefix}backbone.1.row_embed.weight" in state else "sine",
            hidden_dim=hidden_dim,
            # The mask head's first convolution sees the image's features and one attention map a head.
            nheads=max(1, _size(state, "mask_head.lay1.weight", 0, hidden_dim + base.nheads) - hidden_dim),
            dim_feedforward=size("transformer.decoder.layers.0.linear1.weight", 0, base.dim_feedforward),
            encoder_layers=_count(state, prefix, layer.format("encoder")),
            decoder_layers=_count(state, prefix, layer.format("decoder")),
            # Post-norm layers need no norm after the last one; only a pre-norm encoder has it.
            pre_norm=f"{prefix}transformer.encoder.norm.weight" in state,
            num_queries=size("query_embed.weight", 0, base.num_queries),
            num_classes=size("class_embed.weight", 0, base.num_classes + 1) - 1,
            masks=masks,
        )
    except ValueError as error:
        raise CheckpointError(f"its shapes describe a network that cannot be built: {error}") from error


def disagreements(found: ModelConfig, said: ModelConfig) -> list[str]:
    """One phrase for each field of the structure in which two configurations differ."""
    return [
        f"{field} is {getattr(found, field)}, not {getattr(said, field)}"
        for field in STRUCTURE
        if getattr(found, field) != getattr(said, field)
    ]


def _backbone(state: Mapping[str, Shaped], prefix: str, base: ModelConfig) -> tuple[str, int]:
    """Name of the ResNet with these blocks and how many of its stages there are; the base's for another."""
    body = f"{prefix}backbone.0.body."
    if f"{body}layer1.0.conv1.weight" not in state:
        return base.backbone, base.stages
    blocks = tuple(_count(state, body, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    stages = sum(count > 0 for count in blocks)
    kind = (blocks[:stages], f"{body}layer1.0.conv3.weight" in state)
    names = [name for name, (depths, deep) in RESNETS.items() if (depths[:stages], deep) == kind]
    if base.backbone in names:  # Cut short, several have the same blocks.
        return base.backbone, stages
    if not names:
        raise CheckpointError(f"its backbone has {blocks} blocks a stage; known are {', '.join(RESNETS)}")
    return names[0], stages


def _count(state: Mapping[str, Shaped], prefix: str, numbered: str) -> int:
    """How many different numbers there are in the keys that match `prefix` and then `numbered`, a pattern."""
    pattern = re.compile(re.escape(prefix) + numbered)
    return len({match[1] for key in state if (match := pattern.match(key))})


def _size(state: Mapping[str, Shaped], key: str, axis: int, default: int) -> int:
    """The length of a tensor's axis, or `default` where there is no such tensor or axis."""
    tensor = state.get(key)
    return default if tensor is None or tensor.ndim <= axis else tensor.shape[axis]

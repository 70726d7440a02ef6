"""A checkpoint, and what is wrong with weights that do not fit their network key for key."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from model.checkpoint.errors import CheckpointError
from model.checkpoint.hugging_face import Weight
from model.checkpoint.structure import Shaped
from model.network.config import ModelConfig
from model.runtime.categories import Category


@dataclass(frozen=True)
class Checkpoint(Generic[Weight]):
    """Weights, and what is known about them.

    `state_dict` is float32 under the published names and fits `build_model(config)` key for key.
    `categories`, by class index, are None where the file does not say what the classes are called. `source` names the
    file or folder, `sha256` is of the file with the weights. `provenance` is the free JSON that a checkpoint
    of this project carries. `notes` tell a person, a line each, what was recognized and what was assumed.
    """

    state_dict: dict[str, Weight]
    config: ModelConfig
    categories: tuple[Category, ...] | None
    source: str
    sha256: str
    provenance: dict[str, Any]
    notes: tuple[str, ...]

    def require_categories(self) -> tuple[Category, ...]:
        """The categories. CheckpointError, saying what to give, where there are none."""
        if self.categories is None:
            count = self.config.num_classes
            unknown = "categories: unknown, "
            why = next((f" ({note.removeprefix(unknown)})" for note in self.notes if note.startswith(unknown)), "")
            raise CheckpointError(
                f"{self.source}: nothing says what its {count} classes are called{why}; give a names file with "
                f"{count} names (only 91 and 250 classes are taken for COCO's)"
            )
        return self.categories


def faults(
    state: Mapping[str, Shaped],
    expected: Mapping[str, Sequence[int]],
    allowed: Collection[str] = (),
    optional: str = "",
) -> str:
    """Every missing, unexpected and misshapen key of a state dict in a line, or nothing where shapes are as expected.

    Keys that are `allowed` may be there as well; those that end in `optional`, if that is given, may be missing.
    """
    missing = [key for key in expected if key not in state and not (optional and key.endswith(optional))]
    unexpected = [key for key in state if key not in expected and key not in allowed]
    misshapen = [
        f"{key} (is {list(state[key].shape)}, must be {list(shape)})"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != tuple(shape)
    ]
    kinds = (("missing keys", missing), ("unexpected keys", unexpected), ("wrong shapes", misshapen))
    return "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in kinds if keys)


def check_count(categories: tuple[Category, ...], config: ModelConfig) -> None:
    """CheckpointError where there is not one category for each class."""
    if len(categories) != config.num_classes:
        raise CheckpointError(f"there are {len(categories)} category names for {config.num_classes} classes")


def describe_network(config: ModelConfig) -> str:
    """The structure in a line, for people."""
    task = "panoptic segmentation" if config.masks else "detection"
    backbone = f"{config.backbone} with dilation (DC5)" if config.dilation else config.backbone
    return (
        f"{backbone}, {task}, {config.num_classes} classes, {config.num_queries} queries, "
        f"width {config.hidden_dim}, {config.nheads} heads, "
        f"{config.encoder_layers} + {config.decoder_layers} {'pre-norm layers' if config.pre_norm else 'layers'}"
    )

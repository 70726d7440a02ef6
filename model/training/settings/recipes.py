"""The recipes that are known to work, and which of them a run takes that names none."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model.data.transforms import Augmentation
from model.network.config import PRESETS
from model.training.settings.config import TrainConfig, TrainingStage


@dataclass(frozen=True)
class Recipe:
    """Settings, and where a run starts: the network and its backbone's weights, unless `--init` gives both."""

    config: TrainConfig
    summary: str
    preset: str = "detr-resnet-50"
    backbone_weights: str | None = "imagenet"
    num_queries: int | None = None  # None: the preset's
    image_size: tuple[int | None, int | None] = (None, None)  # shortest and longest edge, None: the preset's
    notes: tuple[str, ...] = ()  # what was chosen for a run, and why, a line each


# The reference trains a ResNet from its second stage on (models/backbone.py).
_PUBLISHED = TrainConfig(freeze=("stem",))
_UNCROPPED: tuple[Augmentation, ...] = ("flip", "multi-scale")
_DEMO = TrainConfig(
    epochs=None,
    steps=12_000,
    batch_size=16,
    lr=3e-4,
    lr_backbone=3e-4,
    warmup_steps=500,
    lr_schedule="decay",
    lr_turn=0.6,
    augment=("flip",),
    workers=1,
)

# Learns from a few hundred pictures on two CPU cores in two hours. A DETR-R50 from ImageNet weights learns nothing.
# Until each query looks at a place of its own, which takes thousands of steps, the loss hardly falls: many small steps
# are better than few large ones.
_SMALL = replace(
    _DEMO,
    steps=12_000,
    batch_size=8,
    warmup_steps=300,
    lr_turn=2 / 3,
    ema=0.999,
    precision="auto",
    augment=("flip", "crop"),
    evaluate_every=None,
    save_every=500,
)

RECIPES: dict[str, Recipe] = {
    "detr-300": Recipe(_PUBLISHED, "300 epochs from ImageNet weights, rate dropped after 200, as in the paper"),
    "detr-500": Recipe(replace(_PUBLISHED, epochs=500, lr_turn=0.8), "500 epochs, rate dropped after 400"),
    "detr-masks": Recipe(
        replace(_PUBLISHED, stage="masks", epochs=25, lr_turn=0.6, batch_size=16, augment=_UNCROPPED),
        "mask head over a frozen detector, 25 epochs, rate dropped after 15, as published",
    ),
    "detr-joint": Recipe(replace(_PUBLISHED, stage="joint"), "detector and mask head together, 300 epochs"),
    "fine-tune": Recipe(
        replace(_PUBLISHED, epochs=100, batch_size=16, lr_turn=0.8, ema=0.999, augment=_UNCROPPED),
        "a trained detector to other classes: 100 epochs, a moving average of the weights",
    ),
    "small": Recipe(
        _SMALL,
        "a small network from scratch at 144 pixels, for few pictures or a CPU",
        "detr-demo",
        None,
        num_queries=50,
        image_size=(144, 192),
    ),
    "demo": Recipe(_DEMO, "the demo model from scratch on `detr shapes`", "detr-demo", None),
    "demo-masks": Recipe(
        replace(_DEMO, stage="masks", steps=2_000), "the demo model's mask head over its detector", "detr-demo", None
    ),
}


def default_recipe(
    data: str, stage: TrainingStage | None, has_init: bool, preset: str | None = None, *, small: bool = False
) -> str:
    """The recipe of a run that names none.

    Args:
        data: the kind of data set.
        stage: as asked for.
        has_init: whether the run starts from a checkpoint.
        preset: the network that was asked for; one with live batch norm learns from scratch.
        small: whether the pictures are few, or the machine is slow (see `model.training.settings.choosing`).
    """
    if data == "shapes" and preset in (None, "detr-demo"):
        return "demo-masks" if stage == "masks" else "demo"
    if stage == "masks":
        return "detr-masks"
    from_scratch = small if preset is None else not PRESETS[preset].frozen_batch_norm
    if from_scratch and not has_init:
        return "small"
    if stage == "joint":
        return "detr-joint"
    return "fine-tune" if has_init else "detr-300"

"""One training step: its loss, its schedule, and what it changes and leaves alone."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from model.build import build_model, detector_of
from model.criterion import weighted_sum
from model.data.coco_files import Target
from model.data.collate import TrainingBatch, collate
from model.nested_tensor import normalize
from model.training_module import SETTINGS_KEY, TrainConfig, TrainingModule
from tests.model.networks import SMALL

CONFIG = TrainConfig(steps=1000, warmup_steps=100, decay_fraction=0.4)
DETECTOR = replace(SMALL, masks=False)
# The heaviest losses are those of boxes, which a few steps at this rate lower by a good part.
FAST = TrainConfig(steps=1000, warmup_steps=1, lr=1e-3, lr_backbone=1e-3)


def item(size: tuple[int, int], boxes: list[tuple[float, float, float, float]], seed: int) -> tuple[Tensor, Target]:
    """A picture [3, h, w] of noise, with a brighter rectangle and a mask for each box (cxcywh, normalised)."""
    height, width = size
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 100, (3, height, width), dtype=torch.uint8, generator=generator)
    masks = torch.zeros((len(boxes), height, width), dtype=torch.bool)
    for mask, (cx, cy, w, h) in zip(masks, boxes, strict=True):
        rows = slice(round((cy - h / 2) * height), round((cy + h / 2) * height))
        mask[rows, round((cx - w / 2) * width) : round((cx + w / 2) * width)] = True
        image[:, mask] += 120
    labels = torch.arange(len(boxes))
    return image, {"labels": labels, "boxes": torch.tensor(boxes).reshape(-1, 4), "masks": masks}


def batch() -> TrainingBatch:
    """Two pictures of unequal sizes, so that there is padding, and one of them with two objects."""
    first = item((64, 48), [(0.3, 0.3, 0.4, 0.4), (0.7, 0.75, 0.4, 0.3)], seed=1)
    return collate([first, item((40, 64), [(0.5, 0.5, 0.5, 0.6)], seed=2)])


class Watched(TrainingModule):
    """There is no trainer here, so the figures that a step logs stay with it."""

    figures: dict[str, Tensor]

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        self.figures[name] = value

    def log_dict(self, dictionary: Any, *args: Any, **kwargs: Any) -> None:
        self.figures.update(dictionary)


def module(config: TrainConfig) -> Watched:
    torch.manual_seed(0)
    network = build_model(SMALL if config.stage == "masks" else DETECTOR)
    made = Watched(network, SMALL.num_classes, config)
    made.figures = {}
    return made


def optimizer_and_schedule(trained: TrainingModule) -> tuple[torch.optim.Optimizer, Any]:
    configured = trained.configure_optimizers()
    assert configured["lr_scheduler"]["interval"] == "step"
    return configured["optimizer"], configured["lr_scheduler"]["scheduler"]


def take_steps(trained: TrainingModule, count: int) -> list[float]:
    """So many steps on one batch; returns the loss of each."""
    optimizer, schedule = optimizer_and_schedule(trained)
    losses = []
    for step in range(count):
        loss = trained.training_step(batch(), step)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), trained.config.clip)
        optimizer.step()
        schedule.step()
    return losses


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.01), (49, 0.5), (99, 1.0), (100, 1.0), (600, 1.0), (700, 0.75), (800, 0.5), (999, 0.0025), (1000, 0.0)],
)
def test_the_learning_rate_rises_stays_and_falls_to_zero(step: int, factor: float) -> None:
    assert CONFIG.lr_factor(step) == pytest.approx(factor)


def test_the_learning_rate_never_passes_its_peak_nor_jumps() -> None:
    factors = [CONFIG.lr_factor(step) for step in range(CONFIG.steps + 1)]
    assert max(factors) == 1.0
    assert max(abs(b - a) for a, b in pairwise(factors)) <= 0.01 + 1e-9


def test_a_run_without_warm_up_starts_at_its_peak() -> None:
    assert replace(CONFIG, warmup_steps=0).lr_factor(0) == 1.0


def test_a_run_shorter_than_its_warm_up_still_ends_at_zero() -> None:
    short = TrainConfig(steps=10, warmup_steps=500)
    assert [short.lr_factor(step) > 0 for step in (0, 9, 10, 11)] == [True, True, False, False]


def test_the_schedule_of_a_shorter_run_is_not_that_of_the_file_it_resumes_from() -> None:
    _, long = optimizer_and_schedule(module(replace(CONFIG, steps=20_000)))
    for _ in range(400):
        long.optimizer.step()
        long.step()
    optimizer, short = optimizer_and_schedule(module(replace(CONFIG, steps=500)))
    short.load_state_dict(long.state_dict())
    optimizer.step()
    short.step()
    assert short.last_epoch == 401
    assert short.get_last_lr()[0] == pytest.approx(CONFIG.lr * 99 / 200)


@pytest.mark.parametrize("steps", [0, -1])
def test_a_run_without_a_step_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="--steps must be at least 1"):
        TrainConfig(steps=steps)


def test_the_backbone_has_its_own_rate_and_every_parameter_is_in_one_group() -> None:
    trained = module(TrainConfig(lr=2e-4, lr_backbone=1e-5, weight_decay=0.02, warmup_steps=0))
    optimizer, _ = optimizer_and_schedule(trained)
    rest, backbone = optimizer.param_groups
    assert (rest["lr"], backbone["lr"]) == (2e-4, 1e-5)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.02}
    names = {parameter: name for name, parameter in trained.network.named_parameters()}
    assert all(names[parameter].startswith("backbone.0.") for parameter in backbone["params"])
    assert not any(names[parameter].startswith("backbone.0.") for parameter in rest["params"])
    assert {*rest["params"], *backbone["params"]} == set(trained.network.parameters())


def test_only_the_mask_head_is_optimized_in_stage_masks() -> None:
    trained = module(TrainConfig(stage="masks"))
    optimizer, _ = optimizer_and_schedule(trained)
    names = {parameter: name for name, parameter in trained.network.named_parameters()}
    (group,) = optimizer.param_groups
    assert {names[parameter].split(".")[0] for parameter in group["params"]} == {"bbox_attention", "mask_head"}


def test_steps_on_one_batch_lower_the_loss_of_detection() -> None:
    losses = take_steps(module(FAST), 8)
    assert losses[-1] < 0.8 * losses[0]


def test_steps_on_one_batch_lower_the_loss_of_masks_and_leave_the_detector_alone() -> None:
    trained = module(replace(FAST, stage="masks"))
    before = {key: tensor.clone() for key, tensor in trained.network.state_dict().items()}
    losses = take_steps(trained, 8)
    assert losses[-1] < 0.9 * losses[0]
    after = trained.network.state_dict()
    assert any(key.endswith("running_mean") for key in before), "the detector has no batch statistics to keep"
    moved = {key for key, tensor in before.items() if not torch.equal(tensor, after[key])}
    # All of it learns, but for the bias of an attention's keys, to which a softmax is blind.
    mask_head = {key for key in before if not key.startswith("detr.")}
    assert mask_head - moved <= {"bbox_attention.k_linear.bias"}
    assert moved <= mask_head


def test_a_detection_step_does_move_batch_statistics() -> None:
    trained = module(FAST)
    before = trained.network.state_dict()["backbone.0.body.bn1.running_mean"].clone()
    trained.training_step(batch(), 0)
    assert not torch.equal(before, trained.network.state_dict()["backbone.0.body.bn1.running_mean"])


def test_the_loss_is_the_criterions_on_the_normalized_batch() -> None:
    trained = module(FAST)
    trained.eval()  # so that batch norm answers both alike
    images, padding_mask, targets = batch()
    with torch.no_grad():
        expected = trained.criterion(trained.network(normalize(images, padding_mask)), targets)
        found = trained.training_step(batch(), 0)
    assert float(found) == pytest.approx(float(weighted_sum(expected)), rel=1e-4)
    assert set(trained.figures) == {"loss", "loss_ce", "loss_bbox", "loss_giou", "cardinality_error", "class_error"}
    assert float(trained.figures["loss_bbox"]) == pytest.approx(float(expected["loss_bbox"]), rel=1e-4)


def test_the_loss_of_masks_is_the_criterions_though_only_matched_masks_are_computed() -> None:
    trained = module(replace(FAST, stage="masks"))
    trained.eval()
    images, padding_mask, targets = batch()
    with torch.no_grad():
        outputs = trained.network(normalize(images, padding_mask))
        expected = trained.criterion(outputs, targets, padding_mask)
        found = trained.training_step(batch(), 0)
    assert float(found) == pytest.approx(float(expected["loss_mask"] + expected["loss_dice"]), rel=1e-4)


@pytest.mark.parametrize("stage", ["detection", "masks"])
def test_losses_are_float32_where_the_network_runs_in_bfloat16(stage: Any) -> None:
    trained = module(replace(FAST, stage=stage))
    seen: list[torch.dtype] = []
    detector_of(trained.network).input_proj.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = trained.training_step(batch(), 0)
    assert seen == [torch.bfloat16], "the network did not run in bfloat16, so the test shows nothing"
    assert "loss" in trained.figures
    assert {value.dtype for value in trained.figures.values()} == {torch.float32}
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in trained.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("stage", ["detection", "masks"])
def test_a_batch_without_an_object_can_be_learnt_from(stage: Any) -> None:
    trained = module(replace(FAST, stage=stage))
    loss = trained.training_step(collate([item((64, 48), [], seed=1), item((32, 40), [], seed=2)]), 0)
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(parameter.grad.isfinite().all() for parameter in trained.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(
    ("stage", "layer", "what"),
    [
        ("detection", "class_embed", "the network's answer"),
        ("detection", "bbox_embed.layers.2", "the network's answer"),
        ("masks", "mask_head.out_lay", "the loss"),
    ],
)
def test_a_loss_that_is_not_finite_is_a_clear_error(stage: Any, layer: str, what: str) -> None:
    trained = module(replace(FAST, stage=stage))
    torch.nn.init.constant_(trained.network.get_parameter(f"{layer}.bias"), math.nan)
    with pytest.raises(FloatingPointError, match=f"{what} is not finite at step 0: lower the learning rate"):
        trained.training_step(batch(), 0)


def test_a_file_to_resume_from_carries_the_settings() -> None:
    checkpoint: dict[str, Any] = {}
    module(FAST).on_save_checkpoint(checkpoint)
    assert TrainConfig(**checkpoint[SETTINGS_KEY]) == FAST

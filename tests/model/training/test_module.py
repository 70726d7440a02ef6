"""One training step: its loss, its schedule, and what it changes and leaves alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.data.collate import TrainingBatch, collate
from model.data.formats.coco_files import Target
from model.data.formats.mask_layers import layers_of, masks_of
from model.loss.criterion import weighted_sum, world_totals
from model.network.build import build_model, detector_of
from model.network.nested_tensor import normalize
from model.training.module import SETTINGS_KEY, TrainingModule
from model.training.settings.config import TrainConfig
from tests.model.networks import SMALL

DETECTOR = replace(SMALL, masks=False)
# The heaviest losses are those of boxes, which a few steps at this rate lower by a good part.
FAST = TrainConfig(epochs=None, steps=1000, lr=1e-3, lr_backbone=1e-3)


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
    target = {"labels": torch.arange(len(boxes)), "boxes": torch.tensor(boxes).reshape(-1, 4)}
    return image, target | layers_of(masks.numpy(), size)._asdict()


def batch(parts: int = 1) -> list[TrainingBatch]:
    """Two pictures of unequal sizes, so that there is padding, and one of them with two objects."""
    first = item((64, 48), [(0.3, 0.3, 0.4, 0.4), (0.7, 0.75, 0.4, 0.3)], seed=1)
    return collate([first, item((40, 64), [(0.5, 0.5, 0.5, 0.6)], seed=2)], parts)


class Alone(TrainingModule):
    """There is no trainer here, so nothing but this process and its gradients."""

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        loss.backward()

    def _unsynchronized(self) -> Any:
        return torch.enable_grad()


def module(config: TrainConfig) -> Alone:
    torch.manual_seed(0)
    network = build_model(DETECTOR if config.stage == "detection" else SMALL)
    return Alone(network, SMALL.num_classes, config, 1000)


def losses_of(trained: TrainingModule, part: TrainingBatch) -> dict[str, Tensor]:
    return trained.losses(part, world_totals([trained.criterion.totals(part.targets, SMALL.num_queries)]))


def optimizer_and_schedule(trained: TrainingModule) -> tuple[torch.optim.Optimizer, Any]:
    (optimizer,), (schedule,) = trained.configure_optimizers()
    return optimizer, schedule


def take_steps(trained: TrainingModule, count: int) -> list[float]:
    """So many steps on one batch; returns the loss of each."""
    optimizer, schedule = optimizer_and_schedule(trained)
    losses = []
    for _ in range(count):
        losses.append(float(trained.gradients(batch())["loss"]))
        trained.on_before_optimizer_step(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return losses


def test_the_schedule_of_a_shorter_run_is_not_that_of_the_file_it_resumes_from() -> None:
    decay = replace(FAST, lr_schedule="decay", lr_turn=0.6)
    torch.manual_seed(0)
    network = build_model(DETECTOR)
    _, long = optimizer_and_schedule(TrainingModule(network, SMALL.num_classes, decay, 20_000))
    for _ in range(400):
        long.optimizer.step()
        long.step()
    optimizer, short = optimizer_and_schedule(TrainingModule(network, SMALL.num_classes, decay, 500))
    short.load_state_dict(long.state_dict())
    optimizer.step()
    short.step()
    assert short.last_epoch == 401
    assert short.get_last_lr()[0] == pytest.approx(decay.lr * 99 / 200)


def test_the_backbone_has_its_own_rate_and_every_parameter_is_in_one_group() -> None:
    trained = module(replace(FAST, lr=2e-4, lr_backbone=1e-5, weight_decay=0.02))
    optimizer, _ = optimizer_and_schedule(trained)
    rest, backbone = optimizer.param_groups
    assert (rest["lr"], backbone["lr"]) == (2e-4, 1e-5)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.02}
    names = {parameter: name for name, parameter in trained.network.named_parameters()}
    assert all(names[parameter].startswith("backbone.0.") for parameter in backbone["params"])
    assert not any(names[parameter].startswith("backbone.0.") for parameter in rest["params"])
    assert {*rest["params"], *backbone["params"]} == set(trained.network.parameters())


def test_only_the_mask_head_is_optimized_in_stage_masks() -> None:
    trained = module(replace(FAST, stage="masks"))
    optimizer, _ = optimizer_and_schedule(trained)
    names = {parameter: name for name, parameter in trained.network.named_parameters()}
    (group,) = optimizer.param_groups
    assert {names[parameter].split(".")[0] for parameter in group["params"]} == {"bbox_attention", "mask_head"}


def test_what_is_frozen_is_not_optimized() -> None:
    trained = module(replace(FAST, freeze=("backbone", "queries")))
    optimizer, _ = optimizer_and_schedule(trained)
    names = {parameter: name for name, parameter in trained.network.named_parameters()}
    optimized = {names[parameter] for group in optimizer.param_groups for parameter in group["params"]}
    frozen = set(names.values()) - optimized
    assert frozen == {name for name in names.values() if name.startswith(("backbone.0.", "query_embed."))}


@pytest.mark.parametrize("stage", ["detection", "joint"])
def test_steps_on_one_batch_lower_the_loss(stage: Any) -> None:
    losses = take_steps(module(replace(FAST, stage=stage)), 8)
    assert losses[-1] < 0.8 * losses[0]


def test_steps_on_one_batch_lower_the_loss_of_masks_and_leave_the_detector_alone() -> None:
    trained = module(replace(FAST, stage="masks"))
    trained.train()
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


@pytest.mark.parametrize("stage", ["detection", "joint"])
def test_a_step_of_the_detector_does_move_batch_statistics(stage: Any) -> None:
    trained = module(replace(FAST, stage=stage))
    statistics = detector_of(trained.network).state_dict()["backbone.0.body.bn1.running_mean"]
    before = statistics.clone()
    trained.gradients(batch())
    assert not torch.equal(before, statistics)


def test_the_loss_is_the_criterions_on_the_normalized_batch() -> None:
    trained = module(FAST)
    trained.eval()  # so that batch norm answers both alike
    (part,) = batch()
    with torch.no_grad():
        expected = trained.criterion(trained.network(normalize(part.images, part.padding_mask)), part.targets)
        found = losses_of(trained, part)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-4), name


@pytest.mark.parametrize("stage", ["masks", "joint"])
def test_the_losses_of_masks_are_the_criterions_though_only_matched_masks_are_computed(stage: Any) -> None:
    trained = module(replace(FAST, stage=stage))
    trained.eval()
    (part,) = batch()
    targets = [{**target, "masks": masks_of(target)} for target in part.targets]
    with torch.no_grad():
        outputs = trained.network(normalize(part.images, part.padding_mask))
        expected = trained.criterion(outputs, targets, part.padding_mask)
        found = losses_of(trained, part)
    wanted = {"loss_mask", "loss_dice"} if stage == "masks" else expected.keys()
    assert found.keys() == wanted
    for name, value in found.items():
        assert float(value) == pytest.approx(float(expected[name]), rel=1e-4), name


@pytest.mark.parametrize("stage", ["detection", "masks", "joint"])
def test_a_batch_in_parts_has_the_losses_of_the_batch_in_one_piece(stage: Any) -> None:
    trained = module(replace(FAST, stage=stage))
    trained.eval()
    whole, parts = trained.gradients(batch()), trained.gradients(batch(parts=2))
    assert whole.keys() == parts.keys()
    for name in ("loss", "loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice"):
        if name in whole:
            assert float(parts[name]) == pytest.approx(float(whole[name]), rel=1e-4), name


@pytest.mark.parametrize("stage", ["detection", "masks", "joint"])
def test_losses_are_float32_where_the_network_runs_in_bfloat16(stage: Any) -> None:
    trained = module(replace(FAST, stage=stage))
    seen: list[torch.dtype] = []
    detector_of(trained.network).input_proj.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    (part,) = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(trained, part)
    assert seen == [torch.bfloat16], "the network did not run in bfloat16, so the test shows nothing"
    assert {value.dtype for value in losses.values()} == {torch.float32}
    weighted_sum(losses).backward()
    assert all(parameter.grad.isfinite().all() for parameter in trained.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("stage", ["detection", "masks", "joint"])
def test_a_batch_without_an_object_can_be_learnt_from(stage: Any) -> None:
    trained = module(replace(FAST, stage=stage))
    figures = trained.gradients(collate([item((64, 48), [], seed=1), item((32, 40), [], seed=2)]))
    assert math.isfinite(float(figures["loss"]))
    assert all(parameter.grad.isfinite().all() for parameter in trained.parameters() if parameter.grad is not None)
    # Otherwise processes would wait for gradients that never come.
    learning = [name for name, parameter in trained.named_parameters() if parameter.requires_grad]
    assert learning == [name for name, parameter in trained.named_parameters() if parameter.grad is not None]


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
        trained.gradients(batch())


def test_the_gradient_is_clipped_to_the_norm_that_was_asked_for() -> None:
    for clip, expected in ((0.1, 0.1), (0.0, None)):
        trained = module(replace(FAST, clip=clip))
        trained.gradients(batch())
        optimizer, _ = optimizer_and_schedule(trained)
        trained.on_before_optimizer_step(optimizer)
        norm = float(torch.nn.utils.get_total_norm([p.grad for p in trained.parameters() if p.grad is not None]))
        assert norm == pytest.approx(expected, rel=1e-3) if expected else norm > 0.2


def test_a_file_to_resume_from_carries_the_settings() -> None:
    checkpoint: dict[str, Any] = {}
    module(FAST).on_save_checkpoint(checkpoint)
    assert TrainConfig(**checkpoint[SETTINGS_KEY]) == FAST

"""Transforms change picture, boxes and masks alike, and leave what the network and its losses take."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from model.data.formats.coco_dataset import make_target
from model.data.formats.coco_files import ImageRecord, Target
from model.data.formats.mask_layers import MaskLayers, layers_of, masks_of, tight_boxes_xyxy
from model.data.transforms import PUBLISHED, Augmentation, Crop, TrainTransform, train_transform
from model.runtime.resize_rule import Bounds, Edges, FixedSize, OwnSize, ResizeRule

SIDES = {"height": st.integers(24, 90), "width": st.integers(24, 90), "seed": st.integers(0, 2**32 - 1)}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flipping() -> torch.Generator:
    """Its first draw is below a half."""
    return next(rng(seed) for seed in range(99) if float(torch.rand((), generator=rng(seed))) < 0.5)


def make_item(height: int, width: int, seed: int) -> tuple[Tensor, Target]:
    """A picture whose three channels show three rectangles, which are its objects."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros((3, height, width), dtype=torch.uint8)
    for mask in masks:
        top, left = (int(torch.randint(0, side - 12, (), generator=generator)) for side in (height, width))
        tall, wide = (int(torch.randint(8, 13, (), generator=generator)) for _ in range(2))
        mask[top : top + tall, left : left + wide] = 1
    layers = layers_of(masks.numpy(), (height, width))
    record = ImageRecord(5, "a.png", height, width)
    target = make_target(record, np.array([4, 2, 9]), tight_boxes_xyxy(layers), layers)
    target["isthing"] = torch.tensor([True, False, True])
    return tv_tensors.Image(masks * 255), target


def tight_xyxy(target: Target) -> Tensor:
    """Boxes in pixels around what is left of the masks."""
    return tight_boxes_xyxy(layers_of(masks_of(target).numpy(), (1, 1)))


def boxes_xyxy(target: Target) -> Tensor:
    """The boxes in pixels of the transformed picture."""
    height, width = target["size"].tolist()
    cx, cy, w, h = (target["boxes"] * torch.tensor([width, height, width, height])).unbind(dim=1)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=1)


@pytest.mark.parametrize("rule", [FixedSize(40, 60), Bounds(40, 60), OwnSize()])
def test_a_rule_without_edges_is_followed_as_it_is_and_draws_no_sizes(rule: ResizeRule) -> None:
    assert train_transform(rule).rules == (rule,)
    names: tuple[Augmentation, ...] = ("multi-scale", "crop")
    for name in names:
        with pytest.raises(ValueError, match="give --shortest-edge and --longest-edge, or leave both out"):
            train_transform(rule, [name])


@settings(max_examples=40, deadline=None)
@given(**SIDES)
def test_a_flip_moves_picture_boxes_and_masks_alike(height: int, width: int, seed: int) -> None:
    image, target = make_item(height, width, seed)
    rule = Edges(min(height, width), max(height, width))
    flipped, after = TrainTransform([rule])(image, target, flipping())
    assert torch.equal(flipped, image.flip(-1).as_subclass(Tensor))
    assert torch.equal(masks_of(after), masks_of(target).flip(-1))
    torch.testing.assert_close(boxes_xyxy(after), tight_xyxy(after))


@settings(max_examples=40, deadline=None)
@given(**SIDES, edge=st.integers(20, 120))
def test_a_resize_keeps_boxes_around_masks_and_objects(height: int, width: int, seed: int, edge: int) -> None:
    image, target = make_item(height, width, seed)
    rule = Edges(edge, 2 * edge)
    resized, after = TrainTransform([rule], ())(image, target, rng(seed))
    assert tuple(resized.shape[1:]) == tuple(after["size"].tolist()) == rule.size(height, width)
    assert after["orig_size"].tolist() == [height, width]
    tight = tight_xyxy(after)
    assert float((boxes_xyxy(after) - tight).abs().max()) <= max(1.0, edge / min(height, width))
    # Where the picture is full, so is the mask; they were the same before.
    assert bool(masks_of(after)[resized == 255].all())


@settings(max_examples=40, deadline=None)
@given(**SIDES)
def test_what_leaves_is_what_the_losses_take(height: int, width: int, seed: int) -> None:
    transform = train_transform(Edges(64, 107), PUBLISHED)
    image, after = transform(*make_item(height, width, seed), rng(seed))
    assert type(image) is Tensor
    assert all(type(value) is Tensor for value in after.values())
    assert image.dtype == torch.uint8
    assert after["boxes"].dtype == torch.float32
    assert after["mask_ids"].dtype == torch.uint8
    assert after["mask_values"].dtype == torch.int64
    count = len(after["labels"])
    assert len(after["boxes"]) == len(after["mask_values"]) == len(after["isthing"]) == count
    assert after["mask_ids"].shape[1:] == image.shape[1:]
    assert min(image.shape[1:]) <= 64
    assert bool((after["boxes"][:, 2:] > 0).all())
    assert float(boxes_xyxy(after).min() if count else 0) >= -1e-3
    assert bool(masks_of(after).flatten(1).any(1).all())


@settings(max_examples=40, deadline=None)
@given(**SIDES)
def test_a_crop_clips_boxes_and_drops_what_lies_outside(height: int, width: int, seed: int) -> None:
    generator = rng(seed)
    image, target = make_item(height, width, seed)
    transform = TrainTransform([Edges(48, 200)], (), crop=Crop((40,), 16, 24))
    for _ in range(4):
        _, after = transform(image, target, generator)
        kept = [[4, 2, 9].index(label) for label in after["labels"].tolist()]
        assert after["isthing"].tolist() == [bool(target["isthing"][k]) for k in kept]
        tight = tight_xyxy(after)
        scale = max(after["size"].tolist()) / 16 * 2  # a pixel of the crop, and one of the resize before it
        assert float((boxes_xyxy(after) - tight).abs().max() if kept else 0) <= scale


def overlapping(height: int, width: int, seed: int, count: int = 6) -> tuple[Target, Target]:
    """The same objects twice: their masks in as few layers as possible, and each in full."""
    masks = torch.zeros((count, height, width), dtype=torch.bool)
    generator = rng(seed)
    for mask in masks:
        top, left = (int(torch.randint(0, side, (), generator=generator)) for side in (height, width))
        mask[top : top + height // 2, left : left + width // 2] = True
        mask &= torch.rand((height, width), generator=generator) < 0.9
    layers = layers_of(masks.numpy(), (height, width))
    values = torch.arange(1, count + 1)
    full = MaskLayers((masks * values.view(-1, 1, 1)).to(torch.uint8), values)
    record, labels, boxes = ImageRecord(5, "a.png", height, width), np.arange(count), tight_boxes_xyxy(layers)
    return make_target(record, labels, boxes, layers), make_target(record, labels, boxes, full)


@settings(max_examples=60, deadline=None)
@given(**SIDES, augment=st.sets(st.sampled_from(get_args(Augmentation))))
def test_layers_become_what_full_masks_become(height: int, width: int, seed: int, augment: set[Augmentation]) -> None:
    transform = train_transform(Edges(64, 107), augment)
    image = tv_tensors.Image(torch.zeros((3, height, width), dtype=torch.uint8))
    layered, full = (transform(image, target, rng(seed))[1] for target in overlapping(height, width, seed))
    assert torch.equal(masks_of(layered), masks_of(full))
    for key in ("labels", "boxes", "size", "mask_values"):
        assert torch.equal(layered[key], full[key])


@settings(max_examples=60, deadline=None)
@given(**SIDES, edge=st.integers(10, 120), flip=st.booleans())
def test_masks_are_flipped_and_resized_as_torchvision_does_it(
    height: int, width: int, seed: int, edge: int, flip: bool
) -> None:
    target, full = overlapping(height, width, seed)
    rule = Edges(edge, 2 * edge)
    image = tv_tensors.Image(torch.zeros((3, height, width), dtype=torch.uint8))
    _, after = TrainTransform([rule], ["flip"] if flip else [])(image, target, flipping())
    masks = tv_tensors.Mask(masks_of(full))
    masks = F.horizontal_flip(masks) if flip else masks
    expected = F.resize(masks, list(rule.size(height, width)), interpolation=InterpolationMode.NEAREST)
    kept = [int(label) for label in after["labels"]]
    assert torch.equal(masks_of(after), expected[kept].as_subclass(Tensor))
    gone = [k for k in range(len(expected)) if k not in kept]
    assert not bool(expected[gone].any())


def test_the_published_augmentation_comes_out_at_the_published_size() -> None:
    transform = train_transform(Edges(800, 1333), PUBLISHED)
    assert list(transform.rules) == [Edges(edge, 1333) for edge in range(480, 801, 32)]
    assert transform.crop == Crop((400, 500, 600), 384, 600)
    assert transform.augment == set(PUBLISHED)


def test_one_size_and_a_flip_is_all_unless_more_is_asked_for() -> None:
    transform = train_transform(Edges(128, 213))
    assert transform.rules == (Edges(128, 213),)
    assert transform.crop is None


def test_half_of_the_pictures_are_flipped() -> None:
    generator = rng()
    image, target = make_item(32, 40, seed=1)
    transform = TrainTransform([Edges(32, 64)])
    plain = image.as_subclass(Tensor)
    flips = sum(not torch.equal(transform(image, target, generator)[0], plain) for _ in range(200))
    assert 70 <= flips <= 130


def test_a_picture_without_objects_stays_one() -> None:
    layers = layers_of([], (30, 40))
    target = make_target(ImageRecord(1, "a.png", 30, 40), np.array([]), torch.zeros((0, 4)), layers)
    picture = tv_tensors.Image(torch.zeros((3, 30, 40), dtype=torch.uint8))
    image, after = TrainTransform([Edges(20, 40)], get_args(Augmentation))(picture, target, rng())
    assert after["boxes"].shape == (0, 4)
    assert masks_of(after).shape == (0, *image.shape[1:])


def test_an_input_is_left_as_it_was() -> None:
    image, target = make_item(40, 50, seed=3)
    before = {key: value.clone() for key, value in target.items()}
    TrainTransform([Edges(20, 40)], get_args(Augmentation))(image, target, rng())
    assert all(torch.equal(target[key], value) for key, value in before.items())


def test_boxes_that_were_transformed_already_are_refused() -> None:
    image, target = TrainTransform([Edges(20, 40)])(*make_item(40, 50, seed=3), rng())
    with pytest.raises(TypeError, match="BoundingBoxes"):
        TrainTransform([Edges(20, 40)])(image, target, rng())


def test_a_transform_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        TrainTransform([])


@settings(max_examples=40, deadline=None)
@given(**SIDES, seed_of_angle=st.integers(0, 1000), with_masks=st.booleans())
def test_a_rotated_box_encloses_the_rotated_mask(
    height: int, width: int, seed: int, seed_of_angle: int, with_masks: bool
) -> None:
    image, target = make_item(height, width, seed)
    transform = TrainTransform([OwnSize()], ["rotation"])
    rotated, after = transform(image, target, rng(seed_of_angle))
    masks = masks_of(after)
    if with_masks:
        torch.testing.assert_close(boxes_xyxy(after), tight_xyxy(after), atol=1e-3, rtol=0)
    else:
        without = {name: value for name, value in target.items() if not name.startswith("mask_")}
        _, boxed = transform(image, without, rng(seed_of_angle))
        labels = boxed["labels"].tolist()
        boxes = boxes_xyxy(boxed)[[labels.index(label) for label in after["labels"].tolist()]]
        tight = tight_xyxy(after)
        assert bool((boxes[:, :2] <= tight[:, :2] + 0.5).all())
        assert bool((boxes[:, 2:] >= tight[:, 2:] - 0.5).all())
    # What is inside of a mask shows the object's own channel.
    for channel, mask in zip([[4, 2, 9].index(label) for label in after["labels"].tolist()], masks, strict=True):
        around = functional.pad(mask.float(), (1, 1, 1, 1))[None]
        inside = -functional.max_pool2d(-around, 3, 1)[0] > 0
        assert bool((rotated[channel][inside] > 200).all())


def test_a_vertical_flip_moves_picture_boxes_and_masks_alike() -> None:
    image, target = make_item(40, 50, seed=3)
    flipped, after = TrainTransform([OwnSize()], ["vertical-flip"])(image, target, flipping())
    assert torch.equal(flipped, image.flip(-2).as_subclass(Tensor))
    assert torch.equal(masks_of(after), masks_of(target).flip(-2))
    torch.testing.assert_close(boxes_xyxy(after), tight_xyxy(after))


def test_colours_change_and_nothing_else() -> None:
    image, target = make_item(40, 50, seed=3)
    image = tv_tensors.Image(image // 2 + torch.arange(50, dtype=torch.uint8))
    transform = TrainTransform([OwnSize()], ["colour"])
    found = [transform(image, target, rng(seed)) for seed in range(8)]
    assert len({tuple(changed.flatten().tolist()) for changed, _ in found}) > 4
    for changed, after in found:
        assert changed.dtype == torch.uint8
        assert torch.equal(masks_of(after), masks_of(target))
        torch.testing.assert_close(boxes_xyxy(after), tight_xyxy(after))


def test_large_scale_jitter_shows_parts_no_larger_than_the_size_with_their_boxes() -> None:
    transform = TrainTransform([FixedSize(60, 80)], ["large-scale-jitter"])
    sizes = set()
    for seed in range(30):
        shown, after = transform(*make_item(40, 50, seed=3), rng(seed))
        sizes.add(tuple(shown.shape[1:]))
        assert shown.shape[1] <= 60
        assert shown.shape[2] <= 80
        torch.testing.assert_close(boxes_xyxy(after), tight_xyxy(after), atol=3.0, rtol=0)
    assert (60, 80) in sizes
    assert min(height for height, _ in sizes) < 20


@pytest.mark.parametrize("name", get_args(Augmentation))
def test_an_augmentation_depends_on_nothing_but_its_own_random_numbers(name: Augmentation) -> None:
    transform = train_transform(Edges(64, 107), [name])
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        image, target = transform(*make_item(40, 50, seed=3), rng(7))
        found.append((image, target["boxes"], target["mask_ids"]))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))

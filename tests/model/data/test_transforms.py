"""Transforms change picture, boxes and masks alike, and leave what the network and its losses take."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors

from model.data.coco_files import ImageRecord, Target, make_target
from model.data.coco_panoptic import masks_to_boxes_xyxy
from model.data.transforms import Crop, EvalTransform, TrainTransform, train_transform
from model.runtime.preprocess import ResizeRule, resize

SIDES = {"height": st.integers(24, 90), "width": st.integers(24, 90), "seed": st.integers(0, 2**32 - 1)}


def make_item(height: int, width: int, seed: int) -> tuple[Tensor, Target]:
    """A picture whose three channels show three rectangles, which are its objects."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros((3, height, width), dtype=torch.uint8)
    for mask in masks:
        top, left = (int(torch.randint(0, side - 12, (), generator=generator)) for side in (height, width))
        tall, wide = (int(torch.randint(8, 13, (), generator=generator)) for _ in range(2))
        mask[top : top + tall, left : left + wide] = 1
    record = ImageRecord(5, "a.png", height, width)
    target = make_target(record, [4, 2, 9], masks_to_boxes_xyxy(masks), masks)
    target["isthing"] = torch.tensor([True, False, True])
    return tv_tensors.Image(masks * 255), target


def boxes_xyxy(target: Target) -> Tensor:
    """The boxes in pixels of the transformed picture."""
    height, width = target["size"].tolist()
    cx, cy, w, h = (target["boxes"] * torch.tensor([width, height, width, height])).unbind(dim=1)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=1)


@settings(max_examples=40, deadline=None)
@given(**SIDES)
def test_a_flip_moves_picture_boxes_and_masks_alike(height: int, width: int, seed: int) -> None:
    image, target = make_item(height, width, seed)
    rule = ResizeRule(min(height, width), max(height, width))
    flipped, after = TrainTransform([rule], flip=1.0)(image, target)
    assert torch.equal(flipped, image.flip(-1).as_subclass(Tensor))
    assert torch.equal(after["masks"], target["masks"].flip(-1).as_subclass(Tensor).bool())
    torch.testing.assert_close(boxes_xyxy(after), masks_to_boxes_xyxy(after["masks"].to(torch.uint8)))


@settings(max_examples=40, deadline=None)
@given(**SIDES, edge=st.integers(20, 120))
def test_a_resize_keeps_boxes_around_masks_and_objects(height: int, width: int, seed: int, edge: int) -> None:
    image, target = make_item(height, width, seed)
    rule = ResizeRule(edge, 2 * edge)
    resized, after = TrainTransform([rule])(image, target)
    assert tuple(resized.shape[1:]) == tuple(after["size"].tolist()) == rule.size(height, width)
    assert after["orig_size"].tolist() == [height, width]
    tight = masks_to_boxes_xyxy(after["masks"].to(torch.uint8))
    assert float((boxes_xyxy(after) - tight).abs().max()) <= max(1.0, edge / min(height, width))
    # Where the picture is full, so is the mask; they were the same before.
    assert bool(after["masks"][resized == 255].all())


@settings(max_examples=40, deadline=None)
@given(**SIDES)
def test_what_leaves_is_what_the_losses_take(height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    image, target = make_item(height, width, seed)
    image, after = train_transform(ResizeRule(64, 107), multi_scale=True, crop=True)(image, target)
    assert type(image) is Tensor
    assert all(type(value) is Tensor for value in after.values())
    assert image.dtype == torch.uint8
    assert after["boxes"].dtype == torch.float32
    assert after["masks"].dtype == torch.bool
    count = len(after["labels"])
    assert len(after["boxes"]) == len(after["masks"]) == len(after["isthing"]) == count
    assert after["masks"].shape[1:] == image.shape[1:]
    assert min(image.shape[1:]) <= 64
    assert bool((after["boxes"][:, 2:] > 0).all())
    assert float(boxes_xyxy(after).min() if count else 0) >= -1e-3
    assert bool(after["masks"].flatten(1).any(1).all())


@settings(max_examples=40, deadline=None)
@given(**SIDES)
def test_a_crop_clips_boxes_and_drops_what_lies_outside(height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    image, target = make_item(height, width, seed)
    transform = TrainTransform([ResizeRule(48, 200)], crop=Crop((40,), 16, 24), flip=0.0)
    for _ in range(4):
        _, after = transform(image, target)
        kept = [[4, 2, 9].index(label) for label in after["labels"].tolist()]
        assert after["isthing"].tolist() == [bool(target["isthing"][k]) for k in kept]
        tight = masks_to_boxes_xyxy(after["masks"].to(torch.uint8))
        scale = max(after["size"].tolist()) / 16 * 2  # a pixel of the crop, and one of the resize before it
        assert float((boxes_xyxy(after) - tight).abs().max() if kept else 0) <= scale


@settings(max_examples=20, deadline=None)
@given(**SIDES, edge=st.integers(20, 120))
def test_evaluation_sees_the_pixels_that_serving_sees(height: int, width: int, seed: int, edge: int) -> None:
    image, target = make_item(height, width, seed)
    rule = ResizeRule(edge, 2 * edge)
    seen, after = EvalTransform(rule)(image, target)
    served = resize(image.permute(1, 2, 0).contiguous().numpy(), rule)
    assert torch.equal(seen.permute(1, 2, 0), torch.tensor(served))
    assert after["masks"].shape[1:] == seen.shape[1:]
    assert after["labels"].tolist() == [4, 2, 9]


def test_the_published_augmentation_comes_out_at_the_published_size() -> None:
    transform = train_transform(ResizeRule(800, 1333), multi_scale=True, crop=True)
    assert [rule.shortest_edge for rule in transform.rules] == list(range(480, 801, 32))
    assert {rule.longest_edge for rule in transform.rules} == {1333}
    assert transform.crop == Crop((400, 500, 600), 384, 600)
    assert transform.flip == 0.5


def test_one_size_and_a_flip_is_all_unless_more_is_asked_for() -> None:
    transform = train_transform(ResizeRule(128, 213))
    assert transform.rules == (ResizeRule(128, 213),)
    assert transform.crop is None


def test_half_of_the_pictures_are_flipped() -> None:
    torch.manual_seed(0)
    image, target = make_item(32, 40, seed=1)
    transform = TrainTransform([ResizeRule(32, 64)])
    flips = sum(not torch.equal(transform(image, target)[0], image.as_subclass(Tensor)) for _ in range(200))
    assert 70 <= flips <= 130


def test_a_picture_without_objects_stays_one() -> None:
    record = ImageRecord(1, "a.png", 30, 40)
    target = make_target(record, [], torch.zeros((0, 4)), torch.zeros((0, 30, 40), dtype=torch.uint8))
    image, after = TrainTransform([ResizeRule(20, 40)], flip=1.0)(
        tv_tensors.Image(torch.zeros((3, 30, 40), dtype=torch.uint8)), target
    )
    assert image.shape == (3, 20, 26)
    assert after["boxes"].shape == (0, 4)
    assert after["masks"].shape == (0, 20, 26)


def test_an_input_is_left_as_it_was() -> None:
    image, target = make_item(40, 50, seed=3)
    before = {key: value.clone() for key, value in target.items()}
    TrainTransform([ResizeRule(20, 40)], flip=1.0)(image, target)
    assert all(torch.equal(target[key], value) for key, value in before.items())


def test_boxes_that_were_transformed_already_are_refused() -> None:
    image, target = TrainTransform([ResizeRule(20, 40)])(*make_item(40, 50, seed=3))
    with pytest.raises(TypeError, match="BoundingBoxes"):
        TrainTransform([ResizeRule(20, 40)])(image, target)


def test_a_transform_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        TrainTransform([])

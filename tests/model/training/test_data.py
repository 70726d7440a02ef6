"""What a picture becomes in training depends on its draw and on nothing else, and how much of a batch is padding."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from model.data.collate import AspectRatioBatchSampler, Draw, TrainingBatch, collate
from model.data.formats.coco_files import Target
from model.data.formats.coco_panoptic import CocoPanoptic
from model.data.transforms import PUBLISHED, train_transform
from model.runtime.resize_rule import Edges
from model.training.data import TrainingSet, padding_ratio, padding_ratios

Item = tuple[Tensor, Target]

RULE = Edges(40, 70)
SIZES = st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def training_set(shapes_root: Path) -> TrainingSet:
    data = CocoPanoptic(shapes_root / "train2017", shapes_root / "annotations" / "panoptic_train2017.json")
    return TrainingSet(data, train_transform(Edges(64, 107), PUBLISHED))


def same(one: Item, other: Item) -> bool:
    return torch.equal(one[0], other[0]) and all(torch.equal(one[1][key], other[1][key]) for key in one[1] | other[1])


def as_list(items: Sequence[Item]) -> list[Item]:
    return list(items)


@settings(max_examples=40)
@given(index=st.integers(0, 23), seed=st.integers(0, 2**63 - 1), elsewhere=st.integers(0, 2**32 - 1))
def test_an_item_depends_on_its_draw_only(training_set: TrainingSet, index: int, seed: int, elsewhere: int) -> None:
    item = training_set[Draw(index, seed)]
    for set_seed in (torch.manual_seed, np.random.seed, random.seed):
        set_seed(elsewhere)
    training_set[Draw(index, elsewhere)]
    assert same(training_set[Draw(index, seed)], item)


def test_global_random_numbers_are_left_as_they_were(training_set: TrainingSet) -> None:
    before = torch.get_rng_state(), random.getstate()
    np.random.seed(4)
    expected = np.random.random()
    np.random.seed(4)
    training_set[Draw(3, 5)]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.random() == expected


def test_another_seed_is_another_augmentation(training_set: TrainingSet) -> None:
    items = [training_set[Draw(3, seed)] for seed in range(20)]
    assert sum(not same(items[0], item) for item in items) >= 15
    assert len({item[0].shape for item in items}) > 3


def test_the_number_of_workers_changes_nothing(training_set: TrainingSet) -> None:
    sizes = training_set.data.sizes
    runs: list[list[Item]] = []
    for workers in (0, 1, 2):
        torch.manual_seed(workers)
        sampler = AspectRatioBatchSampler(sizes, 4, seed=2)
        loader = DataLoader(training_set, batch_sampler=sampler, collate_fn=as_list, num_workers=workers)
        runs.append([item for batch in loader for item in batch])
    assert len(runs[0]) == len(training_set) == 24
    for run in runs[1:]:
        assert all(same(one, other) for one, other in zip(run, runs[0], strict=True))


def test_nothing_is_sent_along_that_was_cropped_away(training_set: TrainingSet) -> None:
    for seed in range(12):
        image, target = training_set[Draw(seed, seed)]
        for tensor in (image, target["mask_ids"]):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_a_loader_gives_batches_with_little_padding(shapes_root: Path) -> None:
    data = CocoPanoptic(shapes_root / "train2017", shapes_root / "annotations" / "panoptic_train2017.json")
    sampler = AspectRatioBatchSampler(data.sizes, 4, seed=1)
    training_set = TrainingSet(data, train_transform(Edges(64, 107)))
    loader = DataLoader(training_set, batch_sampler=sampler, collate_fn=collate)
    batches: list[TrainingBatch] = [part for parts in loader for part in parts]
    assert sum(len(batch.targets) for batch in batches) == len(data)
    padding = torch.cat([batch.padding_mask.float().mean((1, 2)) for batch in batches])
    assert float(padding.mean()) < 0.2
    for batch in batches:
        for target in batch.targets:
            assert bool(((target["boxes"] >= 0) & (target["boxes"] <= 1)).all())


@settings(max_examples=40)
@given(sizes=SIZES, batch_size=st.integers(1, 4))
def test_the_ratio_is_that_of_the_padding_masks(sizes: list[tuple[int, int]], batch_size: int) -> None:
    draws = list(AspectRatioBatchSampler(sizes, batch_size))
    masks = []
    for batch in draws:
        shapes = [(3, *RULE.size(*sizes[draw.index])) for draw in batch]
        items: list[tuple[Tensor, Target]] = [(torch.zeros(shape, dtype=torch.uint8), {}) for shape in shapes]
        masks.append(collate(items)[0].padding_mask)
    padding, total = sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)
    assert padding_ratio(sizes, [RULE], draws) == pytest.approx(padding / total)


def test_several_rules_are_all_used() -> None:
    rules = [Edges(32, 64), Edges(64, 64)]
    alone = [[Draw(0, seed)] for seed in range(4)]
    assert padding_ratio([(50, 50)], rules, alone) == 0
    together = [[Draw(0, 0), Draw(0, 1)]]
    assert padding_ratio([(50, 50)], rules, together) == pytest.approx(1 - (32 * 32 + 64 * 64) / (2 * 64 * 64))


def test_grouping_by_aspect_ratio_saves_padding() -> None:
    ratios = padding_ratios([(480, 640), (640, 480)] * 40, [Edges(96, 160)], 4)
    assert ratios.grouped == 0
    assert ratios.ungrouped > 0.1
    assert str(ratios) == f"padding: 0.0% of the canvas ({ratios.ungrouped:.1%} without grouping by aspect ratio)"


def test_nothing_has_no_padding_to_measure() -> None:
    with pytest.raises(ValueError, match="no batch"):
        padding_ratio([(5, 5)], [RULE], [])
    with pytest.raises(ValueError, match="resize rule"):
        padding_ratios([(5, 5)], [], 1)

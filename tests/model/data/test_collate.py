"""Batches: what shares a canvas, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.data import _set_sampler_epoch
from torch.utils.data import DataLoader, TensorDataset

from model.data.coco_panoptic import CocoPanoptic
from model.data.collate import AspectRatioBatchSampler, TrainingBatch, collate
from model.data.transforms import train_transform
from model.runtime.preprocess import ResizeRule

SIZES = st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, batch_size=st.integers(1, 9), seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_every_index_comes_once_an_epoch(sizes: list[tuple[int, int]], batch_size: int, seed: int, epoch: int) -> None:
    sampler = AspectRatioBatchSampler(sizes, batch_size, seed=seed)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))
    assert len(batches) == len(sampler)
    assert sum(len(batch) != batch_size for batch in batches) <= 1
    assert batches == list(sampler)


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 99))
def test_dropping_the_last_batch_leaves_full_ones_only(sizes: list[tuple[int, int]], seed: int) -> None:
    batch_size = max(1, len(sizes) // 3)
    sampler = AspectRatioBatchSampler(sizes, batch_size, seed=seed, drop_last=True)
    batches = list(sampler)
    assert len(batches) == len(sampler) == len(sizes) // batch_size
    assert all(len(batch) == batch_size for batch in batches)


def test_another_epoch_or_seed_is_another_order() -> None:
    sizes = [(100, 100)] * 64
    sampler = AspectRatioBatchSampler(sizes, 8, seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(AspectRatioBatchSampler(sizes, 8, seed=1)) != first
    assert list(AspectRatioBatchSampler(sizes, 8, seed=0)) == first


def test_without_shuffling_the_order_is_that_of_the_data() -> None:
    assert list(AspectRatioBatchSampler([(9, 9)] * 5, 2, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_pictures_of_one_aspect_ratio_go_together() -> None:
    sizes = [(480, 640), (640, 480)] * 40
    batches = list(AspectRatioBatchSampler(sizes, 8))
    assert all(len({sizes[index] for index in batch}) == 1 for batch in batches)


@pytest.mark.parametrize(("sizes", "batch_size", "drop_last"), [(0, 4, False), (3, 0, False), (3, 4, True)])
def test_an_epoch_without_a_batch_is_refused(sizes: int, batch_size: int, drop_last: bool) -> None:
    with pytest.raises(ValueError, match="do not make a batch"):
        AspectRatioBatchSampler([(5, 5)] * sizes, batch_size, drop_last=drop_last)


def test_lightning_sets_the_epoch() -> None:
    sampler = AspectRatioBatchSampler([(5, 5)] * 8, 4)
    loader: DataLoader[tuple[torch.Tensor, ...]] = DataLoader(TensorDataset(torch.zeros(8)), batch_sampler=sampler)
    _set_sampler_epoch(loader, 7)
    assert sampler.epoch == 7


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4))
def test_a_batch_is_its_pictures_top_left_and_padding_elsewhere(sizes: list[tuple[int, int]]) -> None:
    items = [(torch.full((3, *size), 1 + i, dtype=torch.uint8), {"k": torch.tensor(i)}) for i, size in enumerate(sizes)]
    batch = collate(items)
    height, width = batch.images.shape[-2:]
    assert height % 32 == width % 32 == 0
    assert height - max(h for h, _ in sizes) < 32
    assert width - max(w for _, w in sizes) < 32
    assert batch.images.dtype == torch.uint8
    assert batch.padding_mask.shape == (len(sizes), height, width)
    for i, (h, w) in enumerate(sizes):
        assert bool((batch.images[i, :, :h, :w] == 1 + i).all())
        assert not bool(batch.padding_mask[i, :h, :w].any())
        assert int(batch.padding_mask[i].sum()) == height * width - h * w
        assert int(batch.images[i].ne(0).sum()) == 3 * h * w
    assert [int(target["k"]) for target in batch.targets] == list(range(len(sizes)))


def test_no_pictures_make_no_batch() -> None:
    with pytest.raises(ValueError, match="at least one"):
        collate([])


def test_a_loader_gives_batches_with_little_padding(shapes_root: Path) -> None:
    data = CocoPanoptic(
        shapes_root / "train2017",
        shapes_root / "annotations" / "panoptic_train2017.json",
        transform=train_transform(ResizeRule(64, 107)),
    )
    sampler = AspectRatioBatchSampler(data.sizes, 4, seed=1)
    loader = DataLoader(data, batch_sampler=sampler, collate_fn=collate)
    batches: list[TrainingBatch] = list(loader)
    assert sum(len(batch.targets) for batch in batches) == len(data)
    padding = torch.cat([batch.padding_mask.float().mean((1, 2)) for batch in batches])
    assert float(padding.mean()) < 0.2
    for batch in batches:
        for target in batch.targets:
            assert bool(((target["boxes"] >= 0) & (target["boxes"] <= 1)).all())

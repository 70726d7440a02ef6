"""Batches: what shares a canvas, and in which order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.data import _set_sampler_epoch
from torch.utils.data import DataLoader, TensorDataset

from model.data.collate import AspectRatioBatchSampler, Draw, collate

SIZES = st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=1, max_size=60)


def indices_of(batches: list[list[Draw]]) -> list[list[int]]:
    return [[draw.index for draw in batch] for batch in batches]


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, batch_size=st.integers(1, 9), seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_every_index_comes_once_an_epoch(sizes: list[tuple[int, int]], batch_size: int, seed: int, epoch: int) -> None:
    sampler = AspectRatioBatchSampler(sizes, batch_size, seed=seed)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(draw.index for batch in batches for draw in batch) == list(range(len(sizes)))
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


def test_pictures_of_one_aspect_ratio_go_together() -> None:
    sizes = [(480, 640), (640, 480)] * 40
    batches = list(AspectRatioBatchSampler(sizes, 8))
    assert all(len({sizes[draw.index] for draw in batch}) == 1 for batch in batches)


@pytest.mark.parametrize(("sizes", "batch_size", "drop_last"), [(0, 4, False), (3, 0, False), (3, 4, True)])
def test_an_epoch_without_a_batch_is_refused(sizes: int, batch_size: int, drop_last: bool) -> None:
    with pytest.raises(ValueError, match="do not make a batch"):
        AspectRatioBatchSampler([(5, 5)] * sizes, batch_size, drop_last=drop_last)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=12, max_size=60),
    processes=st.sampled_from([1, 2, 3, 4, 6, 12]),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
)
def test_batches_of_the_world_are_the_same_for_any_number_of_processes(
    sizes: list[tuple[int, int]], processes: int, seed: int, epoch: int
) -> None:
    def batches(process: int, of: int) -> list[list[Draw]]:
        sampler = AspectRatioBatchSampler(sizes, 12, seed=seed, drop_last=True, process=process, processes=of)
        sampler.set_epoch(epoch)
        assert len(sampler) == len(sizes) // 12
        return list(sampler)

    whole = batches(0, 1)
    shares = [batches(process, processes) for process in range(processes)]
    assert {len(batch) for share in shares for batch in share} == {12 // processes}
    for process, share in enumerate(shares):
        assert share == [batch[process::processes] for batch in whole]


@settings(max_examples=60)
@given(sizes=SIZES, batch_size=st.integers(1, 9), drop_last=st.booleans(), start=st.integers(0, 40))
def test_a_later_start_gives_exactly_the_rest_of_the_run(
    sizes: list[tuple[int, int]], batch_size: int, drop_last: bool, start: int
) -> None:
    def run(start: int, epochs: range) -> list[list[Draw]]:
        sampler = AspectRatioBatchSampler(sizes, batch_size, seed=5, drop_last=drop_last, start=start)
        assert len(sampler) == length
        batches = []
        for epoch in epochs:
            sampler.set_epoch(epoch)
            batches += list(sampler)
        return batches

    batch_size = min(batch_size, len(sizes))
    length = len(AspectRatioBatchSampler(sizes, batch_size, drop_last=drop_last))
    first = start // length
    assert run(start, range(first, first + 3)) == run(0, range(first + 3))[start:]


@settings(max_examples=40)
@given(sizes=SIZES, others=SIZES, epoch=st.integers(0, 9))
def test_the_seed_of_a_draw_is_that_of_its_place_in_the_epoch(
    sizes: list[tuple[int, int]], others: list[tuple[int, int]], epoch: int
) -> None:
    def seeds(sizes: list[tuple[int, int]]) -> list[int]:
        sampler = AspectRatioBatchSampler(sizes, 1, seed=3)
        sampler.set_epoch(epoch)
        return [draw.seed for batch in sampler for draw in batch]

    ours, theirs = seeds(sizes), seeds(others)
    common = min(len(ours), len(theirs))
    assert ours[:common] == theirs[:common]
    assert len(set(ours)) == len(ours)


def test_another_epoch_or_seed_has_other_seeds() -> None:
    def seeds(seed: int, epoch: int) -> set[int]:
        sampler = AspectRatioBatchSampler([(9, 9)] * 50, 5, seed=seed)
        sampler.set_epoch(epoch)
        return {draw.seed for batch in sampler for draw in batch}

    assert len(seeds(0, 0) | seeds(0, 1) | seeds(1, 0)) == 150


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"processes": 3}, "3 processes cannot share a batch of 4"),
        ({"processes": 2}, "2 processes cannot share a batch of 1"),
        ({"processes": 2, "process": 2}, "no process 2 of 2"),
        ({"process": -1}, "no process -1 of 1"),
        ({"start": -1}, "no batch -1"),
    ],
)
def test_what_cannot_be_shared_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AspectRatioBatchSampler([(5, 5)] * 9, 4, **options)


def test_lightning_sets_the_epoch() -> None:
    sampler = AspectRatioBatchSampler([(5, 5)] * 8, 4)
    loader: DataLoader[tuple[torch.Tensor, ...]] = DataLoader(TensorDataset(torch.zeros(8)), batch_sampler=sampler)
    _set_sampler_epoch(loader, 7)
    assert sampler.epoch == 7


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4))
def test_a_batch_is_its_pictures_top_left_and_padding_elsewhere(sizes: list[tuple[int, int]]) -> None:
    items = [(torch.full((3, *size), 1 + i, dtype=torch.uint8), {"k": torch.tensor(i)}) for i, size in enumerate(sizes)]
    (batch,) = collate(items)
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


@given(parts=st.integers(1, 4), each=st.integers(1, 3), seed=st.integers(0, 99))
def test_parts_are_batches_of_their_own_in_the_order_of_the_whole(parts: int, each: int, seed: int) -> None:
    sides = torch.randint(1, 90, (parts * each, 2), generator=torch.Generator().manual_seed(seed)).tolist()
    items = [(torch.full((3, *side), 7, dtype=torch.uint8), {"k": torch.tensor(i)}) for i, side in enumerate(sides)]
    batches = collate(items, parts)
    assert len(batches) == parts
    for part, batch in enumerate(batches):
        (alone,) = collate(items[part * each : (part + 1) * each])
        assert torch.equal(batch.images, alone.images)
        assert torch.equal(batch.padding_mask, alone.padding_mask)
        assert [int(t["k"]) for t in batch.targets] == list(range(part * each, (part + 1) * each))


@pytest.mark.parametrize(("count", "parts"), [(3, 2), (2, 3), (4, 0), (4, -2)])
def test_parts_that_would_not_be_equal_are_refused(count: int, parts: int) -> None:
    item = (torch.zeros((3, 4, 4), dtype=torch.uint8), {"k": torch.tensor(0)})
    with pytest.raises(ValueError, match=f"a batch of {count} pictures has no {parts} equal parts"):
        collate([item] * count, parts)

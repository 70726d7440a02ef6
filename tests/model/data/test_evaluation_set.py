"""Evaluation sees what the service would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.apply_func import move_data_to_device
from PIL import Image
from torch.utils.data import DataLoader

from model.data.evaluation_set import EvaluationBatch, EvaluationSet, collate_evaluation
from model.data.formats.coco_panoptic import CocoPanoptic
from model.runtime.preprocess import make_batch, resize
from model.runtime.resize_rule import Edges


@pytest.fixture(scope="module")
def data(shapes_root: Path) -> CocoPanoptic:
    return CocoPanoptic(shapes_root / "val2017", shapes_root / "annotations" / "panoptic_val2017.json", masks=False)


@settings(max_examples=20)
@given(index=st.integers(0, 5), edge=st.integers(20, 120))
def test_evaluation_sees_the_pixels_that_serving_sees(data: CocoPanoptic, index: int, edge: int) -> None:
    rule = Edges(edge, 2 * edge)
    found, picture = EvaluationSet(data, rule)[index]
    with Image.open(data.images / data.records[index].file_name) as stored:
        served = resize(np.asarray(stored.convert("RGB")), rule)
    assert found == index
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, served)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_every_picture_once_as_the_service_batches_them(data: CocoPanoptic, workers: int) -> None:
    seen = EvaluationSet(data, Edges(48, 80))
    loader = DataLoader(seen, batch_size=4, collate_fn=collate_evaluation, num_workers=workers)
    batches: list[EvaluationBatch] = list(loader)
    assert [batch.indices for batch in batches] == [[0, 1, 2, 3], [4, 5]]
    for indices, batch in batches:
        expected = make_batch([seen[index][1] for index in indices])
        assert batch.sizes == expected.sizes
        assert np.array_equal(batch.images, expected.images)
        assert np.array_equal(batch.padding_mask, expected.padding_mask)


def test_lightning_leaves_a_batch_as_it_is(data: CocoPanoptic) -> None:
    batch = collate_evaluation([EvaluationSet(data, Edges(48, 80))[2]])
    assert move_data_to_device(batch, torch.device("meta")) is batch


def test_no_pictures_make_no_batch() -> None:
    with pytest.raises(ValueError, match="at least one"):
        collate_evaluation([])

from __future__ import annotations

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detr_client.run_lengths import mask_of_counts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


@given(st.data(), st.integers(1, 60), st.integers(1, 60), st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
def test_masks_are_those_of_pycocotools(data: st.DataObject, height: int, width: int, share: float) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    mask = np.random.default_rng(seed).random((height, width)) < share
    rle = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert (mask_of_counts(rle["counts"], height, width) == mask).all()
    assert (mask_of_counts(rle["counts"].decode(), height, width) == pycocotools.mask.decode(rle)).all()


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=40))
def test_runs_of_all_lengths_are_read(runs: list[int]) -> None:
    height = max(1, sum(runs))
    runs = runs if sum(runs) else [1]
    rle = pycocotools.mask.frPyObjects({"size": [height, 1], "counts": runs}, height, 1)
    assert (mask_of_counts(rle["counts"], height, 1) == pycocotools.mask.decode(rle)).all()


@given(st.one_of(st.text(max_size=20), st.binary(max_size=20)))
def test_what_is_no_mask_of_the_size_is_an_error(counts: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"run length"):
        mask_of_counts(counts, 10_000, 7_919)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional as torchvision_functional

from model.runtime.preprocess import CANVAS_MULTIPLE, Batch, make_batch, resize, resize_to
from model.runtime.resize_rule import Edges


def image_of(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_within_a_level(found: NDArray[np.uint8], reference: NDArray[np.uint8]) -> None:
    assert found.shape == reference.shape
    assert np.abs(found.astype(int) - reference).max() <= 1


def test_resizing_follows_the_rule() -> None:
    image = image_of(97, 141)
    resized = resize(image, Edges(48, 80))
    reference = np.asarray(Image.fromarray(image).resize((69, 48), Image.Resampling.BILINEAR))
    assert resized.dtype == np.uint8
    assert_within_a_level(resized, reference)


def test_resizing_agrees_with_torchvision_on_a_pillow_image() -> None:
    image = image_of(60, 90)
    reference = torchvision_functional.resize(Image.fromarray(image), [48], max_size=80)
    assert_within_a_level(resize(image, Edges(48, 80)), np.asarray(reference))


@given(st.tuples(st.integers(1, 70), st.integers(1, 70)), st.sampled_from([32, 64, 96]))
def test_a_resized_picture_lies_on_the_canvas_that_it_gets_alone(size: tuple[int, int], multiple: int) -> None:
    for wanted in ((40, 33), size):
        image = resize_to(Image.fromarray(image_of(*size)), wanted, multiple=multiple)
        batch = make_batch([image], multiple)
        assert np.shares_memory(batch.images, image)
        copied = make_batch([image.copy()], multiple)
        assert not np.shares_memory(copied.images, image)
        np.testing.assert_array_equal(batch.images, copied.images)
        np.testing.assert_array_equal(batch.padding_mask, copied.padding_mask)


def test_an_image_whose_canvas_is_another_or_not_empty_is_copied() -> None:
    canvas = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    canvas[0, 10, 63] = 1
    elsewhere = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    every_second = np.zeros((1, 64, 128, 3), dtype=np.uint8)[:, :, ::2]
    crops = [canvas[0, :40, :40], elsewhere[0, 10:50, 3:63], np.zeros((1, 96, 64, 3), dtype=np.uint8)[0, :40, :40]]
    for image in (*crops, every_second[0, :40, :40]):
        batch = make_batch([image])
        assert not np.shares_memory(batch.images, image)
        assert not batch.images[batch.padding_mask].any()


def test_an_image_of_the_right_size_is_returned_untouched() -> None:
    image = image_of(48, 60)
    assert resize(image, Edges(48, 80)) is image


@given(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4))
def test_a_batch_holds_each_image_at_its_top_left_and_zeros_elsewhere(sizes: list[tuple[int, int]]) -> None:
    images = [image_of(*size, seed=index) for index, size in enumerate(sizes)]
    batch = make_batch(images)
    assert batch.sizes == tuple(sizes)
    assert batch.images.shape == (*batch.padding_mask.shape, 3)
    assert batch.images.dtype == np.uint8
    assert batch.padding_mask.dtype == np.bool_
    for image, (h, w), canvas, mask in zip(images, sizes, batch.images, batch.padding_mask, strict=True):
        np.testing.assert_array_equal(canvas[:h, :w], image)
        assert not canvas[mask].any()
        assert not mask[:h, :w].any()
        assert mask.sum() == mask.size - h * w


@given(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4))
def test_the_canvas_is_the_smallest_that_divides(sizes: list[tuple[int, int]]) -> None:
    canvas = make_batch([image_of(*size) for size in sizes]).padding_mask.shape[1:]
    for side, needed in zip(canvas, (max(h for h, _ in sizes), max(w for _, w in sizes)), strict=True):
        assert side % CANVAS_MULTIPLE == 0
        assert needed <= side < needed + CANVAS_MULTIPLE


def test_the_padding_ratio_counts_the_pixels_that_belong_to_no_image() -> None:
    batch = make_batch([image_of(32, 64), image_of(32, 32)])
    assert batch.padding_ratio == pytest.approx(0.25)
    assert batch.padding_ratio == pytest.approx(batch.padding_mask.mean())


def test_a_batch_of_whole_canvases_has_no_padding() -> None:
    batch: Batch = make_batch([image_of(64, 32)] * 3)
    assert batch.padding_ratio == 0.0


def test_a_batch_needs_an_image() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        make_batch([])


SIZES = st.sampled_from([(30, 40), (40, 30), (32, 64), (20, 50)])


@given(batches=st.lists(st.tuples(SIZES, st.integers(1, 4), st.booleans(), st.sampled_from([32, 64])), max_size=12))
def test_the_mask_of_images_of_one_size_is_right_whatever_went_before(
    batches: list[tuple[tuple[int, int], int, bool, int]],
) -> None:
    for size, count, has_another, multiple in batches:
        sizes = [size] * count + ([(25, 35)] if has_another else [])
        batch = make_batch([np.ones((*each, 3), dtype=np.uint8) for each in sizes], multiple)
        for mask, (height, width) in zip(batch.padding_mask, sizes, strict=True):
            inside = np.zeros(mask.shape, dtype=np.bool_)
            inside[:height, :width] = True
            np.testing.assert_array_equal(mask, ~inside)
        assert batch.padding_mask.flags.c_contiguous
        assert len(batch.padding_mask) == len(sizes)

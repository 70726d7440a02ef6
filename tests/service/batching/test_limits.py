"""How far the largest batch falls when memory runs out, and how it comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.batching.limits import GOOD_BATCHES, BatchCeiling, BatchLimits


def good(ceiling: BatchCeiling, batches: int) -> None:
    for _ in range(batches):
        ceiling.note_good()


def test_it_falls_to_half_of_what_did_not_fit_and_comes_back_by_doubling() -> None:
    ceiling = BatchCeiling(BatchLimits(12, 1200, 0.5))
    ceiling.lower(12, 1000)
    assert ceiling.limits == BatchLimits(6, 500, 0.5)
    ceiling.lower(3, 300)
    assert ceiling.limits == BatchLimits(1, 150, 0.5)
    sizes = []
    for _ in range(4):
        good(ceiling, GOOD_BATCHES)
        sizes.append((ceiling.limits.max_batch_size, ceiling.limits.max_batch_pixels))
    assert sizes == [(2, 300), (4, 600), (8, 1200), (12, 1200)]


def test_it_rises_only_after_so_many_good_batches_in_a_row() -> None:
    ceiling = BatchCeiling(BatchLimits(8, 800))
    ceiling.lower(8, 800)
    good(ceiling, GOOD_BATCHES - 1)
    assert ceiling.limits.max_batch_size == 4
    ceiling.lower(4, 400)
    good(ceiling, GOOD_BATCHES - 1)
    assert ceiling.limits.max_batch_size == 2
    assert ceiling.note_good()
    assert ceiling.limits.max_batch_size == 4


def test_a_smaller_batch_that_fails_never_raises_it() -> None:
    ceiling = BatchCeiling(BatchLimits(8, 800))
    ceiling.lower(2, 800)
    ceiling.lower(8, 800)
    assert ceiling.limits == BatchLimits(1, 400)


events = st.lists(st.none() | st.tuples(st.integers(1, 100), st.integers(1, 10**6)), max_size=50)


@given(st.integers(1, 64), st.integers(1, 10**6), events)
def test_it_is_never_below_one_and_never_above_what_was_configured(
    images: int, pixels: int, events: list[tuple[int, int] | None]
) -> None:
    configured = BatchLimits(images, pixels)
    ceiling = BatchCeiling(configured)
    for event in events:
        if event is None:
            good(ceiling, GOOD_BATCHES)
        else:
            ceiling.lower(*event)
        assert 1 <= ceiling.limits.max_batch_size <= images
        assert 1 <= ceiling.limits.max_batch_pixels <= pixels
    good(ceiling, 30 * GOOD_BATCHES)
    assert ceiling.limits == configured

"""What a batch is said to cost: the line, its fit, its correction, and the time that measuring takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import Batch
from model.runtime.resize_rule import Edges
from service.batching.latency_line import UNMEASURED, CorrectedLine, LatencyLine, fit_line
from service.lifecycle.engine_timing import measure_line, time_batches
from tests.service.conftest import Serving
from tests.service.fakes import FakeEngine

MEGAPIXEL = 1_000_000
LINES = st.builds(LatencyLine, st.floats(1e-4, 1.0), st.floats(1e-10, 1e-6))


@given(line=LINES, pixels=st.lists(st.integers(1, 64), min_size=2, max_size=8, unique=True))
def test_a_line_is_found_again_from_its_points(line: LatencyLine, pixels: list[int]) -> None:
    points = [(count * MEGAPIXEL, line.seconds(count * MEGAPIXEL)) for count in pixels]
    found = fit_line(points)
    for count, seconds in points:
        assert found.seconds(count) == pytest.approx(seconds, rel=1e-4)


@given(st.lists(st.tuples(st.integers(1, 10**8), st.floats(1e-5, 100.0)), min_size=1, max_size=12))
def test_whatever_was_timed_neither_coefficient_is_negative(points: list[tuple[int, float]]) -> None:
    line = fit_line(points)
    assert line.fixed >= 0
    assert line.per_pixel >= 0
    assert all(line.seconds(pixels) > 0 for pixels, _ in points)


def test_batches_that_get_dearer_by_the_image_have_no_fixed_cost() -> None:
    line = fit_line([(MEGAPIXEL, 1.0), (2 * MEGAPIXEL, 2.2), (4 * MEGAPIXEL, 5.0)])
    assert line.fixed == 0
    assert 1e-6 < line.per_pixel < 1.3e-6


def test_batches_that_get_no_dearer_are_all_fixed_cost() -> None:
    line = fit_line([(MEGAPIXEL, 0.5), (8 * MEGAPIXEL, 0.4)])
    assert line.per_pixel == 0
    assert 0.4 < line.fixed < 0.5


def test_from_one_size_alone_nothing_is_held_to_be_saved_by_batching() -> None:
    line = fit_line([(MEGAPIXEL, 0.5)])
    assert line.fixed == 0
    assert line.per_pixel == pytest.approx(0.5e-6)


@pytest.mark.parametrize("points", [[], [(0, 1.0)], [(10, 0.0)]])
def test_a_line_needs_points_that_mean_something(points: list[tuple[int, float]]) -> None:
    with pytest.raises(ValueError, match="positive pixels and seconds"):
        fit_line(points)


@given(line=LINES, factor=st.floats(0.2, 20.0), slow=st.floats(50.0, 1000.0))
def test_a_corrected_line_follows_the_machine_and_not_one_slow_batch(
    line: LatencyLine, factor: float, slow: float
) -> None:
    corrected = CorrectedLine(line)
    for images in range(1, 16):
        pixels = images * MEGAPIXEL
        corrected.observe(pixels, factor * line.seconds(pixels))
    corrected.observe(MEGAPIXEL, slow)
    assert corrected.line.fixed == pytest.approx(factor * line.fixed)
    assert corrected.line.per_pixel == pytest.approx(factor * line.per_pixel)


def test_a_slow_start_does_not_count_for_all_that_follows() -> None:
    corrected = CorrectedLine(LatencyLine(0.01, 1e-8))
    corrected.observe(MEGAPIXEL, 60.0)
    assert corrected.line == LatencyLine(0.01, 1e-8)


def test_an_engine_that_nobody_measured_is_learnt_from_its_batches() -> None:
    corrected = CorrectedLine(UNMEASURED)
    for _ in range(10):
        corrected.observe(MEGAPIXEL, 0.2)
    assert corrected.line.seconds(5 * MEGAPIXEL) == pytest.approx(0.2)


class Stopwatch:
    """Runs batches in no time, and adds up what they would have taken."""

    def __init__(self, seconds_of: Callable[[int], float], warm_up: float = 0.0) -> None:
        self.ran: list[int] = []
        self.seconds = 0.0
        self._seconds_of = seconds_of
        self._warm_up = warm_up

    def run(self, images: int) -> float:
        seconds = self._seconds_of(images) + (0.0 if images in self.ran else self._warm_up)
        self.ran.append(images)
        self.seconds += seconds
        return seconds


def test_a_fast_engine_is_timed_at_every_size_without_its_warm_ups() -> None:
    stopwatch = Stopwatch(lambda images: 0.01 + 0.01 * images, warm_up=0.2)
    found = time_batches(stopwatch.run, [1, 2, 4, 8], budget_seconds=3)
    assert found == pytest.approx({1: 0.02, 2: 0.03, 4: 0.05, 8: 0.09})


def test_a_slow_engine_is_timed_for_one_image_only() -> None:
    stopwatch = Stopwatch(lambda images: 2.0 * images)
    assert time_batches(stopwatch.run, [1, 2, 4, 8], budget_seconds=3) == {1: 2.0}
    assert stopwatch.ran == [1]


@example(one=1.0, share=1.0, budget=12.5)  # after eight at once, one alone costs more than an eighth of them
@given(one=st.floats(1e-3, 20.0), share=st.floats(0.0, 1.0), budget=st.floats(0.0, 5.0))
def test_timing_keeps_to_its_budget_but_for_the_first_run(one: float, share: float, budget: float) -> None:
    stopwatch = Stopwatch(lambda images: one * (share + (1 - share) * images))
    found = time_batches(stopwatch.run, [1, 2, 4, 8], budget)
    assert found[1] == pytest.approx(one)
    assert stopwatch.seconds <= max(budget, one) * (1 + 1e-9)


def test_a_moment_of_other_work_does_not_bend_the_line() -> None:
    times = iter([9.0, 0.02, 9.0, 0.03, 9.0, 0.05, 5.0, 0.03, 0.05, 0.02, 0.03, 5.0])
    assert time_batches(lambda _: next(times), [1, 2, 4], 60) == pytest.approx({1: 0.02, 2: 0.03, 4: 0.05})


def test_an_engine_is_measured_within_the_limits_and_without_masks(engine: FakeEngine) -> None:
    line = measure_line(engine, Edges(60, 100), max_batch_size=7, max_batch_pixels=10**9, budget_seconds=60)
    assert line.seconds(64 * 96) > 0
    assert {len(batch) for batch in engine.batches} == {1, 2, 4}
    assert all(threshold > 1 for batch in engine.thresholds for threshold in batch)


@pytest.mark.parametrize(("pixels", "largest"), [(1, 1), (2 * 64 * 96, 2), (5 * 64 * 96, 4)])
def test_no_larger_batch_is_measured_than_is_allowed(engine: FakeEngine, pixels: int, largest: int) -> None:
    measure_line(engine, Edges(60, 100), max_batch_size=8, max_batch_pixels=pixels, budget_seconds=60)
    assert max(len(batch) for batch in engine.batches) == largest


class SmallEngine(FakeEngine):
    """Has memory for two images."""

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        if len(batch.images) > 2:
            raise RuntimeError("out of memory at 0x7f0c12345678")
        return super().infer(batch, mask_threshold)


def test_a_batch_that_the_device_cannot_hold_is_found_before_it_is_ready() -> None:
    with pytest.raises(DeviceError, match=r"batch of 4 x 60 x 80 pixels does not run on fake.*lower max_batch_size"):
        measure_line(SmallEngine(), Edges(60, 100), 8, 10**9, 60)


@pytest.mark.anyio
@pytest.mark.parametrize("milliseconds", [0, 200])
async def test_an_opened_engine_is_measured_before_it_is_ready(serving: Serving, milliseconds: int) -> None:
    async with serving(batch_timing_ms=milliseconds, max_batch_size=2) as app:
        line = app.service.admission.pipeline().batcher.engines.runners["cpu"].line
    assert (line == UNMEASURED) is (milliseconds == 0)

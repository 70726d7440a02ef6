"""A GPU sees every canvas before the service is ready, and the service is ready in time all the same."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.runtime.engines.canvases import canvases_of
from model.runtime.engines.device_errors import DeviceError, DeviceMemoryError
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS, RawOutputs
from model.runtime.preprocess import Batch
from model.runtime.resize_rule import Edges
from service.lifecycle.canvas_warm_up import warm_canvases, warm_up_order

CANVASES = canvases_of(Edges(64, 107), 64)


class Recorder:
    """An engine that notes what it is shown, and raises what it is told to."""

    device = "cuda"
    precision = "float32"

    def __init__(self, error: Exception | None = None) -> None:
        self.seen: list[tuple[int, ...]] = []
        self.thresholds: list[set[float]] = []
        self.error = error

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        assert batch.padding_ratio == 0
        assert len(mask_threshold) == len(batch.sizes) == len(batch.images)
        self.seen.append(batch.images.shape)
        self.thresholds.append(set(mask_threshold.tolist()))
        if self.error is not None:
            raise self.error
        return RawOutputs(np.zeros((0, 0, 0), np.float32), np.zeros((0, 0, 4), np.float32), None, None)


@given(st.integers(1, 16), st.integers(1, 10**6), st.integers(1, 4).map(lambda n: 32 * n))
def test_every_canvas_is_run_alone_and_full(max_batch_size: int, max_batch_pixels: int, multiple: int) -> None:
    canvases = canvases_of(Edges(64, 107), multiple)
    order = warm_up_order(canvases, max_batch_size, max_batch_pixels)
    assert len(order) == len(set(order))
    for height, width in canvases:
        full = max(1, min(max_batch_size, max_batch_pixels // (height * width)))
        assert (1, (height, width)) in order
        assert (full, (height, width)) in order
    pixels = [images * height * width for images, (height, width) in order]
    assert pixels[0] == max(pixels)
    assert len(order) < 3 or pixels[1] == min(pixels)
    assert pixels[2:] == sorted(pixels[2:], reverse=True)


def test_all_are_run_where_there_is_time(caplog: pytest.LogCaptureFixture) -> None:
    engine = Recorder()
    order = warm_up_order(CANVASES, 4, 10**6)
    with caplog.at_level(logging.INFO):
        assert warm_canvases(engine, order, budget_seconds=1e9) == len(order)
    assert engine.seen == [(images, *canvas, 3) for images, canvas in order]
    assert engine.thresholds == [{ALL_MASKS if images == 1 else NO_MASKS} for images, _ in order]
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_it_ends_in_time_and_says_what_it_left_out(caplog: pytest.LogCaptureFixture) -> None:
    times = iter(range(0, 1000, 10))
    engine = Recorder()
    assert warm_canvases(engine, warm_up_order(CANVASES, 4, 10**6), 25, lambda: next(times)) == 2
    assert len(engine.seen) == 2
    assert "are still cold (see warm_up_ms)" in caplog.text


def test_what_does_not_fit_is_left_to_the_batcher(caplog: pytest.LogCaptureFixture) -> None:
    engine = Recorder(DeviceMemoryError("device cuda: memory ran out"))
    assert warm_canvases(engine, [(8, (64, 64)), (1, (64, 64))], budget_seconds=1e9) == 2
    assert "a batch of 8 x 64 x 64 pixels does not fit" in caplog.text


def test_what_does_not_run_for_another_reason_is_found_before_the_service_is_ready() -> None:
    with pytest.raises(DeviceError, match=r"a batch of 2 x 64 x 128 pixels does not run on cuda \(ValueError\)"):
        warm_canvases(Recorder(ValueError("no kernel")), [(2, (64, 128))], budget_seconds=1e9)

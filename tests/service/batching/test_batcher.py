"""The batcher alone: who shares a batch with whom, and that everybody is answered exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.runtime.engines.raw_outputs import NO_MASKS
from model.runtime.preprocess import Batch, make_batch
from service.batching.batcher import Batcher
from service.batching.latency_line import UNMEASURED, LatencyLine
from service.batching.limits import BatchLimits
from service.batching.waiting import EngineInput, Inference
from service.errors import DeadlineError, DrainingError
from service.process.metrics import Metrics
from tests.service.conftest import until
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio


def item(red: int, size: tuple[int, int] | None = None) -> EngineInput:
    height, width = size or (8 + red % 5, 8 + red % 7)
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0] = red
    return EngineInput(image, red / 255)


def red_of(inference: Inference) -> int:
    return round(float(inference.outputs.pred_boxes[0, 0]) * 255)


class Owner:
    """Opens the same engine again, and counts how often it was told that the last is lost."""

    def __init__(self, engine: FakeEngine) -> None:
        self.lost = 0
        self._engine = engine

    def reopen_engine(self, name: str) -> FakeEngine:
        return self._engine

    def engine_lost(self) -> None:
        self.lost += 1


@asynccontextmanager
async def batching(
    engine: FakeEngine,
    max_batch_size: int = 4,
    max_queue_delay_ms: float = 0,
    metrics: Metrics | None = None,
    line: LatencyLine = UNMEASURED,
    owner: Owner | None = None,
) -> AsyncIterator[Batcher]:
    limits = BatchLimits(max_batch_size, 10**9, max_queue_delay_ms / 1000)
    batcher = Batcher({"fake": engine}, metrics or Metrics(), limits, {"fake": line}, owner or Owner(engine))
    try:
        yield batcher
    finally:
        engine.release()
        await batcher.close(5)


def submit(
    batcher: Batcher, red: int, seconds: float = 1000, size: tuple[int, int] | None = None
) -> asyncio.Task[Inference]:
    deadline = asyncio.get_running_loop().time() + seconds
    return asyncio.create_task(batcher.submit(item(red, size), deadline))


async def busy(batcher: Batcher, engine: FakeEngine, red: int = 255) -> asyncio.Task[Inference]:
    """Occupy the engine with one image until the test releases it."""
    engine.hold()
    task = submit(batcher, red)
    await until(lambda: engine.seen == [red])
    return task


async def test_an_idle_engine_takes_a_single_image_at_once(engine: FakeEngine) -> None:
    async with batching(engine) as batcher:
        inference = await submit(batcher, 7)
    assert red_of(inference) == 7
    assert inference.batch_size == 1
    assert inference.infer_seconds > 0
    assert engine.batches == [[7]]


async def test_what_waits_while_the_engine_is_busy_goes_together_next(engine: FakeEngine) -> None:
    async with batching(engine) as batcher:
        first = await busy(batcher, engine)
        rest = [submit(batcher, red) for red in (1, 2, 3)]
        await until(lambda: len(batcher._waiting) == 3)
        engine.release()
        answers = await asyncio.gather(first, *rest)
    assert engine.batches == [[255], [1, 2, 3]]
    assert [red_of(answer) for answer in answers] == [255, 1, 2, 3]
    assert [answer.batch_size for answer in answers] == [1, 3, 3, 3]


async def test_each_image_keeps_its_own_mask_threshold(engine: FakeEngine) -> None:
    async with batching(engine) as batcher:
        await asyncio.gather(submit(batcher, 51), submit(batcher, 102))
    assert engine.thresholds == [pytest.approx([0.2, 0.4])]


async def test_images_with_and_without_masks_share_a_batch(engine: FakeEngine) -> None:
    detect, segment = item(1), item(2)
    detect, segment = EngineInput(detect.image, NO_MASKS), EngineInput(segment.image, 0.5)
    async with batching(engine) as batcher:
        await asyncio.gather(*(batcher.submit(one, float("inf")) for one in (detect, segment, detect)))
    assert engine.thresholds == [[NO_MASKS, 0.5, NO_MASKS]]


async def test_a_batch_never_exceeds_its_size(engine: FakeEngine) -> None:
    async with batching(engine, max_batch_size=3) as batcher:
        await asyncio.gather(*(submit(batcher, red) for red in range(8)))
    assert engine.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]


async def test_with_a_delay_a_full_batch_does_not_wait(engine: FakeEngine) -> None:
    metrics = Metrics()
    async with batching(engine, 2, max_queue_delay_ms=100_000, metrics=metrics) as batcher:
        first = submit(batcher, 1)
        await asyncio.sleep(0.02)
        assert engine.batches == []
        await asyncio.gather(first, submit(batcher, 2))
    assert engine.batches == [[1, 2]]
    assert dispatched(metrics) == {"full": 1}


async def test_with_a_delay_the_oldest_image_goes_when_it_has_waited_long_enough(engine: FakeEngine) -> None:
    metrics = Metrics()
    async with batching(engine, 8, max_queue_delay_ms=30, metrics=metrics) as batcher:
        answers = await asyncio.gather(submit(batcher, 1), submit(batcher, 2))
    assert engine.batches == [[1, 2]]
    assert all(answer.queue_seconds >= 0.029 for answer in answers)
    assert dispatched(metrics) == {"waited": 1}


async def test_an_image_whose_submitter_gave_up_is_never_given_to_the_engine(engine: FakeEngine) -> None:
    async with batching(engine) as batcher:
        first = await busy(batcher, engine)
        gone, stays = submit(batcher, 1), submit(batcher, 2)
        await until(lambda: len(batcher._waiting) == 2)
        gone.cancel()
        await until(lambda: len(batcher._waiting) == 1)
        engine.release()
        await asyncio.gather(first, stays)
    assert engine.seen == [255, 2]


async def test_a_submitter_that_gives_up_during_inference_disturbs_nobody(engine: FakeEngine) -> None:
    async with batching(engine) as batcher:
        engine.hold()
        gone, stays = submit(batcher, 1), submit(batcher, 2)
        await until(lambda: engine.batches == [[1, 2]])
        gone.cancel()
        engine.release()
        assert red_of(await stays) == 2
        assert red_of(await submit(batcher, 3)) == 3


async def test_an_image_past_its_deadline_is_never_given_to_the_engine(engine: FakeEngine) -> None:
    async with batching(engine) as batcher:
        first = await busy(batcher, engine)
        late, stays = submit(batcher, 1, seconds=-1), submit(batcher, 2)
        await until(lambda: len(batcher._waiting) == 2)
        engine.release()
        with pytest.raises(DeadlineError):
            await late
        await asyncio.gather(first, stays)
    assert engine.seen == [255, 2]


async def test_in_a_hurry_no_batch_waits_for_more_images(engine: FakeEngine) -> None:
    metrics = Metrics()
    async with batching(engine, 4, max_queue_delay_ms=100_000, metrics=metrics) as batcher:
        first = submit(batcher, 1)
        await until(lambda: len(batcher._waiting) == 1)
        batcher.hurry()
        assert red_of(await first) == 1
        assert red_of(await submit(batcher, 2)) == 2
    assert dispatched(metrics) == {"drain": 2}


async def test_closing_finishes_what_waits(engine: FakeEngine) -> None:
    metrics = Metrics()
    async with batching(engine, 4, max_queue_delay_ms=100_000, metrics=metrics) as batcher:
        tasks = [submit(batcher, red) for red in (1, 2)]
        await until(lambda: len(batcher._waiting) == 2)
        await batcher.close(5)
        assert [red_of(await task) for task in tasks] == [1, 2]
    assert dispatched(metrics) == {"drain": 1}


async def test_closing_in_time_fails_what_a_hanging_engine_holds_up(engine: FakeEngine) -> None:
    async with batching(engine, max_batch_size=1) as batcher:
        first = await busy(batcher, engine)
        second = submit(batcher, 1)
        await until(lambda: len(batcher._waiting) == 1)
        await batcher.close(0.01)
        for task in (first, second):
            with pytest.raises(DrainingError):
                await task
    assert engine.seen == [255]


async def test_a_closed_batcher_takes_nothing(engine: FakeEngine) -> None:
    async with batching(engine) as batcher:
        await batcher.close(5)
        await batcher.close(5)
        with pytest.raises(DrainingError):
            await submit(batcher, 1)
    assert engine.batches == []


async def test_the_metrics_tell_the_truth(engine: FakeEngine) -> None:
    metrics = Metrics()
    async with batching(engine, max_batch_size=3, metrics=metrics) as batcher:
        first = await busy(batcher, engine)
        rest = [submit(batcher, red) for red in range(4)]
        await until(lambda: metrics.registry.get_sample_value("detr_queue_depth") == 4)
        assert batcher.engines.runners["fake"].busy_seconds() > 0
        engine.release()
        await asyncio.gather(first, *rest)
        assert batcher.engines.runners["fake"].busy_seconds() == 0
    value = metrics.registry.get_sample_value
    assert engine.batches == [[255], [0, 1, 2], [3]]
    assert value("detr_queue_depth") == 0
    of_fake = {"device": "fake"}
    assert value("detr_batch_size_sum", of_fake) == 5
    assert value("detr_batch_size_count", of_fake) == value("detr_batch_padding_ratio_count", of_fake) == 3
    assert dispatched(metrics) == {"idle": 2, "full": 1}


# One image of 64 x 64 pixels costs twice its fixed cost; both are too short for any deadline here.
GPU = LatencyLine(0.001, 0.001 / 64**2)
CPU = LatencyLine(0.0, 0.001 / 64**2)
WIDE, TALL = (64, 128), (128, 64)


async def test_images_that_fit_one_canvas_go_together_and_before_older_ones_that_do_not(engine: FakeEngine) -> None:
    metrics = Metrics()
    async with batching(engine, metrics=metrics, line=GPU) as batcher:
        first = await busy(batcher, engine)
        rest = [submit(batcher, red, size=size) for red, size in enumerate([WIDE, TALL, WIDE, TALL, WIDE])]
        await until(lambda: len(batcher._waiting) == 5)
        engine.release()
        await asyncio.gather(first, *rest)
    assert engine.batches == [[255], [0, 2, 4], [1, 3]]
    assert dispatched(metrics) == {"idle": 2, "cheaper_apart": 1}


async def test_an_engine_that_gains_nothing_by_batches_is_given_single_images_at_once(engine: FakeEngine) -> None:
    metrics = Metrics()
    async with batching(engine, max_queue_delay_ms=100_000, metrics=metrics, line=CPU) as batcher:
        await asyncio.gather(*(submit(batcher, red) for red in range(3)))
    assert engine.batches == [[0], [1], [2]]
    assert dispatched(metrics) == {"cheaper_apart": 2, "idle": 1}


@pytest.fixture
def canvases(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The reds of every canvas that is made, in order."""
    made: list[list[int]] = []

    def make_and_note(images: Sequence[NDArray[np.uint8]], multiple: int) -> Batch:
        made.append([int(image[0, 0, 0]) for image in images])
        return make_batch(images, multiple)

    monkeypatch.setattr("service.batching.canvas_maker.make_batch", make_and_note)
    return made


async def test_the_next_canvas_is_made_while_the_engine_runs(engine: FakeEngine, canvases: list[list[int]]) -> None:
    async with batching(engine, max_batch_size=2) as batcher:
        first = await busy(batcher, engine)
        rest = [submit(batcher, red) for red in (1, 2, 3, 4, 5)]
        await until(lambda: canvases == [[255], [1, 2]])
        assert engine.batches == [[255]]
        assert len(batcher._waiting) == 5, "whose canvas is made still waits"
        engine.release()
        await asyncio.gather(first, *rest)
    assert engine.batches == [[255], [1, 2], [3, 4], [5]]
    assert sorted(canvases) == [[1, 2], [3, 4], [5], [255]], "none is made twice"


async def test_a_canvas_that_others_could_join_is_made_when_the_engine_is_about_to_be_free(
    engine: FakeEngine, canvases: list[list[int]]
) -> None:
    async with batching(engine, max_batch_size=4) as batcher:
        first = await busy(batcher, engine)
        rest = [submit(batcher, red) for red in (1, 2)]
        await until(lambda: canvases == [[255], [1, 2]])
        assert engine.batches == [[255]]
        rest.append(submit(batcher, 3))
        await until(lambda: len(batcher._waiting) == 3)
        engine.release()
        await asyncio.gather(first, *rest)
    assert engine.batches == [[255], [1, 2, 3]], "who comes later joins all the same"


async def test_a_canvas_made_for_one_who_gave_up_is_not_used(engine: FakeEngine, canvases: list[list[int]]) -> None:
    async with batching(engine, max_batch_size=2) as batcher:
        first = await busy(batcher, engine)
        gone, *rest = [submit(batcher, red) for red in (1, 2, 3)]
        await until(lambda: canvases == [[255], [1, 2]])
        gone.cancel()
        await until(lambda: len(batcher._waiting) == 2)
        engine.release()
        await asyncio.gather(first, *rest)
    assert engine.batches == [[255], [2, 3]]


async def test_a_batcher_that_breaks_leaves_nobody_waiting_and_says_so(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner = Owner(engine)
    async with batching(engine, owner=owner) as batcher:
        first = await busy(batcher, engine)
        waiting = [submit(batcher, red) for red in (1, 2)]
        await until(lambda: len(batcher._waiting) == 2)
        monkeypatch.setattr("service.batching.image_queue.note_overtaken", lambda *_: 1 / 0)
        engine.release()
        assert red_of(await first) == 255
        for task in waiting:
            with pytest.raises(DrainingError):
                await task
        with pytest.raises(DrainingError):
            await submit(batcher, 3)
    assert owner.lost == 1
    assert "ZeroDivisionError" in caplog.text


def dispatched(metrics: Metrics) -> dict[str, float]:
    (family,) = (family for family in metrics.registry.collect() if family.name == "detr_batch_dispatch")
    return {s.labels["reason"]: s.value for s in family.samples if s.name == "detr_batch_dispatch_total"}


@st.composite
def submissions(draw: st.DrawFn) -> list[tuple[int, bool, int | None]]:
    """For each image: turns of the loop before it comes, whether it is late, turns until its client goes."""
    one = st.tuples(st.integers(0, 3), st.booleans(), st.none() | st.integers(0, 5))
    return draw(st.lists(one, min_size=1, max_size=20))


@given(
    script=submissions(),
    max_batch_size=st.integers(1, 5),
    delay_ms=st.sampled_from([0.0, 1.0]),
    line=st.sampled_from([UNMEASURED, GPU, CPU]),
)
def test_everybody_is_answered_exactly_once_and_with_their_own(
    script: list[tuple[int, bool, int | None]],
    max_batch_size: int,
    delay_ms: float,
    line: LatencyLine,
) -> None:
    engine = FakeEngine()

    async def play() -> list[Inference | BaseException]:
        async with batching(engine, max_batch_size, delay_ms, line=line) as batcher:
            tasks = []
            for red, (turns, is_late, goes_after) in enumerate(script):
                tasks.append(submit(batcher, red, seconds=-1 if is_late else 1000))
                if goes_after is not None:
                    asyncio.create_task(cancel_after(tasks[-1], goes_after))  # noqa: RUF006
                for _ in range(turns):
                    await asyncio.sleep(0)
            return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=20)

    outcomes = asyncio.run(play())

    assert all(len(batch) <= max_batch_size for batch in engine.batches)
    assert engine.seen == sorted(set(engine.seen)), "first come, first served, and nobody twice"
    for red, ((_, is_late, goes_after), outcome) in enumerate(zip(script, outcomes, strict=True)):
        if isinstance(outcome, Inference):
            assert red_of(outcome) == red
        elif isinstance(outcome, DeadlineError):
            assert is_late
        else:
            assert isinstance(outcome, asyncio.CancelledError)
            assert goes_after is not None
        assert not (is_late and red in engine.seen)
        if not is_late and goes_after is None:
            assert red in engine.seen


async def cancel_after(task: asyncio.Task[Inference], turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()

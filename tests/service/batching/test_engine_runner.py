"""What becomes of a batch, of its images and of the engine when the engine fails."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.runtime.engines.device_errors import DeviceMemoryError
from model.runtime.preprocess import Batch, make_batch
from service.batching.batcher import Batcher
from service.batching.engine_runner import EngineRunner
from service.batching.limits import GOOD_BATCHES, BatchLimits
from service.batching.reopening import REOPEN_AFTER
from service.batching.waiting import EngineInput, Inference
from service.errors import DeadlineError, DeviceFullError, DrainingError, EngineError, EngineRestartError
from service.process.metrics import Metrics
from tests.service.conftest import until
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio


class Harness:
    """A batcher whose engine can be opened again, and what was asked of it."""

    def __init__(self, engine: FakeEngine, max_batch_size: int = 8, hang_seconds: float | None = None) -> None:
        self.metrics = Metrics()
        self.engines = [engine]
        self.successors: list[FakeEngine | Exception] = []  # what opening again leads to
        self.lost = 0
        self.open = self.next_engine
        limits = BatchLimits(max_batch_size, 10**9)
        self.batcher = Batcher({"fake": engine}, self.metrics, limits, {}, self, hang_seconds=hang_seconds)

    @property
    def runner(self) -> EngineRunner:
        return self.batcher.engines.runners["fake"]

    def submit(self, red: int, seconds: float = 1000) -> asyncio.Task[Inference]:
        image = np.zeros((8 + red % 5, 8 + red % 7, 3), dtype=np.uint8)
        image[..., 0] = red
        deadline = asyncio.get_running_loop().time() + seconds
        return asyncio.create_task(self.batcher.submit(EngineInput(image, 0.5), deadline))

    async def outcomes(self, reds: Sequence[int]) -> list[Inference | BaseException]:
        """What all of them get, who go together as far as the engine allows."""
        tasks = [self.submit(red) for red in reds]
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels | {"device": "fake"}) or 0.0

    def reopen_engine(self, name: str) -> FakeEngine:
        return self.open()

    def engine_lost(self) -> None:
        self.lost += 1

    def next_engine(self) -> FakeEngine:
        successor = self.successors.pop(0) if self.successors else FakeEngine()
        if isinstance(successor, Exception):
            raise successor
        self.engines.append(successor)
        return successor


@asynccontextmanager
async def running(
    engine: FakeEngine, max_batch_size: int = 8, hang_seconds: float | None = None
) -> AsyncIterator[Harness]:
    harness = Harness(engine, max_batch_size, hang_seconds)
    try:
        yield harness
    finally:
        for each in harness.engines:
            each.release()
        await harness.batcher.close(5)


def red_of(outcome: Inference | BaseException) -> int:
    assert isinstance(outcome, Inference), repr(outcome)
    return round(float(outcome.outputs.pred_boxes[0, 0]) * 255)


async def test_a_batch_without_memory_is_halved_until_it_fits_and_all_are_answered(engine: FakeEngine) -> None:
    engine.largest = 4
    async with running(engine, max_batch_size=16) as harness:
        answers = await harness.outcomes(range(16))
        assert [red_of(answer) for answer in answers] == list(range(16))
        assert [len(batch) for batch in engine.batches] == [16, 8, 4, 4, 4, 4], "what is known is not tried again"
        assert harness.value("detr_batch_splits_total", reason="memory") == 2
        assert harness.value("detr_max_batch_size") == 4
        assert harness.value("detr_batch_size_sum") == 16
        assert harness.value("detr_batch_size_count") == 4
        await harness.outcomes(range(16))
        assert [len(batch) for batch in engine.batches[6:]] == [4, 4, 4, 4]


async def test_the_ceiling_comes_back_when_memory_does(engine: FakeEngine) -> None:
    engine.largest = 2
    async with running(engine, max_batch_size=4) as harness:
        await harness.outcomes(range(4))
        assert harness.value("detr_max_batch_size") == 2
        engine.largest = None
        for _ in range(GOOD_BATCHES):
            await harness.submit(1)
        assert harness.value("detr_max_batch_size") == 4
        engine.batches.clear()
        await harness.outcomes(range(4))
        assert [len(batch) for batch in engine.batches] == [4]


async def test_a_single_image_without_memory_is_told_to_come_again(engine: FakeEngine) -> None:
    engine.faults.append(DeviceMemoryError("no memory"))
    async with running(engine) as harness:
        (outcome,) = await harness.outcomes([1])
        assert isinstance(outcome, DeviceFullError)
        assert red_of((await harness.outcomes([2]))[0]) == 2
        assert len(harness.engines) == 1


async def test_after_two_single_images_without_memory_the_engine_is_opened_again(engine: FakeEngine) -> None:
    engine.largest = 0
    async with running(engine) as harness:
        successor = FakeEngine()
        harness.successors.append(successor)
        outcomes = await harness.outcomes([1, 2, 3])
        assert [type(outcome) for outcome in outcomes[:2]] == [DeviceFullError, DeviceFullError]
        assert red_of(outcomes[2]) == 3
        assert successor.seen == [3]
        assert harness.value("detr_engine_reopens_total", result="opened") == 1
        assert harness.lost == 0


async def test_while_it_is_opened_again_it_says_so(engine: FakeEngine) -> None:
    engine.largest = 0
    async with running(engine) as harness:
        proceed = threading.Event()
        successor = FakeEngine()

        def slow() -> FakeEngine:
            proceed.wait(20)
            return successor

        harness.open = slow
        tasks = [harness.submit(red) for red in (1, 2, 3)]
        await until(lambda: harness.runner.is_reopening)
        await until(lambda: harness.runner.busy_seconds() > 0)  # once its thread has begun
        proceed.set()
        assert red_of(await tasks[2]) == 3
        assert not harness.runner.is_reopening
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_old_engine_is_gone_before_a_new_one_is_opened(engine: FakeEngine) -> None:
    first = FakeEngine()
    first.largest = 0
    alive = weakref.ref(first)
    seen: list[bool] = []
    async with running(engine) as harness:
        harness.runner._thread.engine = first

        def reopen() -> FakeEngine:
            seen.append(alive() is not None)
            return FakeEngine()

        harness.open = reopen
        del first
        await harness.outcomes([1, 2])
        await until(lambda: bool(seen))
    assert seen == [False]


async def test_an_engine_that_was_opened_in_vain_is_not_opened_over_and_over(engine: FakeEngine) -> None:
    engine.largest = 0
    async with running(engine) as harness:
        useless, good = FakeEngine(), FakeEngine()
        useless.largest = 0
        harness.successors += [useless, good]
        outcomes = await harness.outcomes(range(10))
        assert {type(outcome) for outcome in outcomes} == {DeviceFullError}
        assert harness.engines == [engine, useless]
        useless.largest = 1
        assert red_of((await harness.outcomes([1]))[0]) == 1
        useless.largest = 0
        await harness.outcomes([1, 2])
        await until(lambda: harness.engines == [engine, useless, good])


async def test_an_engine_that_cannot_be_opened_again_is_lost(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.largest = 0
    async with running(engine) as harness:
        harness.successors.append(RuntimeError("no device"))
        outcomes = await harness.outcomes([1, 2, 3])
        assert [type(outcome) for outcome in outcomes] == [DeviceFullError, DeviceFullError, EngineError]
        assert harness.lost == 1
        assert harness.runner.is_lost
        assert harness.value("detr_engine_reopens_total", result="failed") == 1
    assert "the engine fake is lost: it cannot be opened again" in caplog.text


async def test_a_poisoned_image_never_touches_its_neighbours(engine: FakeEngine) -> None:
    engine.poison = {5}
    async with running(engine) as harness:
        outcomes = await harness.outcomes(range(8))
        assert [red_of(outcome) for red, outcome in enumerate(outcomes) if red != 5] == [0, 1, 2, 3, 4, 6, 7]
        assert isinstance(outcomes[5], EngineError)
        assert "0x" not in str(outcomes[5])
        assert engine.batches == [list(range(8)), *([red] for red in range(8))], "each is tried once more, alone"
        assert harness.value("detr_batch_splits_total", reason="error") == 1
        assert harness.value("detr_max_batch_size") == 8, "which is not for want of memory"
        assert len(harness.engines) == 1


async def test_a_single_image_that_fails_is_not_tried_again(engine: FakeEngine) -> None:
    engine.faults.append(RuntimeError("once"))
    async with running(engine) as harness:
        (outcome,) = await harness.outcomes([1])
        assert isinstance(outcome, EngineError)
        assert engine.batches == [[1]]


async def test_an_engine_that_fails_image_after_image_is_opened_again(engine: FakeEngine) -> None:
    engine.poison = set(range(100))
    async with running(engine) as harness:
        outcomes = await harness.outcomes(range(REOPEN_AFTER["error"]))
        assert {type(outcome) for outcome in outcomes} == {EngineError}
        assert red_of((await harness.outcomes([99]))[0]) == 99
        assert len(harness.engines) == 2


async def test_whose_deadline_passes_during_the_first_try_gets_no_second(engine: FakeEngine) -> None:
    engine.hold()
    async with running(engine) as harness:
        late, patient = harness.submit(1, seconds=0.05), harness.submit(2)
        await until(lambda: engine.batches == [[1, 2]])
        engine.faults.append(RuntimeError("scripted"))
        await asyncio.sleep(0.06)
        engine.release()
        with pytest.raises(DeadlineError):
            await late
        assert red_of(await patient) == 2
        assert engine.batches == [[1, 2], [2]]


async def test_who_gives_up_during_the_first_try_gets_no_second(engine: FakeEngine) -> None:
    engine.hold()
    async with running(engine) as harness:
        gone, stays = harness.submit(1), harness.submit(2)
        await until(lambda: engine.batches == [[1, 2]])
        engine.faults.append(DeviceMemoryError("scripted"))
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        engine.release()
        assert red_of(await stays) == 2
        assert engine.batches == [[1, 2], [2]]


async def test_an_engine_that_hangs_is_lost_once_and_tried_no_more(engine: FakeEngine) -> None:
    engine.hold()
    async with running(engine, hang_seconds=0.02) as harness:
        waiting = [harness.submit(red) for red in range(3)]
        await until(lambda: harness.lost > 0)
        assert harness.runner.is_lost
        await harness.batcher.close(0)
        for task in waiting:
            with pytest.raises(DrainingError):
                await task
        assert engine.batches == [[0, 1, 2]]
    assert harness.lost == 1


@pytest.mark.parametrize("fatal", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
async def test_what_would_end_the_event_loop_is_an_ordinary_failure(engine: FakeEngine, fatal: BaseException) -> None:
    async with running(engine) as harness:
        engine.faults.append(fatal)
        (outcome,) = await harness.outcomes([1])
        assert isinstance(outcome, EngineError)
        assert red_of((await harness.outcomes([2]))[0]) == 2


async def test_a_canvas_without_memory_is_tried_smaller(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(images: Sequence[NDArray[np.uint8]], multiple: int) -> Batch:
        if len(images) > 1:
            raise MemoryError
        return make_batch(images, multiple)

    monkeypatch.setattr("service.batching.canvas_maker.make_batch", no_memory)
    async with running(engine) as harness:
        assert [red_of(outcome) for outcome in await harness.outcomes(range(4))] == [0, 1, 2, 3]
        assert engine.batches == [[0], [1], [2], [3]]


async def test_an_engine_whose_thread_is_gone_fails_its_images(engine: FakeEngine) -> None:
    async with running(engine) as harness:
        harness.runner._thread.close()
        (outcome,) = await harness.outcomes([1])
        assert isinstance(outcome, EngineError)


async def test_an_image_keeps_no_masks_but_its_own(engine: FakeEngine) -> None:
    async with running(engine) as harness:
        outcomes = await harness.outcomes(range(4))
    for outcome in outcomes:
        assert isinstance(outcome, Inference)
        masks = outcome.outputs.mask_logits
        assert masks is not None
        assert masks.base is None


Fault = st.sampled_from([None, DeviceMemoryError, MemoryError, RuntimeError, SystemExit])


@settings(max_examples=50)
@given(
    reds=st.lists(st.integers(0, 255), min_size=1, max_size=20, unique=True),
    max_batch_size=st.integers(1, 9),
    largest=st.none() | st.integers(0, 9),
    faults=st.lists(Fault, max_size=40),
    poison=st.sets(st.integers(0, 255), max_size=5),
    successors=st.lists(st.booleans(), max_size=2),
)
def test_whatever_fails_everybody_is_answered_with_their_own_or_an_error(
    reds: list[int],
    max_batch_size: int,
    largest: int | None,
    faults: list[type[BaseException] | None],
    poison: set[int],
    successors: list[bool],
) -> None:
    engine = FakeEngine()
    engine.largest, engine.poison = largest, poison
    engine.faults.extend(None if fault is None else fault("scripted") for fault in faults)
    ceilings: list[int] = []

    async def play() -> tuple[list[Inference | BaseException], Harness]:
        async with running(engine, max_batch_size) as harness:
            harness.successors += [FakeEngine() if opens else RuntimeError("no device") for opens in successors]
            harness.metrics.max_batch_size.labels("fake").set = ceilings.append  # type: ignore[method-assign, assignment]
            return await harness.outcomes(reds), harness

    outcomes, harness = asyncio.run(play())

    runs = [red for each in harness.engines for red in each.seen]
    for red, outcome in zip(reds, outcomes, strict=True):
        # Halved at most four times for want of memory, and tried once more alone.
        assert runs.count(red) <= max_batch_size.bit_length() + 2
        if isinstance(outcome, Inference):
            assert red_of(outcome) == red
        elif isinstance(outcome, EngineRestartError):
            assert harness.lost, "that is for those whom no engine is left for"
        else:
            assert isinstance(outcome, EngineError | DeviceFullError)
    if largest is None and not any(faults):
        assert {red for red, o in zip(reds, outcomes, strict=True) if isinstance(o, EngineError)} == poison & set(reds)
    assert all(1 <= ceiling <= max_batch_size for ceiling in ceilings)
    assert harness.lost <= 1

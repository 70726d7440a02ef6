"""Several engines behind one queue: they work at once, and one that fails, hangs or dies leaves the others serving."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.runtime.engines.device_errors import DeviceMemoryError
from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import Batch
from service.batching.batcher import Batcher
from service.batching.engine_runner import EngineRunner
from service.batching.limits import BatchLimits
from service.batching.reopening import REOPEN_AFTER
from service.batching.waiting import EngineInput, Inference
from service.errors import DeviceFullError, DrainingError, EngineError, EngineRestartError, StalledError
from service.process.metrics import Metrics
from tests.service.conftest import until
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio

Outcome = Inference | BaseException


class Harness:
    """A batcher of several engines, which are called 0, 1, ..., and its owner, which ends it like a service does."""

    def __init__(self, engines: Sequence[FakeEngine], max_batch_size: int, stall: float, hang: float | None) -> None:
        self.metrics = Metrics()
        self.engines = {str(number): engine for number, engine in enumerate(engines)}
        self.all_engines = list(engines)  # those that were opened later, too
        self.reopens = [False]  # whether each time of opening again succeeds; the last holds for all after it
        self.ends: list[asyncio.Task[None]] = []
        limits = BatchLimits(max_batch_size, 10**9)
        self.batcher = Batcher(self.engines, self.metrics, limits, {}, self, stall, hang)

    def runner(self, name: str) -> EngineRunner:
        return self.batcher.engines.runners[name]

    def submit(self, red: int) -> asyncio.Task[Inference]:
        image = np.zeros((8, 8, 3), dtype=np.uint8)
        image[..., 0] = red
        return asyncio.create_task(self.batcher.submit(EngineInput(image, 0.5), float("inf")))

    async def outcomes(self, reds: Sequence[int]) -> list[Outcome]:
        tasks = [self.submit(red) for red in reds]
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def up(self, *names: str) -> list[float | None]:
        return [self.value("detr_engine_up", device=name) for name in names]

    def reopen_engine(self, name: str) -> FakeEngine:
        opens = self.reopens.pop(0) if len(self.reopens) > 1 else self.reopens[0]
        if not opens:
            raise RuntimeError(f"no device {name}")
        self.all_engines.append(FakeEngine())
        return self.all_engines[-1]

    def engine_lost(self) -> None:
        self.ends.append(asyncio.create_task(self.batcher.close(0)))


@asynccontextmanager
async def running(
    *engines: FakeEngine, max_batch_size: int = 1, stall: float = float("inf"), hang: float | None = None
) -> AsyncIterator[Harness]:
    harness = Harness(engines, max_batch_size, stall, hang)
    try:
        yield harness
    finally:
        for engine in harness.all_engines:
            engine.release()
        await harness.batcher.close(5)
        await asyncio.gather(*harness.ends)


def red_of(outcome: Outcome) -> int:
    assert isinstance(outcome, Inference), repr(outcome)
    return round(float(outcome.outputs.pred_boxes[0, 0]) * 255)


def broken() -> FakeEngine:
    """An engine on which nothing runs."""
    engine = FakeEngine()
    engine.poison = set(range(256))
    return engine


async def test_engines_have_batches_at_the_same_time_and_one_queue() -> None:
    engines = [FakeEngine() for _ in range(3)]
    async with running(*engines) as harness:
        for engine in engines:
            engine.hold()
        tasks = [harness.submit(red) for red in range(5)]
        await until(lambda: all(len(engine.batches) == 1 for engine in engines))
        assert sorted(red for engine in engines for red in engine.seen) == [0, 1, 2], "oldest first, each by itself"
        assert harness.value("detr_queue_depth") == 2
        engines[1].release()
        await until(lambda: len(engines[1].seen) == 3)
        assert len(engines[0].seen) == len(engines[2].seen) == 1, "whoever is free takes what waits"
        for engine in engines:
            engine.release()
        assert [red_of(await task) for task in tasks] == [0, 1, 2, 3, 4]
    assert sorted({(await task).device for task in tasks}) == ["0", "1", "2"]


async def test_free_engines_share_what_waits() -> None:
    engines = [FakeEngine(), FakeEngine()]
    async with running(*engines, max_batch_size=8) as harness:
        assert [red_of(outcome) for outcome in await harness.outcomes(range(5))] == list(range(5))
    assert [engine.batches for engine in engines] == [[[0, 1, 2]], [[3, 4]]]


async def test_engines_take_turns() -> None:
    engines = [FakeEngine(), FakeEngine()]
    async with running(*engines) as harness:
        for red in range(4):
            await harness.submit(red)
    assert [engine.seen for engine in engines] == [[0, 2], [1, 3]]


async def test_what_one_engine_cannot_another_does() -> None:
    bad, good = broken(), FakeEngine()
    async with running(bad, good) as harness:
        assert [red_of(outcome) for outcome in await harness.outcomes(range(6))] == list(range(6))
        assert sorted(good.seen) == list(range(6))
        assert bad.seen == sorted(set(bad.seen)), "no image twice"


async def test_an_image_that_harms_engines_harms_two_at_most() -> None:
    engines = [FakeEngine() for _ in range(4)]
    for engine in engines:
        engine.poison = {7}
    async with running(*engines) as harness:
        (outcome,) = await harness.outcomes([7])
        assert isinstance(outcome, EngineError)
        assert sum(engine.seen.count(7) for engine in engines) == 2
        assert red_of((await harness.outcomes([8]))[0]) == 8


async def test_a_lost_engine_leaves_the_others_serving_and_the_last_one_ends_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad, good = broken(), FakeEngine()
    async with running(bad, good) as harness:
        assert harness.up("0", "1") == [1, 1]
        for red in range(2 * REOPEN_AFTER["error"] + 4):
            assert red_of(await harness.submit(red)) == red
        await until(lambda: harness.runner("0").is_lost)  # it is opened again, in vain, while the other one answers
        assert harness.up("0", "1") == [0, 1]
        assert harness.value("detr_engine_reopens_total", result="failed", device="0") == 1
        assert "the engine 0 is lost: it cannot be opened again" in caplog.text
        assert harness.ends == [], "it goes on"
        harness.batcher.engines.check()
        harness.runner("1").lose("test")
        assert len(harness.ends) == 1
        with pytest.raises(EngineRestartError):
            harness.batcher.engines.check()
        with pytest.raises((DrainingError, EngineRestartError)):
            await harness.submit(1)


async def test_nobody_waits_for_an_engine_that_is_opened_again_who_need_not() -> None:
    bad, good = broken(), FakeEngine()
    bad.poison, bad.largest = set(), 0
    proceed = threading.Event()
    async with running(bad, good, max_batch_size=4) as harness:
        harness.reopens = [True]
        reopen = harness.reopen_engine
        harness.reopen_engine = lambda name: reopen(name) if proceed.wait(20) else FakeEngine()  # type: ignore[method-assign]
        try:
            outcomes = await harness.outcomes(range(8))
            assert [red_of(outcome) for outcome in outcomes] == list(range(8))
            await until(lambda: harness.runner("0").is_reopening)
            assert harness.up("0", "1") == [0, 1]
            harness.batcher.engines.check()
        finally:
            proceed.set()
        await until(lambda: harness.up("0", "1") == [1, 1])


async def test_a_stuck_engine_is_left_and_named_and_taken_back_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    stuck, good = FakeEngine(), FakeEngine()
    stuck.hold()
    async with running(stuck, good, stall=0.2) as harness:
        assert [red_of(outcome) for outcome in await harness.outcomes(range(6))] == list(range(6))
        assert stuck.seen == [0]
        assert 0 in good.seen, "what it has goes to another one"
        assert "the engine 0 is stuck: it has been in one batch for 0.2 s" in caplog.text
        assert harness.up("0", "1") == [0, 1]
        assert not harness.batcher.engines.is_stalled
        stuck.release()
        await until(lambda: harness.up("0", "1") == [1, 1])
        await harness.outcomes(range(10, 14))
        assert len(stuck.seen) > 1


async def test_where_all_are_stuck_nobody_is_let_in_and_nothing_is_lost() -> None:
    engines = [FakeEngine(), FakeEngine()]
    for engine in engines:
        engine.hold()
    async with running(*engines, stall=0.05) as harness:
        tasks = [harness.submit(red) for red in range(3)]
        await until(lambda: harness.batcher.engines.is_stalled)
        with pytest.raises(StalledError):
            harness.batcher.engines.check()
        for engine in engines:
            engine.release()
        assert [red_of(await task) for task in tasks] == [0, 1, 2]
        harness.batcher.engines.check()


async def test_an_engine_that_hangs_is_lost_and_who_was_in_it_is_answered_by_another() -> None:
    stuck, good = FakeEngine(), FakeEngine()
    stuck.hold()
    async with running(stuck, good, hang=0.2) as harness:
        assert [red_of(outcome) for outcome in await harness.outcomes(range(4))] == list(range(4))
        assert harness.runner("0").is_lost
        assert harness.up("0", "1") == [0, 1]
        assert harness.ends == []
        stuck.release()
        await harness.outcomes(range(4, 8))
        assert stuck.seen == [0], "it is taken back by a new process only"


async def test_memory_that_runs_out_on_one_device_bounds_its_batches_and_no_other_s() -> None:
    small, large = FakeEngine(), FakeEngine()
    small.largest = 1
    async with running(small, large, max_batch_size=4) as harness:
        assert [red_of(outcome) for outcome in await harness.outcomes(range(8))] == list(range(8))
        assert harness.value("detr_max_batch_size", device="0") == 1
        assert harness.value("detr_max_batch_size", device="1") == 4
        assert harness.value("detr_batch_splits_total", reason="memory", device="1") == 0


class FaultyEngine(FakeEngine):
    """Does what a script says to each of its batches."""

    def __init__(self, script: Sequence[str]) -> None:
        super().__init__()
        self._script = list(script)
        self._released = threading.Event()

    def release(self) -> None:
        self._released.set()
        super().release()

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
        match self._script.pop(0) if self._script else "works":
            case "hangs":
                self._released.wait(20)
            case "dies":
                self.poison = set(range(256))  # for good
            case "memory":
                raise DeviceMemoryError("scripted")
            case "error":
                raise RuntimeError("scripted")
        return super().infer(batch, mask_threshold)


@settings(max_examples=60)
@given(
    scripts=st.lists(
        st.lists(st.sampled_from(["works", "memory", "error", "dies", "hangs"]), max_size=12), min_size=1, max_size=4
    ),
    count=st.integers(1, 24),
    max_batch_size=st.integers(1, 5),
    poison=st.sets(st.integers(0, 23), max_size=2),
    reopens=st.lists(st.booleans(), min_size=1, max_size=4),
)
def test_each_image_gets_one_answer_whatever_device_dies_hangs_or_has_no_memory(
    scripts: list[list[str]], count: int, max_batch_size: int, poison: set[int], reopens: list[bool]
) -> None:
    hangs = any("hangs" in script for script in scripts)
    patience = (0.1, 0.2) if hangs else (float("inf"), None)
    engines = [FaultyEngine(script) for script in scripts]
    for engine in engines:
        engine.poison = set(poison)

    async def play() -> tuple[list[Outcome], Harness]:
        async with running(*engines, max_batch_size=max_batch_size, stall=patience[0], hang=patience[1]) as harness:
            harness.reopens = list(reopens)
            return await harness.outcomes(range(count)), harness

    outcomes, harness = asyncio.run(play())

    assert len(harness.ends) <= 1
    is_all_over = bool(harness.ends)
    for red, outcome in enumerate(outcomes):
        if isinstance(outcome, Inference):
            assert red_of(outcome) == red, "its own, and no other's"
        elif isinstance(outcome, DrainingError | EngineRestartError):
            assert is_all_over, "only where no engine is left"
        else:
            assert isinstance(outcome, EngineError | DeviceFullError)
    runs = [red for engine in harness.all_engines for red in engine.seen]
    assert all(runs.count(red) <= 2 * (max_batch_size.bit_length() + 2) for red in range(count))
    # One that is whole answers everybody but those whom two others failed on before, which takes two.
    if len(scripts) <= 2 and [] in scripts and not poison and not hangs:
        assert [red_of(outcome) for outcome in outcomes] == list(range(count))

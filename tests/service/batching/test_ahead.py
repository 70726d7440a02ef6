"""The batch that lies ready at a busy engine: it begins without the event loop, unless it is the wrong one by then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from service.batching.batcher import Batcher
from service.errors import DeadlineError
from tests.processes import PATIENCE_S
from tests.service.batching.test_batcher import batching, busy, red_of, submit
from tests.service.batching.test_engine_set import running
from tests.service.conftest import until
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio


async def lies_ready(batcher: Batcher, *reds: int) -> None:
    """Wait until the batch of these images does."""

    def does() -> bool:
        ahead = batcher._waiting.ahead
        return ahead is not None and [int(each.item.image[0, 0, 0]) for each in ahead.members] == list(reds)

    await until(does)


def without_the_loop(condition: Callable[[], bool]) -> None:
    """Wait until something is so, while nothing happens on the event loop."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


async def test_an_engine_goes_on_without_waiting_for_the_event_loop(engine: FakeEngine) -> None:
    async with batching(engine, max_batch_size=2) as batcher:
        first = await busy(batcher, engine)
        rest = [submit(batcher, red) for red in (1, 2, 3)]
        await lies_ready(batcher, 1, 2)
        assert len(batcher._waiting) == 3, "until it begins, it waits like the others"
        engine.release()
        without_the_loop(lambda: len(engine.batches) == 2)
        assert engine.batches == [[255], [1, 2]]
        assert [red_of(answer) for answer in await asyncio.gather(first, *rest)] == [255, 1, 2, 3]
    assert engine.batches == [[255], [1, 2], [3]]


async def test_one_who_is_late_or_gone_by_then_is_not_given_to_the_engine(engine: FakeEngine) -> None:
    async with batching(engine, max_batch_size=1) as batcher:
        first = await busy(batcher, engine)
        late, stays = submit(batcher, 1, seconds=0.05), submit(batcher, 2)
        await lies_ready(batcher, 1)
        time.sleep(0.06)
        engine.release()
        without_the_loop(lambda: batcher._waiting.ahead is not None and batcher._waiting.ahead.did_not_begin)
        with pytest.raises(DeadlineError):
            await late
        await asyncio.gather(first, stays)
    assert engine.seen == [255, 2]


async def test_after_a_batch_that_failed_its_own_images_are_tried_again_first(engine: FakeEngine) -> None:
    async with batching(engine, max_batch_size=2) as batcher:
        engine.hold()
        first = [submit(batcher, red) for red in (1, 2)]
        await until(lambda: engine.batches == [[1, 2]])
        rest = [submit(batcher, red) for red in (3, 4)]
        await lies_ready(batcher, 3, 4)
        engine.faults.append(RuntimeError("no"))
        engine.release()
        assert [red_of(answer) for answer in await asyncio.gather(*first, *rest)] == [1, 2, 3, 4]
    assert engine.batches == [[1, 2], [1], [2], [3, 4]]


async def test_another_engine_that_is_free_earlier_takes_it() -> None:
    engines = [FakeEngine(), FakeEngine()]
    async with running(*engines) as harness:
        for engine in engines:
            engine.hold()
        tasks = [harness.submit(red) for red in range(3)]
        await lies_ready(harness.batcher, 2)
        ahead = harness.batcher._waiting.ahead
        assert ahead is not None
        other = harness.engines["1" if ahead.engine == "0" else "0"]
        other.release()
        await until(lambda: len(other.batches) == 2)
        for engine in engines:
            engine.release()
        assert [red_of(await task) for task in tasks] == [0, 1, 2]
    assert sorted(map(len, (engine.batches for engine in engines))) == [1, 2], "and the first one did not"

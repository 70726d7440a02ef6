"""Threads whose work may hang: how busy they are, what becomes of who waits, and that a hang is told of."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random

import pytest

from service.errors import DrainingError
from service.process.watched_threads import WatchedThreads
from tests.service.conftest import until

pytestmark = pytest.mark.anyio


class Hangs:
    """What is told of hangs."""

    def __init__(self) -> None:
        self.count = 0

    def tell(self) -> None:
        self.count += 1


@contextmanager
def threads(count: int = 1, hang_seconds: float | None = None, hangs: Hangs | None = None) -> Iterator[WatchedThreads]:
    pool = WatchedThreads("test", count, hang_seconds, (hangs or Hangs()).tell)
    try:
        yield pool
    finally:
        pool.close()


async def test_they_say_how_many_are_busy_and_for_how_long() -> None:
    end = threading.Event()
    with threads(2) as pool:
        assert (pool.busy_seconds(), pool.busy_longer_than(-1)) == (0, 0)
        working = [asyncio.create_task(pool.run(end.wait)) for _ in range(3)]
        await until(lambda: pool.busy_longer_than(0.02) == 2)
        assert pool.busy_seconds() > 0.02
        assert pool.busy_longer_than(1000) == 0
        end.set()
        assert await asyncio.gather(*working) == [True] * 3
        assert (pool.busy_seconds(), pool.busy_longer_than(-1)) == (0, 0)


async def test_work_that_nobody_waits_for_any_more_counts_until_its_end_and_what_has_not_begun_is_left_undone() -> None:
    end, done = threading.Event(), []
    with threads() as pool:
        begun = asyncio.create_task(pool.run(end.wait))
        waiting = asyncio.create_task(pool.run(lambda: done.append(1)))
        await until(lambda: pool.busy_seconds() > 0)
        for task in (begun, waiting):
            task.cancel()
        await asyncio.gather(begun, waiting, return_exceptions=True)
        assert pool.busy_seconds() > 0
        end.set()
        await until(lambda: pool.busy_seconds() == 0)
        await pool.run(lambda: done.append(2))
    assert done == [2]


async def test_a_hang_is_told_of_once_even_where_nobody_waits_for_its_work() -> None:
    end, hangs = threading.Event(), Hangs()
    with threads(2, 0.05, hangs) as pool:
        await pool.run(lambda: None)
        working = asyncio.create_task(pool.run(end.wait))
        await until(lambda: pool.busy_seconds() > 0)
        working.cancel()
        await until(lambda: hangs.count > 0)
        assert pool.busy_seconds() >= 0.05
        await asyncio.sleep(0.1)
        assert hangs.count == 1
        end.set()


async def test_work_that_ends_in_time_is_no_hang_however_much_of_it_there_is() -> None:
    hangs = Hangs()
    pause = threading.Event()
    with threads(1, 2.0, hangs) as pool:
        for _ in range(50):
            await pool.run(lambda: pause.wait(0.05))
    assert hangs.count == 0


async def test_closing_fails_whoever_waits_and_takes_no_more() -> None:
    end = threading.Event()
    with threads() as pool:
        waiting = [asyncio.create_task(pool.run(end.wait)) for _ in range(3)]
        await until(lambda: pool.busy_seconds() > 0)
        pool.close()
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(failure) for failure in failed] == [DrainingError] * 3
        assert pool.busy_seconds() > 0
        with pytest.raises(DrainingError):
            await pool.run(end.wait)
        end.set()


async def test_who_is_cancelled_while_they_close_is_cancelled() -> None:
    end = threading.Event()
    with threads() as pool:
        waiting = asyncio.create_task(pool.run(end.wait))
        await until(lambda: pool.busy_seconds() > 0)
        pool.close()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        end.set()


async def test_what_would_end_the_event_loop_is_an_error_like_any_other() -> None:
    with threads() as pool:
        with pytest.raises(RuntimeError, match="SystemExit"):
            await pool.run(sys.exit)
        assert pool.busy_seconds() == 0


async def test_a_thread_that_cannot_be_started_is_memory_that_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with threads() as pool, monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(MemoryError):
            await pool.run(lambda: None)


async def test_what_no_future_takes_is_an_error_like_any_other() -> None:
    with threads() as pool:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await pool.run(lambda: next(iter(())))
        assert await pool.run(lambda: 3) == 3


async def test_work_that_is_left_undone_is_let_go_of_and_told_of_at_once() -> None:
    end, told = threading.Event(), []

    class Held:
        def __call__(self) -> None: ...

    with threads() as pool:
        begun = asyncio.create_task(pool.run(end.wait))
        await until(lambda: pool.busy_seconds() > 0)
        held = Held()
        kept = weakref.ref(held)
        waiting = asyncio.create_task(pool.run(held, lambda: told.append("ended")))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        del held, waiting
        seen = list(told), kept()
        end.set()
        await begun
    assert seen == (["ended"], None)
    assert told == ["ended"]


async def test_an_error_holds_nothing_once_it_is_gone() -> None:
    class Held:
        def fail(self) -> None:
            raise ValueError("as it should")

    gc.collect()
    gc.disable()
    try:
        with threads() as pool:
            for ask in (pool.run, lambda work: pool.result(pool.begin(work))):
                held = Held()
                kept = weakref.ref(held)
                with suppress(ValueError):
                    await ask(held.fail)
                del held
                await pool.run(lambda: None)  # until then the thread may hold its last work
                assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("count", [1, 2])
async def test_of_each_work_the_end_is_told_once_whoever_leaves_and_however_it_ends(count: int) -> None:
    draw = Random(count)
    told = Counter[int]()
    done = Counter[int]()

    async def ask(pool: WatchedThreads, number: int) -> int:
        def work() -> int:
            time.sleep(draw.choice([0, 0, 0.0005]))
            done[number] += 1
            if number % 7 == 0:
                raise ValueError(number)
            return number

        return await pool.run(work, lambda: told.update([number]))

    with threads(count) as pool:
        asked = []
        for number in range(400):
            asked.append(asyncio.create_task(ask(pool, number)))
            await asyncio.sleep(draw.choice([0, 0, 0.0002, 0.001]))
            if draw.random() < 0.3:
                asked[draw.randrange(len(asked))].cancel()
        pool.close()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await until(lambda: pool.busy_seconds() == 0 and len(told) == len(asked))
    assert set(told.values()) == set(done.values()) == {1}
    for number, answer in enumerate(answers):
        if isinstance(answer, int):
            assert answer == number
        elif isinstance(answer, ValueError):
            assert number % 7 == 0
        else:
            assert isinstance(answer, asyncio.CancelledError | DrainingError)

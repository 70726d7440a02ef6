"""Large images never have all threads, however they end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from service.errors import DrainingError
from service.lifecycle.cpu_pool import CpuPool
from tests.service.conftest import until

pytestmark = pytest.mark.anyio


class Work:
    """What a thread does until it is told to stop."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.begun += 1
        assert self.may_end.wait(30)
        return "done"


def pool(threads: int) -> CpuPool:
    return CpuPool(threads, 600, None, lambda: None)


@pytest.mark.parametrize(("threads", "at_once"), [(1, 1), (2, 1), (4, 3)])
async def test_large_images_leave_a_thread_to_others(threads: int, at_once: int) -> None:
    cpu, large = pool(threads), Work()
    waiting = [asyncio.create_task(cpu.run_large(large)) for _ in range(6)]
    await until(lambda: large.begun == at_once)
    if threads > 1:
        assert await cpu.run(lambda: "at once") == "at once"
    assert large.begun == at_once
    large.may_end.set()
    assert await asyncio.gather(*waiting) == 6 * ["done"]
    cpu.close()


async def test_one_that_nobody_waits_for_any_more_keeps_its_place_until_its_end() -> None:
    cpu, first, second = pool(2), Work(), Work()
    left = asyncio.create_task(cpu.run_large(first))
    await until(lambda: first.begun == 1)
    waiting = asyncio.create_task(cpu.run_large(second))
    left.cancel()
    assert await cpu.run(lambda: "at once") == "at once"
    assert second.begun == 0
    first.may_end.set()
    second.may_end.set()
    assert await waiting == "done"
    cpu.close()


async def test_one_that_fails_or_never_begins_gives_its_place_back() -> None:
    cpu, busy = pool(2), Work()
    with pytest.raises(ZeroDivisionError):
        await cpu.run_large(lambda: 1 / 0)
    others = [asyncio.create_task(cpu.run(busy)) for _ in range(2)]
    await until(lambda: busy.begun == 2)
    never = asyncio.create_task(cpu.run_large(lambda: "never"))
    await asyncio.sleep(0.01)
    never.cancel()
    busy.may_end.set()
    await asyncio.gather(*others)
    assert await cpu.run_large(lambda: "done") == "done"
    cpu.close()


async def test_closing_fails_those_that_wait_for_their_turn_though_one_hangs() -> None:
    cpu, hangs = pool(2), Work()
    waiting = [asyncio.create_task(cpu.run_large(hangs)) for _ in range(4)]
    await until(lambda: hangs.begun == 1)
    cpu.close()
    cpu.close()
    failed = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(failure) for failure in failed] == [DrainingError] * 4
    hangs.may_end.set()

"""The clock that stands still while the process does, and the event loop that goes by it."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
import time
from concurrent.futures import Future
from contextvars import ContextVar
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.process.running_time import RunningClock, RunningLoop, result_within


class Machine:
    """The clocks of a machine: those of the process stand still while it is stopped."""

    def __init__(self) -> None:
        self.now, self.cpu = 1000.0, 3.0
        self.clock = RunningClock(lambda: self.now, lambda: self.cpu)

    def runs(self, seconds: float, busy_threads: float = 0.0) -> float:
        """Let time pass in which the process runs; what its clock then says."""
        end = self.now + seconds
        while self.now < end:
            step = min(0.1, end - self.now)
            self.now += step
            self.cpu += busy_threads * step
            self.clock()
        return self.clock()

    def is_stopped(self, seconds: float) -> float:
        """Let time pass in which it does not; what its clock then says."""
        self.now += seconds
        return self.clock()


def test_while_the_process_runs_its_clock_is_the_system_s() -> None:
    machine = Machine()
    began = machine.clock()
    assert machine.runs(3) - began == pytest.approx(3)
    assert machine.runs(300, busy_threads=4) - began == pytest.approx(303)


@pytest.mark.parametrize("seconds", [2, 60, 86_400])
@pytest.mark.parametrize("busy_threads", [0, 1])
def test_while_it_is_stopped_its_clock_stands_still(seconds: float, busy_threads: int) -> None:
    machine = Machine()
    began = machine.clock()
    machine.runs(5, busy_threads)
    assert machine.is_stopped(seconds) - began == pytest.approx(5, abs=0.2)
    assert machine.runs(5, busy_threads) - began == pytest.approx(10, abs=0.2)


def test_a_thread_that_keeps_everybody_from_asking_takes_time_and_stops_nothing() -> None:
    machine = Machine()
    began = machine.clock()
    machine.now += 9
    machine.cpu += 9
    assert machine.clock() - began == pytest.approx(9)


@given(st.lists(st.tuples(st.floats(0, 0.2), st.sampled_from([0.0, 0.0, 0.5, 3.0, 50.0]), st.floats(0, 0.1))))
def test_it_never_goes_back(steps: list[tuple[float, float, float]]) -> None:
    machine = Machine()
    told = [machine.clock()]
    for runs, stopped, cpu in steps:
        machine.now += runs + stopped
        machine.cpu += cpu
        told.append(machine.clock())
    assert all(before <= after for before, after in pairwise(told))


def test_an_event_loop_that_has_nothing_to_do_sleeps_as_long_as_it_is_told() -> None:
    async def sleep() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        began, system = loop.time(), time.monotonic()
        await asyncio.sleep(1.5)
        return loop.time() - began, time.monotonic() - system

    with asyncio.Runner(loop_factory=RunningLoop) as runner:
        slept, passed = runner.run(sleep())
    assert 1.49 <= slept <= passed + 0.01, "of a loop that counts in milliseconds"


def test_timers_come_in_their_order_run_in_their_context_and_can_be_cancelled() -> None:
    said: list[str] = []
    word = ContextVar("word", default="")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        word.set("first")
        loop.call_at(loop.time() + 0.02, lambda: said.append(word.get()))
        loop.call_later(0.01, said.append, "zeroth")
        word.set("")
        loop.call_later(0.015, said.append, "never").cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.sleep(60)

    with asyncio.Runner(loop_factory=RunningLoop) as runner:
        runner.run(main())
    assert said == ["zeroth", "first"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop")
def test_it_is_uvloop_s_which_takes_half_the_processor_time_a_request() -> None:
    assert issubclass(RunningLoop, importlib.import_module("uvloop").Loop)


def test_a_timer_that_comes_too_early_because_of_a_pause_waits_for_what_is_left() -> None:
    paused = [0.0]

    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, RunningLoop)
        loop._clock = RunningClock(lambda: time.monotonic() - paused[0], lambda: 0.0)
        began, system = loop.time(), time.monotonic()
        come = loop.create_future()
        loop.call_later(1.2, come.set_result, None)
        paused[0] = 1.0  # as if the system's clock had gone on by so much more
        await come
        return loop.time() - began, time.monotonic() - system

    with asyncio.Runner(loop_factory=RunningLoop) as runner:
        ran, passed = runner.run(main())
    assert ran >= 1.15
    assert passed >= 2.15


def test_a_thread_s_result_is_waited_for_as_long_as_it_takes_and_no_longer() -> None:
    made: Future[int] = Future()
    threading.Timer(0.05, made.set_result, [7]).start()
    assert result_within(made, 60) == 7
    with pytest.raises(TimeoutError):
        result_within(Future(), 0.05)
    failed: Future[int] = Future()
    failed.set_exception(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        result_within(failed, 60)

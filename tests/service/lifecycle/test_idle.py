"""What is called when nobody has asked for a while."""

from __future__ import annotations

import asyncio

import pytest

from service.lifecycle.idle import WhenIdle
from tests.service.conftest import Serving, red_png, until

WHILE_S = 0.05


def test_it_is_called_once_after_the_last_of_several() -> None:
    async def play() -> list[int]:
        calls: list[int] = []
        idle = WhenIdle(WHILE_S, lambda: calls.append(1))
        counts = []
        await asyncio.sleep(3 * WHILE_S)
        counts.append(len(calls))  # nothing was under way yet
        with idle.busy():
            with idle.busy():
                pass
            await asyncio.sleep(3 * WHILE_S)
            counts.append(len(calls))  # one is still under way
        await asyncio.sleep(6 * WHILE_S)
        counts.append(len(calls))
        with idle.busy():
            pass
        await asyncio.sleep(3 * WHILE_S)
        counts.append(len(calls))
        return counts

    assert asyncio.run(play()) == [0, 0, 1, 2]


def test_whoever_comes_in_the_meantime_puts_it_off() -> None:
    async def play() -> int:
        calls: list[int] = []
        idle = WhenIdle(WHILE_S, lambda: calls.append(1))
        with idle.busy():
            pass
        with idle.busy():
            await asyncio.sleep(3 * WHILE_S)
            return len(calls)

    assert asyncio.run(play()) == 0


def test_what_fails_was_under_way_too() -> None:
    async def play() -> int:
        calls: list[int] = []
        idle = WhenIdle(WHILE_S, lambda: calls.append(1))
        try:
            with idle.busy():
                raise ValueError
        except ValueError:
            await asyncio.sleep(3 * WHILE_S)
        return len(calls)

    assert asyncio.run(play()) == 1


@pytest.mark.anyio
async def test_a_service_that_nobody_asks_gives_memory_back(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bool] = []
    monkeypatch.setattr("service.lifecycle.service.GIVE_BACK_AFTER_SECONDS", WHILE_S)
    monkeypatch.setattr("service.lifecycle.service.give_back_freed", lambda: given.append(True))
    async with serving() as app:
        await app.client.get("/health/ready")
        await asyncio.sleep(3 * WHILE_S)
        assert not given  # a probe takes nothing
        await app.detect(red_png(200))
        await until(lambda: given == [True])
        await app.detect(b"nonsense")
        await until(lambda: given == [True, True])

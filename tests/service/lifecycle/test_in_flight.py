"""What is in flight, and who is told of it."""

from __future__ import annotations

import asyncio

import pytest

from service.lifecycle.in_flight import InFlight
from tests.service.conftest import Serving, red_png, until

WHILE_S = 0.05


def test_what_is_in_flight_is_so_at_every_wider_level() -> None:
    widest: InFlight[str] = InFlight()
    wide: InFlight[str] = InFlight(within=widest)
    narrow, other = InFlight(within=wide), InFlight(within=wide)
    with narrow.member("a"), other.member("b"):
        assert [level.count for level in (narrow, other, wide, widest)] == [1, 1, 2, 2]
        assert list(narrow) == ["a"]
        assert sorted(widest) == ["a", "b"]
        with pytest.raises(ValueError, match="lost"), narrow.member("c"):
            raise ValueError("lost")
        assert [level.count for level in (narrow, wide)] == [1, 2]
    assert [level.count for level in (narrow, other, wide, widest)] == [0, 0, 0, 0]


def test_who_waits_is_told_when_the_last_has_ended() -> None:
    async def play() -> None:
        wide: InFlight[str] = InFlight()
        narrow = InFlight(within=wide)
        await narrow.wait_until_empty()
        with wide.member("b"):
            with narrow.member("a"):
                waiting = [asyncio.create_task(level.wait_until_empty()) for level in (narrow, wide)]
                await asyncio.sleep(0)
                assert not any(task.done() for task in waiting)
            await waiting[0]
            assert not waiting[1].done()
        await waiting[1]

    asyncio.run(play())


def test_it_is_called_once_after_the_last_of_several() -> None:
    async def play() -> list[int]:
        calls: list[int] = []
        in_flight: InFlight[str] = InFlight()
        in_flight.when_idle(WHILE_S, lambda: calls.append(1))
        counts = []
        await asyncio.sleep(3 * WHILE_S)
        counts.append(len(calls))  # nothing was under way yet
        with in_flight.member("a"):
            with in_flight.member("b"):
                pass
            await asyncio.sleep(3 * WHILE_S)
            counts.append(len(calls))  # one is still under way
        await asyncio.sleep(6 * WHILE_S)
        counts.append(len(calls))
        with in_flight.member("a"):
            pass
        await asyncio.sleep(3 * WHILE_S)
        counts.append(len(calls))
        return counts

    assert asyncio.run(play()) == [0, 0, 1, 2]


def test_whoever_comes_in_the_meantime_puts_it_off() -> None:
    async def play() -> int:
        calls: list[int] = []
        in_flight: InFlight[str] = InFlight()
        in_flight.when_idle(WHILE_S, lambda: calls.append(1))
        with in_flight.member("a"):
            pass
        with in_flight.member("a"):
            await asyncio.sleep(3 * WHILE_S)
            return len(calls)

    assert asyncio.run(play()) == 0


def test_what_fails_was_under_way_too() -> None:
    async def play() -> int:
        calls: list[int] = []
        in_flight: InFlight[str] = InFlight()
        in_flight.when_idle(WHILE_S, lambda: calls.append(1))
        try:
            with in_flight.member("a"):
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

"""Hundreds of slow uploads at once cost bounded memory, leave no files, and do not keep others out (row L7)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from service.bench.load import Sample, closed_loop, open_loop
from tests.reliability.conftest import Measured, Scripted
from tests.reliability.flood import Flood, flood
from tests.reliability.growth import usage_at_rest
from tests.reliability.scripted_engine import identity_of, picture
from tests.reliability.under_load import (
    CLIENTS,
    HEALTH,
    SCRIPT,
    goodput,
    knee,
    memory_budget,
    photos,
    saturate,
    scaled,
    tally,
    target_of,
    watching,
)
from tests.server_process import ServerProcess


@pytest.mark.slow
@pytest.mark.row(id="L7")
def test_uploads_together_take_no_more_memory_than_they_may(start: Scripted) -> None:
    """A small bound, so that few uploads reach it: beyond it they are refused, and health is not."""
    bound = 16 * 2**20
    with start("--max-buffered-bytes", str(bound), "--max-body-bytes", str(15 * 2**20)) as server:
        server.post("/detect", picture(1))
        before = server.rss()

        async def play() -> Flood:
            async with flood(server.port, 60) as state:
                with watching(server) as use:
                    while state.endings[503] < 30:
                        await asyncio.sleep(0.05)
            assert set(state.endings) == {503}
            assert use.rss - before < 2 * bound
            return state

        asyncio.run(play())
        assert server.status("/health/live") == 200
        assert identity_of(server.post("/detect", picture(2)).json()) == 2
        assert server.errors() == []


@pytest.mark.soak
@pytest.mark.row(id="L7")
@pytest.mark.timeout(600)
def test_a_flood_of_five_hundred_uploads_keeps_nobody_out(start: Scripted, tmp_path: Path, measured: Measured) -> None:
    """500 uploads of 15 MiB at 100 KB a second each, that stop at nine tenths, for a minute."""
    spool = tmp_path / "spool"
    spool.mkdir()
    # More connections than the flood has, because who may connect is for a proxy to say, not for this service.
    with start("--max-connections", "1024", script=SCRIPT, env={"TMPDIR": str(spool)}) as server:
        most = knee(saturate(server, photos()))
        budget, before = memory_budget(server), usage_at_rest(server)
        seconds = scaled(60)
        with watching(server) as use:
            good, health, state, files, begin = asyncio.run(both(server, spool, seconds))
        after = usage_at_rest(server)
        errors = server.errors()
    kept = goodput(good, begin, begin + seconds) / most
    measured(
        "L7",
        f"{state.sent / 1e9:.1f} GB of uploads, ended as {dict(state.endings)}; peak {use.rss / 1e6:.0f} MB of "
        f"{budget / 1e6:.0f} MB; good requests {100 * kept:.0f} % of the knee; {files} files",
        peak_mb=use.rss / 1e6,
        budget_mb=budget / 1e6,
        goodput_share=kept,
    )
    assert set(state.endings) <= {408, 503}
    assert set(tally(good)) <= {200, 503}
    assert tally(health) == {200: len(health)}
    assert use.rss <= budget
    assert files == 0
    assert kept >= 0.8
    assert abs(after.fds - before.fds) <= 2
    assert errors == []


async def both(
    server: ServerProcess, spool: Path, seconds: float
) -> tuple[list[Sample], list[Sample], Flood, int, float]:
    """Good requests, health, and what is spooled to files, from when the flood has filled what it may."""
    async with flood(server.port, 500) as state:
        await asyncio.sleep(5)
        begin, target = time.monotonic(), target_of(server)
        load = closed_loop(target, photos(), clients=CLIENTS, seconds=seconds)
        good, health = await asyncio.gather(load, open_loop(target, HEALTH[:1], rate=5, seconds=seconds))
        return good, health, state, len(list(spool.iterdir())), begin

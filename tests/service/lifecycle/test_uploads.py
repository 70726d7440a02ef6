from __future__ import annotations

import asyncio

import pytest

from service.lifecycle.uploads import Turns, UploadMemory

pytestmark = pytest.mark.anyio

PIECE = bytes(2**20)


async def test_those_who_wait_go_on_one_after_the_other_and_a_small_task_gets_between() -> None:
    turns, went = Turns(), list[str]()

    async def large(name: str) -> None:
        for _ in range(3):
            await turns.wait()
            went.append(name)

    async def small() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            went.append("small")

    await asyncio.gather(large("a"), large("b"), large("c"), small())
    larges = [name for name in went if name != "small"]
    assert larges == ["a", "b", "c"] * 3
    assert went.index("b") > max(place for place, name in enumerate(went) if name == "small")


async def test_a_turn_that_nobody_takes_any_more_is_the_next_ones() -> None:
    turns = Turns()
    gone, waits = asyncio.ensure_future(turns.wait()), asyncio.ensure_future(turns.wait())
    await asyncio.sleep(0)
    gone.cancel()
    async with asyncio.timeout(10):
        await waits


@pytest.mark.parametrize("sizes", [[1] * 200_000, [100_000] * 5, [3, 2**16, 2**16 - 1, 5, 2**18], [1]], ids=len)
async def test_a_body_is_what_came_in_few_pieces(sizes: list[int]) -> None:
    chunks = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    with UploadMemory(2**30).upload("") as upload:
        for chunk in chunks:
            await upload.append(chunk)
        assert len(upload._pieces) <= 1 + sum(sizes) // 2**15
        assert upload.body() == upload.body() == b"".join(chunks)
        upload.release()
        assert (upload.body(), len(upload)) == (b"", 0)


async def test_only_large_uploads_wait_for_turns() -> None:
    memory = UploadMemory(2**30)
    with memory.upload("") as small, memory.upload("") as large:
        for _ in range(5):
            await large.append(PIECE)
        going_on = [asyncio.ensure_future(large.append(PIECE)) for _ in range(3)]
        for _ in range(4):
            await small.append(PIECE)
        assert not any(piece.done() for piece in going_on)
        await asyncio.gather(*going_on)
        assert (len(small), len(large)) == (4 * len(PIECE), 8 * len(PIECE))

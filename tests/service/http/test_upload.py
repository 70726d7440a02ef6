"""Reading uploads: bounds of size, memory and time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from service.errors import UploadMemoryError
from service.images.prepare import prepare
from service.images.task import Prepared
from service.lifecycle.cpu_pool import CpuPool
from service.lifecycle.pipeline import LARGE_UPLOAD
from service.lifecycle.uploads import UploadMemory
from tests.service.conftest import JPEG, Serving, check_error, red_png, until
from tests.service.fakes import FakeEngine

pytestmark = [pytest.mark.anyio, pytest.mark.api]


async def chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_bound_is_the_last_size_that_is_accepted(serving: Serving, engine: FakeEngine, chunked: bool) -> None:
    png = red_png(1) + b"\x00" * 1000
    async with serving(engine, max_body_bytes=len(png)) as app:

        async def send(body: bytes) -> Any:
            return await app.detect(chunks(body, 50) if chunked else body)

        assert (await send(png)).status_code == 200
        check_error(await send(png + b"\x00"), 413, "upload_too_large")


@pytest.mark.usefixtures("inside")  # over a network the body is sent meanwhile
async def test_an_announced_size_is_refused_before_the_body_is_read(serving: Serving, engine: FakeEngine) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b""
        raise AssertionError("the body was read")

    async with serving(engine) as app:
        headers = JPEG | {"content-length": str(2**40)}
        response = await app.client.post("/detect", content=never(), headers=headers)
    check_error(response, 413, "upload_too_large")


async def test_ten_thousand_tiny_chunks_are_one_image(serving: Serving, engine: FakeEngine) -> None:
    body = red_png(1) + b"\x00" * 10_000  # what follows a PNG's end does not count
    async with serving(engine) as app:
        assert (await app.detect(chunks(body, 1))).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/jsonp",
        "application/x-www-form-urlencoded",
        "images/png",
    ],
)
async def test_other_content_types_are_refused(serving: Serving, engine: FakeEngine, content_type: str) -> None:
    async with serving(engine) as app:
        response = await app.client.post("/detect", content=red_png(1), headers={"content-type": content_type})
    check_error(response, 415, "media_type_not_accepted")


async def test_a_compressed_body_is_refused(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        headers = JPEG | {"content-encoding": "gzip"}
        check_error(await app.client.post("/detect", content=b"x", headers=headers), 415, "media_type_not_accepted")


async def test_uploads_share_a_bounded_memory(serving: Serving, engine: FakeEngine) -> None:
    png = red_png(1)
    async with serving(engine, max_body_bytes=1024, max_buffered_bytes=1024) as app:
        app.service.upload_memory.take(1025 - len(png))
        check_error(await app.detect(png), 503, "uploads_full")
        app.service.upload_memory.give_back(500)  # for the picture and for its answer
        assert (await app.detect(png)).status_code == 200


async def test_memory_is_given_back_however_the_upload_ends() -> None:
    memory = UploadMemory(10)
    with memory.upload("") as upload:
        await upload.append(b"123456")
        assert memory.used_bytes == 6
        upload.release()
        assert memory.used_bytes == 0
    with memory.upload("") as upload:
        await upload.append(b"123456")
        with pytest.raises(UploadMemoryError):
            await upload.append(b"123456")
        assert memory.used_bytes == 6
    assert memory.used_bytes == 0


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("path", ["/detect", "/segment", "/segment?overlay=true"])
@pytest.mark.parametrize("bound", ["LARGE_WORK", "MANY_PARTS"])
async def test_a_large_image_and_one_of_many_parts_are_answered_like_any_other(
    serving: Serving, jpeg: bytes, path: str, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_off = 0

    async def run_large(pool: CpuPool, work: Callable[[], Any]) -> Any:
        nonlocal put_off
        put_off += 1
        return await CpuPool.run(pool, work)

    monkeypatch.setattr(CpuPool, "run_large", run_large)
    async with serving() as app:
        answer = await app.client.post(path, content=jpeg, headers=JPEG)
    assert put_off == 0
    monkeypatch.setattr(f"service.images.prepare.{bound}", 1)
    async with serving() as app:
        as_large = await app.client.post(path, content=jpeg, headers=JPEG)
        assert (answer.status_code, as_large.status_code) == (200, 200)
        assert as_large.content == answer.content
        assert app.service.upload_memory.used_bytes == 0
    assert put_off > 0


@pytest.mark.usefixtures("inside")
async def test_large_uploads_leave_a_thread_to_others(
    serving: Serving, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    may_end = threading.Event()

    def look_through(body: bytes, *rest: Any) -> Prepared:
        if len(body) > LARGE_UPLOAD:
            begun.append(len(body))
            assert may_end.wait(30)
        return prepare(body, *rest)

    monkeypatch.setattr("service.lifecycle.pipeline.prepare", look_through)
    small = red_png(1)
    large = small + bytes(LARGE_UPLOAD)
    async with serving(engine, cpu_threads=2) as app:
        waiting = [asyncio.create_task(app.detect(large)) for _ in range(3)]
        await until(lambda: len(begun) == 1)
        for _ in range(3):  # the others have come meanwhile
            assert (await app.detect(small)).status_code == 200
        assert len(begun) == 1
        may_end.set()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3

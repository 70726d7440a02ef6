"""Where requests begin and end: uploads that are refused half-way, empty lines, and clients that send no more."""

from __future__ import annotations

import asyncio

import pytest

from tests.service.wire.listening import GET, LARGE, POST, SMUGGLED, answer, listening

pytestmark = pytest.mark.anyio


async def test_an_answer_before_the_end_of_an_upload_is_the_last_of_its_connection() -> None:
    async with listening() as port:
        reader, writer = await port.connect(POST % 1000)
        told = await reader.read()
        assert told.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in told.lower()
        writer.write(SMUGGLED * 10)
        writer.write_eof()
        await port.until("detr_connections", 0)
        assert port.asked == ["/refuse"]


UPLOADS = {
    "a length": (POST % LARGE, b"x" * LARGE),
    "chunks": (
        POST.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked"),
        (b"100000\r\n" + b"x" * 2**20 + b"\r\n") * 64,
    ),
    "no HTTP": (b"POST /read HTTP/1.1\r\n\r\n", b"x" * LARGE),
    "large headers": (b"POST /read HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 5000, b"x" * LARGE),
}  # fmt: skip


@pytest.mark.parametrize(("head", "body"), UPLOADS.values(), ids=UPLOADS.keys())
async def test_who_uploads_all_before_it_reads_still_gets_the_answer(head: bytes, body: bytes) -> None:
    async with listening() as port:
        reader, writer = await port.connect(head)
        writer.write(body)
        await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 ")
        assert port.sample("detr_connections_closed_total/slow_rest") == 0


async def test_who_is_refused_for_a_crowd_gets_the_answer_too_after_an_upload() -> None:
    async with listening(max_connections=1) as port:
        working = await port.connect(GET)
        await port.until_asked(1)
        reader, writer = await port.connect(POST % LARGE)
        writer.write(b"x" * LARGE)
        await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 503")
        port.release.set()
        assert (await answer(working)).endswith(b"/hold")


async def test_the_rest_of_a_refused_upload_is_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.wire.lingering._MIN_LINGER_S", 0.01)
    async with listening(body_timeout=0.05) as port:
        reader, _ = await port.connect(POST % 1000 + b"x")
        assert b"/refuse" in await reader.read()
        await port.until("detr_connections_closed_total/slow_rest", 1)
        await port.until("detr_connections", 0)


async def test_an_upload_that_came_whole_keeps_its_connection_though_nobody_read_it() -> None:
    async with listening() as port:
        client = await port.connect(POST % 3 + b"abc")
        assert b"connection: close" not in (await answer(client)).lower()
        client[1].write(POST.replace(b"/refuse", b"/read") % 3 + b"abc")
        assert (await answer(client)).endswith(b"/read")


async def test_who_asks_before_it_uploads_is_told_no_without_a_hundred() -> None:
    async with listening() as port:
        told = await port.exchange(POST.replace(b"Host", b"Expect: 100-continue\r\nHost") % 1000)
        assert told.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in told.lower()


async def test_who_asks_before_it_uploads_is_told_to_go_on_where_the_upload_is_wanted() -> None:
    async with listening() as port:
        head = POST.replace(b"Host", b"Expect: 100-continue\r\nHost").replace(b"/refuse", b"/read") % 3
        client = await port.connect(head)
        assert (await client[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        client[1].write(b"abc")
        assert (await answer(client)).endswith(b"/read")


@pytest.mark.parametrize("cuts", [(), (1,), (60_000,), (59, 60_000), (10_000, 130_000, 200_200)])
async def test_bodies_arrive_whole_and_the_next_request_is_found_however_they_are_cut(cuts: tuple[int, ...]) -> None:
    async with listening() as port:
        request = POST.replace(b"/refuse", b"/echo") % 100_000 + bytes(range(250)) * 400
        data = request * 2 + SMUGGLED
        _, writer = client = await port.connect()
        for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
            writer.write(data[begin:end])
            await asyncio.sleep(0.01)
        for _ in range(2):
            assert (await answer(client)).endswith(bytes(range(250)) * 400)
        assert (await answer(client)).endswith(b"/smuggled")


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
async def test_empty_lines_before_a_request_are_ignored_however_they_come(end: bytes) -> None:
    async with listening() as port:
        read = POST.replace(b"/refuse", b"/read") % 3 + b"abc"
        client = await port.connect(end + read)
        assert (await answer(client)).endswith(b"/read")
        for part in (*(end[index : index + 1] for index in range(len(end))), end * 3 + read + end + read):
            client[1].write(part)
            await asyncio.sleep(0.01)
        for _ in range(2):
            assert (await answer(client)).endswith(b"/read")
        assert port.asked == ["/read"] * 3


@pytest.mark.parametrize("lines", [b"\r\n" * 9, b"\n" * 9, b"\r\r\n", b"\r", b" \r\n"])
async def test_no_other_emptiness_before_a_request_is_ignored(lines: bytes) -> None:
    async with listening() as port:
        told = await port.exchange(lines + b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 400")
        assert port.asked == []


async def test_who_sends_nothing_but_empty_lines_is_cut_off() -> None:
    async with listening(header_timeout=0.05) as port:
        assert await port.exchange(b"\r\n\r") == b""
        assert port.sample("detr_connections_closed_total/slow_headers") == 1


async def test_what_comes_behind_the_last_request_disturbs_nothing() -> None:
    async with listening() as port:
        client = await port.connect(GET.replace(b"Host", b"Connection: close\r\nHost"))
        await port.until_asked(1)
        client[1].write(b"\r\n" + SMUGGLED)
        await asyncio.sleep(0.01)
        port.release.set()
        told = await client[0].read()
        assert told.count(b"HTTP/1.1 ") == 1
        assert told.endswith(b"/hold")
        assert port.asked == ["/hold"]


@pytest.fixture
def asks_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.wire.protocol._ASK_AFTER_S", 0.02)


HALF_CLOSED = {
    "at once": [b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n"],
    "old": [b"GET /now HTTP/1.0\r\n\r\n"],
    "a body": [POST.replace(b"/refuse", b"/read") % 3 + b"abc"],
    "a large body": [POST.replace(b"/refuse", b"/read") % LARGE, b"x" * LARGE],
    "a large answer": [b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"],
    "several": [GET, SMUGGLED, POST.replace(b"/refuse", b"/read") % 3 + b"abc", b"\r\n", SMUGGLED],
}


@pytest.mark.parametrize("parts", HALF_CLOSED.values(), ids=HALF_CLOSED.keys())
async def test_whole_requests_are_answered_though_their_client_sends_nothing_more(parts: list[bytes]) -> None:
    async with listening() as port:
        port.release.set()
        reader, writer = await port.connect()
        writer.write(b"".join(parts))
        writer.write_eof()
        told = await reader.read()
        count = sum(part.count(b"HTTP/1.") for part in parts)
        assert told.count(b"HTTP/1.1 200") == len(port.answered) == count
        await port.until("detr_connections", 0)


async def test_who_is_answered_and_then_sends_nothing_more_is_closed() -> None:
    async with listening() as port:
        reader, writer = await port.connect(b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await answer((reader, writer))).endswith(b"/now")
        writer.write_eof()
        assert await reader.read() == b""


async def test_who_stops_amid_a_request_or_an_upload_gets_no_answer() -> None:
    async with listening() as port:
        for sent in (b"GET /now HTTP/1.1\r\nHo", POST.replace(b"/refuse", b"/read") % 3 + b"ab"):
            reader, writer = await port.connect(sent)
            writer.write_eof()
            assert await reader.read() == b""
        await port.until("detr_connections", 0)


@pytest.mark.usefixtures("asks_soon")
async def test_who_waits_for_long_with_its_half_closed_is_asked_and_answered() -> None:
    async with listening() as port:
        reader, writer = await port.connect(GET)
        writer.write_eof()
        interim = [await reader.readuntil(b"\r\n\r\n") for _ in range(3)]
        assert {told.split(b"\r\n")[0] for told in interim} == {b"HTTP/1.1 100 Continue"}
        port.release.set()
        assert (await reader.read()).endswith(b"/hold")


@pytest.mark.usefixtures("asks_soon")
async def test_a_client_of_http_1_0_is_never_asked() -> None:
    async with listening() as port:
        reader, writer = await port.connect(b"GET /hold HTTP/1.0\r\n\r\n")
        writer.write_eof()
        await port.until_asked(1)
        await asyncio.sleep(0.1)
        port.release.set()
        told = await reader.read()
        assert told.startswith(b"HTTP/1.1 200")
        assert told.endswith(b"/hold")


@pytest.mark.usefixtures("asks_soon")
async def test_the_app_hears_that_a_client_has_gone_while_it_works() -> None:
    async with listening() as port:
        _, writer = await port.connect(GET.replace(b"/hold", b"/watch"))
        await port.until_asked(1)
        writer.close()
        await port.until_asked(2)
        assert port.asked == ["/watch", "http.disconnect"]

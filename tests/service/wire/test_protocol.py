"""Connections over real sockets, with a scripted app behind them: who is waited for, who is cut off, who has to go."""

from __future__ import annotations

import asyncio
import json

import h11
import pytest

from tests.service.wire.listening import GET, SMUGGLED, answer, is_closed, listening

pytestmark = pytest.mark.anyio


async def test_a_newcomer_takes_the_place_of_who_has_waited_longest() -> None:
    async with listening(max_connections=4) as port:
        silent = [await port.connect(part) for part in (b"", b"GET", b"GET / HTTP/1.1\r\nX: ", b"")]
        newcomer = await port.connect(b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await answer(newcomer)).startswith(b"HTTP/1.1 200")
        await port.until("detr_connections_closed_total/room", 1)
        assert [await is_closed(client) for client in silent] == [True, False, False, False]


async def test_more_bytes_of_a_slow_header_do_not_win_back_a_place() -> None:
    async with listening(max_connections=2) as port:
        slow = await port.connect(b"GET / HTTP/1.1\r\n")
        idle = await port.connect()
        slow[1].write(b"X: y\r\n")
        await slow[1].drain()
        await port.connect()
        assert [await is_closed(client) for client in (slow, idle)] == [True, False]


async def test_a_request_that_is_answered_keeps_its_place_against_any_crowd() -> None:
    async with listening(max_connections=4) as port:
        working = await port.connect(GET)
        await port.until_asked(1)
        for _ in range(20):
            await port.connect()
        assert port.sample("detr_connections") == 4
        port.release.set()
        assert (await answer(working)).endswith(b"/hold")


async def test_where_all_are_at_work_a_newcomer_is_told_at_once_and_unread() -> None:
    async with listening(max_connections=2) as port:
        working = [await port.connect(GET) for _ in range(2)]
        await port.until_asked(2)
        told = await port.exchange(b"")
        head, _, body = told.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 7" in head.lower()
        assert b"connection: close" in head.lower()
        assert json.loads(body)["error"].keys() == {"code", "message", "request_id"}
        assert json.loads(body)["error"]["code"] == "too_many_connections"
        assert port.sample("detr_requests_total/other503") == 1
        port.release.set()
        for client in working:
            assert (await answer(client)).endswith(b"/hold")


async def test_a_connection_that_was_answered_waits_again_and_can_go() -> None:
    async with listening(max_connections=2) as port:
        port.release.set()
        kept = [await port.connect(GET) for _ in range(2)]
        for client in kept:
            await answer(client)
        kept[0][1].write(GET)
        await answer(kept[0])
        await port.connect()
        assert [await is_closed(client) for client in kept] == [False, True], "the other one has waited longer"


async def test_who_stops_before_the_end_of_the_headers_is_cut_off() -> None:
    async with listening(header_timeout=0.05) as port:
        for part in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nX: "):
            assert await port.exchange(part) == b""
        assert port.sample("detr_connections_closed_total/slow_headers") == 3
        assert port.asked == []


async def test_who_does_not_read_a_large_answer_is_cut_off() -> None:
    async with listening(write_timeout=0.05) as port:
        client = await port.connect(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        await port.until("detr_connections_closed_total/slow_reader", 1)
        await port.until("detr_connections", 0)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await answer(client)


async def test_who_reads_gets_a_large_answer_whole_and_can_ask_again() -> None:
    async with listening() as port:
        client = await port.connect(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        await port.until_asked(1)
        assert port.answered == [], "an answer is under way until it is read"
        assert (await answer(client)).endswith(b"x" * 100)
        client[1].write(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await answer(client)).endswith(b"/next")
        assert port.sample("detr_connections_closed_total/slow_reader") == 0


async def test_a_second_request_behind_an_unread_answer_is_let_go_with_it() -> None:
    async with listening(write_timeout=0.05) as port:
        await port.connect(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        await port.until("detr_connections_closed_total/slow_reader", 1)
        # That the app's task ends as well is asserted where the port is closed.


async def test_an_unread_answer_cannot_outlive_a_connection_that_is_closed() -> None:
    async with listening(write_timeout=0.05) as port:
        await port.connect(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await port.until("detr_connections_closed_total/slow_reader", 1)
        await port.until("detr_connections", 0)


async def test_who_reads_slowly_goes_before_who_works_and_after_who_is_idle() -> None:
    async with listening(max_connections=3) as port:
        slow = await port.connect(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        await port.until_asked(1)
        idle = await port.connect()
        working = await port.connect(GET)
        await port.until_asked(2)
        await port.connect(GET)
        await port.until_asked(3)
        assert await is_closed(idle)
        await port.connect(GET)
        await port.until_asked(4)
        assert port.sample("detr_connections_closed_total/room") == 2
        port.release.set()
        assert (await answer(working)).endswith(b"/hold")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await answer(slow)


CHUNKED = b"Transfer-Encoding: chunked\r\n"
AMBIGUOUS = {
    "both lengths": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + CHUNKED,
    "both lengths, turned": b"POST /read HTTP/1.1\r\nHost: a\r\n" + CHUNKED + b"Content-Length: 0\r\n",
    "chunks in HTTP/1.0": b"POST /read HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n" + CHUNKED,
    "two lengths": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n",
    "a list of lengths": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 5\r\n",
    "a negative length": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n",
    "a signed length": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n",
    "a length in hexadecimal": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 0x0\r\n",
    "an enormous length": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 30 + b"\r\n",
    "two encodings": b"POST /read HTTP/1.1\r\nHost: a\r\n" + CHUNKED * 2,
    "another encoding": b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n",
    "an encoding in disguise": b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n",
    "a space before the colon": b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n",
    "a fold at the start": b"POST /read HTTP/1.1\r\n Host: a\r\n",
    "a carriage return": b"POST /read HTTP/1.1\r\nHost: a\r\nX: a\rContent-Length: 5\r\n",
    "a null byte": b"POST /read HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n",
    "two hosts": b"GET /read HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
    "no host": b"GET /read HTTP/1.1\r\n",
    "another HTTP": b"GET /read HTTP/2.0\r\nHost: a\r\n",
}


@pytest.mark.parametrize("head", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_what_two_servers_could_read_differently_is_refused_and_the_connection_ends(head: bytes) -> None:
    async with listening() as port:
        told = await port.exchange(head + b"\r\n0\r\n\r\n" + SMUGGLED)
        assert told.count(b"HTTP/1.1 ") == 1, told
        head, _, body = told.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert b"connection: close" in head.lower()
        assert b"cache-control: no-store" in head.lower()
        assert json.loads(body)["error"]["code"] == "bad_request"
        assert port.asked == []
        assert port.sample("detr_requests_total/other400") == 1
        assert port.sample("detr_rejected_total/bad_request") == 1


async def test_a_folded_header_and_bare_newlines_are_read_as_the_standard_allows() -> None:
    async with listening() as port:
        told = await port.exchange(b"GET /x HTTP/1.1\nHost: a\nX: a\n b\nConnection: close\n\n")
        assert told.endswith(b"/x")


async def test_headers_beyond_the_bound_are_told_so_though_more_are_on_their_way() -> None:
    async with listening() as port:
        reader, writer = await port.connect(b"GET / HTTP/1.1\r\nHost: a\r\n")
        writer.write(b"X: " + b"x" * 1_000_000)
        told = await reader.read()
        assert told.startswith(b"HTTP/1.1 431")
        assert port.sample("detr_rejected_total/headers_too_large") == 1


@pytest.mark.parametrize("broken", [b"X : y", b"X: a\x00b", b"no colon", b"Content-Length: -1"])
async def test_headers_that_are_not_http_are_told_so_however_large_the_body_behind_them(broken: bytes) -> None:
    async with listening() as port:
        told = await port.exchange(b"POST /read HTTP/1.1\r\nHost: a\r\n" + broken + b"\r\n\r\n" + b"x" * 60_000)
        assert told.startswith(b"HTTP/1.1 400")
        assert port.sample("detr_rejected_total/bad_request") == 1


async def test_a_whole_url_is_asked_for_like_its_path() -> None:
    async with listening() as port:
        told = await port.exchange(b"GET http://b/x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert told.endswith(b"/x")
        assert port.asked == ["/x"]
        refused = await port.exchange(b"GET ftp://b/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert refused.startswith(b"HTTP/1.1 400")
        assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no memory for data of a certain content."""
    receive_data = h11.Connection.receive_data

    def receive_or_run_out(self: h11.Connection, data: bytes) -> None:
        if b"greedy" in data:
            raise MemoryError
        receive_data(self, data)

    monkeypatch.setattr(h11.Connection, "receive_data", receive_or_run_out)


@pytest.mark.usefixtures("greedy")
async def test_without_memory_for_its_headers_a_request_is_told_to_come_again() -> None:
    async with listening() as port:
        told = await port.exchange(b"GET /greedy HTTP/1.1\r\nHost: a\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 503")
        assert b'"code":"memory_full"' in told
        assert b"retry-after: 7" in told.lower()
        assert port.asked == []


@pytest.mark.usefixtures("greedy")
async def test_without_memory_for_its_body_the_app_is_told_and_answers() -> None:
    async with listening() as port:
        client = await port.connect(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        await port.until_asked(1)
        client[1].write(b"greedy")
        assert (await answer(client)).startswith(b"HTTP/1.1 200")
        assert port.asked == ["/read", "there is no memory"]

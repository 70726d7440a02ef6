"""Connections over real sockets, with a scripted app behind them: who is waited for, who is cut off, who has to go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.process.metrics import Metrics
from service.wire.connections import Connections
from service.wire.deadlines import ConnectionLimits
from service.wire.protocol import protocol_with

pytestmark = pytest.mark.anyio

GET = b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
LONG = 600.0  # seconds; what is not under test waits for ever
LARGE = 64 * 2**20  # bytes; more than any socket buffers
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@dataclass
class Port:
    """A listening port, what its app was asked and has answered, and the clients that were made for it."""

    number: int
    metrics: Metrics
    asked: list[str]
    answered: list[str]
    release: asyncio.Event
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, data: bytes = b"") -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number, limit=2**20)
        self.clients.append(writer)
        writer.write(data)
        await writer.drain()
        return reader, writer

    async def exchange(self, data: bytes) -> bytes:
        """Send, and read until the server closes."""
        reader, _ = await self.connect(data)
        return await reader.read()

    def sample(self, name: str) -> float:
        for family in text_string_to_metric_families(self.metrics.text().decode()):
            for sample in family.samples:
                labels = "".join(sample.labels.values())
                if f"{sample.name}{labels and '/' + labels}" == name:
                    return float(sample.value)
        return 0.0

    async def until(self, name: str, value: float) -> None:
        async with asyncio.timeout(60):
            while self.sample(name) != value:
                await asyncio.sleep(0.005)

    async def until_asked(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.asked) < count:
                await asyncio.sleep(0.005)


def scripted(
    asked: list[str], answered: list[str], release: asyncio.Event
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An app: /hold answers when told, /large answers much, /read reads its body, anything else answers at once."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        asked.append(path)
        if path == "/hold":
            await release.wait()
        if path == "/read":
            while (await receive()).get("more_body"):
                pass
        body = b"x" * LARGE if path == "/large" else path.encode()
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})
        answered.append(path)

    return app


@asynccontextmanager
async def listening(max_connections: int = 100, **changes: float) -> AsyncIterator[Port]:
    limits: dict[str, Any] = dict.fromkeys(("header_timeout", "body_timeout", "write_timeout"), LONG)
    limits |= {"max_header_bytes": 4096, "max_rest_bytes": 2**30} | changes
    metrics, asked, answered, release = Metrics(), list[str](), list[str](), asyncio.Event()
    protocol = protocol_with(ConnectionLimits(**limits), Connections(max_connections, metrics), retry_after_s=7)
    config = uvicorn.Config(
        scripted(asked, answered, release), http=protocol, ws="none", lifespan="off", log_config=None, access_log=False,
        timeout_keep_alive=600,
    )  # fmt: skip
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    port = Port(server.sockets[0].getsockname()[1], metrics, asked, answered, release)
    try:
        yield port
    finally:
        server.close()
        for client in port.clients:
            client.close()
        await port.until("detr_connections", 0)
        async with asyncio.timeout(60):
            while state.tasks:
                await asyncio.sleep(0.005)


async def is_closed(client: Client) -> bool:
    """Whether the server has closed; what it sent is thrown away."""
    try:
        while await asyncio.wait_for(client[0].read(65536), 0.05):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


async def answer(client: Client) -> bytes:
    """One answer, whose length its header says."""
    head = await client[0].readuntil(b"\r\n\r\n")
    (length,) = (line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    return head + await client[0].readexactly(int(length))


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


POST = b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


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


async def test_who_uploads_all_before_it_reads_still_gets_the_answer() -> None:
    async with listening() as port:
        reader, writer = await port.connect(POST % LARGE)
        writer.write(b"x" * LARGE)
        await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        assert port.sample("detr_connections_closed_total/slow_rest") == 0


async def test_the_rest_of_a_refused_upload_is_bounded_in_bytes() -> None:
    async with listening(max_rest_bytes=1000) as port:
        reader, writer = await port.connect(POST.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked"))
        assert b"/refuse" in await reader.read()
        writer.write(b"3e9\r\n" + b"x" * 1001)
        await port.until("detr_connections_closed_total/slow_rest", 1)


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

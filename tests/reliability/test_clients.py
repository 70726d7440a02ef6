"""Clients that leave, stop or crawl: they cost what they may, and nobody else notices (rows F1 to F5)."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import numpy as np
import pytest
from PIL import Image

from tests.processes import until
from tests.reliability.conftest import Measured, Scripted
from tests.reliability.raw_http import connect, connections, read_answer, request
from tests.reliability.scripted_engine import identity_of, picture
from tests.reliability.slow_clients import crawl
from tests.server_process import ServerProcess, scripted

HEADERS_WITHOUT_END = b"GET /health/live HTTP/1.1\r\nHost: test\r\nX-Slow: "


@pytest.mark.row(id="F1")
def test_who_leaves_the_queue_costs_the_engine_nothing(start: Scripted) -> None:
    script = {"hang_at": [1], "hang_s": 600}
    with start("--request-timeout-ms", "600000", script=script) as server, connections(server.port, 50) as clients:
        clients[0].sendall(request(body=picture(0)))
        until(lambda: server.script()["running"] == 1)
        for identity, client in list(enumerate(clients))[1:]:
            client.sendall(request(body=picture(identity)))
        until(lambda: server.samples()["detr_queue_depth"] == 49)
        for client in clients[1:41]:
            client.close()
        gone = 'detr_rejected_total{reason="client_gone"}'
        until(lambda: server.samples().get(gone) == 40)
        server.script(hang_at=[])
        answers = [read_answer(client) for client in (clients[0], *clients[41:])]
        assert [identity_of(answer.json()) for answer in answers if answer] == [0, *range(41, 50)]
        assert server.script()["images"] == 10
        assert server.samples()[gone] == 40
        assert server.errors() == []


@pytest.mark.row(id="F2")
@pytest.mark.parametrize("count", [50, pytest.param(200, marks=pytest.mark.soak)])
def test_who_leaves_amid_an_upload_leaves_nothing_behind(server: ServerProcess, count: int) -> None:
    body = picture(3, (640, 480))
    server.post("/detect", body)
    before = server.fds()
    errors = len(server.errors())
    for path in ("/detect", "/segment"):
        for _ in range(count // 2):
            with connect(server.port) as client:
                client.sendall(request(path, body)[: -len(body) // 2])
    until(lambda: abs(server.fds() - before) <= 2, timeout_s=60)
    until(lambda: server.samples()["detr_requests_in_flight"] == 1)  # the scrape itself
    assert len(server.errors()) == errors
    assert identity_of(server.post("/detect", body).json()) == 3


@pytest.fixture(scope="module")
def impatient(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that waits for nobody for long."""
    folder = tmp_path_factory.mktemp("impatient")
    limits = ("--header-timeout-ms", "400", "--body-timeout-ms", "400", "--keep-alive-timeout-s", "1")
    with scripted(tiny, folder, *limits) as running:
        yield running


def routes(server: ServerProcess, method: str) -> list[str]:
    """Paths that take the method, by the service's own description, and with it any that are added later."""
    with server.client() as client:
        return [path for path, item in client.get("/openapi.json").json()["paths"].items() if method in item]


@pytest.mark.row(id="F3")
def test_headers_that_crawl_are_cut_off_while_others_are_answered(impatient: ServerProcess) -> None:
    async def play() -> None:
        crawling = asyncio.create_task(crawl(impatient.port, 20, HEADERS_WITHOUT_END, b"x", 0.05, limit_s=60))
        good = await asyncio.to_thread(impatient.post, "/detect", picture(5))
        assert identity_of(good.json()) == 5
        endings = await crawling
        assert {ending.status for ending in endings} <= {None, 408}

    asyncio.run(play())


@pytest.mark.row(id="F4")
@pytest.mark.parametrize("sent", [b"", b"x"], ids=["nothing", "a byte at a time"])
def test_a_body_that_crawls_is_cut_off_on_every_route(impatient: ServerProcess, sent: bytes) -> None:
    async def play() -> None:
        for path in routes(impatient, "post"):
            begin = request(path, length=1000)
            endings = await crawl(impatient.port, 5, begin, sent, 0.05, limit_s=60)
            # A route may refuse it by its headers or its model alone, and then must not keep the connection either.
            assert {ending.status for ending in endings} <= {400, 401, 403, 408, 415, 422}, path
        for path in routes(impatient, "get"):
            begin = request(path, method="GET", headers={"Content-Length": "1000"})
            assert {ending.status for ending in await crawl(impatient.port, 2, begin, sent, 0.05, limit_s=60)} != {None}

    asyncio.run(play())
    assert identity_of(impatient.post("/detect", picture(6)).json()) == 6


def post_seconds(server: ServerProcess, count: int) -> list[float]:
    """How long each of some requests took, one after the other."""
    took = []
    with server.client() as client:
        for identity in range(count):
            began = time.monotonic()
            assert identity_of(client.post("/detect", files={"image": picture(identity)}).json()) == identity
            took.append(time.monotonic() - began)
    return took


@pytest.mark.soak
@pytest.mark.row(id="F3")
@pytest.mark.row(id="F4")
@pytest.mark.parametrize(
    ("row", "begin", "allowed_s"),
    [("F3", HEADERS_WITHOUT_END, 5.0), ("F4", request(length=1000), 15.0)],
    ids=["headers", "body"],
)
def test_two_hundred_crawling_clients_end_in_time_and_slow_nobody(
    start: Scripted, measured: Measured, row: str, begin: bytes, allowed_s: float
) -> None:
    """With the default deadlines."""
    with start() as server:
        quiet = quantiles(post_seconds(server, 300), n=100)[-1]

        async def play() -> tuple[list[float], list[float]]:
            crawling = asyncio.create_task(crawl(server.port, 200, begin, b"x", 1.0, limit_s=60))
            took = await asyncio.to_thread(post_seconds, server, 300)
            return took, [ending.seconds for ending in await crawling]

        took, lasted = asyncio.run(play())
        busy = quantiles(took, n=100)[-1]
    measured(row, f"closed after {max(lasted):.2f} s; p99 of others {1000 * busy:.1f} ms, quiet {1000 * quiet:.1f} ms")
    assert max(lasted) <= allowed_s + 1
    assert busy <= max(2 * quiet, 0.05)


def large_answer() -> bytes:
    """A request whose answer, a painted picture of noise, no socket buffer holds."""
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="JPEG")
    return request("/segment?overlay=true", buffer.getvalue())


@pytest.mark.row(id="F5")
def test_who_does_not_read_the_answer_is_cut_off(start: Scripted) -> None:
    with start("--write-timeout-ms", "300") as server:
        with connect(server.port, receive_buffer=4096) as reader:
            reader.sendall(large_answer())
            until(lambda: server.samples().get('detr_stage_duration_seconds_count{stage="encode"}') == 1)
            until(lambda: server.samples()["detr_requests_in_flight"] == 1)  # the scrape itself
            assert identity_of(server.post("/detect", picture(9)).json()) == 9
            with pytest.raises(AssertionError, match="cut off"):
                read_answer(reader)
        assert server.errors() == []

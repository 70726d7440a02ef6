from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from service.bench.load import BenchTarget, Request, Sample, closed_loop, open_loop
from tests.service.bench.scripted import answer, scripted_server

pytestmark = pytest.mark.anyio

REQUESTS = [Request("/detect", bytes([65 + number])) for number in range(3)]


async def ok(head: bytes, body: bytes) -> bytes:
    return answer(200, b"answer to " + body, "Server-Timing: decode;dur=1.50, infer;dur=20.25", "X-Request-ID: me")


async def never(head: bytes, body: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


async def test_an_answer_becomes_a_sample_with_its_stages_headers_and_body() -> None:
    async with scripted_server(ok) as seen:
        (sample,) = await closed_loop(seen.target, REQUESTS[:1], clients=1, count=1, keep_bodies=True)
    assert (sample.request, sample.status, sample.error) == (0, 200, "")
    assert sample.stages() == {"decode": 1.5, "infer": 20.25}
    assert sample.header("x-request-id") == "me"
    assert sample.header("retry-after") is None
    assert sample.body == b"answer to A"
    assert sample.scheduled <= sample.started <= sample.ended
    assert sample.latency == sample.ended - sample.scheduled


async def test_a_request_is_what_it_says() -> None:
    requests = [
        Request("/segment?threshold=0.5", b"abc", "image/png", headers={"Accept": "image/png"}),
        Request("/health/live", method="GET"),
    ]
    async with scripted_server(ok) as seen:
        await closed_loop(seen.target, requests, clients=1, count=2)
    heads = {head.split(b" ")[0]: head.split(b"\r\n") for head in seen.heads}
    assert heads[b"POST"][0] == b"POST /segment?threshold=0.5 HTTP/1.1"
    host = f"Host: 127.0.0.1:{seen.target.port}".encode()
    assert {host, b"Content-Type: image/png", b"Content-Length: 3", b"Accept: image/png"} <= set(heads[b"POST"])
    assert heads[b"GET"] == [b"GET /health/live HTTP/1.1", host, b"", b""]


async def test_a_closed_loop_keeps_its_clients_in_flight_on_a_connection_each() -> None:
    async def together(head: bytes, body: bytes) -> bytes:
        if seen.in_flight == 4:
            full.set()
        await full.wait()  # nobody is answered until all four have asked
        return answer()

    full = asyncio.Event()
    async with scripted_server(together) as seen:
        samples = await closed_loop(seen.target, REQUESTS, clients=4, count=40)
    assert (seen.most_in_flight, seen.connections, len(samples)) == (4, 4, 40)


async def test_every_request_is_sent_as_often_as_the_others_in_an_order_of_the_seed() -> None:
    async with scripted_server(ok) as seen:
        first, again, other = [
            await closed_loop(seen.target, REQUESTS, clients=1, count=30, seed=seed, keep_bodies=True)
            for seed in (0, 0, 1)
        ]
    assert Counter(sample.request for sample in first) == {0: 10, 1: 10, 2: 10}
    assert all(sample.body == b"answer to " + REQUESTS[sample.request].body for sample in first)
    assert [sample.request for sample in first] == [sample.request for sample in again]
    assert [sample.request for sample in first] != [sample.request for sample in other]


async def test_a_closed_loop_ends_by_the_clock_and_waits_for_what_is_in_flight() -> None:
    async with scripted_server(ok) as seen:
        begin = time.monotonic()
        samples = await closed_loop(seen.target, REQUESTS, clients=2, seconds=0.05)
    assert samples
    assert all(sample.status == 200 and sample.started < begin + 0.05 + 1e-3 for sample in samples)


async def test_a_loop_without_an_end_or_without_requests_is_refused() -> None:
    with pytest.raises(ValueError, match="seconds or a count"):
        await closed_loop(BenchTarget("127.0.0.1", 1), REQUESTS, clients=1)
    with pytest.raises(ValueError, match="at least one request"):
        await closed_loop(BenchTarget("127.0.0.1", 1), [], clients=1, count=1)


async def test_an_open_loop_sends_on_while_answers_stall() -> None:
    async def together(head: bytes, body: bytes) -> bytes:
        if len(seen.bodies) == 30:
            all_there.set()
        await all_there.wait()
        return answer()

    all_there = asyncio.Event()
    async with scripted_server(together) as seen:
        samples = await open_loop(seen.target, REQUESTS, rate=1000, seconds=0.03)
    assert [sample.status for sample in samples] == [200] * 30
    assert seen.most_in_flight == 30


async def test_an_open_loop_is_due_at_equal_intervals_whatever_happens() -> None:
    async with scripted_server(ok) as seen:
        samples = await open_loop(seen.target, REQUESTS, rate=500, seconds=0.1)
    due = sorted(sample.scheduled for sample in samples)
    assert due == pytest.approx([due[0] + number / 500 for number in range(50)], abs=1e-9)
    assert all(sample.started >= sample.scheduled for sample in samples)


async def test_latency_counts_from_the_schedule_when_the_client_itself_is_late() -> None:
    blocked: list[float] = []

    async def block(head: bytes, body: bytes) -> bytes:
        if len(seen.bodies) == 1:
            blocked.append(time.monotonic())
            time.sleep(0.1)  # the loop's thread, so that nothing is sent meanwhile
        return answer()

    async with scripted_server(block) as seen:
        samples = await open_loop(seen.target, REQUESTS, rate=100, seconds=0.5)
    blocked_until = blocked[0] + 0.1  # at the earliest
    late = [sample for sample in samples if blocked[0] < sample.scheduled < blocked_until - 0.05]
    assert late
    for sample in late:
        assert sample.started >= blocked_until
        assert sample.latency >= blocked_until - sample.scheduled


async def test_connections_are_kept_between_requests_unless_the_server_closes_them() -> None:
    async def closing(head: bytes, body: bytes) -> bytes:
        return answer(200, b"", "Connection: close")

    for script, connections in ((ok, 1), (closing, 5)):
        async with scripted_server(script) as seen:
            samples = await closed_loop(seen.target, REQUESTS, clients=1, count=5)
        assert [sample.status for sample in samples] == [200] * 5
        assert seen.connections == connections


async def errors(script: object, timeout: float = 30) -> list[tuple[int, str]]:
    async with scripted_server(script) as seen:  # type: ignore[arg-type]
        samples = await closed_loop(seen.target, REQUESTS, clients=2, count=4, timeout=timeout)
    return [(sample.status, sample.error) for sample in samples]


async def test_statuses_are_samples() -> None:
    async def refuse(head: bytes, body: bytes) -> bytes:
        return answer(503, b"{}", "Retry-After: 1")

    assert await errors(refuse) == [(503, "")] * 4


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (None, "ClosedError"),
        (b"HTTP/1.1 200 OK\r\ncontent-len", "ClosedError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf", "ClosedError"),
        (b"220 mail.example ESMTP\r\n\r\n", "UnreadableError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "UnreadableError"),
    ],
    ids=["closed", "half a head", "half a body", "not HTTP", "in chunks"],
)
async def test_what_is_no_answer_is_a_sample_with_an_error(reply: bytes | None, error: str) -> None:
    async def script(head: bytes, body: bytes) -> bytes | None:
        return reply

    assert await errors(script) == [(0, error)] * 4


async def test_an_answer_may_end_with_its_connection() -> None:
    async def script(head: bytes, body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\n\r\nto the end"

    async with scripted_server(script) as seen:
        samples = await closed_loop(seen.target, REQUESTS, clients=1, count=2, keep_bodies=True)
    assert [(sample.status, sample.body) for sample in samples] == [(200, b"to the end")] * 2


async def test_a_request_that_is_not_answered_in_time_is_a_sample() -> None:
    assert await errors(never, timeout=0.02) == [(0, "timeout")] * 4


async def test_a_server_that_is_not_there_is_a_sample() -> None:
    async with scripted_server(ok) as seen:
        pass
    samples: list[Sample] = await open_loop(seen.target, REQUESTS, rate=100, seconds=0.03)
    assert [(sample.status, sample.error) for sample in samples] == [(0, "ConnectionRefusedError")] * 3


@pytest.mark.parametrize("url", ["https://a", "http://", "http://a/detect", "http://a?x"])
def test_a_target_is_a_plain_http_server(url: str) -> None:
    with pytest.raises(ValueError, match="expected http://HOST:PORT"):
        BenchTarget.of(url)


def test_a_target_has_a_host_and_a_port() -> None:
    assert BenchTarget.of("http://localhost:8000/") == BenchTarget("localhost", 8000)
    assert BenchTarget.of("http://[::1]") == BenchTarget("::1", 80)
    assert BenchTarget.of("localhost:8000") == BenchTarget("localhost", 8000)
    assert b"Host: [::1]:80" in Request().wire(BenchTarget.of("http://[::1]"))


@pytest.mark.parametrize(
    ("words", "is_url"),
    [
        ("localhost:8000", True),
        ("127.0.0.1:8000/", True),
        ("[::1]:8000", True),
        ("http://gpu-box", True),
        ("model.onnx", False),
        ("facebook/detr-resnet-50", False),
        ("C:/models/mine.onnx", False),
    ],
)
def test_a_host_and_a_port_need_no_scheme(words: str, is_url: bool) -> None:
    assert BenchTarget.is_meant_by(words) == is_url

"""What the client does when a server refuses, breaks off or is late: asked of a server that follows a script."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from detr_client import (
    AsyncClient,
    BadKeyError,
    BadPictureError,
    BadRequestError,
    BusyError,
    Client,
    ClientClosedError,
    FailedError,
    IncompleteError,
    NoServerError,
    RefusedError,
    StrangeAnswerError,
    TooLateError,
)
from detr_client.retries import wait_before
from tests.processes import free_port, until

ANSWER = {"model": "m", "image": {"width": 4, "height": 3}, "detections": [], "of_tomorrow": 1}
FOUND = {"label": "a", "category_id": 1, "score": 0.5, "box": {"x1": 0, "y1": 0, "x2": 1, "y2": 1}, "isthing": True}


@dataclass
class Step:
    """One reply; without a status the connection is cut."""

    status: int | None = 200
    body: Any = field(default_factory=lambda: ANSWER)
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0


def refused(status: int, code: str = "code", **headers: str) -> Step:
    error = {"error": {"code": code, "message": "the reason", "request_id": "r1"}}
    return Step(status, error, {name.replace("_", "-"): value for name, value in headers.items()})


class Scripted(ThreadingHTTPServer):
    """Replies by the script, and by its last step from then on."""

    daemon_threads = False  # whose sockets are closed at the end

    def __init__(self, *steps: Step) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.steps = list(steps)
        self.seen: list[tuple[str, dict[str, str], bytes, float]] = []
        self.lock, self.under_way, self.most = threading.Lock(), 0, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that has gone is not worth a line."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    server: Scripted

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.server.seen.append((self.path, headers, body, time.monotonic()))
            step = self.server.steps.pop(0) if len(self.server.steps) > 1 else self.server.steps[0]
            self.server.under_way += 1
            self.server.most = max(self.server.most, self.server.under_way)
        time.sleep(step.after_s)
        with self.server.lock:
            self.server.under_way -= 1
        if step.status is None:
            self.close_connection = True
            return
        content = step.body if isinstance(step.body, bytes) else json.dumps(step.body).encode()
        self.send_response(step.status)
        for name, value in {"content-length": str(len(content)), **step.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def script(*steps: Step) -> Iterator[Scripted]:
    with Scripted(*steps) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_request_has_what_the_server_reads() -> None:
    with script(Step()) as server, Client(server.url, api_key="k" * 16, headers={"x-other": "1"}) as client:
        answer = client.detect(b"abc", threshold=0.25, classes=["a b", 7])
    ((path, headers, body, _),) = server.seen
    assert path == "/detect?threshold=0.25&classes=a+b%2C7"
    assert body == b"abc"
    assert headers["authorization"] == f"Bearer {'k' * 16}"
    assert headers["x-other"] == "1"
    assert (answer.width, answer.height, len(answer)) == (4, 3, 0)
    assert answer.boxes_xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    "first", [refused(503), refused(429), refused(502), Step(None)], ids=["503", "429", "502", "cut"]
)
def test_what_may_be_better_a_little_later_is_sent_again_as_it_was(first: Step) -> None:
    with script(first, first, Step()) as server, Client(server.url) as client:
        assert client.detect(b"abc").model == "m"
    assert [body for _, _, body, _ in server.seen] == [b"abc"] * 3


def test_retry_after_is_waited_for() -> None:
    with script(refused(503, retry_after="1"), Step()) as server, Client(server.url) as client:
        client.detect(b"abc")
    (*_, first), (*_, second) = server.seen
    assert second - first >= 1


def test_where_retry_after_passes_the_deadline_the_refusal_is_raised_at_once() -> None:
    with script(refused(503, "draining", retry_after="100")) as server, Client(server.url, deadline_s=50) as client:
        with pytest.raises(BusyError, match="the reason") as caught:
            client.detect(b"abc")
        assert len(server.seen) == 1
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (503, "draining", "r1")


def test_it_gives_up_after_so_many_retries() -> None:
    with script(refused(503)) as server, Client(server.url, retries=2) as client:
        with pytest.raises(BusyError):
            client.detect(b"abc")
        assert len(server.seen) == 3


def test_nothing_is_sent_after_the_deadline() -> None:
    with script(refused(503), Step(after_s=3)) as server, Client(server.url, deadline_s=1) as client:
        with pytest.raises(TooLateError, match=r"within 1 s; before that: the reason \(503 code\)"):
            client.detect(b"abc")
        count = len(server.seen)
        time.sleep(1)
        assert len(server.seen) == count == 2


def test_a_reply_that_trickles_does_not_pass_the_deadline() -> None:
    # Each byte comes within any read timeout; the whole never does.
    async def ask() -> None:
        ended = asyncio.Event()

        async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"abc")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            while not writer.is_closing():  # which it is once the client has gone
                writer.write(b" ")
                await asyncio.sleep(0.05)
            writer.close()
            ended.set()

        async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with AsyncClient(f"127.0.0.1:{port}", deadline_s=0.5) as client:
                with pytest.raises(TooLateError):
                    await asyncio.wait_for(client.detect(b"abc"), timeout=60)
            await ended.wait()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadPictureError),
        (413, BadPictureError),
        (415, BadPictureError),
        (401, BadKeyError),
        (403, BadKeyError),
        (422, BadRequestError),
        (404, BadRequestError),
        (500, FailedError),
        (504, FailedError),
    ],
)
def test_other_refusals_are_raised_at_once_with_code_and_message(status: int, kind: type[RefusedError]) -> None:
    with script(refused(status, "its_code")) as server, Client(server.url) as client:
        with pytest.raises(kind, match=rf"the reason \({status} its_code\)") as caught:
            client.detect(b"abc")
        assert len(server.seen) == 1
    assert (caught.value.status, caught.value.code, caught.value.message) == (status, "its_code", "the reason")


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (Step(200, b"<html>"), StrangeAnswerError),
        (Step(200, {"unlike": 1}), StrangeAnswerError),
        (Step(200, [1]), StrangeAnswerError),
        (Step(302, b"", {"location": "/login"}), StrangeAnswerError),
        (Step(404, b"<html>"), BadRequestError),
        (Step(500, b"\xff"), FailedError),
    ],
    ids=str,
)
def test_what_no_detr_serve_answers_is_said_so(step: Step, kind: type[Exception]) -> None:
    with script(step) as server, Client(server.url) as client, pytest.raises(kind):
        client.detect(b"abc")


def test_a_server_that_is_not_there_is_named() -> None:
    port = free_port()
    with Client(f"localhost:{port}", retries=1) as client, pytest.raises(NoServerError, match=f"localhost:{port}"):
        client.detect(b"abc")


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://a:port", ""])
def test_what_is_no_url_is_refused_when_the_client_is_made(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL"):
        Client(url)


@pytest.mark.parametrize("url", ["http://a?b=1", "http://a/#b"])
def test_a_url_is_that_of_a_server_alone(url: str) -> None:
    with pytest.raises(ValueError, match="nothing may follow its path"):
        Client(url)


@pytest.mark.parametrize("value", ["", " ", "a\nb", "ü" * 20])
def test_a_key_or_header_that_cannot_be_sent_is_refused_when_the_client_is_made(value: str) -> None:
    with pytest.raises(ValueError, match=r"^api_key has to be one line of ASCII, and not empty$"):
        Client(api_key=value)
    with pytest.raises(ValueError, match=r"^the header x-a has to be"):
        Client(headers={"x-a": value})


def test_a_key_is_sent_without_the_line_break_of_its_file() -> None:
    with script(Step()) as server, Client(server.url, api_key="k" * 16 + "\n") as client:
        client.detect(b"abc")
    assert server.seen[0][1]["authorization"] == f"Bearer {'k' * 16}"


def test_a_list_is_answered_in_order_with_a_bounded_number_under_way() -> None:
    steps = [Step(200, ANSWER | {"model": str(number)}, after_s=0.05) for number in range(12)]
    with script(*steps) as server, Client(server.url, concurrency=3) as client:
        sources = [bytes([number]) for number in range(12)]
        assert [type(answer).__name__ for answer in client.detect(sources)] == ["DetectAnswer"] * 12
    assert server.most == 3
    assert sorted(body for _, _, body, _ in server.seen) == sources


@pytest.mark.parametrize(("status", "code"), [(400, "broken_image"), (413, "outlines_too_long")])
def test_one_picture_that_is_refused_costs_no_other_its_answer(status: int, code: str) -> None:
    with script(Step(), refused(status, code), Step()) as server, Client(server.url, concurrency=1) as client:
        with pytest.raises(IncompleteError, match=r"1 of 4 pictures have no answer; picture 1: the reason") as caught:
            client.detect([b"a", b"b", b"c", b"d"])
        assert len(server.seen) == 4
    assert [answer is not None for answer in caught.value.answers] == [True, False, True, True]
    assert isinstance(caught.value.errors[1], BadPictureError)


def test_what_concerns_all_pictures_ends_the_work() -> None:
    with script(Step(), refused(401)) as server, Client(server.url, concurrency=1) as client:
        with pytest.raises(IncompleteError, match="3 of 4 pictures have no answer; the rest was not tried") as caught:
            client.detect([b"a", b"b", b"c", b"d"])
        assert len(server.seen) == 2
    assert isinstance(caught.value.__cause__, BadKeyError)
    assert [answer is not None for answer in caught.value.answers] == [True, False, False, False]


def test_a_generator_is_read_as_its_pictures_are_sent_and_its_own_error_is_raised() -> None:
    def pictures() -> Iterator[bytes]:
        yield b"a"
        raise RuntimeError("the disk is gone")

    with script(Step()) as server, Client(server.url) as client:
        assert len(client.detect(source for source in (b"a", b"b"))) == 2
        assert client.detect(iter(())) == []
        with pytest.raises(RuntimeError, match="the disk is gone"):
            client.detect(pictures())


def test_a_closed_client_opens_again_and_many_threads_share_one() -> None:
    with script(Step(after_s=0.01)) as server:
        client = Client(server.url)
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(client.detect(b"a"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 8
        client.close()
        client.close()
        assert client.detect(b"a").model == "m"
        client.close()


def test_closing_ends_what_is_under_way_in_other_threads() -> None:
    raised: list[Exception] = []

    def ask(client: Client, source: Any) -> None:
        try:
            client.detect(source)
        except Exception as error:
            raised.append(error)

    with script(Step(), Step(after_s=3), Step(after_s=3), Step(after_s=3)) as server:
        client = Client(server.url, concurrency=1)
        threads = [threading.Thread(target=ask, args=(client, source)) for source in ([b"a", b"b", b"c"], b"d")]
        threads[0].start()
        until(lambda: len(server.seen) == 2)
        threads[1].start()
        until(lambda: len(server.seen) == 3)
        client.close()
        for thread in threads:
            thread.join(timeout=60)
    (incomplete,) = (error for error in raised if isinstance(error, IncompleteError))
    assert [answer is not None for answer in incomplete.answers] == [True, False, False]
    assert isinstance(incomplete.__cause__, ClientClosedError)
    assert [type(error) for error in raised if error is not incomplete] == [ClientClosedError]
    assert len(server.seen) == 3, "nothing is sent after it"


def test_a_client_that_waits_to_ask_again_is_closed_at_once() -> None:
    async def ask() -> None:
        async with AsyncClient(server.url) as client:
            asking = asyncio.create_task(client.detect(b"a"))
            while not server.seen:
                await asyncio.sleep(0.01)
            await client.aclose()
            with pytest.raises(ClientClosedError, match="closed before there was an answer"):
                await asyncio.wait_for(asking, timeout=20)

    with script(refused(503, retry_after="30")) as server:
        asyncio.run(ask())
        assert len(server.seen) == 1


def test_a_task_that_is_cancelled_is_cancelled_and_its_client_goes_on() -> None:
    async def ask() -> None:
        async with AsyncClient(server.url) as client:
            asking = asyncio.create_task(client.detect([b"a", b"b"]))
            while not server.seen:
                await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert (await client.detect(b"c")).model == "m"

    with script(Step(after_s=2), Step(after_s=2), Step()) as server:
        asyncio.run(ask())


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        (None, 0.2, 0.3),
        ("3", 3, 3.1),
        ("soon", 0.2, 0.3),
        ("-4", 0.2, 0.3),
        ("Fri, 01 Jan 2010 00:00:00 GMT", 0.2, 0.3),
    ],
)
def test_a_wait_is_what_the_server_asks_for_or_a_little(retry_after: str | None, least: float, most: float) -> None:
    assert least <= wait_before(1, retry_after) <= most


def test_waits_grow_and_are_bounded() -> None:
    assert wait_before(3, None) > wait_before(1, None)
    assert wait_before(1000, None) <= 15

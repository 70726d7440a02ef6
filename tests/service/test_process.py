"""A real server process over real sockets: how it starts, what it refuses, and how it ends."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.processes import PATIENCE_S, until
from tests.reliability.raw_http import connect
from tests.server_process import ServerProcess, serving, start_in_vain
from tests.service.conftest import JPEG, LEAK, check_error

pytestmark = pytest.mark.protocol

Start = Callable[..., AbstractContextManager[ServerProcess]]
HALF_AN_UPLOAD = b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nhalf"
PATIENT = ("--header-timeout-ms", "600000", "--body-timeout-ms", "600000", "--request-timeout-ms", "600000")


@pytest.fixture
def start(panoptic_artifact: Path, tmp_path: Path) -> Start:
    """Run a server for the length of a `with` block: `start("--max-queue-size", "2")`."""
    return partial(serving, panoptic_artifact, tmp_path)


@pytest.fixture(scope="module")
def process(panoptic_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("process")
    with serving(panoptic_artifact, folder, "--max-body-bytes", "100000", *PATIENT) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(panoptic_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that waits for nobody."""
    hasty = ("--header-timeout-ms", "100", "--body-timeout-ms", "100")
    with serving(panoptic_artifact, tmp_path_factory.mktemp("impatient"), *hasty) as running:
        yield running


def test_it_answers_over_http(process: ServerProcess, jpeg: bytes) -> None:
    with process.client() as client:
        assert client.get("/health/live").json() == {"status": "live"}
        assert client.get("/health/ready").json() == {"status": "ready"}
        assert client.get("/model").json()["device"] == "cpu"
        for path in ("/detect", "/segment"):
            raw = client.post(path, content=jpeg, headers=JPEG)
            form = client.post(path, files={"image": jpeg})
            assert raw.status_code == 200
            assert raw.json() == form.json()
        assert "detr_batch_size" in client.get("/metrics").text
        assert "server" not in client.get("/").headers


def test_many_clients_at_once_are_all_answered(process: ServerProcess, jpeg: bytes) -> None:
    def post(_: int) -> httpx.Response:
        return process.post("/detect", jpeg, "image/jpeg")

    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(post, range(48)))
    assert {response.status_code for response in responses} == {200}


def exchange(port: int, request: bytes) -> httpx.Response:
    """Send raw bytes, and read until the server closes."""
    with connect(port) as connection:
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["garbage", "tls", "negative length", "two lengths", "no host"],
)
def test_what_is_not_http_gets_an_error_in_the_one_shape(process: ServerProcess, request_bytes: bytes) -> None:
    response = exchange(process.port, request_bytes)
    assert response.status_code == 400
    assert response.json()["error"].keys() == {"code", "message", "request_id"}
    assert response.json()["error"]["code"] == "bad_request"


@pytest.mark.parametrize("end", [b"", b"\r\nConnection: close\r\n\r\n"], ids=["in pieces", "at once"])
def test_headers_have_a_bound(process: ServerProcess, end: bytes) -> None:
    response = exchange(process.port, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + end)
    assert response.status_code == 431
    assert response.json()["error"]["code"] == "headers_too_large"


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST /detect HTTP/1.1\r\nHost: a\r\nX-Slow: "])
def test_a_client_that_stops_before_the_end_of_its_headers_is_cut_off(impatient: ServerProcess, sent: bytes) -> None:
    with impatient.connect() as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_an_upload_that_stops_is_answered_and_cut_off(impatient: ServerProcess) -> None:
    head = b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    for part in (b"", b"\x89PNG"):
        response = exchange(impatient.port, head + part)
        assert response.json()["error"]["code"] == "upload_timeout"
        assert response.status_code == 408


def test_a_lie_about_the_length_is_refused_at_once(process: ServerProcess) -> None:
    head = b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nConnection: close\r\n"
    response = exchange(process.port, head + b"Content-Length: 1000000000\r\n\r\n0123456789")
    assert (response.status_code, response.json()["error"]["code"]) == (413, "upload_too_large")


def test_a_chunked_upload_is_cut_off_at_the_bound(process: ServerProcess) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(11):
            yield b"x" * 10_000

    response = httpx.post(f"{process.url}/detect", content=chunks(), headers=JPEG, timeout=PATIENCE_S)
    check_error(response, 413, "upload_too_large")


def test_broken_uploads_leave_no_trace(process: ServerProcess, jpeg: bytes) -> None:
    for _ in range(20):
        with process.connect() as connection:
            connection.sendall(HALF_AN_UPLOAD)
    assert process.post("/detect", jpeg, "image/jpeg").status_code == 200


def test_without_cuda_asking_for_it_is_one_clear_line_and_no_server(panoptic_artifact: Path) -> None:
    code, log, err = start_in_vain("--model", panoptic_artifact, "--device", "cuda")
    (line,) = err.splitlines()
    assert code == 1
    assert line.startswith("detr serve: device cuda: ")
    (port,) = (line["message"].split()[-1] for line in log if line["message"].startswith("listening on"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))


def test_a_port_in_use_is_one_line_that_names_it(process: ServerProcess, panoptic_artifact: Path) -> None:
    code, _, err = start_in_vain("--model", panoptic_artifact, "--port", str(process.port))
    assert (code, err) == (1, f"detr serve: cannot listen on 127.0.0.1 port {process.port}: Address already in use\n")


def test_sigterm_finishes_what_was_begun(start: Start, jpeg: bytes) -> None:
    # The delay keeps the request in the queue until the drain sends it, if batches are not measured to be of no use.
    waiting = ("--max-queue-delay-ms", "10000", "--batch-timing-ms", "0", "--request-timeout-ms", "600000")
    with start(*waiting) as running, running.connect() as client:
        head = f"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        client.sendall(head.encode() + jpeg)
        until(lambda: running.samples()["detr_queue_depth"] == 1)
        running.signal(signal.SIGTERM)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
        code, log, err = running.end()
    assert b"200 OK" in received
    assert b'"detections":[{' in received
    assert (code, err) == (0, "")
    assert log[-1]["message"] == "stopped, exit code 0"


def test_work_is_taken_while_the_end_is_delayed_and_nobody_is_told_to_come(start: Start, jpeg: bytes) -> None:
    with start("--drain-delay-ms", "2000") as running:
        running.signal(signal.SIGTERM)
        until(lambda: running.status("/health/ready") == 503)
        assert running.post("/detect", jpeg, "image/jpeg").status_code == 200
        code, log, _ = running.end()
    assert code == 0
    assert log[-1]["message"] == "stopped, exit code 0"


def test_stalled_clients_cannot_hold_up_the_end(start: Start) -> None:
    with start("--drain-timeout-ms", "500") as running:
        stalled = [running.connect() for _ in range(3)]
        stalled[1].sendall(b"GET / HT")
        stalled[2].sendall(HALF_AN_UPLOAD)
        assert running.status("/health/live") == 200
        running.signal(signal.SIGTERM)
        code, _, err = running.end()
        for connection in stalled:
            connection.close()
    assert code == 0
    assert not LEAK.search(err)


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    patience = ("--drain-timeout-ms", "3000000", "--body-timeout-ms", "3000000")
    with start(*patience) as running, running.connect() as stalled:
        stalled.sendall(HALF_AN_UPLOAD)
        assert running.status("/health/live") == 200
        running.signal(signal.SIGTERM)
        running.wait_for_line("shutting down")
        running.signal(signal.SIGINT)
        assert running.exit_code() == 128 + signal.SIGINT

"""A real server process over real sockets: how it starts, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.service.conftest import JPEG, LEAK, check_error

REPOSITORY = Path(__file__).parents[2]
HALF_AN_UPLOAD = b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nhalf"
PATIENCE_S = 120  # for a loaded machine; nothing here asserts how long a thing takes


@dataclass
class Process:
    """A running `detr serve`."""

    popen: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def end(self) -> tuple[int, list[dict[str, object]], str]:
        """Exit code, log lines and standard error, once it has ended."""
        out, err = self.popen.communicate(timeout=PATIENCE_S)
        return self.popen.returncode, [json.loads(line) for line in out.splitlines()], err


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "service.cli", "serve", *map(str, arguments)]


def start(*arguments: str | Path, environment: Mapping[str, str] = {}) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DETR_")}
    return subprocess.Popen(
        command(*arguments), cwd=REPOSITORY, env=inherited | dict(environment), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@contextmanager
def serving(artifact: Path, *arguments: str) -> Iterator[Process]:
    popen = start("--model", artifact, "--device", "cpu", "--port", "0", "--engine-threads", "1", *arguments)
    try:
        assert popen.stdout is not None
        yield Process(popen, port_of(popen.stdout))
    finally:
        popen.kill()
        popen.communicate()


def port_of(log: IO[str]) -> int:
    """The port, once the log says that the model is ready."""
    port = 0
    for line in log:
        message = str(json.loads(line)["message"])
        if message.startswith("listening on"):
            port = int(message.rpartition(" ")[2])
        if message.startswith("ready"):
            return port
    raise AssertionError("the service did not start")


@pytest.fixture(scope="module")
def process(panoptic_artifact: Path) -> Iterator[Process]:
    """One server for all tests that leave it as it was."""
    patience = ("--header-timeout-ms", "600000", "--body-timeout-ms", "600000", "--request-timeout-ms", "600000")
    with serving(panoptic_artifact, "--max-body-bytes", "100000", *patience) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(panoptic_artifact: Path) -> Iterator[Process]:
    """A server that waits for nobody."""
    with serving(panoptic_artifact, "--header-timeout-ms", "100", "--body-timeout-ms", "100") as running:
        yield running


def test_it_answers_over_http(process: Process, jpeg: bytes) -> None:
    with httpx.Client(base_url=process.url, timeout=PATIENCE_S) as client:
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


def test_many_clients_at_once_are_all_answered(process: Process, jpeg: bytes) -> None:
    def post(_: int) -> httpx.Response:
        return httpx.post(f"{process.url}/detect", content=jpeg, headers=JPEG, timeout=PATIENCE_S)

    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(post, range(48)))
    assert {response.status_code for response in responses} == {200}


def exchange(process: Process, request: bytes) -> httpx.Response:
    """Send raw bytes, and read until the server closes."""
    with process.connect() as connection:
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
def test_what_is_not_http_gets_an_error_in_the_one_shape(process: Process, request_bytes: bytes) -> None:
    response = exchange(process, request_bytes)
    assert response.status_code == 400
    assert response.json()["error"].keys() == {"code", "message", "request_id"}
    assert response.json()["error"]["code"] == "bad_request"


@pytest.mark.parametrize("end", [b"", b"\r\nConnection: close\r\n\r\n"], ids=["in pieces", "at once"])
def test_headers_have_a_bound(process: Process, end: bytes) -> None:
    response = exchange(process, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + end)
    assert response.status_code == 431
    assert response.json()["error"]["code"] == "headers_too_large"


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST /detect HTTP/1.1\r\nHost: a\r\nX-Slow: "])
def test_a_client_that_stops_before_the_end_of_its_headers_is_cut_off(impatient: Process, sent: bytes) -> None:
    with impatient.connect() as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_an_upload_that_stops_is_answered_and_cut_off(impatient: Process) -> None:
    head = b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    for part in (b"", b"\x89PNG"):
        response = exchange(impatient, head + part)
        assert response.json()["error"]["code"] == "upload_timeout"
        assert response.status_code == 408


def test_a_lie_about_the_length_is_refused_at_once(process: Process) -> None:
    head = b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nConnection: close\r\n"
    response = exchange(process, head + b"Content-Length: 1000000000\r\n\r\n0123456789")
    assert (response.status_code, response.json()["error"]["code"]) == (413, "upload_too_large")


def test_a_chunked_upload_is_cut_off_at_the_bound(process: Process) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(11):
            yield b"x" * 10_000

    response = httpx.post(f"{process.url}/detect", content=chunks(), headers=JPEG, timeout=PATIENCE_S)
    check_error(response, 413, "upload_too_large")


def test_broken_uploads_leave_no_trace(process: Process, jpeg: bytes) -> None:
    for _ in range(20):
        with process.connect() as connection:
            connection.sendall(HALF_AN_UPLOAD)
    assert httpx.post(f"{process.url}/detect", content=jpeg, headers=JPEG, timeout=PATIENCE_S).status_code == 200


def test_without_cuda_asking_for_it_is_one_clear_line_and_no_server(panoptic_artifact: Path) -> None:
    popen = start("--model", panoptic_artifact, "--device", "cuda", "--port", str(port := free_port()))
    code, _, err = Process(popen, port).end()
    (line,) = err.splitlines()
    assert code == 1
    assert line.startswith("detr serve: device cuda: ")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_in_use_is_one_line_that_names_it(process: Process, panoptic_artifact: Path) -> None:
    popen = start("--model", panoptic_artifact, "--device", "cpu", "--port", str(process.port))
    code, _, err = Process(popen, 0).end()
    assert (code, err) == (1, f"detr serve: cannot listen on 127.0.0.1 port {process.port}: Address already in use\n")


def test_sigterm_finishes_what_was_begun(panoptic_artifact: Path, jpeg: bytes) -> None:
    # The delay keeps the request in the queue until the drain sends it, if batches are not measured to save nothing.
    waiting = ("--max-queue-delay-ms", "10000", "--batch-timing-ms", "0", "--request-timeout-ms", "600000")
    with (
        serving(panoptic_artifact, *waiting) as running,
        running.connect() as client,
    ):
        head = f"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        client.sendall(head.encode() + jpeg)
        wait_for_queue(running)
        running.popen.send_signal(signal.SIGTERM)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
        code, log, err = running.end()
    assert b"200 OK" in received
    assert b'"detections":[{' in received
    assert code == 0
    assert err == ""
    assert [line["message"] for line in log][-1] == "stopped, exit code 0"


def wait_for_queue(running: Process) -> None:
    """Return when one image waits for others."""
    for _ in range(1000):
        if "detr_queue_depth 1.0" in httpx.get(f"{running.url}/metrics", timeout=PATIENCE_S).text:
            return
        time.sleep(0.01)
    raise AssertionError("the request never reached the queue")


def test_stalled_clients_cannot_hold_up_the_end(panoptic_artifact: Path) -> None:
    with serving(panoptic_artifact, "--drain-timeout-ms", "500") as running:
        stalled = [running.connect() for _ in range(3)]
        stalled[1].sendall(b"GET / HT")
        stalled[2].sendall(HALF_AN_UPLOAD)
        httpx.get(f"{running.url}/health/live", timeout=PATIENCE_S)
        running.popen.send_signal(signal.SIGTERM)
        code, _, err = running.end()
        for connection in stalled:
            connection.close()
    assert code == 0
    assert not LEAK.search(err)


def test_a_second_signal_ends_it_at_once(panoptic_artifact: Path, jpeg: bytes) -> None:
    patience = ("--drain-timeout-ms", "3000000", "--body-timeout-ms", "3000000")
    with serving(panoptic_artifact, *patience) as running, running.connect() as stalled:
        stalled.sendall(HALF_AN_UPLOAD)
        httpx.get(f"{running.url}/health/live", timeout=PATIENCE_S)
        running.popen.send_signal(signal.SIGTERM)
        while "shutting down" not in running.popen.stdout.readline():  # type: ignore[union-attr]
            pass
        running.popen.send_signal(signal.SIGINT)
        code, _, _ = running.end()
    assert code == 128 + signal.SIGINT

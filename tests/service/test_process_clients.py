"""A real server process: its connections under siege, its metrics port, its keys, and uploads that nobody reads."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil

from tests.service.conftest import JPEG, LEAK, check_error
from tests.service.test_process import HALF_AN_UPLOAD, PATIENCE_S, Process, exchange, free_port, serving, start

PATIENT = ("--header-timeout-ms", "600000", "--body-timeout-ms", "600000", "--request-timeout-ms", "600000")
KEY = "a-key-of-the-users"


@contextmanager
def crowd(process: Process, count: int, sends: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections that send this and then nothing."""
    with ExitStack() as stack:
        connections = [stack.enter_context(process.connect()) for _ in range(count)]
        for connection in connections:
            connection.sendall(sends)
        yield connections


def get(process: Process, path: str, port: int = 0, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port or process.port}{path}", timeout=PATIENCE_S, headers=headers)


def wait_for(process: Process, sample: str) -> None:
    """Return when the metrics hold this line."""
    for _ in range(1000):
        if f"\n{sample}\n" in get(process, "/metrics").text:
            return
        time.sleep(0.01)
    raise AssertionError(get(process, "/metrics").text)


def test_a_crowd_of_silent_connections_keeps_nobody_out(panoptic_artifact: Path, jpeg: bytes) -> None:
    with serving(panoptic_artifact, "--max-connections", "16", *PATIENT) as process, crowd(process, 64):
        for sends in (b"", b"GET / HT"):
            with crowd(process, 16, sends):
                assert get(process, "/health/live").status_code == 200
                assert get(process, "/health/ready").status_code == 200
                answer = httpx.post(f"{process.url}/detect", content=jpeg, headers=JPEG, timeout=PATIENCE_S)
                assert answer.status_code == 200


def test_uploads_in_every_place_leave_health_its_own(panoptic_artifact: Path, jpeg: bytes) -> None:
    with serving(panoptic_artifact, "--max-connections", "16", *PATIENT) as process:
        with crowd(process, 15, HALF_AN_UPLOAD):
            wait_for_refusal(process)
            refused = httpx.post(f"{process.url}/detect", content=jpeg, headers=JPEG, timeout=PATIENCE_S)
            check_error(refused, 503, "too_many_connections")
            assert int(refused.headers["retry-after"]) >= 1
            for path in ("/health/live", "/health/ready"):
                assert get(process, path).status_code == 200
        wait_for(process, "detr_requests_in_flight 1.0")
        assert httpx.post(f"{process.url}/detect", content=jpeg, headers=JPEG, timeout=PATIENCE_S).status_code == 200


def wait_for_refusal(process: Process) -> None:
    for _ in range(1000):
        if get(process, "/model").status_code == 503:
            return
        time.sleep(0.01)
    raise AssertionError("the uploads never took all places")


def test_metrics_have_a_port_of_their_own_that_wants_no_key(panoptic_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    port = free_port()
    arguments = ("--metrics-port", str(port), "--api-keys-file", str(tmp_path / "keys"))
    with serving(panoptic_artifact, *arguments) as process:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as metrics:
            assert "detr_requests_total" in metrics.get("/metrics").text
            for path in ("/", "/model", "/health/live", "/openapi.json", "/docs"):
                check_error(metrics.get(path), 404, "not_found")
            check_error(metrics.post("/detect", content=b"x" * 1000), 404, "not_found")
            check_error(metrics.post("/metrics"), 405, "method_not_allowed")
        assert exchange(Process(process.popen, port), b"nonsense\r\n\r\n").status_code == 400
        check_error(get(process, "/metrics", headers={"x-api-key": KEY}), 404, "not_found")
        check_error(get(process, "/metrics"), 401, "unauthorized")
        with socket.create_connection(("127.0.0.1", port)) as stalled:
            stalled.sendall(b"GET /metr")
            process.popen.send_signal(signal.SIGTERM)
            code, _, err = process.end()
        assert (code, err) == (0, "")


def lines_until(popen: subprocess.Popen[str], begin: str) -> list[str]:
    """The log's messages up to the first that begins like this."""
    messages: list[str] = []
    assert popen.stdout is not None
    for line in popen.stdout:
        messages.append(json.loads(line)["message"])
        if messages[-1].startswith(begin):
            return messages
    raise AssertionError(messages)


def test_metrics_can_be_read_before_the_model_has_loaded(panoptic_artifact: Path) -> None:
    port = free_port()
    popen = start("--model", panoptic_artifact, "--device", "cpu", "--port", "0", "--metrics-port", str(port))
    try:
        before = lines_until(popen, f"metrics on 127.0.0.1 port {port}")
        assert not any(message.startswith("ready") for message in before)
        assert "detr_connections 1.0" in get(Process(popen, port), "/metrics").text
    finally:
        popen.kill()
        popen.communicate()


def test_a_crowd_on_the_main_port_does_not_hide_the_metrics(panoptic_artifact: Path) -> None:
    port = free_port()
    arguments = ("--metrics-port", str(port), "--max-connections", "4", *PATIENT)
    with serving(panoptic_artifact, *arguments) as process, crowd(process, 4, HALF_AN_UPLOAD):
        for _ in range(20):
            assert get(process, "/metrics", port).status_code == 200


def test_a_metrics_port_in_use_is_one_line_that_names_it(panoptic_artifact: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        popen = start("--model", panoptic_artifact, "--device", "cpu", "--port", "0", "--metrics-port", str(port))
        code, _, err = Process(popen, 0).end()
    assert (code, err) == (1, f"detr serve: cannot listen on 127.0.0.1 port {port}: Address already in use\n")


def test_without_docs_there_is_no_page_and_no_description(panoptic_artifact: Path) -> None:
    with serving(panoptic_artifact, "--docs", "false") as process:
        for path in ("/", "/docs", "/openapi.json"):
            check_error(get(process, path), 404, "not_found")
        assert get(process, "/model").status_code == 200


def test_a_key_of_the_environment_is_in_no_log_and_on_no_command_line(panoptic_artifact: Path) -> None:
    popen = start("--model", panoptic_artifact, "--device", "cpu", "--port", "0", environment={"DETR_API_KEYS": KEY})
    try:
        log = lines_until(popen, "ready")
        port = next(int(line.split()[-1]) for line in log if line.startswith("listening on"))
        process = Process(popen, port)
        assert KEY not in " ".join(psutil.Process(popen.pid).cmdline())
        check_error(get(process, "/model"), 401, "unauthorized")
        assert get(process, "/model", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        popen.send_signal(signal.SIGTERM)
        code, lines, err = process.end()
        assert code == 0
        assert KEY not in json.dumps([log, lines]) + err
    finally:
        popen.kill()
        popen.communicate()


REFUSED_EARLY = {
    "no route": (b"POST /nowhere", 404), "no such method": (b"PUT /detect", 405), "no image": (b"POST /detect", 415),
    "for admins": (b"POST /model/reload", 403), "not wanted": (b"GET /health/live", 200),
}  # fmt: skip


def test_an_upload_that_nobody_reads_is_no_second_request_and_ends(panoptic_artifact: Path) -> None:
    with serving(panoptic_artifact, "--body-timeout-ms", "100") as process:
        for target, status in REFUSED_EARLY.values():
            head = target + b" HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"
            for sent in (b"", b"GET /model HTTP/1.1\r\nHost: a\r\n\r\n"):
                response = exchange(process, head + sent)
                assert response.status_code == status
                assert response.headers["connection"] == "close"
                assert not LEAK.search(response.text)
        assert 'detr_requests_total{endpoint="model",' not in get(process, "/metrics").text

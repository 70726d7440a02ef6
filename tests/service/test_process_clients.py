"""A real server process: its connections under siege, its metrics port, its keys, and uploads that nobody reads."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.processes import PATIENCE_S, free_port, until
from tests.reliability.raw_http import connect
from tests.server_process import ServerProcess, scripted, start_in_vain
from tests.service.conftest import LEAK, check_error
from tests.service.test_process import HALF_AN_UPLOAD, PATIENT, Start, exchange
from tests.service.test_process import start as start

pytestmark = pytest.mark.protocol

KEY = "a-key-of-the-users"


@pytest.fixture(scope="module")
def starting(panoptic_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that wants a key, and whose engine hangs before it is ready."""
    folder, env = tmp_path_factory.mktemp("starting"), {"DETR_API_KEYS": KEY}
    options, script = ("--batch-timing-ms", "600000"), {"hang_at": [1], "hang_s": 600}
    with scripted(panoptic_artifact, folder, *options, script=script, wait=False, env=env) as process:
        yield process


@contextmanager
def crowd(process: ServerProcess, count: int, sends: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections that send this and then nothing."""
    with ExitStack() as stack:
        connections = [stack.enter_context(process.connect()) for _ in range(count)]
        for connection in connections:
            connection.sendall(sends)
        yield connections


def test_a_crowd_of_silent_connections_keeps_nobody_out(start: Start, jpeg: bytes) -> None:
    with start("--max-connections", "16", *PATIENT) as process, crowd(process, 64):
        for sends in (b"", b"GET / HT"):
            with crowd(process, 16, sends):
                assert process.status("/health/live") == 200
                assert process.status("/health/ready") == 200
                assert process.post("/detect", jpeg, "image/jpeg").status_code == 200


def test_uploads_in_every_place_leave_health_its_own(start: Start, jpeg: bytes) -> None:
    with start("--max-connections", "16", *PATIENT) as process:
        with crowd(process, 15, HALF_AN_UPLOAD):
            until(lambda: process.status("/model") == 503)
            refused = process.post("/detect", jpeg, "image/jpeg")
            check_error(refused, 503, "too_many_connections")
            assert int(refused.headers["retry-after"]) >= 1
            for path in ("/health/live", "/health/ready"):
                assert process.status(path) == 200
        until(lambda: process.samples()["detr_requests_in_flight"] == 1)
        assert process.post("/detect", jpeg, "image/jpeg").status_code == 200


def test_metrics_have_a_port_of_their_own_that_wants_no_key(start: Start, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    port = free_port()
    with start("--metrics-port", str(port), "--api-keys-file", tmp_path / "keys") as process:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as metrics:
            assert "detr_requests_total" in metrics.get("/metrics").text
            for path in ("/", "/model", "/health/live", "/openapi.json", "/docs"):
                check_error(metrics.get(path), 404, "not_found")
            check_error(metrics.post("/detect", content=b"x" * 1000), 404, "not_found")
            check_error(metrics.post("/metrics"), 405, "method_not_allowed")
        assert exchange(port, b"nonsense\r\n\r\n").status_code == 400
        check_error(process.get("/metrics", headers={"x-api-key": KEY}), 404, "not_found")
        check_error(process.get("/metrics"), 401, "unauthorized")
        with connect(port) as stalled:
            stalled.sendall(b"GET /metr")
            process.signal(signal.SIGTERM)
            code, _, err = process.end()
        assert (code, err) == (0, "")


def test_metrics_can_be_read_before_the_model_has_loaded(start: Start) -> None:
    port = free_port()
    with start("--metrics-port", str(port), wait=False) as process:
        told = process.wait_for_line("metrics on")["message"]
        assert told == f"metrics on 127.0.0.1 port {port}"
        before = process.messages()[: process.messages().index(told)]
        assert not any(message.startswith("ready") for message in before)
        assert "detr_connections 1.0" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S).text


def test_a_crowd_on_the_main_port_does_not_hide_the_metrics(start: Start) -> None:
    port = free_port()
    with (
        start("--metrics-port", str(port), "--max-connections", "4", *PATIENT) as process,
        crowd(process, 4, HALF_AN_UPLOAD),
    ):
        for _ in range(20):
            assert httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S).status_code == 200


def test_a_metrics_port_in_use_is_one_line_that_names_it(panoptic_artifact: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = start_in_vain("--model", panoptic_artifact, "--metrics-port", str(port))
    assert (code, err) == (1, f"detr serve: cannot listen on 127.0.0.1 port {port}: Address already in use\n")


def test_without_docs_there_is_no_page_and_no_description(start: Start) -> None:
    with start("--docs", "false") as process:
        for path in ("/", "/docs", "/openapi.json"):
            check_error(process.get(path), 404, "not_found")
        assert process.status("/model") == 200


def test_a_key_of_the_environment_is_in_no_log_and_on_no_command_line(start: Start) -> None:
    with start(env={"DETR_API_KEYS": KEY}) as process:
        assert KEY not in " ".join(process.process.cmdline())
        check_error(process.get("/model"), 401, "unauthorized")
        assert process.get("/model", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        process.signal(signal.SIGTERM)
        code, lines, err = process.end()
        assert code == 0
        assert KEY not in json.dumps(lines) + err


MANY_BYTES = bytes(24 * 2**20)


@pytest.mark.parametrize(
    ("key", "method", "path", "content_type", "size", "status"),
    [
        (KEY, "POST", "/detect", "image/png", len(MANY_BYTES), 413),
        (KEY, "POST", "/detect", "text/plain", len(MANY_BYTES), 415),
        (KEY, "PUT", "/detect", "image/png", len(MANY_BYTES), 405),
        (KEY, "POST", "/nowhere", "image/png", len(MANY_BYTES), 404),
        (KEY, "POST", "/detect", "image/png", 12 * 2**20, 503),
        ("none", "POST", "/detect", "image/png", len(MANY_BYTES), 401),
    ],
)
def test_who_reads_nothing_before_all_is_sent_gets_the_answer(
    starting: ServerProcess, key: str, method: str, path: str, content_type: str, size: int, status: int
) -> None:
    headers = {"X-API-Key": key, "Content-Type": content_type}
    asked = urllib.request.Request(starting.url + path, MANY_BYTES[:size], headers, method=method)
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(asked, timeout=PATIENCE_S)
    with told.value as refusal:
        assert refusal.code == status
        assert json.loads(refusal.read())["error"].keys() == {"code", "message", "request_id"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("options", [(), ("-H", "Expect:"), ("-H", "Transfer-Encoding: chunked"), ("--http1.0",)])
def test_curl_is_told_that_its_upload_is_too_large(
    starting: ServerProcess, options: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "large.png").write_bytes(MANY_BYTES)
    words = ["curl", "-sS", "-H", f"X-API-Key: {KEY}", "-F", "image=@large.png", "-w", "%{http_code}", *options]
    done = subprocess.run(
        [*words, f"{starting.url}/detect"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.stdout.endswith("413" if "Transfer-Encoding: chunked" not in options else "503"), done


REFUSED_EARLY = {
    "no route": (b"POST /nowhere", 404), "no such method": (b"PUT /detect", 405), "no image": (b"POST /detect", 415),
    "for admins": (b"POST /model/reload", 403), "not wanted": (b"GET /health/live", 200),
}  # fmt: skip


def test_an_upload_that_nobody_reads_is_no_second_request_and_ends(start: Start) -> None:
    with start("--body-timeout-ms", "100") as process:
        for target, status in REFUSED_EARLY.values():
            head = target + b" HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"
            for sent in (b"", b"GET /model HTTP/1.1\r\nHost: a\r\n\r\n"):
                response = exchange(process.port, head + sent)
                assert response.status_code == status
                assert response.headers["connection"] == "close"
                assert not LEAK.search(response.text)
        assert not [name for name in process.samples() if name.startswith('detr_requests_total{endpoint="model",')]

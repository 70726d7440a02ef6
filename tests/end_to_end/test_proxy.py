"""A real nginx, with the compose file's configuration, in front of a real service."""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image

from service.settings import Settings
from tests.end_to_end.conftest import REPOSITORY
from tests.end_to_end.nginx import CONFIGURATION, check_error, nginx
from tests.processes import PATIENCE_S, free_port
from tests.server_process import serving

pytestmark = pytest.mark.slow

JPEG = {"content-type": "image/jpeg"}


@dataclass
class Proxy:
    """A running proxy, its log, and the metrics of the service behind it."""

    port: int
    metrics_url: str
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def wait_for(self, sample: str) -> None:
        """Return when the service's metrics hold this line."""
        deadline = time.monotonic() + PATIENCE_S
        while f"\n{sample}\n" not in (text := httpx.get(self.metrics_url, timeout=PATIENCE_S).text):
            assert time.monotonic() < deadline, text
            time.sleep(0.05)


@contextmanager
def proxied(folder: Path, demo: Path, changes: dict[str, str], *arguments: str) -> Iterator[Proxy]:
    """A service and its proxy, for the length of a `with` block."""
    metrics_port = free_port()
    options = ("--batch-timing-ms", "0", "--request-timeout-ms", "600000", "--metrics-port", str(metrics_port))
    with serving(demo, folder, *options, *arguments) as service, nginx(folder, service.port, changes) as port:
        yield Proxy(port, f"http://127.0.0.1:{metrics_port}/metrics", folder / "requests")


@pytest.fixture(scope="module")
def proxy(need: Callable[..., None], demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The shipped proxy before a service as patient as it is."""
    need("nginx", root=True)
    with proxied(tmp_path_factory.mktemp("proxy"), demo, {}) as running_proxy:
        yield running_proxy


@pytest.fixture(scope="module")
def impatient(need: Callable[..., None], demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy and a service that wait for nobody."""
    need("nginx", root=True)
    changes = {
        "client_header_timeout 5s": "client_header_timeout 500ms",
        "client_body_timeout 10s": "client_body_timeout 500ms",
    }
    path = tmp_path_factory.mktemp("impatient")
    with proxied(path, demo, changes, "--write-timeout-ms", "500") as running_proxy:
        yield running_proxy


def post(path: str, length: int, content_type: str = "image/jpeg") -> bytes:
    """The head of an upload."""
    fields = f"Host: a\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n".encode()


def received(connection: socket.socket) -> bytes:
    """What the proxy sends until it closes."""
    told = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            told += chunk
    return told


def exchange(proxy: Proxy, sent: bytes) -> httpx.Response:
    """What the proxy answers to these bytes before it closes."""
    with proxy.connect() as connection:
        connection.sendall(sent)
        head, _, body = received(connection).partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    return httpx.Response(int(status.split()[1]), headers=dict(line.split(": ", 1) for line in fields), content=body)


def test_good_requests_pass(proxy: Proxy, jpeg: bytes) -> None:
    with httpx.Client(base_url=proxy.url, timeout=PATIENCE_S) as client:
        assert client.get("/health/ready").json() == {"status": "ready"}
        for path in ("/detect", "/segment"):
            raw = client.post(path, content=jpeg, headers=JPEG)
            assert raw.status_code == 200
            assert raw.json() == client.post(path, files={"image": jpeg}).json()
            assert "server-timing" in raw.headers
        assert client.get("/").status_code == 200
        assert client.get("/metrics").status_code == 404


def test_an_upload_without_a_length_passes(proxy: Proxy, jpeg: bytes) -> None:
    def pieces() -> Iterator[bytes]:
        yield from (jpeg[start : start + 500] for start in range(0, len(jpeg), 500))

    answer = httpx.post(f"{proxy.url}/detect", content=pieces(), headers=JPEG, timeout=PATIENCE_S)
    assert answer.status_code == 200


def test_a_request_has_one_name_on_both_sides(proxy: Proxy) -> None:
    assert httpx.get(f"{proxy.url}/health/live", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    odd = httpx.get(f"{proxy.url}/health/live", headers={"x-request-id": 'a" b'}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", odd)
    deadline = time.monotonic() + PATIENCE_S
    while not {"mine-1", odd} <= {json.loads(line)["request_id"] for line in proxy.log.read_text().splitlines()}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_log_holds_neither_target_nor_headers(proxy: Proxy) -> None:
    httpx.get(f"{proxy.url}/secret-path?key=secret-query", headers={"x-api-key": "secret-key", "user-agent": "secret"})
    httpx.get(f"{proxy.url}/health/live", headers={"x-request-id": "the-last-one"})
    deadline = time.monotonic() + PATIENCE_S
    while "the-last-one" not in (text := proxy.log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "secret" not in text


def test_errors_of_the_service_pass_as_they_are(proxy: Proxy) -> None:
    answer = httpx.post(f"{proxy.url}/detect", content=b"no picture", headers=JPEG, timeout=PATIENCE_S)
    check_error(answer, 400, "not_an_image")


def test_what_the_proxy_refuses_has_the_same_shape(proxy: Proxy) -> None:
    check_error(exchange(proxy, post("/detect", 18 * 2**20) + b"x"), 413, "upload_too_large")
    check_error(httpx.get(f"{proxy.url}/" + "x" * 9000), 414, "headers_too_large")
    check_error(httpx.get(proxy.url, headers={"x": "x" * 9000}), 431, "headers_too_large")


UNCLEAR = ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length: -1", "Content-Length: 1\r\n" * 2]


@pytest.mark.parametrize("head", UNCLEAR)
def test_a_request_without_a_clear_end_goes_no_further(proxy: Proxy, head: str) -> None:
    sent = f"POST /detect HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n0\r\n\r\n".encode()
    check_error(exchange(proxy, sent), 400, "bad_request")


def test_a_larger_body_than_the_service_takes_is_refused_by_the_service_and_still_answered(proxy: Proxy) -> None:
    too_much = b"x" * (Settings().max_body_bytes + 1)
    answer = httpx.post(f"{proxy.url}/detect", content=too_much, headers=JPEG, timeout=PATIENCE_S)
    check_error(answer, 413, "upload_too_large")


def test_slow_headers_are_cut_off(impatient: Proxy) -> None:
    for begin in (b"", b"GET / HT", b"POST /detect HTTP/1.1\r\nHost: a\r\nX-Slow: "):
        with impatient.connect() as connection:
            connection.sendall(begin)
            assert not received(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", ["/detect", "/segment", "/nowhere"])
def test_a_slow_body_is_cut_off(impatient: Proxy, path: str) -> None:
    with impatient.connect() as connection:
        connection.sendall(post(path, 1000) + b"\xff\xd8")
        assert received(connection) == b""


def test_a_slow_reader_is_cut_off_and_holds_nothing_in_the_service(impatient: Proxy, large_jpeg: bytes) -> None:
    with impatient.connect() as connection:
        connection.sendall(post("/segment?overlay=true", len(large_jpeg)) + large_jpeg)
        impatient.wait_for('detr_connections_closed_total{reason="slow_reader"} 1.0')
        impatient.wait_for("detr_requests_in_flight 1.0")
        head, _, body = received(connection).partition(b"\r\n\r\n")
    (length,) = re.findall(rb"content-length: (\d+)", head.lower())
    assert len(body) < int(length)


@pytest.fixture(scope="module")
def large_jpeg() -> bytes:
    """A picture whose overlay is larger than any buffers on the way."""
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def test_one_address_takes_so_many_connections_and_no_more(
    need: Callable[..., None], demo: Path, tmp_path: Path
) -> None:
    need("nginx", root=True)
    with proxied(tmp_path, demo, {"limit_conn address 64": "limit_conn address 3"}) as few, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(few.connect()).sendall(post("/detect", 9))
        deadline = time.monotonic() + PATIENCE_S
        while (answer := httpx.get(f"{few.url}/model")).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        check_error(answer, 429, "too_many_connections")


def test_uploads_that_find_no_place_are_refused_until_there_is_one(
    need: Callable[..., None], demo: Path, tmp_path: Path, large_jpeg: bytes, jpeg: bytes
) -> None:
    """The proxy's /tmp has a bound, as in docker-compose.yml."""
    need("nginx", "mount", root=True)
    (place := tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    try:
        with proxied(tmp_path, demo, {f"{tmp_path}/body": str(place / "body")}) as proxy:
            refused = httpx.post(f"{proxy.url}/detect", content=large_jpeg, headers=JPEG, timeout=PATIENCE_S)
            check_error(refused, 503, "uploads_full")
            assert refused.headers["retry-after"] == "1"
            answer = httpx.post(f"{proxy.url}/detect", content=jpeg, headers=JPEG, timeout=PATIENCE_S)
            assert answer.status_code == 200
    finally:
        subprocess.run(["umount", place], check=True)


def test_the_proxys_memory_holds_the_uploads_of_one_address_and_nginx_itself() -> None:
    proxy = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["proxy"]
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", CONFIGURATION.read_text())
    (connections,) = re.findall(r"limit_conn address (\d+);", CONFIGURATION.read_text())
    ((size,),) = (re.findall(r"^/tmp:size=(\d+)m$", place) for place in proxy["tmpfs"])
    assert int(megabytes) * int(connections) <= int(size)
    assert int(size) + 256 <= int(proxy["mem_limit"].removesuffix("m"))


def test_the_proxy_lets_through_what_the_service_takes_and_outlasts_its_deadlines() -> None:
    text = CONFIGURATION.read_text()
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", text)
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", text)
    settings = Settings()
    assert settings.max_body_bytes < int(megabytes) * 2**20
    assert (settings.body_timeout_ms + settings.request_timeout_ms) / 1000 < int(seconds)


def test_the_proxy_of_the_compose_file_has_this_configuration() -> None:
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    assert services["proxy"]["volumes"] == ["./docker/nginx/nginx.conf:/etc/nginx/nginx.conf:ro"]
    assert services["proxy"]["ports"] == ["8000:8080"]

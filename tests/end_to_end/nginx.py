"""A real nginx with the compose file's configuration."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.end_to_end.conftest import REPOSITORY
from tests.end_to_end.name_server import NameServer
from tests.processes import PATIENCE_S, free_port, started

CONFIGURATION = REPOSITORY / "docker/nginx/nginx.conf"


def check_error(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    error = response.json()["error"]
    assert error.keys() == {"code", "message", "request_id"}
    assert error["code"] == code
    assert error["request_id"] == response.headers["x-request-id"]


def shipped(changes: dict[str, str]) -> str:
    """The shipped configuration, with other words for some of its words."""
    text = CONFIGURATION.read_text()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@contextmanager
def nginx(folder: Path, service_port: int, changes: dict[str, str]) -> Iterator[int]:
    """The proxy before a port of this machine, for the length of a `with` block; gives its own port."""
    with NameServer() as names, nginx_asking(names, folder, service_port, changes) as port:
        yield port


@contextmanager
def nginx_asking(
    names: NameServer, folder: Path, service_port: int, changes: dict[str, str], valid_s: int = 5
) -> Iterator[int]:
    """The same, with a name server in whose hand it is which address the service has, for so many seconds each time."""
    port = free_port()
    places = {
        "detr:8000": f"detr:{service_port}",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "/tmp/": f"{folder}/",  # noqa: S108  # a path inside the container
        "/dev/stdout": str(folder / "requests"),
    }
    (folder / "resolver.conf").write_text(f"resolver 127.0.0.1:{names.port} valid={valid_s}s ipv6=off;")
    configuration = folder / "nginx.conf"
    configuration.write_text(shipped(places | changes))
    # In a test nginx belongs to root, and its workers have to as well if they are to write where it does.
    command = ["nginx", "-c", str(configuration), "-g", "daemon off; user root;"]
    with started(command, folder / "nginx.log") as process:
        deadline = time.monotonic() + PATIENCE_S
        while not is_listening(port):
            assert process.poll() is None, (folder / "nginx.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""A real Prometheus with the compose file's configuration, which finds the service by its name."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.end_to_end.conftest import REPOSITORY
from tests.end_to_end.name_server import NameServer
from tests.processes import free_port, running

CONFIGURATION = REPOSITORY / "docker/prometheus/prometheus.yml"
# Prometheus has no setting for where it asks for names, so it gets a resolv.conf of its own.
_NAMED_BY = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'


@contextmanager
def prometheus(folder: Path, metrics_port: int, addresses: Sequence[str] = ("127.0.0.1",)) -> Iterator[str]:
    """Its address, for the length of a `with` block; its database is empty at first. Needs root.

    Args:
        folder: for its files.
        metrics_port: of the service, in place of the compose file's.
        addresses: what the service's name leads to.
    """
    (folder / "prometheus.yml").write_text(shipped(metrics_port))
    shutil.copy(CONFIGURATION.parent / "alerts.yml", folder)
    url = f"http://127.0.0.1:{(port := free_port())}"
    # Names are asked for at port 53 only, where another address of this machine may have its own server.
    with NameServer(f"127.53.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}", 53) as names:
        names.addresses = tuple(addresses)
        (folder / "resolv.conf").write_text(f"nameserver {names.host}\n")
        command: list[str | Path] = ["unshare", "--mount", "sh", "-c", _NAMED_BY, "sh", folder / "resolv.conf"]
        options = [
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with running([*command, "prometheus", *options], f"{url}/-/ready", folder / "prometheus.log"):
            yield url


def shipped(metrics_port: int) -> str:
    """The shipped configuration, with another port."""
    text = CONFIGURATION.read_text()
    assert text.count("port: 8001") == 1
    return text.replace("port: 8001", f"port: {metrics_port}")


def query(prometheus: str, expression: str) -> list[float]:
    """Values of the series that an instant query finds."""
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}).raise_for_status().json()
    return [float(series["value"][1]) for series in answer["data"]["result"]]


def wait_until_query(prometheus: str, expression: str, expected: list[float]) -> None:
    deadline = time.monotonic() + 60
    while (found := query(prometheus, expression)) != expected:
        assert time.monotonic() < deadline, f"{expression} is {found}, not {expected}"
        time.sleep(0.5)

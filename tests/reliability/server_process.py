"""A server process as a test sees it: started, ready, asked, looked at from outside, and ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.processes import started, wait_for_200
from tests.reliability.raw_http import PATIENCE_S

REPOSITORY = Path(__file__).parents[2]


@dataclass
class ServerProcess:
    """A running service. What it has of the machine is read from outside, as an operator would."""

    popen: subprocess.Popen[bytes]
    log: Path
    port: int
    lonely: httpx.Client  # each of its requests has a connection of its own
    control: socket.socket | None = None  # of a scripted server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        """A client that keeps as many connections as it needs."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, limits=httpx.Limits())

    def post(self, path: str, body: bytes, content_type: str = "image/png", **options: Any) -> httpx.Response:
        """One request on a connection of its own."""
        headers = {"content-type": content_type}
        return self.lonely.post(self.url + path, content=body, headers=headers, **options)

    def samples(self) -> dict[str, float]:
        """Every sample of /metrics, by its name and labels as Prometheus writes them."""
        text = self.lonely.get(f"{self.url}/metrics").text
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def status(self, path: str) -> int:
        """Status of a GET."""
        return self.lonely.get(self.url + path).status_code

    def script(self, **changes: Any) -> dict[str, int]:
        """Change a scripted server's script, and return its engine's report; without changes only the latter."""
        assert self.control is not None, "only a scripted server has a script"
        self.control.sendall(json.dumps(changes).encode() + b"\n")
        received = b""
        while not received.endswith(b"\n"):
            if not (part := self.control.recv(4096)):
                raise ConnectionError("the scripted server has ended")
            received += part
        report: dict[str, int] = json.loads(received)
        return report

    def lines(self) -> list[dict[str, Any]]:
        """The log so far. Raises ValueError where anything but the log's own lines was written."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def errors(self) -> list[dict[str, Any]]:
        """Lines of the log that tell of a failure of the service."""
        return [line for line in self.lines() if line["level"] == "error" or "exception" in line]

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.popen.pid)

    def rss(self) -> int:
        """Bytes of memory in use."""
        return int(self.process.memory_info().rss)

    def fds(self) -> int:
        """Open file descriptors."""
        return self.process.num_fds()

    def threads(self) -> int:
        return self.process.num_threads()

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def exit_code(self) -> int:
        """The exit code, once it has ended."""
        return self.popen.wait(timeout=PATIENCE_S)

    def wait_for_line(self, begin: str) -> dict[str, Any]:
        """The first log line whose message begins like this, once it is there."""
        found: list[dict[str, Any]] = []

        def has_come() -> bool:
            ended = self.popen.poll() is not None
            with suppress(ValueError):  # what is no log line is told of below
                found.extend(line for line in self.lines() if str(line["message"]).startswith(begin))
            assert found or not ended, f"exited with {self.popen.returncode}"
            return bool(found)

        try:
            until(has_come)
        except AssertionError as error:
            raise AssertionError(f"{error}; no line {begin!r} in the log:\n{self.log.read_text()}") from error
        return found[0]


def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> float:
    """Return once the condition holds, with the seconds that took.

    Raises:
        AssertionError: it does not hold in time.
    """
    started_at = time.monotonic()
    while not condition():
        assert time.monotonic() - started_at < timeout_s, f"not so within {timeout_s} s"
        time.sleep(0.02)
    return time.monotonic() - started_at


@contextmanager
def scripted(
    artifact: Path, folder: Path, *arguments: str, script: Mapping[str, Any] = {}, **options: Any
) -> Iterator[ServerProcess]:
    """The service with a scripted engine; `artifact` is a tiny one, whose metadata it answers with."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    command = [sys.executable, "-m", "tests.reliability.scripted_server", "--model", str(artifact)]
    command += ["--script", json.dumps(dict(script)), "--control-fd", str(theirs.fileno())]
    with ours, theirs, _server(command, folder, arguments, pass_fds=(theirs.fileno(),), **options) as server:
        server.control = ours
        yield server


@contextmanager
def serving(artifact: Path | None, folder: Path, *arguments: str, **options: Any) -> Iterator[ServerProcess]:
    """`detr serve` as users run it; without an artifact it serves the demo model."""
    command = [sys.executable, "-m", "service.cli", "serve", "--device", "cpu", "--engine-threads", "1"]
    command += [] if artifact is None else ["--model", str(artifact)]
    with _server(command, folder, arguments, **options) as server:
        yield server


@contextmanager
def _server(
    command: list[str],
    folder: Path,
    arguments: tuple[str, ...],
    *,
    wait: bool = True,
    port: int | None = None,
    prefix: tuple[str, ...] = (),
    env: Mapping[str, str] = {},
    pass_fds: tuple[int, ...] = (),
) -> Iterator[ServerProcess]:
    """Start it on a free port, and wait until it is ready or, without `wait`, until it listens; kill it at the end.

    `prefix` is a command that runs the server, in the same process, under other conditions. A `port` is needed only
    where it cannot be read from the log.
    """
    log = folder / f"log-{len(list(folder.glob('log-*')))}"
    command = [*prefix, *command, "--port", str(port or 0), *arguments]
    limits = httpx.Limits(max_keepalive_connections=0)
    with (
        started(command, log, env=environment() | dict(env), cwd=REPOSITORY, pass_fds=pass_fds) as popen,
        httpx.Client(timeout=PATIENCE_S, limits=limits) as lonely,
    ):
        server = ServerProcess(popen, log, port or 0, lonely)
        try:
            if port is None:
                server.port = int(server.wait_for_line("listening on")["message"].rpartition(" ")[2])
            if wait:
                wait_for_200(f"{server.url}/health/ready", popen, log, PATIENCE_S)
            yield server
        finally:
            popen.kill()


def environment() -> dict[str, str]:
    """This process's environment without settings of the service."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DETR_")}

"""A server process as a test sees it: started, ready, asked, looked at from outside, and ended.

All tests start the service here, the real one (`serving`) or one with a scripted engine (`scripted`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import PATIENCE_S, started, until, wait_for_200

REPOSITORY = Path(__file__).parents[1]
_SERVE = (sys.executable, "-m", "service.cli", "serve", "--device", "cpu", "--engine-threads", "1")
_SCRIPTED = (sys.executable, "-m", "tests.reliability.scripted_server")


class Ended(NamedTuple):
    """What is left of a server that has ended."""

    code: int
    lines: list[dict[str, Any]]  # of its log
    errors: str  # standard error


def total(samples: Mapping[str, float], name: str) -> float:
    """What all series of one name come to, of samples by name and labels."""
    return sum(value for key, value in samples.items() if key.partition("{")[0] == name)


@dataclass
class ServerProcess:
    """A running service. What it has of the machine is read from outside, as an operator would."""

    popen: subprocess.Popen[bytes]
    log: Path
    error_log: Path  # standard error
    port: int
    lonely: httpx.Client  # each of its requests has a connection of its own
    control: socket.socket | None = None  # of a scripted server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        """A connection, for HTTP by hand; `tests/reliability/raw_http.py` has more of it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def client(self) -> httpx.Client:
        """A client that keeps as many connections as it needs."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, limits=httpx.Limits())

    def get(self, path: str, **options: Any) -> httpx.Response:
        """One request on a connection of its own."""
        return self.lonely.get(self.url + path, **options)

    def post(self, path: str, body: bytes, content_type: str = "image/png", **options: Any) -> httpx.Response:
        """One request on a connection of its own."""
        headers = {"content-type": content_type}
        return self.lonely.post(self.url + path, content=body, headers=headers, **options)

    def status(self, path: str) -> int:
        """Status of a GET."""
        return self.get(path).status_code

    def samples(self) -> dict[str, float]:
        """Every sample of /metrics, by its name and labels as Prometheus keeps them, which drops empty ones."""
        found = {}
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()) if value)
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

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

    def messages(self) -> list[str]:
        """What the lines of the log say, without their fields."""
        return [str(line["message"]) for line in self.lines()]

    def errors(self) -> list[dict[str, Any]]:
        """Lines of the log that tell of a failure of the service; nothing may be on standard error."""
        assert self.error_log.read_text() == ""
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

    def end(self) -> Ended:
        """What is left, once it has ended."""
        return Ended(self.exit_code(), self.lines(), self.error_log.read_text())

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
            said = self.log.read_text() + self.error_log.read_text()
            raise AssertionError(f"{error}; no line {begin!r} in the log:\n{said}") from error
        return found[0]


@contextmanager
def serving(
    artifact: Path | str | None,
    folder: Path,
    *arguments: str | Path,
    command: Sequence[str] = _SERVE,
    **options: Any,
) -> Iterator[ServerProcess]:
    """`detr serve` as users run it, see `_server` for the options; without an artifact it serves the demo model.

    `command` may be another that takes the same arguments.
    """
    with _server([*command, *_model(artifact)], folder, arguments, **options) as server:
        yield server


@contextmanager
def scripted(
    artifact: Path, folder: Path, *arguments: str | Path, script: Mapping[str, Any] = {}, **options: Any
) -> Iterator[ServerProcess]:
    """The same with a scripted engine; `artifact` is a tiny one, whose metadata it answers with."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    script_words = ["--script", json.dumps(dict(script)), "--control-fd", str(theirs.fileno())]
    command = [*_SCRIPTED, *_model(artifact), *script_words]
    with ours, theirs, _server(command, folder, arguments, pass_fds=(theirs.fileno(),), **options) as server:
        server.control = ours
        yield server


def start_in_vain(*arguments: str | Path, command: tuple[str, ...] = _SERVE, env: Mapping[str, str] = {}) -> Ended:
    """What is left of a `detr serve` that is expected not to start."""
    words = [*command, "--port", "0", *map(str, arguments)]
    done = subprocess.run(
        words,
        cwd=REPOSITORY,
        env=environment() | dict(env),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Ended(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr)


@contextmanager
def _server(
    command: list[str],
    folder: Path,
    arguments: tuple[str | Path, ...],
    *,
    wait: bool = True,
    port: int | None = None,
    output: int | None = None,
    prefix: tuple[str, ...] = (),
    env: Mapping[str, str] = {},
    pass_fds: tuple[int, ...] = (),
) -> Iterator[ServerProcess]:
    """Start it on a free port, and wait until it is ready or, without `wait`, until it listens; kill it at the end.

    Args:
        command: that starts it.
        folder: where its log goes.
        arguments: more of the command's.
        wait: until it is ready.
        port: needed only where it cannot be read from the log.
        output: a descriptor for all that it prints, in place of a log.
        prefix: a command that runs the server, in the same process, under other conditions.
        env: environment variables beside this process's own.
        pass_fds: open files that it inherits.
    """
    number = len(list(folder.glob("log-*")))
    log, error_log = folder / f"log-{number}", folder / f"errors-{number}"
    log.touch()
    error_log.touch()
    command = [*prefix, *command, "--port", str(port or 0), *map(str, arguments)]
    places: dict[str, Any] = {"output": log, "errors": error_log} if output is None else {"output": output}
    limits = httpx.Limits(max_keepalive_connections=0)
    with (
        started(command, **places, env=environment() | dict(env), cwd=REPOSITORY, pass_fds=pass_fds) as popen,
        httpx.Client(timeout=PATIENCE_S, limits=limits) as lonely,
    ):
        server = ServerProcess(popen, log, error_log, port or 0, lonely)
        try:
            if port is None:
                server.port = int(server.wait_for_line("listening on")["message"].rpartition(" ")[2])
            if wait:
                wait_for_200(f"{server.url}/health/ready", popen, log)
            yield server
        finally:
            popen.kill()


def _model(artifact: Path | str | None) -> list[str]:
    return [] if artifact is None else ["--model", str(artifact)]


def environment() -> dict[str, str]:
    """This process's environment without settings of the service."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DETR_")}

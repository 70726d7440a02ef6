"""A server process that lives for the length of a measurement."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from service.bench.connection import BenchTarget
from service.http.paths import READY

_LOOPBACK = "127.0.0.1"
_POLL_S = 0.2
_PATIENCE_S = 300.0  # for a large model on a slow machine to be ready
_END_S = 30.0  # for a server to end by itself

# Ends a process group once nobody holds the other end of its standard input, even if the group is stopped.
_GUARD = "import os, signal, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), signal.SIGKILL)"


class ServerError(Exception):
    """The server did not start; the message is what it said itself."""


@dataclass(frozen=True)
class ServerProcess:
    """A running server."""

    target: BenchTarget
    pid: int  # also of its process group

    def peak_memory_bytes(self) -> int | None:
        """The most memory it held at once, its child processes' included; None where the system does not tell."""
        peaks = [_peak_bytes(pid) for pid in _with_children(self.pid)]
        known = [peak for peak in peaks if peak is not None]
        return sum(known) if known else None


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextmanager
def server_process(command: Sequence[str | Path], port: int, ready_path: str) -> Iterator[ServerProcess]:
    """Start a server that listens on a loopback port, and end it after the block, or when this process is killed.

    Args:
        command: that starts it.
        port: where it will listen.
        ready_path: answers 200 as soon as it can be measured.

    Raises:
        ServerError: it ended before it was ready, or took too long.
    """
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            with _guarded(process.pid):
                _wait_until_ready(process, port, ready_path, log.fileno())
                yield ServerProcess(BenchTarget(_LOOPBACK, port), process.pid)
        finally:
            _end(process)


@contextmanager
def detr_service(settings: Mapping[str, str]) -> Iterator[ServerProcess]:
    """A service with these settings (field name to text) on a free loopback port, until the block ends.

    Raises:
        ServerError: it did not start.
    """
    port = free_port()
    values = {**settings, "host": _LOOPBACK, "port": str(port)}
    options = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]
    with server_process([sys.executable, "-m", "service.cli", "serve", *options], port, READY) as server:
        yield server


@contextmanager
def _guarded(group: int) -> Iterator[None]:
    """End a process group if this process is killed within the block.

    The system closes a dead process's pipes, whatever it died of; a server that was stopped would otherwise stay for
    ever.
    """
    if sys.platform == "win32":  # which has no groups to end, and stops nothing
        yield
        return
    command = [sys.executable, "-S", "-E", "-c", _GUARD, str(group)]
    # In a session of its own, so that it outlives what ends this process's.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as guard:
        try:
            yield
        finally:
            guard.kill()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, path: str, log: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not _answers(port, path):
        if process.poll() is not None:
            raise ServerError(_last_message(log))
        if time.monotonic() > deadline:
            raise ServerError(f"the server was not ready after {_PATIENCE_S:g} s")
        time.sleep(_POLL_S)


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(_LOOPBACK, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    process.kill()
    if sys.platform != "win32":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever it left behind
    process.wait()


def _last_message(log: int) -> str:
    """The last line of the log that is not a record of an ordinary event."""
    os.lseek(log, 0, os.SEEK_SET)
    lines = [line for line in os.read(log, 2**20).decode(errors="replace").splitlines() if line.strip()]
    plain = [line for line in lines if not _is_record(line)]
    return (plain or lines or ["the server ended and said nothing"])[-1][:500]


def _is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _with_children(pid: int) -> list[int]:
    """A process and all that it started, directly or not (Linux, proc_pid_task(5))."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(member for child in children for member in _with_children(int(child)))]


def _peak_bytes(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)

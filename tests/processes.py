"""Processes that a test starts, waits for, and ends whatever happens; `tests/server_process.py` starts the service."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

PATIENCE_S = 120  # for a loaded machine; what is promised in seconds is asserted in the soak tests


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S, pause_s: float = 0.02) -> float:
    """Return once the condition holds, with the seconds that took; it is looked at again after each pause.

    Raises:
        AssertionError: it does not hold in time.
    """
    started_at = time.monotonic()
    while not condition():
        assert time.monotonic() - started_at < timeout_s, f"not so within {timeout_s} s"
        time.sleep(pause_s)
    return time.monotonic() - started_at


def wait_for_200(url: str, process: subprocess.Popen[bytes], log: Path, timeout_s: float = PATIENCE_S) -> None:
    """Return as soon as the URL answers 200.

    Raises:
        AssertionError: the process ended, or did not answer in time; with the end of its log.
    """

    def answers() -> bool:
        assert process.poll() is None, f"exited with {process.returncode}"
        try:
            return client.get(url).status_code == 200
        except httpx.TransportError:
            return False

    try:
        with httpx.Client(timeout=2, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            until(answers, timeout_s, pause_s=0.1)
    except AssertionError as error:
        raise AssertionError(f"{url}: {error}:\n{log.read_text()[-12000:]}") from error


@contextmanager
def started(
    command: Sequence[str | Path],
    output: Path | int,
    *,
    errors: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for the length of a `with` block, whatever it answers.

    What it prints goes to `output`, a file or an open descriptor, and to `errors` where that is given. Files are
    appended to, so that a test can write there as well.
    """
    with ExitStack() as files:
        stdout = files.enter_context(output.open("ab")) if isinstance(output, Path) else output
        stderr = subprocess.STDOUT if errors is None else files.enter_context(errors.open("ab"))
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=env, cwd=cwd, pass_fds=pass_fds)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running(
    command: Sequence[str | Path],
    ready_url: str,
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = PATIENCE_S,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the length of a `with` block; its output goes to `log`."""
    with started(command, log, env=env, cwd=cwd) as process:
        wait_for_200(ready_url, process, log, timeout_s)
        yield process

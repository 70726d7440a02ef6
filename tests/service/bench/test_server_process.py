"""A server that is measured, and what becomes of it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import suppress

# Starts a server, stops it as a benchmark does with the side that is not measured, and waits to be killed.
_MEASURES = """
import os, signal, sys, time
from service.bench.server_process import free_port, server_process

port = free_port()
command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
with server_process(command, port, "/") as server:
    os.killpg(server.pid, signal.SIGSTOP)
    print(port, flush=True)
    time.sleep(600)
"""


def test_a_stopped_server_ends_with_a_benchmark_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _MEASURES], stdout=subprocess.PIPE, text=True) as benchmark:
        assert benchmark.stdout is not None
        port = int(benchmark.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            benchmark.send_signal(signal.SIGKILL)
            # The system ends the connection when the server's process is gone, and not before.
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""

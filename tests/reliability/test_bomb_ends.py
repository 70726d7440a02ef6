"""SIGTERM at any moment of a hostile upload (row F23): the process is gone in time, and everybody has an answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from signal import SIGTERM

import httpx
import pytest

from tests.reliability.bombs import BOMBS
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.server_process import ServerProcess

DRAIN_S = 1.0
SLACK_S = 2.0
MIB = 2**20


def seconds_to_end(server: ServerProcess, body: bytes, clients: int, moment_s: float) -> tuple[int, float]:
    """Exit code and seconds from SIGTERM, which comes at a moment after so many clients began to send this at once."""

    def send() -> int:
        try:
            return server.post("/detect", body, "image/jpeg").status_code
        except httpx.TransportError:  # its upload was still on its way
            return 0

    with ThreadPoolExecutor(clients) as pool:
        sending = [pool.submit(send) for _ in range(clients)]
        time.sleep(moment_s)
        began = time.monotonic()
        server.signal(SIGTERM)
        code = server.exit_code()
        took = time.monotonic() - began
        statuses = {future.result() for future in sending}
    assert statuses <= {0, 200, 400, 413, 503}, statuses
    assert code == 0 or (code == 3 and statuses & {0, 503}), "3 is for requests that were abandoned"
    assert server.errors() == []
    return code, took


@pytest.mark.slow
@pytest.mark.row(id="F23")
@pytest.mark.parametrize("name", ["jpeg of 100 scans of 49 megapixels", "png of profiles"])
def test_a_hostile_upload_does_not_hold_up_the_end(start: Scripted, name: str) -> None:
    with start(*PATIENT, "--drain-timeout-ms", str(1000 * DRAIN_S)) as server:
        _, took = seconds_to_end(server, BOMBS[name](MIB), 4, 0.3)
    assert took < DRAIN_S + 30, "far more than it may take, even on a loaded machine"


@pytest.mark.soak
@pytest.mark.row(id="F23")
@pytest.mark.parametrize("name", BOMBS)
def test_the_end_comes_in_time_at_any_moment(start: Scripted, measured: Measured, name: str) -> None:
    body = BOMBS[name](16 * MIB - 1000)
    worst, codes = 0.0, set[int]()
    for clients in (1, 8):
        for moment_s in (0.0, 0.1, 0.3, 1.0):
            with start(*PATIENT, "--drain-timeout-ms", str(1000 * DRAIN_S)) as server:
                code, took = seconds_to_end(server, body, clients, moment_s)
            worst, codes = max(worst, took), codes | {code}
    measured("F23", f"{name}: 8 ends, the slowest after {worst:.1f} s of {DRAIN_S + SLACK_S:.0f} s, exit codes {codes}")
    assert worst <= DRAIN_S + SLACK_S

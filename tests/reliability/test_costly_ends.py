"""SIGTERM at any moment of a costly upload (row F23): the process is gone in time, and everybody has an answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from signal import SIGTERM

import httpx
import pytest

from service.bench.load import Request
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.reliability.costly_pictures import costly_uploads
from tests.server_process import ServerProcess

DRAIN_S = 1.0
SLACK_S = 2.0


def seconds_to_end(server: ServerProcess, upload: Request, clients: int, moment_s: float) -> tuple[int, float]:
    """Exit code and seconds from SIGTERM, which comes at a moment after so many clients began to send this at once."""

    def send() -> int:
        try:
            return server.post(upload.path, upload.body, upload.content_type).status_code
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
@pytest.mark.parametrize("name", ["JPEG, 49 MP, 120 scans", "PNG, iCCP chunks"])
def test_a_costly_upload_does_not_hold_up_the_end(start: Scripted, name: str) -> None:
    upload = next(upload for known, upload in costly_uploads() if known == name)
    with start(*PATIENT, "--drain-timeout-ms", str(1000 * DRAIN_S)) as server:
        _, took = seconds_to_end(server, upload, 4, 0.3)
    assert took < DRAIN_S + 30, "far more than it may take, even on a loaded machine"


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.row(id="F23")
def test_the_end_comes_in_time_at_any_moment(start: Scripted, measured: Measured) -> None:
    slowest = 0.0
    for name, upload in costly_uploads():
        worst, codes = 0.0, set[int]()
        for clients in (1, 8):
            for moment_s in (0.0, 0.1, 0.3, 1.0):
                with start(*PATIENT, "--drain-timeout-ms", str(1000 * DRAIN_S)) as server:
                    code, took = seconds_to_end(server, upload, clients, moment_s)
                worst, codes = max(worst, took), codes | {code}
        measured("F23", f"{name}: 8 ends, the slowest after {worst:.1f} s, exit codes {codes}")
        slowest = max(slowest, worst)
    assert slowest <= DRAIN_S + SLACK_S
